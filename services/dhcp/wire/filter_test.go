package wire

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"

	"lunboot/store"
)

func TestTheFilterPassesDatagramsToItsPortAndNothingElse(t *testing.T) {
	raw := Datagrams(ClientPort)
	require.NotEmpty(t, raw)
	program, all := bpf.Disassemble(raw)
	require.True(t, all)
	vm, err := bpf.NewVM(program[3:]) // which does not know whose a frame is; the kernel is asked elsewhere
	require.NoError(t, err)
	src := netip.MustParseAddrPort("10.0.0.2:67")
	pass := func(dst string, change func([]byte)) bool {
		b := Frame(store.MAC{2, 1}, Everybody, src, netip.MustParseAddrPort(dst), make([]byte, 300))
		if change != nil {
			change(b)
		}
		n, err := vm.Run(b)
		require.NoError(t, err)
		return n > 0
	}
	assert.True(t, pass("255.255.255.255:68", nil))
	assert.False(t, pass("255.255.255.255:67", nil))
	assert.False(t, pass("10.0.0.9:3260", nil))
	assert.False(t, pass("255.255.255.255:68", func(b []byte) { b[23] = 6 }), "TCP")
	assert.False(t, pass("255.255.255.255:68", func(b []byte) { b[21] = 9 }), "a later fragment")
}
