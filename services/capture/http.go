package capture

import (
	"bytes"
	"strconv"
)

// What is kept of HTTP/1 (RFC 9112) as the boot listener speaks it: the start
// line, the names and values of these headers, and of a query these keys. A
// report's key is not among them: who has it speaks for the machine. A body is
// never kept: scripts carry passwords.
var (
	httpMethods = allowed{"GET", "HEAD", "POST", "PUT", "OPTIONS"}
	httpHeaders = allowed{
		"accept", "accept-encoding", "accept-ranges", "allow", "cache-control", "connection", "content-length", "content-range", "content-type", "date",
		"host", "last-modified", "range", "retry-after", "server", "transfer-encoding", "user-agent",
	}
	queryKeys = allowed{
		"arch", "asset", "attempt", "buildarch", "chained", "code", "hostname", "ip", "mac", "manufacturer", "platform", "product", "serial", "step",
		"uuid", "version",
	}
	// The names of these are kept as well.
	headerNames = append(allowed{"authorization", "cookie", "location", "set-cookie"}, httpHeaders...)
	queryNames  = append(allowed{"key"}, queryKeys...)
)

// maxStatusLine bounds what is kept of a response's first line.
const maxStatusLine = 64

// exchange is what both halves of a connection know: a response to HEAD has a
// Content-Length and no body (RFC 9110 §9.3.2).
type exchange struct {
	heads []bool // of requests without a response yet: it was a HEAD
}

// maxOpen bounds the requests that wait for a response.
const maxOpen = 64

type httpPart uint8

const (
	httpMethod httpPart = iota
	httpPath
	httpQueryKey
	httpQueryValue
	httpVersion
	httpStatus
	httpName
	httpValue
	httpBody
)

// httpHalf keeps the heads of requests or of responses.
type httpHalf struct {
	response bool
	open     *exchange
	lost     bool

	part   httpPart
	path   answerPath
	name   name
	keep   bool // this value may be kept
	seen   int  // bytes of this part or line so far
	number []byte

	head    bool  // the request is a HEAD
	status  int   // of a response
	length  int64 // of the body; -1 when none was told
	counted bool  // the header being read is Content-Length
	chunked bool  // the body ends where only its reader sees
	left    int64 // of the body
}

func newHTTPHalf(response bool, open *exchange) *httpHalf {
	h := &httpHalf{response: response, open: open}
	h.restart()
	return h
}

// restart awaits the next message.
func (h *httpHalf) restart() {
	h.part, h.seen, h.length, h.status, h.head, h.chunked = httpMethod, 0, -1, 0, false, false
	h.name.reset()
	h.number = h.number[:0]
	if h.response {
		h.part = httpStatus
	}
}

func (h *httpHalf) scrub(b []byte) (keep int) {
	for i := 0; i < len(b); i++ {
		if h.lost {
			clear(b[i:])
			return keep
		}
		if h.part == httpBody {
			n := int(min(h.left, int64(len(b)-i)))
			clear(b[i : i+n])
			h.left -= int64(n)
			if h.left == 0 {
				h.restart()
			}
			i += n - 1
			continue
		}
		b[i] = h.next(b[i])
		keep = i + 1
	}
	return keep
}

// next takes one byte of a head and returns what to keep of it.
func (h *httpHalf) next(c byte) byte {
	if c == '\n' {
		return h.endLine()
	}
	if c == '\r' {
		return c
	}
	h.seen++
	switch h.part {
	case httpMethod:
		if c == ' ' {
			h.head = h.name.in(allowed{"HEAD"})
			h.lost = !h.name.in(httpMethods)
			h.part, h.seen = httpPath, 0
			return c
		}
		return h.keepName(c, c, httpMethods)
	case httpPath:
		if h.seen == 1 {
			h.path = answerPath{}
		}
		secret := h.path.secret(c)
		switch {
		case h.seen == 1:
			h.keep = c == '/' // a whole URL may hold a password
		case c == '?':
			h.part = httpQueryKey
			h.name.reset()
			return c
		case c == ' ':
			return h.toVersion(c)
		}
		return h.keepIf(h.keep && !secret, c)
	case httpQueryKey:
		switch c {
		case '=':
			h.part, h.keep = httpQueryValue, h.name.in(queryKeys)
			return c
		case '&':
			h.name.reset()
			return c
		case ' ':
			return h.toVersion(c)
		}
		return h.keepName(c, c, queryNames)
	case httpQueryValue:
		switch c {
		case '&':
			h.part = httpQueryKey
			h.name.reset()
			return c
		case ' ':
			return h.toVersion(c)
		}
		return h.keepIf(h.keep, c)
	case httpVersion:
		return h.keepName(c, c, allowed{"HTTP/1.0", "HTTP/1.1"})
	case httpStatus:
		const start = "HTTP/1."
		if h.seen <= len(start) && c != start[h.seen-1] {
			h.lost = true
			return 0
		}
		if at := h.seen - len("HTTP/1.1 "); at >= 1 && at <= 3 && c >= '0' && c <= '9' {
			h.status = h.status*10 + int(c-'0')
		}
		return h.keepIf(h.seen <= maxStatusLine, c)
	case httpName:
		if h.seen == 1 && (c == ' ' || c == '\t') {
			h.lost = true // a folded line, which RFC 9112 §5.2 lets nobody send
			return 0
		}
		if c == ':' {
			h.part, h.keep = httpValue, h.name.in(httpHeaders)
			h.counted = h.name.in(allowed{"content-length"})
			h.chunked = h.chunked || h.name.in(allowed{"transfer-encoding"})
			h.number = h.number[:0]
			return c
		}
		return h.keepName(lower(c), c, headerNames)
	default: // httpValue
		if h.counted && len(h.number) < 32 {
			h.number = append(h.number, c)
		}
		return h.keepIf(h.keep || c == ' ', c)
	}
}

// answerPath looks for the key of an attempt in the path of an installer's
// answers, /files/answer/MACHINE/PROFILE/ATTEMPT-KEY/FILE.
type answerPath struct {
	read   int  // bytes of answersRoot; further when all of it is read, -1 for another path
	part   int  // of the path below it
	masked bool // the key has begun
	last   byte
}

const answersRoot = "/files/answer/"

// secret takes the next byte and reports whether it may be of a key. A slash too
// many counts as one, as to the server; a byte in its escaped form may be any.
func (p *answerPath) secret(c byte) bool {
	if c == '/' && p.last == '/' {
		return false
	}
	p.last = c
	switch {
	case p.read < 0:
		return p.masked
	case c == '%':
		p.read, p.masked = -1, true
		return true
	case p.read < len(answersRoot):
		if p.read++; c != answersRoot[p.read-1] {
			p.read = -1
		}
		return false
	case c == '/':
		p.part++
		// Behind a path that is askew the key may come later.
		p.masked = false
		return false
	}
	p.masked = p.part >= 2 && (p.masked || p.part == 2 && (c < '0' || c > '9'))
	return p.masked
}

func (h *httpHalf) toVersion(c byte) byte {
	h.part = httpVersion
	h.name.reset()
	return c
}

func (h *httpHalf) keepName(as, c byte, list allowed) byte { return h.keepIf(h.name.add(as, list), c) }

func (h *httpHalf) keepIf(ok bool, c byte) byte {
	if ok {
		return c
	}
	return filler
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// endLine ends a line, which may end the head.
func (h *httpHalf) endLine() byte {
	switch h.part {
	case httpName:
		if h.seen == 0 {
			h.endHead()
			return '\n'
		}
		h.lost = true // a line without a colon is no header
	case httpValue:
		if h.counted {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(h.number)), 10, 64)
			if err != nil || n < 0 || h.length >= 0 {
				h.lost = true
			}
			h.length = n
		}
	case httpVersion, httpStatus:
	default:
		h.lost = true
	}
	h.part, h.seen, h.counted = httpName, 0, false
	h.name.reset()
	return '\n'
}

// endHead decides what follows: a body of known length, one that nobody can
// follow, or the next message.
func (h *httpHalf) endHead() {
	body := max(h.length, 0)
	if h.response {
		interim := h.status >= 100 && h.status < 200
		head := false
		if !interim {
			if len(h.open.heads) == 0 {
				h.lost = true // it answers nothing that we saw
				return
			}
			head = h.open.heads[0]
			h.open.heads = h.open.heads[1:]
		}
		switch {
		case interim || head || h.status == 204 || h.status == 304:
			body = 0
		case h.chunked || h.length < 0:
			h.lost = true
		}
	} else {
		if h.chunked || len(h.open.heads) >= maxOpen {
			h.lost = true
			return
		}
		h.open.heads = append(h.open.heads, h.head)
	}
	if h.lost {
		return
	}
	h.restart()
	if body > 0 {
		h.part, h.left = httpBody, body
	}
}
