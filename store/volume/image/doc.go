// Package image reads the formats in which disks are kept in files, and writes
// one of them. It believes nothing that it reads: a length is used after it was
// checked against the file, tables are read through small windows however long
// they claim to be, and what cannot be right is refused in a sentence. No other
// file is ever opened, whatever an image names.
//
// # What is in a file
//
//	func Detect(r io.ReaderAt, size int64) (Format, error)
//	func DetectHead(head []byte) (Format, error)
//
// The content alone decides, never a name. Formats that are known and not read
// are refused with the way to convert them. A Format that is Compressed is a
// stream, for OpenStream; every other one is for Open.
//
// # Disks at random access
//
//	func Open(r io.ReaderAt, size int64) (*Image, error)
//	func (*Image) Format() Format
//	func (*Image) Size() int64
//	func (*Image) BlockSize() int
//	func (*Image) ReadAt(p []byte, off int64) (int, error)
//	func (*Image) Extent(off int64) (data bool, end int64, err error)
//	func (*Image) Data(ctx context.Context) (int64, error)
//
// raw, qcow2 (versions 2 and 3), VHDX, VHD (fixed and dynamic) and VMDK
// (monolithicSparse and streamOptimized). A VHDX that was not closed is read with
// what its log has; no file is ever written. Data comes before a copy: it walks
// every table, so that an image with a wrong offset anywhere is refused before
// the first byte is written, and says how many bytes the copy will have.
//
// # Copying
//
//	func Walk(ctx context.Context, src Source, visit func(p []byte, off int64) error, progress func(done int64)) error
//	func Data(ctx context.Context, src Source) (int64, error)
//
// An import is Open, Data (is there room?), a file of Size bytes that is all
// hole, and Walk, whose visit writes p at off. A raw disk need not have whole
// blocks: round its Size up. Everything else that has extents, a volume say, is
// a Source too.
//
// # Compressed raw bytes
//
//	func OpenStream(r io.Reader, f Format, size int64) (io.ReadCloser, error)
//	func StreamSize(ctx context.Context, r io.ReaderAt, size int64, f Format, limit int64) (int64, error)
//
// gzip, xz and zstd around raw bytes are read from one end to the other, in
// bounded memory.
//
// # Writing
//
//	func PlanQcow2(ctx context.Context, src Source) (*Qcow2Plan, error)
//	func (*Qcow2Plan) Length() int64
//	func (*Qcow2Plan) Data() int64
//	func (*Qcow2Plan) Write(ctx context.Context, w io.Writer, progress func(done int64)) error
//	func WriteQcow2Compressed(ctx context.Context, w io.WriterAt, src Source, c Compression, progress func(done int64)) (length int64, err error)
//
// A plan knows the length of the file before its first byte is written, so that
// it can go through HTTP. A compressed file has its tables behind its data, so
// it needs a file to be written to.
//
// # Errors
//
// Every error about the content is a store.Error of KindInvalid with the field
// "source", whose sentence is for the operator. A source that cannot be read is
// of KindUnavailable. What a writer's w or a visit returns can be had by
// errors.Is (a full disk, say), and an end by the context is the context's
// error. Nothing here is safe for use by several goroutines at once, except the
// functions.
package image
