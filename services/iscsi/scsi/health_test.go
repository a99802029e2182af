package scsi

import "testing"

func TestWhatDisksAreAskedAboutThemselves(t *testing.T) {
	for _, tc := range []struct{ name, cdb, want string }{
		{"log pages", "4d 00 40 00 00 0000 0100 00", "00 00 0002 00 2f"},
		{"log pages and subpages", "4d 00 40 ff 00 0000 0100 00", "40 ff 0006 0000 00ff 2f00"},
		{"no exception", "4d 00 6f 00 00 0000 0100 00", "af 00 0008 0000 03 04 00 00 ff 00"},
		{"cut at the allocation length", "4d 00 6f 00 00 0000 0004 00", "af 00 0008"},
		{"no defects, 10 bytes", "37 00 1d 00 00 00 00 0020 00", "00 1d 0000"},
		{"no defects, 12 bytes", "b7 1c 00 00 00 00 00000020 00 00", "00 1c 0000 00000000"},
		{"one port group", "a3 0a 00 00 00 00 00000100 00 00", "0000000c 00 01 0001 00 00 00 01 0000 0001"},
		{"one port group, extended header", "a3 2a 00 00 00 00 00000100 00 00", "00000010 10 00 0000 00 01 0001 00 00 00 01 0000 0001"},
		{"the medium stays", "1e 00 00 00 01 00", ""},
		{"the medium may go", "1e 00 00 00 00 00", ""},
	} {
		t.Run(tc.name, func(t *testing.T) { wantData(t, newRig(t).do(tc.cdb, nil), tc.want) })
	}
	for _, tc := range []struct{ name, cdb string }{
		{"saving log parameters", "4d 01 40 00 00 0000 0100 00"},
		{"a log page that is not there", "4d 00 4d 00 00 0000 0100 00"},
		{"a log subpage that is not there", "4d 00 6f 01 00 0000 0100 00"},
		{"a log parameter that is not there", "4d 00 6f 00 00 0001 0100 00"},
		{"a port group format that is not there", "a3 4a 00 00 00 00 00000100 00 00"},
		{"locking a changer", "1e 00 00 00 02 00"},
	} {
		t.Run(tc.name, func(t *testing.T) { wantSense(t, newRig(t).do(tc.cdb, nil), 5, 0x24, 0) })
	}
}
