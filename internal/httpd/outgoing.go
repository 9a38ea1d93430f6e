package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrNotPublic answers a request to an address that strangers must not make this program ask: their own network's inside.
var ErrNotPublic = errors.New("not a public address")

// outgoingTimeout bounds one request, from the look-up of the name to the end of the answer.
const outgoingTimeout = 5 * time.Second

// NewOutgoing returns a client for addresses that somebody else has chosen. It speaks https only, follows no redirect, asks no proxy, and
// connects to public addresses alone: what a name stands for is judged when the connection is made, so that a name cannot change its
// mind in between. With private it connects anywhere, and may speak http to this very machine: that is for development.
func NewOutgoing(private bool) *http.Client {
	dialer := &net.Dialer{Timeout: outgoingTimeout, KeepAlive: -1}
	if !private {
		dialer.Control = publicOnly
	}
	return &http.Client{
		Timeout: outgoingTimeout,
		Transport: outgoing{private, &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: outgoingTimeout, MaxResponseHeaderBytes: 16 << 10,
			DisableKeepAlives: true, // whom it asks changes, and it asks rarely
			ForceAttemptHTTP2: true,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type outgoing struct {
	private bool
	http.RoundTripper
}

func (o outgoing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !(o.private && r.URL.Scheme == "http" && IsLoopbackHost(r.URL.Hostname())) {
		return nil, errors.New("only https is asked")
	}
	return o.RoundTripper.RoundTrip(r)
}

// publicOnly is a net.Dialer's Control.
func publicOnly(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !isPublic(ap.Addr()) {
		return ErrNotPublic
	}
	return nil
}

// special are networks that are not the public Internet though nothing in netip says so (IANA's registries of special-purpose addresses),
// and those that carry an IPv4 address inside.
var special = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// isPublic reports whether an address is on the public Internet.
func isPublic(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !isTrusted(a, special)
}

// Fetch reads a document of at most so many bytes. Anything but a 200 is an error.
func Fetch(ctx context.Context, client *http.Client, address string, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", r.URL.Host, answer.StatusCode)
	}
	return io.ReadAll(http.MaxBytesReader(nil, answer.Body, most))
}
