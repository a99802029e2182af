package store

import "time"

// FileTrouble is why a volume that is ready cannot be read: a file of one of its
// layers, or a device, is not what it should be.
type FileTrouble struct {
	Volume string
	File   string // its name in the volume folder, or a device's path
	Size   int64  // bytes that it should have at least; 0 when only the file itself tells
	Open   bool   // lunboot still holds a file that is missing, and can read it until it ends
	Err    error  // KindNotFound: missing; KindDenied; KindCorrupt: cut (io.ErrUnexpectedEOF), or unreadable
}

// StrayFile is a file in the volume folder that belongs to no layer, and that nothing
// is being made of.
type StrayFile struct {
	Name    string
	Size    int64 // bytes
	Changed time.Time
}
