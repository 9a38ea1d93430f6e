package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// dialer makes connections to endpoints.
type dialer struct {
	net     net.Dialer
	timeout time.Duration
	tls     *tls.Config
	name    string // expected in certificates, "" for the host's
}

func newDialer(cfg Config) (*dialer, error) {
	t, err := cfg.TLS.load()
	if err != nil {
		return nil, err
	}
	t.NextProtos = []string{"http/1.1"}
	if cfg.Protocol == ProtocolHTTP2 {
		t.NextProtos = []string{"h2"}
	}
	return &dialer{timeout: cfg.Timeouts.Connect, tls: t, name: cfg.TLS.ServerName}, nil
}

// dial connects within the timeout, the TLS handshake included.
func (d *dialer) dial(ctx context.Context, a address) (*conn, error) {
	plain, secured, err := d.connect(ctx, a)
	if err != nil {
		return nil, err
	}
	return newConn(plain, secured), nil
}

// connect returns the socket, and what is spoken through: the socket itself, or TLS.
func (d *dialer) connect(ctx context.Context, a address) (plain, secured net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	plain, err = d.net.DialContext(ctx, a.network, a.dial)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("connect to %s: %w", a.text, err)
	}
	if !a.tls {
		return plain, plain, nil
	}
	cfg := d.tls.Clone()
	if cfg.ServerName = d.name; cfg.ServerName == "" {
		cfg.ServerName = a.name
	}
	c := tls.Client(&cutConn{Conn: plain}, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, nil, fmt.Errorf("TLS handshake with %s: %w", a.text, err)
	}
	return plain, c, nil
}

// cutConn is a connection under TLS. crypto/tls takes its end for the end of what was sent, which only the other side may declare
// (RFC 8446, section 6.1); here it is an error.
type cutConn struct {
	net.Conn
	dry bool // brings nothing more
}

// Read implements io.Reader.
func (c *cutConn) Read(p []byte) (int, error) {
	if c.dry {
		return 0, errDry
	}
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

var (
	errCut = errors.New("TLS connection ended without notice")
	errDry = net.Error(dryError{})
)

// dryError says that nothing is there. It is temporary, as crypto/tls reads no more after any other.
type dryError struct{}

func (dryError) Error() string   { return "nothing is read from the socket now" }
func (dryError) Timeout() bool   { return false }
func (dryError) Temporary() bool { return true }

// emptied reports whether TLS has given away all that it has read from the socket. It reads more than it is asked for, so what came right
// behind an answer is no longer in the socket, where somebody would see it.
func emptied(spoken net.Conn) bool {
	t, ok := spoken.(*tls.Conn)
	if !ok {
		return true
	}
	below, ok := t.NetConn().(*cutConn)
	if !ok {
		return false
	}
	below.dry = true
	var one [1]byte
	n, err := t.Read(one[:])
	below.dry = false
	return n == 0 && errors.Is(err, errDry)
}

// load reads the files that are named.
func (t TLS) load() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		c.RootCAs = x509.NewCertPool()
		if err != nil || !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %q cannot be read or holds no certificate; name a PEM file", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file: %q and key_file %q cannot be loaded (%w); name two PEM files that belong together",
				t.CertFile, t.KeyFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
