package clone

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lunboot/store/volume/crashfs"
)

// states makes the states of a page that differ for every seed.
func statesOf(seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, pageWords*8)
	for i := range b {
		for shift := 0; shift < 8; shift += 2 {
			b[i] |= byte(rng.IntN(3)) << shift
		}
	}
	return b
}

// slotOf encodes a page's slot.
func slotOf(page int, seq, before uint64) []byte {
	b := make([]byte, slotSize)
	encodeSlot(b, layerUUID, page, seq, before, statesOf(seq))
	return b
}

// pairOf puts slots where their numbers belong.
func pairOf(slots ...[]byte) *[pairSize]byte {
	var pair [pairSize]byte
	for _, s := range slots {
		copy(pair[int(s[0]&1)*slotSize:], s)
	}
	return &pair
}

func allTrue(b []bool) bool { return !slices.Contains(b, false) }

func TestHeaderAndSlotOnTheDisk(t *testing.T) {
	id := Identity{UUID: layerUUID, Parent: parentUUID, ParentSize: 1 << 30, Size: 2 << 30, BlockSize: 512}
	h := id.encode()
	want := "4c42434c4f4e450a" + "01000000" + "00100000" +
		"01020300000000000000000000000000" + "09080700000000000000000000000000" +
		"0000004000000000" + "0000008000000000" + "00020000"
	if got := hex.EncodeToString(h[:68]); got != want {
		t.Errorf("the header begins with\n%s, want\n%s", got, want)
	}
	if got := hex.EncodeToString(h[508:512]); got != "894fc939" {
		t.Errorf("the header's checksum is %s", got)
	}
	if got, damaged, err := decodeHeader(h); got != id || damaged != 0 || err != nil {
		t.Errorf("the header reads as %+v, %d, %v", got, damaged, err)
	}
	s := make([]byte, slotSize)
	states := make([]byte, pageWords*8)
	states[0], states[491], states[492] = 0x21, 0x80, 0x01 // granules 0, 2, 1967 and 1968
	encodeSlot(s, layerUUID, 3, 7, 6, states)
	if got := hex.EncodeToString(s[:24]); got != "07000000000000000600000000000000"+"6d72061b"+"21000000" {
		t.Errorf("the slot begins with %s", got)
	}
	if s[511] != 0x80 || s[512+20] != 0x01 {
		t.Error("the states lie elsewhere")
	}
}

func TestADamagedHeaderIsReadFromItsOtherCopies(t *testing.T) {
	id := identity(1<<30, 1<<29)
	whole := id.encode()
	for bit := 0; bit < headerSize*8; bit += 5 {
		h := bytes.Clone(whole)
		h[bit/8] ^= 1 << (bit % 8)
		if got, damaged, err := decodeHeader(h); err != nil || got != id || damaged != 1 {
			t.Fatalf("bit %d: %+v, %d, %v", bit, got, damaged, err)
		}
	}
	for name, spoil := range map[string]func(h []byte) []byte{
		"every copy of its header is damaged": func(h []byte) []byte {
			for i := 0; i < len(h); i += sectorSize {
				h[i+20] ^= 1
			}
			return h
		},
		"shorter than its header": func(h []byte) []byte { return h[:4000] },
		"not the map of a clone":  func(h []byte) []byte { clear(h); return h },
		"contradict each other": func(h []byte) []byte {
			other := id
			other.Size += 512
			copy(h[1024:], other.encode()[:512])
			return h
		},
		"version 9": func(h []byte) []byte {
			h[8] = 9
			return resum(h)
		},
		"granules have 8192 bytes": func(h []byte) []byte {
			h[13] = 0x20
			return resum(h)
		},
		"in blocks of 513": func(h []byte) []byte {
			h[64] = 1
			return resum(h)
		},
	} {
		_, _, err := decodeHeader(spoil(bytes.Clone(whole)))
		var e *HeaderError
		if !errors.As(err, &e) || !strings.Contains(e.Msg, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// resum gives all copies the first one's content and a checksum that fits.
func resum(h []byte) []byte {
	return bytes.Repeat(sealHeader(h[:sectorSize]), headerSize/sectorSize)
}

func TestOneFlippedBitIsNamedAndNeverAnOlderPage(t *testing.T) {
	for name, pair := range map[string]*[pairSize]byte{
		"the newer in slot 0": pairOf(slotOf(5, 7, 6), slotOf(5, 8, 7)),
		"the newer in slot 1": pairOf(slotOf(5, 6, 5), slotOf(5, 7, 6)),
		"the first":           pairOf(slotOf(5, 1, 0)),
	} {
		want := decodePair(layerUUID, 5, pair)
		if slices.Contains(want.damaged[:], true) || want.stale != 0 || want.torn {
			t.Fatalf("%s: an intact page is %+v", name, want)
		}
		step := 41
		if soak() {
			step = 1
		}
		for bit := 0; bit < pairSize*8; bit += step {
			at := bit / 8
			pair[at] ^= 1 << (bit % 8)
			got := decodePair(layerUUID, 5, pair)
			pair[at] ^= 1 << (bit % 8)
			damaged := [sectors]bool{}
			stale := 1
			if at/slotSize == want.slot {
				damaged[at%slotSize/sectorSize], stale = true, 0
			}
			if got.slot != want.slot || got.seq != want.seq || got.damaged != damaged || got.stale != stale {
				t.Fatalf("%s, bit %d: %+v, want damage %v and %d stale", name, bit, got, damaged, stale)
			}
			if got.next() <= got.seq || int(got.next()&1) == got.slot {
				t.Fatalf("%s, bit %d: the next number is %d", name, bit, got.next())
			}
		}
	}
}

func TestATornSlotGivesWayToTheOtherOne(t *testing.T) {
	for _, c := range []struct{ old, other, torn []byte }{
		{slotOf(0, 6, 5), slotOf(0, 7, 6), slotOf(0, 8, 7)},
		{slotOf(0, 5, 4), slotOf(0, 6, 5), slotOf(0, 11, 6)}, // after attempts that failed
		{make([]byte, slotSize), slotOf(0, 1, 0), slotOf(0, 2, 1)},
		{make([]byte, slotSize), make([]byte, slotSize), slotOf(0, 1, 0)},
	} {
		for subset := range 256 {
			mix := bytes.Clone(c.old)
			for i := range sectors {
				if subset>>i&1 != 0 {
					copy(mix[i*sectorSize:(i+1)*sectorSize], c.torn[i*sectorSize:])
				}
			}
			var pair [pairSize]byte
			slot := int(c.torn[0] & 1)
			copy(pair[slot*slotSize:], mix)
			copy(pair[(1-slot)*slotSize:], c.other)
			got := decodePair(layerUUID, 0, &pair)
			want := uint64(c.other[0])
			if subset == 255 {
				want = uint64(c.torn[0])
			}
			if got.seq != want || slices.Contains(got.damaged[:], true) || got.stale != 0 || got.torn != (subset != 0 && subset != 255) {
				t.Fatalf("sectors %08b of %d over %d: %+v", subset, c.torn[0], c.old[0], got)
			}
			if subset != 255 && int(got.next()&1) != slot {
				t.Fatalf("sectors %08b: the next write goes over the only good slot", subset)
			}
			if subset != 0 && got.next() <= uint64(c.torn[0]) {
				t.Fatalf("sectors %08b: number %d is used again", subset, got.next())
			}
		}
	}
}

func TestLostSectorsAreDamageAndNoTear(t *testing.T) {
	newest, older := slotOf(0, 8, 7), slotOf(0, 7, 6)
	for i := range sectors {
		pair := pairOf(newest, older)
		clear(pair[i*sectorSize : (i+1)*sectorSize]) // the disk lost one of the newer
		got := decodePair(layerUUID, 0, pair)
		if got.seq == 7 && !got.damaged[i] {
			t.Errorf("sector %d became zeros, and the older copy took its place", i)
		}
		copy(pair[i*sectorSize:], slotOf(0, 4, 3)[i*sectorSize:(i+1)*sectorSize]) // or gave an old one back
		got = decodePair(layerUUID, 0, pair)
		if !got.damaged[i] {
			t.Errorf("sector %d is of an old write, and %+v", i, got)
		}
	}
	for name, pair := range map[string]*[pairSize]byte{
		"all of the newer": pairOf(older),
		"all of the older": pairOf(newest),
	} {
		if got := decodePair(layerUUID, 0, pair); !allTrue(got.damaged[:]) {
			t.Errorf("%s is lost: %+v", name, got)
		}
	}
}

func TestASectorOfAnotherPlaceIsDamage(t *testing.T) {
	pair := pairOf(slotOf(1, 7, 6), slotOf(1, 8, 7))
	for name, stray := range map[string][]byte{
		"another page":  slotOf(2, 8, 7)[:sectorSize],
		"another place": slotOf(1, 8, 7)[sectorSize : 2*sectorSize],
	} {
		p := *pair
		copy(p[:], stray)
		if got := decodePair(layerUUID, 1, &p); got.seq != 8 || !got.damaged[0] || got.damaged[1] {
			t.Errorf("a sector of %s: %+v", name, got)
		}
	}
	if got := decodePair(parentUUID, 1, pair); !allTrue(got.damaged[:]) {
		t.Errorf("the page of another layer: %+v", got)
	}
	states := make([]byte, pageWords*8)
	states[600] = 0x30 // 11
	b := make([]byte, slotSize)
	encodeSlot(b, layerUUID, 1, 9, 8, states)
	if got := decodePair(layerUUID, 1, pairOf(b, slotOf(1, 8, 7))); got.seq != 9 || !got.damaged[1] {
		t.Errorf("a state that means nothing: %+v", got)
	}
}

// A damaged map costs the range that it speaks of and the right to write, and
// is named by blocks.
func TestADamagedMapIsNamedAndTheLayerReadOnly(t *testing.T) {
	r := newRigAt(t, 1, sweepBase, sweepSize, pattern(sweepParent, 1))
	model := r.model()
	for i := range 3 {
		copy(model[20*Granule:], pattern(Granule, uint64(i)))
		_, err := r.WriteAt(model[20*Granule:21*Granule], sweepBase+20*Granule)
		must(t, err)
		copy(model[Granule:], pattern(Granule, uint64(i+9)))
		_, err = r.WriteAt(model[Granule:2*Granule], sweepBase+Granule)
		must(t, err)
		must(t, r.Layer.Sync())
	}
	whole := r.fs
	step := 977
	if soak() {
		step = 13
	}
	named := 0
	for bit := 1; bit < 2*pairSize*8; bit += step {
		fs := whole.After(func(int, int) int { return 0 })
		d := &rig{fs: fs, id: r.id, base: r.base, parent: r.parent}
		file := openFile(t, fs, "data.map")
		at := int64(headerSize + bit/8)
		b := make([]byte, 1)
		_, err := file.ReadAt(b, at)
		must(t, err)
		b[0] ^= 1 << (bit % 8)
		_, err = file.WriteAt(b, at)
		must(t, err)
		must(t, d.open(t))
		rep, err := d.Check(t.Context())
		must(t, err)
		if len(rep.Damage)+rep.Stale != 1 {
			t.Fatalf("bit %d: Check found %+v", bit, rep)
		}
		damage := d.Damage()
		if (damage != nil) != (rep.Stale == 0) {
			t.Fatalf("bit %d: the layer says %v, Check %+v", bit, damage, rep)
		}
		if damage == nil {
			if !bytes.Equal(d.all(t), model) {
				t.Fatalf("bit %d of an older copy changed what is read", bit)
			}
			_, err := d.WriteAt(model[:Granule], sweepBase)
			must(t, err)
			must(t, d.Layer.Sync())
			continue
		}
		named++
		if damage.Range != rep.Damage[0] {
			t.Fatalf("bit %d: %v, and Check says %+v", bit, damage, rep.Damage)
		}
		_, err = d.WriteAt(model[:Granule], sweepBase+30*Granule)
		for name, err := range map[string]error{"write": err, "punch": d.Punch(sweepBase, Granule), "flatten": d.Flatten(t.Context(), nil, nil)} {
			if !errors.As(err, &damage) {
				t.Fatalf("bit %d: %s: %v", bit, name, err)
			}
		}
		must(t, d.Layer.Sync())
		got := make([]byte, Granule)
		for g := int64(0); g < sweepSize/Granule; g++ {
			off := sweepBase + g*Granule
			_, err := d.ReadAt(got, off)
			if off >= damage.Off && off < damage.Off+damage.Len {
				if !errors.As(err, &damage) || d.Resident(got, off) {
					t.Fatalf("bit %d: reading damage at %d: %v", bit, off, err)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, model[g*Granule:(g+1)*Granule]) {
				t.Fatalf("bit %d: what is not damaged cannot be read at %d (%v)", bit, off, err)
			}
		}
	}
	t.Logf("%d flipped bits were named", named)
}

func FuzzPage(f *testing.F) {
	f.Add(pairOf(slotOf(0, 7, 6), slotOf(0, 8, 7))[:])
	f.Add(pairOf(slotOf(0, 1, 0))[:])
	f.Add(pairOf(append(slotOf(0, 8, 7)[:1024], slotOf(0, 6, 5)[1024:]...), slotOf(0, 7, 6))[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var pair [pairSize]byte
		copy(pair[:], b)
		s := decodePair(layerUUID, 0, &pair)
		var p page
		p.load(&pair, &s)
		if p.next <= p.seq || int(p.next&1) == s.slot {
			t.Fatalf("number %d comes after %d in slot %d", p.next, p.seq, s.slot)
		}
		for g := 0; g < perPage; {
			bad, end := p.damagedFrom(g)
			if end <= g {
				t.Fatal("a run of no granules")
			}
			for !bad && g < end {
				if p.at(g) > zero {
					t.Fatalf("granule %d is in no state", g)
				}
				next := p.same(g, end)
				if next <= g {
					t.Fatal("a run of no granules")
				}
				g = next
			}
			g = end
		}
		if s.seq != 0 && p.bad == 0 {
			states := make([]byte, pageWords*8)
			p.states(states)
			slot := pair[s.slot*slotSize:][:slotSize]
			again := make([]byte, slotSize)
			before := uint64(0)
			for i := range 8 {
				before |= uint64(slot[8+i]) << (8 * i)
			}
			encodeSlot(again, layerUUID, 0, s.seq, before, states)
			if !bytes.Equal(again[sectorHead:sectorSize], slot[sectorHead:sectorSize]) {
				t.Fatal("the states do not survive")
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	id := identity(1<<30, 1<<29)
	f.Add(id.encode())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, _, err := decodeHeader(b)
		if err != nil {
			return
		}
		if again, damaged, err := decodeHeader(id.encode()); err != nil || damaged != 0 || again != id {
			t.Fatalf("%+v comes back as %+v, %d, %v", id, again, damaged, err)
		}
	})
}

var _ File = (*crashfs.File)(nil)
