//go:build !race

package session

const brief = 64 << 10
