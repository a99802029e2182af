//go:build !race

package socket

const brief = 64 << 10
