package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lunboot/store"
)

// SocketName is the unix socket in the data folder.
const SocketName = "lunboot.sock"

// Client speaks /api/v1, over the unix socket or over HTTP(S) with a token.
type Client struct {
	http  *http.Client
	base  string
	token string
	local bool
}

// expectTime is how long an upload waits to be wanted before it is sent anyway.
const expectTime = 5 * time.Second

// ErrNoAppliance says that nothing answers at the socket or address.
var ErrNoAppliance = errors.New("no appliance answers")

// CheckServer says what is wrong with the address that --server gives.
func CheckServer(server string) error {
	if server == "" {
		return nil
	}
	u, err := url.Parse(server)
	if !strings.Contains(server, "://") {
		return usage(fmt.Sprintf("--server is a URL: http://%s or, when the appliance has a certificate, https://%s", server, server))
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return usage(fmt.Sprintf("--server %q is no URL such as https://10.77.0.1:8080", server))
	}
	return nil
}

// plainly says in words what HTTP and TLS say of a server that they did not expect.
func (c *Client) plainly(err error) error {
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("%s speaks plain HTTP: say --server http://%s, or give the appliance a certificate (--tls)", c.base, strings.TrimPrefix(c.base, "https://"))
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("nobody whom this machine trusts vouches for the certificate of %s (%w); compare it with the fingerprint that 'lunboot doctor' shows on the appliance, and give that as --fingerprint", c.base, err)
	}
	return err
}

// NewClient makes a client. An empty server means the socket in data. trust says
// whose certificate is good; nil: whom the system trusts.
func NewClient(data, server, token string, trust *tls.Config) *Client {
	if server != "" {
		return &Client{http: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ExpectContinueTimeout: expectTime}}, base: strings.TrimSuffix(server, "/"), token: token}
	}
	path := filepath.Join(data, SocketName)
	return &Client{
		local: true,
		base:  "http://lunboot",
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				c, err := d.DialContext(ctx, "unix", path)
				if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
					return nil, fmt.Errorf("%w at %s; start it with 'lunboot serve', or name its data folder with --data", ErrNoAppliance, path)
				}
				if errors.Is(err, os.ErrPermission) {
					return nil, fmt.Errorf("may not open %s; run this as root or as a member of the group lunboot", path)
				}
				return c, err
			},
		}},
	}
}

// Close ends the connections that are kept for a next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Local reports whether the appliance shares this machine's file system.
func (c *Client) Local() bool { return c.local }

// problem is the part of an RFC 9457 document that a person reads.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
	Changes []store.Audit `json:"changes"` // what others did meanwhile, the newest first
}

func (p problem) sentence() string {
	if len(p.Errors) > 0 && strings.HasPrefix(p.Detail, "validation failed") {
		var parts []string
		for _, e := range p.Errors {
			parts = append(parts, e.Location[strings.IndexByte(e.Location, '.')+1:]+": "+e.Message)
		}
		return strings.Join(parts, "; ")
	}
	if p.Detail == "" {
		return p.Title
	}
	if len(p.Changes) == 0 {
		return p.Detail
	}
	var parts []string
	for _, a := range p.Changes {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s did %s %s", a.Actor, a.Action, a.Detail)))
	}
	return p.Detail + "; since then " + strings.Join(parts, ", before that ")
}

// refusal is the appliance's answer to a request that it does not carry out.
type refusal struct{ problem }

func (r *refusal) Error() string { return r.sentence() }

// unopened says that the appliance could not open a file that we named: it may
// run as somebody else, and see other folders than we do.
func unopened(err error) bool {
	var r *refusal
	if !errors.As(err, &r) || len(r.Errors) != 1 || r.Errors[0].Location != "body.path" {
		return false
	}
	return strings.HasSuffix(r.Detail, syscall.EACCES.Error()) || strings.HasSuffix(r.Detail, syscall.ENOENT.Error())
}

// Do sends one request; in and out may be nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	return c.do(ctx, method, path, nil, in, out)
}

func (c *Client) do(ctx context.Context, method, path string, header http.Header, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, body, "application/json", header)
	if err != nil {
		return err
	}
	if out == nil {
		return resp.Body.Close()
	}
	if err := decode(resp, out); err != nil {
		return fmt.Errorf("the answer to %s %s could not be read: %w", method, path, err)
	}
	return nil
}

// decode reads an answer and closes it.
func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// send returns a successful response; any other status is an error in words.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader, contentType string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if p, ok := body.(*piece); ok {
		req.ContentLength = p.Size()
	}
	if f, ok := body.(*os.File); ok { // its length is announced, so that room can be looked for first
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		req.ContentLength = st.Size()
		req.Header.Set("Expect", "100-continue") // a refusal comes before gigabytes leave
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			return nil, c.plainly(ue.Err)
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var p problem
	if json.Unmarshal(b, &p) == nil && p.sentence() != "" {
		return nil, &refusal{p}
	}
	return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
}

// list is one page of a listing.
type list[T any] struct {
	Items []T `json:"items"`
	Total int `json:"total"`
}

func esc(s string) string { return url.PathEscape(s) }
