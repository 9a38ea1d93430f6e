package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificates are an authority, a server and two clients of it, one of which is over.
type certificates struct {
	caFile, certFile, keyFile string
	roots                     *x509.CertPool
	client, other, expired    tls.Certificate
}

func newCertificates(t testing.TB) *certificates {
	t.Helper()
	serial := int64(0)
	issue := func(template x509.Certificate, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		serial++
		template.SerialNumber, template.BasicConstraintsValid = big.NewInt(serial), true
		if template.NotAfter.IsZero() {
			template.NotAfter = time.Now().Add(time.Hour)
		}
		if parent == nil {
			parent, signer = &template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	name := func(cn string) pkix.Name { return pkix.Name{CommonName: cn, Organization: []string{"Example"}} }
	ca, caKey := issue(x509.Certificate{Subject: name("root"), IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	server, serverKey := issue(x509.Certificate{
		Subject: name("localhost"), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	forClient := func(cn string, until time.Time) tls.Certificate {
		cert, key := issue(x509.Certificate{Subject: name(cn), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	c := &certificates{
		roots: x509.NewCertPool(), client: forClient("ledger", time.Time{}), other: forClient("other", time.Time{}),
		expired: forClient("ledger", time.Now().Add(-time.Minute)),
	}
	c.roots.AddCert(ca)
	secret, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(file, kind string, der []byte) string {
		file = filepath.Join(dir, file)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	c.caFile, c.certFile, c.keyFile = write("ca.pem", "CERTIFICATE", ca.Raw), write("cert.pem", "CERTIFICATE", server.Raw), write("key.pem", "PRIVATE KEY", secret)
	return c
}

// with returns a client of the server that shows a certificate, nil for none.
func (c *certificates) with(t testing.TB, cert *tls.Certificate) *http.Client {
	t.Helper()
	cfg := &tls.Config{RootCAs: c.roots}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 30 * time.Second, Transport: transport}
}

const payRoute = `    - name: pay
      paths: [/pay]
      upstream: shop
      identity_headers: true
      forward: none
      critical: true
      introspect: true
`

// serveTLS starts Sumun with a listener that asks for certificates; the identity module, where it is a process of its own, takes the
// gateway's word for them.
func (st store) serveTLS(t *testing.T, c *certificates, routes string) *server {
	t.Helper()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	issuer := "https://localhost:" + port
	gatewayIs := st.addClient(t, gatewayClient(issuer)...)
	entry := []string{
		"--listen", address, "SUMUN_GATEWAY_FEED_CLIENT_ID=" + gatewayIs.ID, "SUMUN_GATEWAY_FEED_CLIENT_SECRET=" + gatewayIs.Secret,
		"SUMUN_TLS_CERT_FILE=" + c.certFile, "SUMUN_TLS_KEY_FILE=" + c.keyFile, "SUMUN_TLS_CLIENT_CERTIFICATES_REQUEST=true",
	}
	authority := "SUMUN_TLS_CLIENT_CERTIFICATES_CA_FILE=" + c.caFile
	common := slices.Concat(st.args, quick(), []string{"--config", routes, "--issuer", issuer})
	var s *server
	if st.split {
		identity := serve(t, slices.Concat(common, []string{"identity", authority, "SUMUN_HTTP_TRUSTED_PROXIES=127.0.0.1/32",
			"SUMUN_TLS_CLIENT_CERTIFICATES_HEADER=true"})...)
		s = serve(t, slices.Concat(common, entry, []string{"gateway", "SUMUN_GATEWAY_IDENTITY_URL=" + identity.public})...)
	} else {
		s = serve(t, slices.Concat(common, entry, []string{authority})...)
	}
	s.public = issuer
	return s
}

// A service proves itself with its certificate and gets tokens that nobody else can use, at the gateway or here; and a program whose tokens
// are opaque gets on where identity is asked.
func TestCertificatesAndOpaqueTokens(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		c := newCertificates(t)
		service := behind(t)
		s := st.serveTLS(t, c, routesFile(t, "", service.URL, shopRoute+payRoute))
		st.addClient(t, "--name", "Ledger", "--id", "ledger", "--grant", "client_credentials", "--scope", "introspect",
			"--tls-subject-dn", "CN=ledger,O=Example", "--certificate-bound-tokens")
		opaque := st.addClient(t, "--name", "Opaque", "--id", "opaque", "--grant", "client_credentials", "--opaque-tokens")
		form := header("Content-Type", "application/x-www-form-urlencoded")
		credentials := url.Values{"grant_type": {"client_credentials"}, "client_id": {"ledger"}}.Encode()
		for _, wrong := range []*tls.Certificate{nil, &c.other, &c.expired} {
			s.client = c.with(t, wrong)
			if a := s.send(t, "POST /oauth/token", credentials, form); a.status != 401 {
				t.Errorf("who is not it: %d %s", a.status, a.body)
			}
		}
		s.client = c.with(t, &c.client)
		access := s.send(t, "POST /oauth/token", credentials, form).accessToken(t)
		s.send(t, "GET /shop/a", nil, bearer(access)).want(t, 200)
		s.send(t, "GET /pay", nil, bearer(access)).want(t, 200)
		asked := url.Values{"token": {access}, "client_id": {"ledger"}}.Encode()
		signed := s.send(t, "POST /oauth/introspect", asked, form, header("Accept", "application/token-introspection+jwt")).want(t, 200)
		if kind := signed.header.Get("Content-Type"); kind != "application/token-introspection+jwt" || strings.Count(string(signed.body), ".") != 2 {
			t.Errorf("introspection is answered as %s: %s", kind, signed.body)
		}
		s.client = c.with(t, &c.other)
		s.send(t, "GET /shop/a", nil, bearer(access)).wantProblem(t, 401, "auth.certificate")
		s.client = c.with(t, nil)
		stolen := header("Client-Cert", ":"+base64.StdEncoding.EncodeToString(c.client.Certificate[0])+":")
		s.send(t, "GET /shop/a", nil, bearer(access), stolen).wantProblem(t, 401, "auth.certificate_missing")
		if a := s.send(t, "POST /oauth/token", credentials, form, stolen); a.status != 401 {
			t.Errorf("a certificate in a header: %d", a.status)
		}

		hidden := s.clientToken(t, opaque).accessToken(t)
		if !strings.HasPrefix(hidden, "sat_") {
			t.Errorf("token %.10s", hidden)
		}
		if a := s.send(t, "GET /pay", nil, bearer(hidden)).want(t, 200); string(a.body) != `GET /pay for "opaque", token ""` {
			t.Errorf("the service was told %s", a.body)
		}
		s.send(t, "GET /shop/a", nil, bearer(hidden)).wantProblem(t, 401, "auth.malformed")
		s.send(t, "POST /oauth/revoke", url.Values{"token": {hidden}}.Encode(), form, func(r *http.Request) { r.SetBasicAuth(opaque.ID, opaque.Secret) }).want(t, 200)
		s.send(t, "GET /pay", nil, bearer(hidden)).wantProblem(t, 401, "auth.revoked")
		if strings.Contains(s.stderr.String(), access) || strings.Contains(s.stderr.String(), hidden) {
			t.Error("a token is in the log")
		}
	})
}

// Who switches on a grant that should not be used any more is told what is lost by it.
func TestLegacyGrantsWarn(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	r := st.command(t, "", "client", "add", "--name", "Old", "--redirect-uri", "https://old.example/cb", "--legacy-grant", "implicit", "--legacy-grant", "password")
	if r.code != 0 || !strings.Contains(r.stderr, "warning: implicit: ") || !strings.Contains(r.stderr, "warning: password: ") || strings.Contains(r.stdout, "warning") {
		t.Errorf("%+v", r)
	}
}
