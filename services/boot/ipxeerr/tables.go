package ipxeerr

import "lunboot/store"

// posixEFI marks a status of the UEFI firmware that is passed through.
const posixEFI = 0x7f

// Numbers of iPXE's source files (src/include/ipxe/errfile.h, bits 23–13).
const (
	fileEFIImage = 0x024
)

type known struct {
	meaning string
	class   Class
	stage   store.StageName
}

// codes are the errors that a netboot meets, by code>>8: POSIX error, source
// file and which of its errors, without the platform's byte. Each was seen on a
// screen or read in iPXE's source.
var codes = map[uint32]known{
	// SCSI: the status of a command was not GOOD; the sense key is the digit
	// before the platform's byte.
	0x1d7040: {"the target refused the first commands to the disk, and this iPXE did not keep the reason", ClassDisk, store.StageRead},
	0x1d7042: {"the disk was not ready", ClassNotReady, store.StageRead},
	0x1d7043: {"the disk could not read the blocks that were asked for", ClassMedium, store.StageRead},
	0x1d7044: {"the disk reported a fault of its own", ClassMedium, store.StageRead},
	0x1d7045: {"the disk refused the request: there is no disk with the LUN that was asked for, or the block lies beyond its end", ClassNoLUN, store.StageRead},
	0x1d7046: {"the disk kept saying that it had changed", ClassDisk, store.StageRead},
	0x1d7047: {"the disk is write-protected, or the appliance has no space left", ClassReadOnly, store.StageRead},
	0x1d704b: {"the target aborted the command", ClassDisk, store.StageRead},
	0x1c7040: {"the LUN in the SAN address cannot be read; it is hexadecimal, up to four digits in each group", ClassRootPath, store.StageLogin},

	// iSCSI.
	0x2c0d60: {"the target's name is not one that this server has", ClassNoTarget, store.StageLogin},
	0x410d61: {"the login was refused: the CHAP user name or secret is wrong", ClassSecret, store.StageLogin},
	0x410d62: {"the login was refused: this initiator has no volume here", ClassNotAllowed, store.StageLogin},
	0x1d0d61: {"the target said that the service is not available now", ClassServer, store.StageLogin},
	0x1d0d62: {"the target said that it is out of resources", ClassServer, store.StageLogin},
	0x020d61: {"the machine did not believe the target: the target's CHAP user name is not the expected one", ClassMutual, store.StageLogin},
	0x020d62: {"the machine did not believe the target: the target's CHAP secret is not the expected one", ClassMutual, store.StageLogin},
	0x1c0d61: {"the SAN address in the script is malformed", ClassRootPath, store.StageLogin},
	0x1c0d62: {"the CHAP settings in the script do not fit together: a user name without a secret, or a reverse pair without a forward one", ClassMix, store.StageLogin},
	0x1c0d63: {"there is no SAN address in the script", ClassRootPath, store.StageLogin},
	0x1c0d64: {"the SAN address in the script names no target", ClassRootPath, store.StageLogin},
	0x1c0d65: {"the machine has no initiator name", ClassRootPath, store.StageLogin},
	0x3c0d61: {"the target refused the login for a reason that iPXE does not know", ClassServer, store.StageLogin},
	0x3c0d63: {"the SAN address in the script names no target, and iPXE cannot discover one", ClassRootPath, store.StageLogin},
	0x3c0d64: {"the target reported a fault of its own at login", ClassServer, store.StageLogin},
	0x430d61: {"the target asked for a CHAP algorithm that iPXE does not have; it knows MD5 only", ClassNegotiate, store.StageLogin},
	0x430d66: {"the two sides did not agree on how to log in: one insists on CHAP, the other has no secret for it", ClassNegotiate, store.StageLogin},
	0x0f0d60: {"the target closed the connection", ClassUnreachable, store.StageLogin},
	0x4c2320: {"the disk did not answer a command within 15 seconds, again and again", ClassUnreachable, store.StageRead},
	0x348520: {"there is no room for another SAN path; a script may name two at most", ClassRootPath, store.StageLogin},

	// What is on the disk.
	0x1d8520: {"the disk has nothing to start on it", ClassNotBootable, store.StageRead},
	0x2e8520: {"the disk has no boot sector", ClassNotBootable, store.StageRead},
	0x2c2220: {"the firmware found no such drive", ClassNotBootable, store.StageRead},
	0x0b8080: {"the boot loader on the disk was started, and gave up", ClassGaveUp, store.StageRead},
	0x2d2220: {"the disk has no boot file for UEFI", ClassNotBootable, store.StageRead},
	0x7f2220: {"the disk has nothing on it that UEFI can start", ClassNotBootable, store.StageRead},

	// TCP, IP and the neighbours.
	0x0f0a60: {"the connection was refused: nothing listens on that port, or a firewall rejects it", ClassUnreachable, ""},
	0x4c0a60: {"nobody answered at that address", ClassUnreachable, ""},
	0x4c3760: {"nobody on this network has that address", ClassUnreachable, ""},
	0x280560: {"there is no route to that address: the gateway or the netmask is wrong", ClassUnreachable, ""},
	0x280860: {"the network could not be reached yet", ClassLink, store.StageAddress},
	0x1a0861: {"the link was not up yet", ClassLink, store.StageAddress},
	0x380861: {"the network cable is unplugged, or the switch port is down", ClassLink, store.StageAddress},

	// DHCP and DNS.
	0x040ee1: {"no DHCP server answered", ClassNoAddress, store.StageAddress},
	0x4c1060: {"no DHCP server answered in time", ClassNoAddress, store.StageAddress},
	0x2d03e1: {"DHCP gave an address and no boot file name", ClassNoFile, store.StageScript},
	0x3e1161: {"the name could not be resolved", ClassName, ""},
	0x3e1162: {"there is no DNS server", ClassName, ""},

	// TFTP and HTTP.
	0x2d1260: {"the file does not exist on the TFTP server", ClassNoFile, store.StageLoader},
	0x2d1261: {"the file does not exist on the TFTP server", ClassNoFile, store.StageLoader},
	0x021260: {"the TFTP server refused the file", ClassServer, store.StageLoader},
	0x3c1260: {"the TFTP server did not understand the request", ClassServer, store.StageLoader},
	0x4c1260: {"the TFTP server did not answer", ClassUnreachable, store.StageLoader},
	0x1c1261: {"the TFTP server answered with a block size that iPXE cannot use", ClassServer, store.StageLoader},
	0x2d0c61: {"the web server has no such file", ClassNoFile, store.StageScript},
	0x020c61: {"the web server asked for a password", ClassServer, store.StageScript},
	0x410c61: {"the web server refused the request", ClassServer, store.StageScript},
	0x1d0c62: {"the web server sent another number of bytes than it had announced", ClassServer, store.StageScript},
	0x1d0c64: {"the web server refused the request", ClassServer, store.StageScript},
	0x1d0c65: {"the web server failed", ClassServer, store.StageScript},
	0x4c0720: {"the download took longer than the script allows", ClassUnreachable, store.StageScript},
	0x3c0920: {"this iPXE was built without the protocol in the address, such as https or iscsi", ClassFeature, ""},
	0x410de1: {"the web server refused the secure connection", ClassServer, store.StageScript},
	0x0216e6: {"the web server's certificate is not one that this iPXE trusts", ClassServer, store.StageScript},
	0x0216ea: {"the web server's certificate is for another name", ClassServer, store.StageScript},
	0x0216e4: {"the web server's certificate is not valid at the machine's date; its clock may be wrong", ClassClock, store.StageScript},

	// Scripts and images.
	0x2e0080: {"the file is not something that this machine can start: made for another architecture, or not a boot file at all", ClassFormat, store.StageScript},
	0x2e0220: {"the script has a command that this iPXE does not know", ClassScript, store.StageScript},
	0x2d0280: {"the script goes to a label that it does not have", ClassOther, store.StageScript},
	0x341820: {"the machine has too little memory for the file", ClassMemory, store.StageScript},
	0x020081: {"the file is not signed by anyone that this iPXE trusts", ClassSecureBoot, store.StageScript},
	0x4c22e0: {"nobody pressed a key in time", ClassOther, ""},
}

type file struct {
	name  string
	stage store.StageName
}

// fileText names the source files that matter, by bits 23–13 of a code.
var fileText = map[uint16]file{
	0x382: {"SCSI", store.StageRead},                      // drivers/block/scsi.c
	0x06b: {"iSCSI", store.StageLogin},                    // net/tcp/iscsi.c
	0x053: {"TCP", ""},                                    // net/tcp.c
	0x063: {"HTTP", store.StageScript},                    // net/tcp/httpcore.c
	0x093: {"TFTP", store.StageLoader},                    // net/udp/tftp.c
	0x083: {"DHCP", store.StageAddress},                   // net/udp/dhcp.c
	0x08b: {"DNS", ""},                                    // net/udp/dns.c
	0x043: {"the network card", store.StageAddress},       // net/netdevice.c
	0x02b: {"IPv4", ""},                                   // net/ipv4.c
	0x1bb: {"finding a neighbour", ""},                    // net/neighbour.c
	0x404: {"the boot sector", store.StageRead},           // arch/x86 bootsector.c
	0x0c1: {"the machine's memory", store.StageScript},    // seen as the file that a download did not fit into
	0x429: {"the BIOS disk", store.StageRead},             // arch/x86 int13.c
	0x111: {"the UEFI disk", store.StageRead},             // interface/efi/efi_block.c
	0x119: {"the SAN disk", store.StageRead},              // core/sanboot.c
	0x011: {"a command of the script", store.StageScript}, // core/exec.c
	0x014: {"the script", store.StageScript},              // image/script.c
	0x004: {"starting a file", store.StageScript},         // core/image.c
	0x024: {"starting a UEFI program", store.StageScript}, // image/efi_image.c
	0x06f: {"TLS", store.StageScript},                     // net/tls.c
	0x0b7: {"a certificate", store.StageScript},           // crypto/x509.c
	0x049: {"opening an address", ""},                     // core/open.c
	0x039: {"a download", store.StageScript},              // core/monojob.c
	0x077: {"setting up the network", store.StageAddress}, // usr/ifmgmt.c
	0x01f: {"choosing what to boot", store.StageScript},   // usr/autoboot.c
	0x117: {"a prompt", ""},                               // usr/prompt.c
}

// posixText is what iPXE prints for each POSIX error, by its number in iPXE's
// own list.
var posixText = map[uint8]string{
	0x02: "Permission denied",
	0x03: "Address already in use",
	0x04: "Cannot assign requested address",
	0x06: "Resource temporarily unavailable",
	0x0a: "Device or resource busy",
	0x0b: "Operation canceled",
	0x0d: "Connection aborted",
	0x0e: "Connection refused",
	0x0f: "Connection reset",
	0x16: "File too large",
	0x17: "Host is unreachable",
	0x1a: "Operation in progress",
	0x1c: "Invalid argument",
	0x1d: "Input/output error",
	0x23: "Message too long",
	0x26: "Network is down",
	0x28: "Network unreachable",
	0x2a: "No buffer space available",
	0x2c: "No such device",
	0x2d: "No such file or directory",
	0x2e: "Exec format error",
	0x31: "Not enough space",
	0x34: "No space left on device",
	0x37: "Function not implemented",
	0x38: "Not connected",
	0x3c: "Operation not supported",
	0x3e: "No such device or address",
	0x3f: "Operation not supported on socket",
	0x41: "Operation not permitted",
	0x43: "Protocol error",
	0x46: "Result too large",
	0x4c: "Connection timed out",
	0x7f: "Error",
}

// posixMeaning says the same to a person.
var posixMeaning = map[uint8]string{
	0x02: "access was refused",
	0x04: "no address could be had",
	0x0b: "somebody pressed Ctrl-C",
	0x0f: "the other side closed the connection",
	0x16: "the file is too large",
	0x17: "the address cannot be reached",
	0x1c: "something in the script or its settings is malformed",
	0x1d: "reading or writing failed",
	0x28: "the network cannot be reached",
	0x2c: "the thing that was asked for is not there",
	0x2d: "the file that was asked for is not there",
	0x2e: "the file is not something that this machine can start",
	0x31: "the machine ran out of memory",
	0x34: "there was no room",
	0x38: "the network is not connected",
	0x3c: "this iPXE cannot do what was asked",
	0x41: "the other side did not permit it",
	0x43: "the other side said something unexpected",
	0x4c: "no answer came in time",
}

// efiMeaning names the UEFI status codes (UEFI 2.10 appendix D) that are passed
// through, by the low byte with the error bit folded in.
var efiMeaning = map[uint8]string{
	0x81: "the firmware could not load the file",
	0x82: "the firmware was given a parameter that it does not take",
	0x83: "the firmware does not support what was asked",
	0x87: "the firmware's device reported a failure",
	0x89: "the firmware ran out of memory",
	0x8e: "the firmware found nothing of that name",
	0x8f: "the firmware denied access",
	0x92: "the firmware waited in vain",
	0x9a: "the firmware refused an unsigned file; Secure Boot is on",
}
