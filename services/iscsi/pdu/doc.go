// Package pdu turns the bytes of iSCSI protocol data units into types and back
// (RFC 7143 §11), and reads and writes the text keys that some of them carry
// (§6.1). It knows the wire only: no sockets, no session state, no SCSI beyond
// the fields that the headers name.
//
// Every PDU begins with a basic header segment (BHS) of 48 bytes (§11.2.1):
//
//	byte    0               1               2               3
//	   0 |.|I| Opcode    |F|       opcode-specific fields               |
//	   4 |TotalAHSLength | DataSegmentLength                            |
//	   8 |                  LUN or opcode-specific                      |
//	  12 |                                                              |
//	  16 |                  InitiatorTaskTag                            |
//	  20 |                  opcode-specific                             |
//	     |   target  -> initiator: 24 StatSN, 28 ExpCmdSN, 32 MaxCmdSN  |
//	     |   initiator -> target:  24 CmdSN,  28 ExpStatSN              |
//	  48
//
// After it come, each padded to four bytes: additional header segments
// (TotalAHSLength, in words), the header digest (four bytes, when negotiated),
// the data segment (DataSegmentLength, in bytes without the padding) and the
// data digest (four bytes, when negotiated and the data segment is not empty).
//
// One file holds one family: scsi.go (§11.3, §11.4), task.go (§11.5, §11.6),
// data.go (§11.7, §11.8), async.go (§11.9, §11.17), text.go (§11.10, §11.11),
// login.go (§11.12, §11.13), logout.go (§11.14, §11.15), snack.go (§11.16),
// nop.go (§11.18, §11.19). Decode methods copy out of the header and Encode
// methods fill all 48 bytes of one, so neither allocates. The data segment
// travels apart, as a byte slice that its owner keeps.
package pdu
