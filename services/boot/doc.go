// Package boot is the pure knowledge that DHCP, TFTP, HTTP and the script
// generator share: which firmware and architecture a client has, which loader
// fits it, and the names and URLs by which the services refer to each other.
// What one service writes into a name, another parses here, in the same file.
//
// It has no clock, no log and no socket.
package boot
