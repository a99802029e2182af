package diagnose

import "strings"

// Entry is what the built-in help says of one code. A code is given once and
// never to anything else: scripts, alerts and people's notes refer to it.
type Entry struct {
	Code string
	Name string // in a few words, of no machine in particular
	Sign string // what it is concluded from
	Help string // what lies behind it, and where to look when the fixes do not help
}

// Areas are the middle parts of the codes, in boot order, and what they are of.
func Areas() [][2]string {
	return [][2]string{
		{"NET", "The wire"},
		{"DHCP", "Getting an address"},
		{"LOAD", "Getting the loader"},
		{"SCR", "Getting the script"},
		{"TGT", "Reaching the target and logging in"},
		{"CHAP", "Proving who it is"},
		{"LUN", "Finding the volume"},
		{"VOL", "What is on the volume"},
		{"OS", "The operating system taking over"},
		{"BOOT", "Boots that ended in another way"},
	}
}

// Area returns the middle part of a code.
func (e Entry) Area() string {
	parts := strings.Split(e.Code, "-")
	if len(parts) != 3 {
		return ""
	}
	return parts[1]
}

// Find returns the entry of a code, in either case.
func Find(code string) (Entry, bool) {
	for _, e := range Catalogue() {
		if strings.EqualFold(e.Code, strings.TrimSpace(code)) {
			return e, true
		}
	}
	return Entry{}, false
}

// Catalogue lists every code that a diagnosis can have, by area.
func Catalogue() []Entry {
	return []Entry{
		{"LB-NET-01", "The switch port slept after power-on",
			"The first packet that reached the appliance says that the machine had been asking for a while.",
			"Spanning tree holds a port back for 15 to 50 s after its link comes up. Firmware gives up sooner; iPXE waits longer. Make the ports of machines edge ports (PortFast). A link aggregate without fallback, or energy-efficient Ethernet on old cards, looks the same."},
		{"LB-NET-02", "Large packets are lost on the way",
			"Requests and logins came, were answered, and the machine asked again as if nothing had come, or never went on.",
			"A tunnel, a VLAN tag or one switch allows smaller packets than the rest and drops larger ones without a word (a black hole). DHCP and logins are small; scripts, loaders and reads fill whole packets. Set one MTU on the whole way; 1500 is safe."},

		{"LB-DHCP-01", "No address was left",
			"A DISCOVER came and no address of the range could be offered.",
			"Every address of the range is leased, reserved, in use by somebody else, or kept for enrolled machines. Computers that are not enrolled and were never here before have at most half of the range at a time, so that invented ones cannot take it all; one that goes on renewing its lease counts no more. lunboot lease list shows who holds the addresses; a lease ends by itself, or with lunboot lease drop."},
		{"LB-DHCP-02", "The address was taken by somebody else",
			"The machine sent DHCPDECLINE: it found another user of the address that it was given.",
			"Something on the network has a fixed address inside the range. The address is left alone for ten minutes; where the appliance can ask the wire itself and nobody answers there, for one. One machine has at most four addresses set aside like this, and all of them together a quarter of the range: above that the oldest are given again. Take fixed addresses out of the range, or give the machine a reserved one."},
		{"LB-DHCP-03", "Offers were not taken",
			"The machine asked again and again, was offered an address each time, and never asked for it.",
			"Either the offers are lost on the way back (a VLAN or a relay that works in one direction, a port that blocks), or its firmware takes none like them. Some UEFI firmware ignores two offers that come together: see the quirks of the machine. Compare the offer field by field: lunboot machine explain."},
		{"LB-DHCP-04", "The machine insisted on an old address",
			"It asked for an address that it cannot have here, was told so (DHCPNAK), and did not ask anew.",
			"It remembers an address of another network or of an earlier lease. Power it off and on. Behind a relay, the NAK must come back through the relay."},
		{"LB-DHCP-05", "Nothing was offered from here",
			"A DISCOVER came in on a network where the appliance gives no addresses.",
			"The mode of that network is off, or has no range. Whether another server answered cannot be seen from here: lunboot doctor asks the network."},
		{"LB-DHCP-06", "Another server named what to boot",
			"The machine's REQUEST named another DHCP server, and it did not come back for our loader.",
			"Two servers answered and the machine followed the other one's options 66 and 67, or its next-server. Take the boot options out of that server, switch this network to proxy mode, or turn that server off."},
		{"LB-DHCP-07", "No address beside our boot answer",
			"In proxy mode a DISCOVER was heard, and no REQUEST for any server's address followed.",
			"Either no other server answers that machine (lunboot doctor asks the network), or its firmware takes none of two offers that come together. UEFI built from EDK2 of 2010 to 2017 does that when an offer without an address carries option 43: leave the quirk option-43 off. For the rest there is the quirk no-proxy-offer, with the loader named in the other server (options 66 and 67)."},
		{"LB-DHCP-08", "A relay asked for a network that is not known here",
			"A relay passed the machine's question on with an address (giaddr, or its link selection) that lies in no subnet of the appliance.",
			"Make the network known with lunboot subnet add --prefix …, or take the appliance off the relay's list of DHCP servers."},

		{"LB-LOAD-01", "There is no loader for this kind of machine",
			"Option 93 named a firmware and architecture for which the appliance has no file.",
			"The built-in loaders are for BIOS and for UEFI on x86-64 and arm64. Others come from you: lunboot loader add, the page Loaders, or --loaders."},
		{"LB-LOAD-02", "It asked for a file that was never offered",
			"A TFTP or HTTP request for a name that the appliance does not have.",
			"The name comes from another DHCP server, from a setting in the machine's firmware, or from an old boot program that looks for its own configuration."},
		{"LB-LOAD-03", "The transfer of the loader broke off",
			"The request came, data went out, and the acknowledgements stopped.",
			"Packets that are too large for a tunnel or switch on the way, or a firewall that lets the request to port 69 in and the answer, which comes from a new port, not out. The appliance tries smaller blocks by itself at the next try."},
		{"LB-LOAD-04", "The loader was never asked for",
			"The machine took its address, and no TFTP or HTTP request followed.",
			"A firewall before port 69, a boot server that another DHCP server named, or firmware that wants options which were not there."},
		{"LB-LOAD-05", "The loader did not start",
			"The last block was acknowledged, and the machine never spoke again.",
			"Secure Boot refuses a file that is not signed; or this loader's drivers do not work with this network card. The appliance remembers it for this machine and for hardware of its sort, and names the next loader of the ladder at the next boot."},
		{"LB-LOAD-09", "Secure Boot refused the loader",
			"The last block of a loader without a signature was acknowledged, and within two seconds the firmware asked for an address anew.",
			"UEFI with Secure Boot on starts only what a key that it trusts has signed, and says on the machine's screen alone: Access Denied. Switch Secure Boot off, or give the machine a chain of a shim, which Microsoft's key has signed, and an iPXE that the shim trusts (lunboot loader add --chain), or a loader that you signed with a key enrolled in its firmware. lunboot loader list says which files are signed."},
		{"LB-LOAD-06", "iPXE kept getting iPXE",
			"An iPXE was told to fetch the loader, again and again.",
			"A DHCP server that does not look at options 77 and 175 names the loader to everybody. The appliance breaks the circle where it serves the file itself."},
		{"LB-LOAD-07", "Its loader has no iSCSI inside",
			"Its profile boots a volume, and neither its own iPXE nor the loader that there is for it knows iSCSI.",
			"An iPXE says what it can do in option 175; what a loader can do, its bytes say (the page Loaders, lunboot loader list). The built-in loader for arm64 boots kernels over HTTP and no volumes. An iPXE that was built with iSCSI, uploaded under the same name, takes its place."},
		{"LB-LOAD-08", "The loader was for another kind of machine",
			"The machine fetched a loader whose platform is not the one that its firmware named in option 93.",
			"Another DHCP server names one file to everybody, or the machine's own setting names the wrong one. BIOS machines start undionly.kpxe and the like, UEFI ones .efi files of their own architecture. A machine in legacy (CSM) mode is a BIOS machine, whatever its firmware can do besides."},

		{"LB-SCR-01", "Its names belong to different machines",
			"Hostname, UUID and MAC of one request name more than one machine.",
			"A board or network card moved, or two boards carry the same UUID. Nothing is started, because it could be the wrong machine's volume. Correct the machine that has the wrong value, or enroll the new board in the old one's place."},
		{"LB-SCR-02", "It is ignored",
			"It asked, and is on the list of ignored machines.",
			"Somebody chose to ignore it. The list is at the foot of the page Machines; lunboot machine ignore MAC --undo."},
		{"LB-SCR-03", "Its script was withheld",
			"The script was asked for from an address that is not known to be the machine's.",
			"A script carries secrets. It goes to the address that the MAC holds by a lease from here, by a request that was overheard, or by the neighbour table. See --script-guard."},
		{"LB-SCR-04", "It is not enrolled",
			"No machine of the inventory answers to its hostname, UUID or MAC.",
			"Its screen shows its MAC and asks again every few seconds: enroll it and it goes on by itself."},
		{"LB-SCR-05", "None of its volumes is the one to boot",
			"More than one volume is mapped, and none is marked.",
			"Mark one: lunboot mapping set MACHINE LUN --boot."},
		{"LB-SCR-06", "Its script could not be made",
			"The appliance failed to render it; the reason is in the evidence.",
			"The volume is not ready, or the profile has a fault. lunboot script MACHINE shows what it would get."},
		{"LB-SCR-07", "A step of its script failed",
			"The machine reported a code at a step that fetches or starts a file.",
			"The code says what failed; lunboot explain CODE decodes it. Exec format error means a file for another architecture, or a page in place of a file."},
		{"LB-SCR-08", "Its script was never fetched",
			"iPXE took an address and was told where its script is, and no request came.",
			"A firewall before the boot port, or a network driver that stops after the loader took over the card: try the other loader."},
		{"LB-SCR-09", "The address of the volume could not be read",
			"The machine reported that it does not understand the root path.",
			"The form is iscsi:ADDRESS::PORT:LUN:TARGET with the LUN in hexadecimal (RFC 4173)."},
		{"LB-SCR-10", "It was sent to something that is not here",
			"An iPXE asked the boot port for a script or path that the appliance does not have.",
			"A line of a custom profile, or a script elsewhere, names it. A variable of iPXE that is not set is an empty word in an address. Machines' scripts are at /boot.ipxe, files below /files/."},

		{"LB-TGT-01", "The target could not be reached",
			"The machine reported that the connection failed, and no login came.",
			"Another address stands in its script, or a firewall before the iSCSI port. The portal must be reachable from the machine's network."},
		{"LB-TGT-02", "It never tried to log in",
			"The script was given, and no connection to the target followed.",
			"A firewall, an address that leads elsewhere, or a loader that has no iSCSI in it: see the features on the page Loaders."},
		{"LB-TGT-03", "Its iSCSI name is not known",
			"A login under a name to which no volume is mapped.",
			"Volumes are mapped to a machine by its iSCSI name. iPXE makes up iqn.2010-04.org.ipxe:NAME when a script sets none; an operating system keeps its own in /etc/iscsi/initiatorname.iscsi, which a copied image carries along."},
		{"LB-TGT-04", "It asked for another target",
			"A login to a target name that is not this appliance's.",
			"The appliance has one target name; lunboot doctor and the machine's page show it."},
		{"LB-TGT-05", "The login was not finished",
			"The connection closed in the middle of a login, and nothing was refused here.",
			"With mutual CHAP a machine hangs up when it does not accept the appliance's own answer. Else it was switched off, or the network lost its packets."},
		{"LB-TGT-06", "The login was refused",
			"The login was answered with the status in the evidence (RFC 7143 §11.13.5).",
			"The reason beside the status says what is in the way."},
		{"LB-TGT-07", "It logged in under another machine's name",
			"A login from the address of a known machine, under the iSCSI name of another one; or an operating system whose name nobody has, after its firmware was let in.",
			"An image that is cloned carries what was written when it was installed: /etc/iscsi/initiatorname.iscsi, the host name, /etc/machine-id, SSH host keys, and on Windows the SID. Whose an address is, its lease or the neighbour table says; a login from it under another machine's name is refused, whatever password it gives. Generalise the image: delete those files in a clone of the golden volume, let the initramfs take the iSCSI name from the firmware's table (iBFT), and promote the clone."},

		{"LB-CHAP-01", "The wrong password",
			"The CHAP answer does not fit the secret that is set here (status 0201).",
			"The machine's script or its own settings carry an old secret. Scripts of the profile san carry the right one."},
		{"LB-CHAP-02", "It offered no password",
			"The login offered an authentication that the machine's setting does not allow (status 0201).",
			"The script sets no username and password, or only the one direction where both are wanted."},
		{"LB-CHAP-03", "It did not accept the appliance's password",
			"The machine reported a mismatch of the reverse secret, or hung up after our answer.",
			"With mutual CHAP both sides prove themselves. The reverse pair in the machine differs from the one that is set here."},
		{"LB-CHAP-04", "It wants proof, and no reverse secret is set",
			"The login asked the target to prove itself.",
			"Set the machine to mutual CHAP: lunboot machine set MACHINE --auth mutual."},
		{"LB-CHAP-05", "It knows only parts of the passwords",
			"The machine reported that its CHAP settings do not fit together; no login came.",
			"iPXE wants a user name and a secret for the machine before it takes a pair of the target's. Lines such as clear username in a script, or settings in the machine's own iPXE, leave half of them behind."},

		{"LB-LUN-01", "It asked for a LUN that is not mapped",
			"A SCSI command addressed a LUN that does not exist for this initiator; the evidence names both.",
			"An iSCSI address without a LUN asks for LUN 0. iPXE reads the number as hexadecimal: 10 is LUN 16. The profile san writes the right one; or map the volume as the number that is asked for. Other targets answer with a disk that nobody made, whose first read then fails in a way that cannot be read."},
		{"LB-LUN-02", "Nothing is mapped to it",
			"It is enrolled and has no volume.",
			"Create or import a volume and map it: lunboot mapping add MACHINE VOLUME --lun 0 --boot."},
		{"LB-LUN-03", "The first use of the volume failed",
			"The machine reported a SCSI failure at its first commands.",
			"Most often the LUN in its own settings is not the mapped one."},
		{"LB-LUN-04", "It logged in and never read",
			"The login is complete, and no READ followed.",
			"Logins are small packets and reads are large ones: a link with a smaller MTU loses only those. Set one MTU everywhere."},

		{"LB-VOL-01", "The storage is full",
			"A write failed with SPACE ALLOCATION FAILED.",
			"The file system that holds the volumes has no room. Nothing that was flushed is lost; writing goes on when there is room."},
		{"LB-VOL-02", "The storage failed",
			"A read, write or flush of the volume failed in the appliance's own storage, or its file is gone.",
			"Look at the disk of the appliance (dmesg, SMART). The machine was told of the failure; nothing was made up."},
		{"LB-VOL-03", "BIOS cannot read blocks of 4096 bytes",
			"A BIOS machine boots a volume with 4096-byte blocks.",
			"Boot volumes of BIOS machines have 512-byte blocks. UEFI reads both."},
		{"LB-VOL-04", "The volume is too small",
			"The volume has fewer than 68 blocks.",
			"iPXE looks for a disc's directory in block 64 of every disk and gives up when there is no such block."},
		{"LB-VOL-05", "The volume is empty",
			"The first blocks hold no boot sector, no partitions and no file system.",
			"Import an image, or boot an installer once."},
		{"LB-VOL-06", "The volume was installed for the other firmware",
			"What the volume holds starts in the other mode: BIOS or UEFI.",
			"Switch the machine's firmware, or map a volume of its own mode."},
		{"LB-VOL-07", "There is no boot loader on the volume",
			"Partitions and file systems are there, and what the firmware starts is not.",
			"UEFI looks for \\EFI\\BOOT\\BOOTX64.EFI on a network disk, since it has no entry for it: grub-install --removable. BIOS looks for a boot sector."},
		{"LB-VOL-08", "Nothing on the volume started",
			"The machine read the first blocks and reported that there is nothing to start, or went silent.",
			"The volume is empty, damaged, or installed for the other firmware; what it holds could not be told."},

		{"LB-VOL-09", "Somebody else has the volume to himself",
			"A command of the machine ended in RESERVATION CONFLICT, or its login was refused because the device is held by another program.",
			"SCSI reservations are made by clusters and by some installers, and outlive a power cut when they were told to. On the appliance itself a mounted device, a virtual machine or RAID may hold the device."},

		{"LB-VOL-11", "A volatile volume did not outlive a crash",
			"A login was refused because the volume is volatile and the appliance's machine crashed, or was switched off, without stopping lunboot first.",
			"A clone that begins anew at each boot can be volatile: nobody waits for the disk, which is faster. What its machine flushed outlives a crash of lunboot and an orderly stop, not a power cut of the appliance. After one the volume is not handed out again before it has begun anew: switch the machine off and on. To have the disk waited for: lunboot volume set VOLUME --no-volatile."},
		{"LB-VOL-10", "The volume may not be written",
			"A write of the machine was refused with DATA PROTECT, WRITE PROTECTED.",
			"Its mapping is read-only, or the volume is, as golden volumes are. A system that starts from a golden volume needs a clone of its own: lunboot volume clone. A mapping is made writable with lunboot mapping set MACHINE LUN --no-read-only."},

		{"LB-OS-01", "The operating system found no volume",
			"It logged in under its own session and never read.",
			"It looks for another LUN, or lacks a disk driver."},
		{"LB-OS-02", "The operating system lost its volume",
			"The boot loader read the volume, its session ended, and the operating system did not log in.",
			"Windows: the driver of the network card must be boot-critical (stop code 0x7B). Linux: iSCSI and the network card's driver must be in the initial RAM disk."},
		{"LB-OS-03", "Up, not confirmed",
			"It has read its volume steadily for more than three minutes, and has not said that it is up.",
			"Add one line to its start-up that fetches the report address, and the appliance knows."},
		{"LB-OS-04", "Its own disk did not start",
			"The profile local left the machine to its own disk, and its iPXE reported that this failed.",
			"There is no disk, or nothing on it that BIOS starts. On UEFI, where iPXE only ends, nothing is reported: the firmware's own list decides."},

		{"LB-BOOT-01", "The machine reported a failure",
			"It sent an iPXE code that no other rule knows better.",
			"lunboot explain CODE decodes it."},
		{"LB-BOOT-02", "The machine started over",
			"It asked to boot again from the beginning before this boot had ended.",
			"Somebody switched it off and on, its firmware gave up, or what it started crashed."},
		{"LB-BOOT-03", "The machine stopped",
			"Nothing came any more, and nothing that was seen says why.",
			"It may have been switched off. Its screen may say more."},
		{"LB-BOOT-04", "The machine boots again and again",
			"Four boots or more within a quarter of an hour, each of which started something and then began anew.",
			"An installer that is given again after it has installed, a system that crashes early, a watchdog. A profile for one boot is taken back when its boot has proven itself: lunboot machine boot MACHINE --once PROFILE."},
		{"LB-BOOT-05", "The machine installs again and again",
			"Two boots or more started an installer and came back after a time in which one installs, and this one is given an installer again.",
			"An installer ends by starting the machine anew, and nothing but its own report tells that it is done. A profile for one boot is used up by that report: lunboot machine boot MACHINE --once PROFILE. A profile for every boot is never used up: give the machine profile san or local once it is installed."},
	}
}
