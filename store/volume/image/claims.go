package image

// maxClaims bounds the memory of claims to 8 MiB.
const maxClaims = 64 << 20

// claims finds runs of a file that are said to belong to more than one part of
// a disk. The file is counted in cells; a run claims those that are in it as a
// whole, so two runs that only touch share none.
type claims struct {
	shift uint
	bits  []uint64
}

// newClaims takes sectors as cells, larger ones for files above 32 GiB. The
// smallest pieces of such a file may then be found by nothing but their sum.
func newClaims(size int64) *claims {
	c := &claims{shift: 9}
	for size>>c.shift > maxClaims {
		c.shift++
	}
	return c
}

// claim reports whether no byte of the run was claimed before.
func (c *claims) claim(at, n int64) bool {
	first, end := uint64(at+1<<c.shift-1)>>c.shift, uint64(at+n)>>c.shift
	for first < end {
		word := first / 64
		for uint64(len(c.bits)) <= word {
			c.bits = append(c.bits, 0)
		}
		take := min(64-first%64, end-first)
		mask := ^uint64(0) >> (64 - take) << (first % 64)
		if c.bits[word]&mask != 0 {
			return false
		}
		c.bits[word] |= mask
		first += take
	}
	return true
}
