package store

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends the detail as encoding/json reads it. A journal that takes
// thousands of events a second spends most of its time in reflection over some
// forty fields that are empty.
func (d *Detail) AppendJSON(b []byte) []byte {
	o := object{b: append(b, '{')}
	o.text("interface", d.Interface)
	o.text("firmware", d.Firmware)
	o.text("arch", d.Arch)
	o.text("class", d.Class)
	o.text("user_class", d.UserClass)
	o.flag("ipxe", d.IPXE)
	o.flag("pxe", d.PXE)
	o.text("hostname", d.Hostname)
	o.number("secs", int64(d.Secs))
	o.text("server", d.Server)
	o.flag("proxy", d.Proxy)
	o.text("relay", d.Relay)
	o.text("router", d.Router)
	o.text("network", d.Network)
	o.text("port", d.Port)
	o.text("loader", d.Loader)
	o.text("file", d.File)
	o.text("url", d.URL)
	o.number("bytes", d.Bytes)
	o.number("written", d.Written)
	o.number("total", d.Total)
	o.number("ms", d.Millis)
	o.number("blksize", int64(d.Blksize))
	o.text("profile", d.Profile)
	o.text("matched_by", d.MatchedBy)
	o.flag("owned", d.Owned)
	o.text("key", d.Key)
	o.text("script", d.Script)
	o.text("initiator", d.Initiator)
	o.text("target", d.Target)
	o.text("isid", d.ISID)
	o.text("session", d.Session)
	o.text("asked", d.Asked)
	o.text("auth", d.Auth)
	o.text("status", d.Status)
	if d.LUN != nil {
		o.name("lun")
		o.b = strconv.AppendInt(o.b, int64(*d.LUN), 10)
	}
	if len(d.Mapped) > 0 {
		o.name("mapped")
		for k, n := range d.Mapped {
			o.b = append(o.b, "[,"[min(k, 1)])
			o.b = strconv.AppendInt(o.b, int64(n), 10)
		}
		o.b = append(o.b, ']')
	}
	o.text("opcode", d.Opcode)
	o.number("lba", d.LBA)
	o.text("sense", d.Sense)
	o.text("volume", d.Volume)
	o.text("step", d.Step)
	o.text("code", d.Code)
	o.text("cause", string(d.Cause))
	o.text("reason", d.Reason)
	return append(o.b, '}')
}

// object writes a JSON object (RFC 8259) without its empty members.
type object struct {
	b     []byte
	begun bool
}

func (o *object) name(name string) {
	if o.begun {
		o.b = append(o.b, ',')
	}
	o.begun = true
	o.b = append(append(append(o.b, '"'), name...), '"', ':')
}

func (o *object) flag(name string, v bool) {
	if v {
		o.name(name)
		o.b = append(o.b, "true"...)
	}
}

func (o *object) number(name string, v int64) {
	if v != 0 {
		o.name(name)
		o.b = strconv.AppendInt(o.b, v, 10)
	}
}

func (o *object) text(name, v string) {
	if v == "" {
		return
	}
	o.name(name)
	if !plain(v) {
		quoted, _ := json.Marshal(v) // a string never fails
		o.b = append(o.b, quoted...)
		return
	}
	o.b = append(append(append(o.b, '"'), v...), '"')
}

// plain says whether a text stands in JSON as it is.
func plain(s string) bool {
	for k := range len(s) {
		if c := s[k]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
