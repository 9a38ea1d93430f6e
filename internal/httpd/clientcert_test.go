package httpd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

// issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate: of an authority where ca says so, signed by another one or, without, by itself.
func issue(t testing.TB, name string, ca bool, by *issued, change func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

func (i *issued) forTLS(between ...*issued) tls.Certificate {
	chain := [][]byte{i.cert.Raw}
	for _, one := range between {
		chain = append(chain, one.cert.Raw)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: i.key}
}

func (i *issued) header() string { return ":" + base64.StdEncoding.EncodeToString(i.cert.Raw) + ":" }

func writePEM(t testing.TB, file string, of *issued) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// whoShows answers with the common name of the certificate that a client showed.
func whoShows(w http.ResponseWriter, r *http.Request) {
	chain, err := httpd.ClientChain(r.Context())
	if err != nil {
		_, _ = io.WriteString(w, "nobody")
		return
	}
	if !bytes.Equal(httpd.ClientCertificate(r), chain[0].Raw) {
		_, _ = io.WriteString(w, "somebody else")
		return
	}
	_, _ = io.WriteString(w, chain[0].Subject.CommonName)
}

// Only who connects to a name for which that is wanted is asked, so that people's browsers leave them alone.
func TestCertificatesOnTheConnection(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCert(t, t.TempDir(), "server", time.Now())
	client := issue(t, "billing", false, nil, nil)
	for _, one := range []struct {
		of         httpd.ClientCertificates
		name, want string
	}{
		{httpd.ClientCertificates{}, "", "nobody"},
		{httpd.ClientCertificates{Request: true}, "", "billing"},
		{httpd.ClientCertificates{Request: true, Hosts: []string{"mtls.example.com"}}, "id.example.com", "nobody"},
		{httpd.ClientCertificates{Request: true, Hosts: []string{"mtls.example.com"}}, "MTLS.example.com", "billing"},
	} {
		x := setup()
		x.mux.HandleFunc("GET /v1/who", whoShows)
		s, _, _ := start(t, x, func(c *httpd.Config) {
			c.TLS = httpd.TLS{CertFile: certFile, KeyFile: keyFile, ClientCertificates: one.of}
		})
		for _, http2 := range []bool{false, true} {
			transport := &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{
				InsecureSkipVerify: true, ServerName: one.name, Certificates: []tls.Certificate{client.forTLS()},
			}}
			for range 2 { // the second time in the same connection
				res, err := (&http.Client{Transport: transport}).Get("https://" + s.Addr() + "/v1/who")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if string(body) != one.want || (res.ProtoMajor == 2) != http2 {
					t.Errorf("%+v, %q: %s %s, want %s", one.of, one.name, res.Proto, body, one.want)
				}
			}
			transport.CloseIdleConnections()
		}
	}
}

// Who is no trusted proxy can write whatever it likes: it is nobody.
func TestCertificatesInHeaders(t *testing.T) {
	t.Parallel()
	client, other := issue(t, "billing", false, nil, nil), issue(t, "other", false, nil, nil)
	for name, one := range map[string]struct {
		believed bool
		from     string
		header   []string
		chain    []string
		shows    *issued // on the connection
		want     string
	}{
		"from a proxy":              {true, "10.0.0.1:1", []string{client.header()}, nil, nil, "billing"},
		"with a chain":              {true, "10.0.0.1:1", []string{client.header()}, []string{other.header() + " , " + other.header(), other.header()}, nil, "billing"},
		"from a stranger":           {true, "192.0.2.1:1", []string{client.header()}, nil, nil, "nobody"},
		"from a proxy that may not": {false, "10.0.0.1:1", []string{client.header()}, nil, nil, "nobody"},
		"the stranger's own":        {true, "192.0.2.1:1", []string{client.header()}, nil, other, "other"},
		"the proxy's own":           {true, "10.0.0.1:1", nil, nil, other, "nobody"},
		"the proxy's and another":   {true, "10.0.0.1:1", []string{client.header()}, nil, other, "billing"},
		"twice":                     {true, "10.0.0.1:1", []string{client.header(), other.header()}, nil, nil, "nobody"},
		"a list":                    {true, "10.0.0.1:1", []string{client.header() + "," + other.header()}, nil, nil, "nobody"},
		"empty":                     {true, "10.0.0.1:1", []string{""}, nil, nil, "nobody"},
		"no byte sequence":          {true, "10.0.0.1:1", []string{strings.Trim(client.header(), ":")}, nil, nil, "nobody"},
		"not base64":                {true, "10.0.0.1:1", []string{":!!!!:"}, nil, nil, "nobody"},
		"no certificate":            {true, "10.0.0.1:1", []string{":AAAA:"}, nil, nil, "nobody"},
		"a broken chain":            {true, "10.0.0.1:1", []string{client.header()}, []string{"x"}, nil, "nobody"},
		"too long a chain":          {true, "10.0.0.1:1", []string{client.header()}, []string{strings.Repeat(other.header()+",", 9) + other.header()}, nil, "nobody"},
	} {
		x := setup(func(c *httpd.Config) { c.TLS.ClientCertificates.Header = one.believed })
		x.mux.HandleFunc("GET /v1/who", whoShows)
		r := httptest.NewRequest(http.MethodGet, "/v1/who", nil)
		r.RemoteAddr, r.Header["Client-Cert"], r.Header["Client-Cert-Chain"] = one.from, one.header, one.chain
		if one.shows != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{one.shows.cert}}
		}
		if w := x.do(r); w.Body.String() != one.want {
			t.Errorf("%s: %s, want %s", name, w.Body, one.want)
		}
	}
	if httpd.ClientCertificate(httptest.NewRequest(http.MethodGet, "/", nil)) != nil {
		t.Error("a certificate outside of the edge")
	}
}

// A server behind learns what the edge knows, and nothing that the client has made up.
func TestCertificatesPassedOn(t *testing.T) {
	t.Parallel()
	root := issue(t, "root", true, nil, nil)
	client := issue(t, "billing", false, root, nil)
	for shown, want := range map[*issued]string{nil: "", client: client.header()} {
		x := setup()
		var got http.Header
		x.mux.HandleFunc("GET /v1/who", func(_ http.ResponseWriter, r *http.Request) {
			got = r.Header.Clone()
			httpd.SetClientCertificate(r.Context(), got)
		})
		r := httptest.NewRequest(http.MethodGet, "/v1/who", nil)
		r.Header["Client-Cert"], r.Header["Client-Cert-Chain"] = []string{root.header()}, []string{root.header()}
		chain := ""
		if shown != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown.cert, root.cert}}
			chain = root.header()
		}
		x.do(r)
		if got.Get("Client-Cert") != want || got.Get("Client-Cert-Chain") != chain {
			t.Errorf("%v", got)
		}
	}
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	root, strange := issue(t, "root", true, nil, nil), issue(t, "root", true, nil, nil)
	between := issue(t, "between", true, root, nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, file, root)
	now := time.Now()
	a, err := httpd.OpenAuthorities(file, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	good := issue(t, "good", false, root, nil)
	below := issue(t, "below", false, between, nil)
	for name, one := range map[string]struct {
		chain []*x509.Certificate
		good  bool
	}{
		"good":                       {[]*x509.Certificate{good.cert}, true},
		"by one between":             {[]*x509.Certificate{below.cert, between.cert}, true},
		"which is missing":           {[]*x509.Certificate{below.cert}, false},
		"none":                       {nil, false},
		"of another authority":       {[]*x509.Certificate{issue(t, "x", false, strange, nil).cert}, false},
		"which it brings along":      {[]*x509.Certificate{issue(t, "x", false, strange, nil).cert, strange.cert}, false},
		"self-signed":                {[]*x509.Certificate{issue(t, "x", false, nil, nil).cert}, false},
		"by one who is no authority": {[]*x509.Certificate{issue(t, "x", false, good, nil).cert, good.cert}, false},
		"over":                       {[]*x509.Certificate{issue(t, "x", false, root, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }).cert}, false},
		"to come":                    {[]*x509.Certificate{issue(t, "x", false, root, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }).cert}, false},
		"a server's": {[]*x509.Certificate{issue(t, "x", false, root, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}).cert}, false},
	} {
		if err := a.Verify(one.chain); (err == nil) != one.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	replaced := issue(t, "x", false, strange, nil)
	if err := os.WriteFile(file, []byte("half of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	if a.Verify([]*x509.Certificate{good.cert}) != nil || a.Verify([]*x509.Certificate{replaced.cert}) == nil {
		t.Error("while the file cannot be read")
	}
	writePEM(t, file, strange)
	now = now.Add(2 * time.Minute)
	if a.Verify([]*x509.Certificate{good.cert}) == nil || a.Verify([]*x509.Certificate{replaced.cert}) != nil {
		t.Error("after the file was replaced")
	}
	if _, err := httpd.OpenAuthorities(filepath.Join(t.TempDir(), "none"), time.Now, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that is not there is no error")
	}
}

func TestClientCertificatesConfig(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*httpd.Config){
		"tls.client_certificates.request: true": func(c *httpd.Config) { c.TLS.ClientCertificates.Request = true },
		"tls.client_certificates.hosts":         func(c *httpd.Config) { c.TLS.ClientCertificates.Hosts = []string{"a.example"} },
		"tls.client_certificates.header: true":  func(c *httpd.Config) { c.TLS.ClientCertificates.Header = true },
	} {
		cfg := httpd.DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// FuzzClientCert feeds the headers with what a broken or hostile proxy could send.
func FuzzClientCert(f *testing.F) {
	client := issue(f, "billing", false, nil, nil)
	f.Add(client.header(), client.header()+", "+client.header())
	f.Add("::", ":")
	f.Add(":AAAA:;a=1", ":AAAA:,,:AAAA:")
	f.Add(":AA\r\nAA:", "")
	f.Fuzz(func(t *testing.T, cert, chain string) {
		der, rest, err := httpd.ParseClientCert([]string{cert}, []string{chain})
		if err != nil {
			return
		}
		if again := ":" + base64.StdEncoding.EncodeToString(der) + ":"; again != cert {
			t.Errorf("%q has a second spelling, %q", cert, again)
		}
		if len(rest) > 8 {
			t.Errorf("%d certificates", len(rest))
		}
	})
}
