package sense

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFormats(t *testing.T) {
	for _, tc := range []struct {
		name              string
		s                 *Data
		fixed, descriptor string
	}{
		{"bare", NoLUN, "70 00 05 00000000 0a 00000000 25 00 00 000000", "72 05 25 00 00000000"},
		{"with an LBA", OutOfRange(0x12345678), "f0 00 05 12345678 0a 00000000 21 00 00 000000", "72 05 21 00 000000 0c 000a8000 0000000012345678"},
		{"with an LBA that fixed format cannot hold", OutOfRange(1 << 32), "70 00 05 00000000 0a 00000000 21 00 00 000000", "72 05 21 00 000000 0c 000a8000 0000000100000000"},
		{"with a field", InvalidField(1, 4), "70 00 05 00000000 0a 00000000 24 00 00 cc0001", "72 05 24 00 000000 08 02060000 cc000100"},
		{"with a parameter's place", InvalidParameter(0x123), "70 00 05 00000000 0a 00000000 26 00 00 800123", "72 05 26 00 000000 08 02060000 80012300"},
		{"with command-specific information", &Data{Key: 0x0a, ASC: 0x0d, ASCQ: 2, Command: 3, HasCommand: true}, "70 00 0a 00000000 0a 00000003 0d 02 00 000000", "72 0a 0d 02 000000 0c 010a0000 0000000000000003"},
		{"with all", &Data{Key: 0x0a, Info: 7, HasInfo: true, Command: 3, HasCommand: true, sks: [3]byte{0x80, 0, 5}},
			"f0 00 0a 00000007 0a 00000003 00 00 00 800005", "72 0a 00 00 000000 20 000a8000 0000000000000007 010a0000 0000000000000003 02060000 80000500"},
		{"with both", &Data{Key: 5, ASC: 0x21, Info: 7, HasInfo: true, sks: cdbPointer(2, -1)},
			"f0 00 05 00000007 0a 00000000 21 00 00 c00002", "72 05 21 00 000000 14 000a8000 0000000000000007 02060000 c0000200"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.s.Append(nil, false); !bytes.Equal(got, unhex(t, tc.fixed)) {
				t.Errorf("fixed format %x", got)
			}
			got := tc.s.Append(nil, true)
			if !bytes.Equal(got, unhex(t, tc.descriptor)) {
				t.Errorf("descriptor format %x", got)
			}
			if len(got) > MaxLength {
				t.Errorf("%d bytes do not fit a Command", len(got))
			}
		})
	}
}
