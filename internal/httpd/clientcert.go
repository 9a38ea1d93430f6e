package httpd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a proxy that ends TLS says of its client's certificate (RFC 9440, section 2).
const (
	certHeader  = "Client-Cert"
	chainHeader = "Client-Cert-Chain"
)

const (
	// maxCert bounds a certificate in bytes. Those with large RSA keys have some 2,000.
	maxCert = 16 << 10
	// maxChain bounds the certificates between a client's and that of an authority.
	maxChain = 8
)

// evidence is where the client's certificate is, if it showed one. It is looked at only where one is needed.
type evidence struct {
	vouched     bool // the headers count, and not the connection, which is the proxy's
	cert, chain []string
	tls         *tls.ConnectionState
}

// evidenceOf reads a request before anybody takes headers away. A connection from a trusted proxy says nothing of the client, whatever
// certificate the proxy itself has; its headers do, where the configuration promises that it never passes them on from outside.
func evidenceOf(r *http.Request, trusted bool, believed bool) evidence {
	switch {
	case !trusted:
		return evidence{tls: r.TLS}
	case believed:
		return evidence{vouched: true, cert: r.Header[certHeader], chain: r.Header[chainHeader]}
	default:
		return evidence{}
	}
}

// ClientCertificate returns the certificate, in DER, of whose key the client has proved possession in TLS, to us or to a trusted proxy;
// nil where there is none, where it cannot be read, and outside of Edge.
func ClientCertificate(r *http.Request) []byte {
	x := exchangeOf(r.Context())
	switch {
	case x == nil:
		return nil
	case x.evidence.vouched:
		if der, err := parseClientCert(x.evidence.cert); err == nil {
			return der
		}
	case x.evidence.tls != nil && len(x.evidence.tls.PeerCertificates) > 0:
		return x.evidence.tls.PeerCertificates[0].Raw
	}
	return nil
}

// ErrNoCertificate says that a client has shown no certificate.
var ErrNoCertificate = errors.New("the client has shown no certificate")

// ClientChain returns the client's certificate and those that it brought to show who vouches for it. Nobody has verified them.
func ClientChain(ctx context.Context) ([]*x509.Certificate, error) {
	x := exchangeOf(ctx)
	switch {
	case x == nil:
		return nil, ErrNoCertificate
	case !x.evidence.vouched && (x.evidence.tls == nil || len(x.evidence.tls.PeerCertificates) == 0):
		return nil, ErrNoCertificate
	case !x.evidence.vouched:
		return x.evidence.tls.PeerCertificates, nil
	case len(x.evidence.cert) == 0:
		return nil, ErrNoCertificate
	}
	first, err := parseClientCert(x.evidence.cert)
	if err != nil {
		return nil, err
	}
	rest, err := parseClientChain(x.evidence.chain)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, der := range append([][]byte{first}, rest...) {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate of a client: %w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// SetClientCertificate tells a server behind about the client's certificate (RFC 9440), and takes away what the client itself said.
func SetClientCertificate(ctx context.Context, h http.Header) {
	delete(h, certHeader)
	delete(h, chainHeader)
	all, err := ClientChain(ctx)
	if err != nil {
		return
	}
	var chain []string
	for _, one := range all[1:min(len(all), maxChain+1)] {
		chain = append(chain, encodeClientCert(one.Raw))
	}
	h[certHeader] = []string{encodeClientCert(all[0].Raw)}
	if len(chain) > 0 {
		h[chainHeader] = []string{strings.Join(chain, ", ")}
	}
}

// VouchesForCertificates reports whether the peer says in headers which certificates its clients have.
func VouchesForCertificates(ctx context.Context) bool {
	x := exchangeOf(ctx)
	return x != nil && x.evidence.vouched
}

// IsCertificateHeader reports whether a header, by its canonical name, is one of those.
func IsCertificateHeader(name string) bool { return name == certHeader || name == chainHeader }

func encodeClientCert(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

var errCertHeader = errors.New("the header Client-Cert or Client-Cert-Chain is malformed")

// parseClientCert reads the header Client-Cert: one byte sequence (RFC 8941, section 3.3.5) with a certificate in DER. What is in it is
// not looked at.
func parseClientCert(values []string) ([]byte, error) {
	if len(values) != 1 {
		return nil, errCertHeader
	}
	return parseByteSequence(values[0])
}

// parseClientChain reads the header Client-Cert-Chain, a list of them, which may go on in further lines (RFC 9440, section 2.3).
func parseClientChain(values []string) ([][]byte, error) {
	if len(values) == 0 {
		return nil, nil
	}
	var chain [][]byte
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		der, err := parseByteSequence(strings.Trim(item, " \t"))
		if err != nil || len(chain) == maxChain {
			return nil, errCertHeader
		}
		chain = append(chain, der)
	}
	return chain, nil
}

// parseByteSequence reads base64 between colons. Parameters, of which none is defined here, are refused.
func parseByteSequence(text string) ([]byte, error) {
	if len(text) < 3 || len(text) > base64.StdEncoding.EncodedLen(maxCert)+2 || text[0] != ':' || text[len(text)-1] != ':' ||
		strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, errCertHeader
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text[1 : len(text)-1])
	if err != nil {
		return nil, errCertHeader
	}
	return der, nil
}

// ask makes the handshake ask for a certificate, under the names for which that is wanted. Whose it is, and whether that matters, is for
// who serves the request: a self-signed one is as good a proof of a key as any.
func (c ClientCertificates) ask(cfg *tls.Config) {
	switch {
	case !c.Request:
	case len(c.Hosts) == 0:
		cfg.ClientAuth = tls.RequestClientCert
	default:
		asking := cfg.Clone()
		asking.ClientAuth = tls.RequestClientCert
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.ContainsFunc(c.Hosts, func(host string) bool { return strings.EqualFold(host, hello.ServerName) }) {
				return asking, nil
			}
			return nil, nil
		}
	}
}

// Authorities are those whose word is taken for who a client is. The file is read again when it changes; while it cannot be read, what
// was read last stays in use.
type Authorities struct {
	file  string
	clock func() time.Time
	log   *slog.Logger
	roots atomic.Pointer[x509.CertPool]

	mu      sync.Mutex
	checked time.Time
	loaded  fileState
}

// OpenAuthorities reads a PEM file with the certificates of authorities.
func OpenAuthorities(file string, clock func() time.Time, log *slog.Logger) (*Authorities, error) {
	a := &Authorities{file: file, clock: clock, log: log, checked: clock()}
	return a, a.reload()
}

// Verify reports whether one of the authorities vouches at this moment for the first certificate of a chain, as that of a client (RFC
// 5280, section 6). Whether it was revoked is not asked.
func (a *Authorities) Verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return ErrNoCertificate
	}
	a.refresh()
	between := x509.NewCertPool()
	for _, one := range chain[1:min(len(chain), maxChain+1)] {
		between.AddCert(one)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.roots.Load(), Intermediates: between, CurrentTime: a.clock(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

func (a *Authorities) refresh() {
	if !a.mu.TryLock() { // one looks, the others go on
		return
	}
	defer a.mu.Unlock()
	if now := a.clock(); now.Sub(a.checked) >= certCheckInterval {
		a.checked = now
		if err := a.reload(); err != nil {
			a.log.Warn("authorities of clients not reloaded, the previous ones stay in use", "error", err.Error())
		}
	}
}

// reload reads the file if it differs from what is loaded.
func (a *Authorities) reload() error {
	info, err := os.Stat(a.file)
	if err != nil {
		return fmt.Errorf("tls: %w; check client_certificates.ca_file", err)
	}
	state := fileState{info.ModTime(), info.Size()}
	if a.roots.Load() != nil && state == a.loaded {
		return nil
	}
	text, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("tls: %w; check client_certificates.ca_file", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("tls: no certificate in %s; check client_certificates.ca_file", a.file)
	}
	a.roots.Store(roots)
	a.loaded = state
	return nil
}
