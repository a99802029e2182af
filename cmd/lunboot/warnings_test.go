package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/store"
	"lunboot/store/volume"
)

func TestPagesWarnOfAVolumeForAsLongAsItIsAtFault(t *testing.T) {
	dir := t.TempDir()
	pool, err := volume.OpenPool(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer pool.Close()
	a := &appliance{pool: pool, banners: map[string]string{"space": "little is free"}}
	v := store.Volume{ID: 1, Name: "debian", Kind: store.VolumeRaw, Path: "debian.raw", Size: 1 << 20, BlockSize: 512, State: store.VolumeReady}
	require.NoError(t, pool.Create(t.Context(), v))
	h, err := pool.Open(t.Context(), v)
	require.NoError(t, err)
	require.Equal(t, []string{"little is free"}, a.warnings())

	file := filepath.Join(dir, v.Path)
	require.NoError(t, os.Truncate(file, 0))
	require.Error(t, h.ReadAt(t.Context(), make([]byte, 512), 0))
	got := a.warnings()
	require.Len(t, got, 2)
	require.True(t, strings.HasPrefix(got[0], "Volume debian: ") && strings.Contains(got[0], "cut it"), got[0])

	require.NoError(t, os.Truncate(file, v.Size))
	require.NoError(t, h.Close())
	h, err = pool.Open(t.Context(), v)
	require.NoError(t, err)
	require.Equal(t, []string{"little is free"}, a.warnings())
	require.NoError(t, h.Close())
}
