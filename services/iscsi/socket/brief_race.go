//go:build race

package socket

// The race detector learns from the runtime's calls alone that who receives a
// byte comes after who sent it: no call is short for it.
const brief = 0
