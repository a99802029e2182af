package load

import "encoding/binary"

// pattern is what the verifying mode writes and expects: each eight bytes of the
// volume hold their own offset and the generation of the write, mixed so that a
// byte that is missing or doubled shows too.
func pattern(generation uint32, word int64) uint64 {
	x := uint64(word)*0x9e3779b97f4a7c15 ^ uint64(generation)<<32
	return x ^ x>>29
}

// fill lays the pattern for bytes from off on; both are multiples of eight.
func fill(b []byte, generation uint32, off int64) {
	for k := 0; k+8 <= len(b); k += 8 {
		binary.LittleEndian.PutUint64(b[k:], pattern(generation, (off+int64(k))/8))
	}
}

// differs returns where b, which was read from off on, is not the pattern, or
// -1. What a segment of TCP brings may begin and end anywhere.
func differs(b []byte, generation uint32, off int64) int64 {
	var word [8]byte
	for k := 0; k < len(b); {
		in := int((off + int64(k)) & 7)
		want := pattern(generation, (off+int64(k))/8)
		if in == 0 && len(b)-k >= 8 {
			if binary.LittleEndian.Uint64(b[k:]) != want {
				return off + int64(k)
			}
			k += 8
			continue
		}
		binary.LittleEndian.PutUint64(word[:], want)
		for ; in < 8 && k < len(b); in, k = in+1, k+1 {
			if b[k] != word[in] {
				return off + int64(k)
			}
		}
	}
	return -1
}
