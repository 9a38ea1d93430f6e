package httpd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

// writeCert writes a self-signed certificate for 127.0.0.1 with the given name into dir and returns the two files.
func writeCert(t *testing.T, dir, name string, modified time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestTLSFromFiles(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCert(t, t.TempDir(), "one", time.Now())
	x := setup()
	x.mux.HandleFunc("GET /v1/things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	s, _, log := start(t, x, func(c *httpd.Config) { c.TLS = httpd.TLS{CertFile: certFile, KeyFile: keyFile} })

	pemBytes, _ := os.ReadFile(certFile)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemBytes)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + s.Addr() + "/v1/things")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "HTTP/2.0" {
		t.Errorf("spoke %s", body)
	}
	if resp.Header.Get("Strict-Transport-Security") == "" {
		t.Error("no Strict-Transport-Security over TLS")
	}

	old := &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", s.Addr(), old); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 accepted")
	}
	if log.String() != "" {
		t.Errorf("failed handshakes fill the log: %s", log)
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := writeCert(t, dir, "one", time.Now())
	_, otherKey := writeCert(t, t.TempDir(), "two", time.Now())
	for name, files := range map[string]httpd.TLS{
		"missing":   {CertFile: filepath.Join(dir, "none.pem"), KeyFile: keyFile},
		"swapped":   {CertFile: keyFile, KeyFile: certFile},
		"unrelated": {CertFile: certFile, KeyFile: otherKey},
	} {
		cfg := httpd.DefaultConfig()
		cfg.Listen, cfg.TLS = "127.0.0.1:0", files
		s, err := httpd.NewServer(cfg, setup(), (&logBook{}).logger())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "tls: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A renewed certificate is used without a restart, a half-written one never.
func TestCertificatesAreReloaded(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), &logBook{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	certFile, keyFile := writeCert(t, dir, "one", now)
	certs, err := httpd.NewCertificates(certFile, keyFile, func() time.Time { return now }, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		cert, err := httpd.Get(certs, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.Subject.CommonName
	}

	writeCert(t, dir, "two", now.Add(time.Second))
	now = now.Add(59 * time.Second)
	if got := name(); got != "one" {
		t.Errorf("files are looked at more than once a minute: %s", got)
	}
	now = now.Add(time.Second)
	if got := name(); got != "two" {
		t.Errorf("a renewed certificate is not used: %s", got)
	}

	key, _ := os.ReadFile(keyFile)
	writeCert(t, dir, "three", now)
	newKey, _ := os.ReadFile(keyFile)
	if err := os.WriteFile(keyFile, key, 0o600); err != nil { // the key has not been replaced yet
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if got := name(); got != "two" || !strings.Contains(log.String(), "certificate not reloaded") {
		t.Errorf("half a renewal: %s, log %s", got, log)
	}
	if err := os.WriteFile(keyFile, newKey, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if got := name(); got != "three" {
		t.Errorf("the completed renewal is not used: %s", got)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if got := name(); got != "three" {
		t.Errorf("without files: %s", got)
	}
}

// Certificates are asked for in the name of the listed hosts only; strangers cannot spend our quota.
func TestACME(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "closed today", http.StatusForbidden)
	}))
	defer authority.Close()
	s, _, _ := start(t, setup(), func(c *httpd.Config) {
		c.TLS.ACME = httpd.ACME{
			Hosts: []string{"id.example"}, CacheDir: t.TempDir(), Email: "ops@example.com",
			HTTPListen: "127.0.0.1:0", DirectoryURL: authority.URL,
		}
	})
	for _, tc := range []struct {
		host string
		asks bool
	}{{"evil.example", false}, {"", false}, {"id.example", true}} {
		before := asked.Load()
		c, err := tls.Dial("tcp", s.Addr(), &tls.Config{ServerName: tc.host, InsecureSkipVerify: true})
		if err == nil {
			_ = c.Close()
			t.Errorf("%s: a certificate out of nowhere", tc.host)
		}
		if got := asked.Load() > before; got != tc.asks {
			t.Errorf("%q: authority asked: %v", tc.host, got)
		}
	}

	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]int{"/.well-known/acme-challenge/unknown": 404, "/account": 302} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+httpd.ChallengeAddr(s)+path, nil)
		r.Host = "id.example"
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || want == 302 && resp.Header.Get("Location") != "https://id.example/account" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
}
