// Package dhcp gives addresses and boot answers to machines over DHCPv4: RFC
// 2131 with the options of RFC 2132, option 82 (RFC 3046), the PXE options of
// RFC 4578, UEFI HTTP boot and iPXE's option 175.
//
// Each request is answered by the mode of the subnet that it comes from. In full
// mode addresses are given, and what to boot with them. In proxy mode another
// server gives the addresses: what to boot is offered beside it, and told by a
// boot server on port 4011 (PXE 2.1 §2.2).
//
// What a machine is told is decided in policy.go and the files beside it
// (options.go, proxy.go, route.go) and in bootfile/: pure functions of one decoded request
// and the facts about it. Whose an address is stands in ledger/, which has every
// lease in memory. server.go and the files beside it own sockets and clocks; they
// gather those facts, do what the answer says and send it.
//
// A lease belongs to a MAC. Firmware sends no client identifier, iPXE sends one
// made of the MAC and an operating system often a DUID: one machine, one
// address. An ACK leaves after the lease is durable, never before.
//
// The package knows nothing of scripts, of volumes or of the pages that show
// its leases. It runs coredhcp's handler chain, so that option plugins of that
// project can be added, and has its own listener around it: coredhcp's own
// hides DECLINE and the receiving interface, and starts a goroutine a packet.
package dhcp
