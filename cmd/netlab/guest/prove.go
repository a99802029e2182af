//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab/area"
)

// prove runs from the root file system on the volume.
func prove(disk string) error {
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	control, err := area.ReadControl(f)
	if err != nil {
		return fmt.Errorf("%s: %w", disk, err)
	}
	fmt.Printf("\n%s %s\n", area.MarkUp, facts(disk, control.Nonce))
	if control.Report != "" {
		to := strings.ReplaceAll(control.Report, "{mac}", attribute(nicDir(), "mac"))
		if err := report(to); err != nil {
			return fmt.Errorf("reporting to %s: %w", to, err)
		}
	}
	if err := writeFile("/var/lib/lunboot-lab", control.Nonce.String()+"\n"); err != nil {
		return err
	}
	if err := writePattern(f, control.Nonce); err != nil {
		return err
	}
	if err := checkPattern(disk, control.Nonce); err != nil {
		return err
	}
	sum := sha256.Sum256(area.Pattern(control.Nonce))
	fmt.Printf("%s bytes=%d sha256=%s\n", area.MarkWrote, area.PatternSize, hex.EncodeToString(sum[:8]))
	switch control.Mode {
	case area.Records:
		return writeRecords(f, control)
	case area.Hold:
		return hold(disk)
	}
	return nil
}

// facts says what the machine sees of itself and of its disk.
func facts(disk string, nonce area.Nonce) string {
	block := "/sys/class/block/" + filepath.Base(disk)
	lun := "?"
	if device, err := os.Readlink(block + "/device"); err == nil { // ../../../H:C:T:L
		lun = device[strings.LastIndexByte(device, ':')+1:]
		if n, err := strconv.Atoi(lun); err == nil && n >= 0x4000 {
			lun = strconv.Itoa(n & 0x3fff) // flat space addressing (SAM-5 §4.7.7.3)
		}
	}
	hostname, _ := os.Hostname()
	wwid := strings.ReplaceAll(attribute(block, "device/wwid"), " ", "_")
	return fmt.Sprintf("nonce=%s lun=%s vpd83=%s size=%s hostname=%s ip=%s mac=%s root=%s uuid=%s",
		nonce, lun, wwid, attribute(block, "size"), hostname,
		attribute(nicDir(), "ip-addr"), attribute(nicDir(), "mac"), disk+"2", attribute("/sys/class/dmi/id", "product_uuid"))
}

// writeFile writes a file on the root file system and makes it durable, so
// that its journal is written too.
func writeFile(path, text string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func writePattern(f *os.File, nonce area.Nonce) error {
	if _, err := f.WriteAt(area.Pattern(nonce), area.PatternAt); err != nil {
		return fmt.Errorf("writing the pattern: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing the pattern: %w", err)
	}
	return nil
}

// checkPattern reads the pattern past the page cache.
func checkPattern(disk string, nonce area.Nonce) error {
	got, err := readDirect(disk, area.PatternAt, area.PatternSize)
	if err != nil {
		return fmt.Errorf("reading the pattern back: %w", err)
	}
	if !bytes.Equal(got, area.Pattern(nonce)) {
		return fmt.Errorf("%s gives back something else than was written to it", disk)
	}
	return nil
}

// readDirect reads with O_DIRECT, which wants memory aligned to a block: whole
// pages of an anonymous mapping are.
func readDirect(path string, off int64, n int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pages, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(pages)
	if _, err := f.ReadAt(pages, off); err != nil {
		return nil, err
	}
	return bytes.Clone(pages), nil
}

// writeRecords prints a record's number only when its flush came back.
func writeRecords(f *os.File, c area.Control) error {
	for n := uint64(1); c.Count == 0 || n <= uint64(c.Count); n++ {
		if _, err := f.WriteAt(area.Record(c.Nonce, n), area.RecordAt(n)); err != nil {
			return fmt.Errorf("writing record %d: %w", n, err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("flushing record %d: %w", n, err)
		}
		fmt.Printf("%s %d\n", area.MarkRecord, n)
	}
	return nil
}

// hold reads one block past the cache, twice a second, for ever.
func hold(disk string) error {
	for n := 1; ; n++ {
		start := time.Now()
		if _, err := readDirect(disk, area.ControlAt, 4096); err != nil {
			return fmt.Errorf("reading while holding: %w", err)
		}
		fmt.Printf("%s %d ms=%d\n", area.MarkTick, n, time.Since(start).Milliseconds())
		time.Sleep(500 * time.Millisecond)
	}
}

// report GETs a URL. An HTTP/1.0 request by hand keeps net/http, and its four
// megabytes, out of the initial RAM disk.
func report(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	conn, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: lunboot-lab\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 1024))
	if err != nil {
		return err
	}
	status, _, _ := strings.Cut(string(answer), "\r\n")
	fmt.Printf("reported: %s\n", status)
	return nil
}
