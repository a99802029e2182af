package scsi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"lunboot/store"
)

func TestInquiry(t *testing.T) {
	t.Run("standard data", func(t *testing.T) {
		wantData(t, newRig(t).do("12 00 00 0400 00", nil), `
			00 00 06 12 5b 18 00 02
			4c554e424f4f5420 564f4c554d4520202020202020202020 30303031
			0000000000000000 0000000000000000 0000000000 00
			00a0 0960 0460 04c0
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000`)
	})
	t.Run("is cut at the allocation length, its own length field is not", func(t *testing.T) {
		c := newRig(t).do("12 00 00 0024 00", nil)
		wantGood(t, c)
		if len(c.In) != 36 || c.In[4] != 0x5b {
			t.Fatalf("%d bytes, additional length %02x", len(c.In), c.In[4])
		}
		if c := newRig(t).do("12 00 00 0000 00", nil); c.Status != StatusGood || len(c.In) != 0 {
			t.Fatalf("allocation length 0: status %02x, %d bytes", c.Status, len(c.In))
		}
	})
	t.Run("a page code needs EVPD", func(t *testing.T) {
		c := newRig(t).do("12 00 80 00ff 00", nil)
		wantSense(t, c, 5, 0x24, 0)
		if !bytes.Equal(c.Sense[15:18], []byte{0xcf, 0, 2}) {
			t.Errorf("the field pointer %x does not show byte 2", c.Sense[15:18])
		}
	})
	t.Run("the obsolete CMDDT is refused", func(t *testing.T) {
		wantSense(t, newRig(t).do("12 02 00 00ff 00", nil), 5, 0x24, 0)
	})
	t.Run("an unknown page is refused", func(t *testing.T) {
		wantSense(t, newRig(t).do("12 01 b5 00ff 00", nil), 5, 0x24, 0)
	})
}

func TestVitalProductData(t *testing.T) {
	t.Run("00h lists the pages, rising, and each is there", func(t *testing.T) {
		r := newRig(t)
		c := r.do("12 01 00 00ff 00", nil)
		wantData(t, c, "00 00 0008 00 80 83 86 8f b0 b1 b2")
		for _, code := range bytes.Clone(c.In[4:]) {
			page := r.do("12 01"+string("0123456789abcdef"[code>>4])+string("0123456789abcdef"[code&15])+"00ff 00", nil)
			wantGood(t, page)
			if page.In[1] != code || int(binary.BigEndian.Uint16(page.In[2:])) != len(page.In)-4 {
				t.Errorf("page %02x: %x", code, page.In)
			}
		}
	})
	t.Run("80h is the UUID's digits", func(t *testing.T) {
		c := newRig(t).do("12 01 80 00ff 00", nil)
		wantGood(t, c)
		if got := string(c.In[4:]); got != strings.ReplaceAll(testUUID.String(), "-", "") {
			t.Fatalf("serial number %q", got)
		}
	})
	t.Run("83h names the unit, the port and the device", func(t *testing.T) {
		wantData(t, newRig(t).do("12 01 83 00ff 00", nil), `
			00 83 0090
			02 01 00 28 4c554e424f4f5420 3662613762383130396461643431643138306234303063303466643433306338
			01 03 00 08 38 6ba7b8109dad 30
			51 94 00 04 00000001
			51 95 00 04 00000001
			53 98 00 24 69716e2e323032362d31312e6c756e626f6f743a7461726765742c742c30783030303100
			53 a8 00 1c 69716e2e323032362d31312e6c756e626f6f743a746172676574 0000`)
	})
	t.Run("83h is whole with the longest name", func(t *testing.T) {
		r := newRig(t)
		n := r.join(NexusConfig{PortName: "iqn.2026-11.x:" + strings.Repeat("a", 209) + ",t,0x0001"})
		c := run(t, n, 0, "12 01 83 0800 00", nil)
		wantGood(t, c)
		count := 0
		for b := c.In[4:]; len(b) > 0; count++ {
			b = b[4+int(b[3]):]
		}
		if count != 6 {
			t.Fatalf("%d designators", count)
		}
	})
	t.Run("two volumes have different names", func(t *testing.T) {
		a := newRig(t).do("12 01 83 00ff 00", nil).In
		b := newRig(t, func(c *UnitConfig) { c.UUID = store.NewUUID() }).do("12 01 83 00ff 00", nil).In
		if bytes.Equal(a[8:48], b[8:48]) || bytes.Equal(a[52:60], b[52:60]) {
			t.Fatal("the designators are the same")
		}
	})
	t.Run("86h promises what is there", func(t *testing.T) {
		wantData(t, newRig(t).do("12 01 86 00ff 00", nil), "00 86 003c 00 07 01 01"+strings.Repeat("00", 56))
	})
	t.Run("b0h of 512-byte blocks", func(t *testing.T) {
		wantData(t, newRig(t).do("12 01 b0 00ff 00", nil), `
			00 b0 003c 01 ff 0008 00004000 00000800 00000000
			00100000 00000100 00000008 80000000 000000000000fff8`+strings.Repeat("00", 20))
	})
	t.Run("b0h of 4096-byte blocks", func(t *testing.T) {
		wantData(t, newRig(t, blocks4K).do("12 01 b0 00ff 00", nil), `
			00 b0 003c 01 ff 0001 00000800 00000100 00000000
			00100000 00000100 00000001 80000000 000000000000fff8`+strings.Repeat("00", 20))
	})
	t.Run("b1h: nothing rotates", func(t *testing.T) {
		wantData(t, newRig(t).do("12 01 b1 00ff 00", nil), "00 b1 003c 0001"+strings.Repeat("00", 58))
	})
	t.Run("b2h: thin, all ways to unmap, reads zero", func(t *testing.T) {
		wantData(t, newRig(t).do("12 01 b2 00ff 00", nil), "00 b2 0004 00 e4 02 00")
	})
}

func blocks4K(c *UnitConfig) { c.BlockSize = 4096 }
