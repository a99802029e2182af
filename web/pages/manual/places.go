package manual

// Port is one where the appliance listens.
type Port struct {
	Port, Help string
	Flags      []string // that choose it, or what is done there
}

// Ports are where the appliance listens unless it is told otherwise.
func Ports() []Port {
	return []Port{
		{"67/udp", "DHCP, only on the interface that you chose; relays are heard on all, once a network behind one is known", []string{"--dhcp", "--interface", "--dhcp-range", "--dhcp-listen"}},
		{"4011/udp", "what firmware asks a boot server (PXE), on the same interface", []string{"--pxe-listen"}},
		{"69/udp", "loaders over TFTP; each transfer goes on from a port of its own", []string{"--tftp"}},
		{"80/tcp", "scripts and loaders over HTTP, for machines", []string{"--boot"}},
		{"3260/tcp", "volumes over iSCSI", []string{"--iscsi"}},
		{"8080/tcp", "pages and REST API, for people; HTTPS with a certificate of its own or yours", []string{"--admin", "--tls", "--tls-cert", "--tls-key"}},
	}
}

// File is one in the data folder.
type File struct{ Name, Help string }

// Files are what the data folder holds.
func Files() []File {
	return []File{
		{"inventory.db", "machines, volumes, mappings, profiles, leases, users"},
		{"journal.db", "boot events and attempts: the newest 500,000 of the last 180 days, and at most 512 MiB of them"},
		{"*.db-wal", "beside each of the two while the appliance runs, with -shm: what was written last. A copy of the database without it is not whole; take lunboot backup"},
		{"*.db.schema-*", "the database as it was before an upgrade brought it to a newer schema"},
		{"inventory.db.reserve", "64 MiB that are let go when the disk is full, so that leases can still be written"},
		{"loaders/", "loaders of your own that were uploaded, under their SHA-256"},
		{"volumes/", "the volumes’ bytes: sparse files, and of each clone a map of what it holds"},
		{"images/", "images to import by name; --images names more folders"},
		{"media/", "discs, kernels and other files that machines fetch"},
		{"uploads/", "images that are being sent, until they are whole"},
		{"media-uploads/", "media that are being sent, until they are whole"},
		{"tls/admin.pem", "with --tls self: the certificate of the admin port, with its key"},
		{"lunboot.sock", "where the command line talks to the appliance: its own user, root, or the group lunboot"},
	}
}
