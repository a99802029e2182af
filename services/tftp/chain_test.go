package tftp

import (
	"bytes"
	"testing"

	"lunboot/services/boot"
	"lunboot/store"
)

// A shim takes the folder of its own path and puts the name of its second stage
// behind it; what it looks for besides, it can do without.
func TestAShimFindsItsSecondStageBesideItself(t *testing.T) {
	r := newRig(t)
	first, second := random(90_001), random(120_003)
	r.put("secure/shimx64.efi", first)
	r.put("secure/grubx64.efi", second)
	for path, want := range map[string][]byte{
		boot.LoaderPath(store.MAC{0x52, 0x54, 0, 0x77, 0, 9}, "secure/shimx64.efi"): first,
		"525400770009/secure/grubx64.efi":                                           second,
		"/525400770009/secure//grubx64.efi":                                         second,
		`525400770009\secure\grubx64.efi`:                                           second,
		"secure/grubx64.efi":                                                        second,
		"525400770009/secure/revocations.efi":                                       nil,
		"525400770009/grubx64.efi":                                                  nil,
		"525400770009/other/grubx64.efi":                                            nil,
		"525400770009/secure/../undionly.kpxe":                                      nil,
	} {
		if got, _ := r.client().fetch(path, "blksize", "1468", "tsize", "0"); !bytes.Equal(got, want) {
			t.Errorf("%q is answered with %d bytes, want %d", path, len(got), len(want))
		}
	}
	for _, e := range r.of(store.EventTFTPSent, 5) {
		if l := boot.Loader(e.Detail.Loader); l.Chain() != "secure" {
			t.Errorf("the event is %+v", e)
		}
	}
}
