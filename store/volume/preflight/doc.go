// Package preflight looks at the first sectors of a volume and says what a
// machine's firmware would find there: a partition table, file systems, an
// operating system, a boot sector, an EFI loader (UEFI 2.10 §3.5, §5, §13.3; El
// Torito 1.0). It only reads, reads little, and believes nothing that it reads:
// every length is checked against the volume before it is used.
//
// It knows no machine and no rule of diagnosis; what follows from its findings
// is decided in services/boot/diagnose.
package preflight
