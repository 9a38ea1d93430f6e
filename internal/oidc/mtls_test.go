package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/oidc"
)

// issued is a certificate with its key.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// certify makes a certificate, by an authority or, without one, by itself.
func certify(t testing.TB, by *issued, change func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "billing", Organization: []string{"Example, Inc"}, Country: []string{"KR"}},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &issued{cert, key}
}

func (i *issued) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{i.Raw}, PrivateKey: i.key}
}

func (i *issued) thumbprint() string { return auth.CertificateThumbprint(i.Raw) }

// shows puts the certificate on the connection of a request.
func (i *issued) shows(r *http.Request) {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{i.Certificate}}
}

// root is the authority that every node of these tests trusts.
var root = sync.OnceValue(func() *issued {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &issued{cert, key}
})

func trusted(t testing.TB, now func() time.Time) *httpd.Authorities {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root().Raw}), 0o600))
	a, err := httpd.OpenAuthorities(file, now, slog.New(slog.DiscardHandler))
	must(t, err)
	return a
}

func byName(names oidc.CertificateNames) oidc.Metadata {
	m := machine
	m.AuthMethod, m.CertificateNames = oidc.AuthTLS, names
	return m
}

// A service proves itself with the certificate that its company gave it, and nobody else can: not with one that another authority made
// out to the same name, nor with one of another name, nor when it is over.
func TestTLSClientAuth(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		const spiffe = "spiffe://example.com/billing"
		mine := certify(t, root(), func(c *x509.Certificate) {
			u, err := url.Parse(spiffe)
			must(t, err)
			c.DNSNames, c.URIs, c.EmailAddresses = []string{"billing.example.com"}, []*url.URL{u}, []string{"billing@example.com"}
			c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 7), net.ParseIP("2001:db8::7")}
		})
		names := map[string]oidc.CertificateNames{
			"dn": {SubjectDN: `CN=billing, O=Example\, Inc,C=KR`}, "dns": {DNS: "BILLING.example.com"}, "uri": {URI: spiffe},
			"ip": {IP: "192.0.2.7"}, "ip6": {IP: "2001:db8:0::7"}, "email": {Email: "billing@example.com"},
		}
		form := func(id string) url.Values { return params("grant_type", "client_credentials", "client_id", id) }
		strange := certify(t, nil, func(c *x509.Certificate) { c.IsCA = true; c.Subject.CommonName = "root" })
		for id, name := range names {
			n.clock.Advance(time.Minute) // as failed proofs are limited
			n.add(t, id, byName(name))
			n.post(t, "/oauth/token", form(id), mine.shows).token(t)
			for what, with := range map[string]func(*http.Request){
				"without one":          func(*http.Request) {},
				"of another name":      certify(t, root(), func(c *x509.Certificate) { c.Subject.CommonName = "Billing" }).shows,
				"of a longer name":     certify(t, root(), func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"x"} }).shows,
				"of another authority": certify(t, strange, func(c *x509.Certificate) { *c = *sameNames(mine, c) }).shows,
				"of nobody":            certify(t, nil, func(c *x509.Certificate) { *c = *sameNames(mine, c) }).shows,
				"which is over":        certify(t, root(), func(c *x509.Certificate) { *c = *sameNames(mine, c); c.NotAfter = n.clock.Now().Add(-time.Hour) }).shows,
				"of a server": certify(t, root(), func(c *x509.Certificate) {
					*c = *sameNames(mine, c)
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				}).shows,
				"and a secret": func(r *http.Request) { mine.shows(r); basic(id, "x")(r) },
				"in a header of its own": func(r *http.Request) {
					r.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(mine.Raw)+":")
				},
			} {
				t.Run(id+" "+what, func(t *testing.T) { n.post(t, "/oauth/token", form(id), with).refused(t, 401, "invalid_client") })
			}
		}
		n.clock.Advance(time.Minute)
		n.post(t, "/oauth/token", credentialsForm, mine.shows).refused(t, 401, "invalid_client") // nobody is named
		_, secret := n.add(t, "secretive", machine)
		n.post(t, "/oauth/token", form("secretive"), mine.shows).refused(t, 401, "invalid_client")
		if got := n.post(t, "/oauth/token", credentialsForm, mine.shows, basic("secretive", secret)).token(t); n.claims(t, got.AccessToken).Confirmation.X5T != "" {
			t.Error("a token is bound to a certificate that happens to be there")
		}
	})
}

// sameNames makes a certificate say what another one says.
func sameNames(of *issued, c *x509.Certificate) *x509.Certificate {
	c.Subject, c.DNSNames, c.URIs, c.IPAddresses, c.EmailAddresses = of.Subject, of.DNSNames, of.URIs, of.IPAddresses, of.EmailAddresses
	return c
}

// A service that makes its certificate itself proves itself with the one that it registered, or with any of the key that it registered.
func TestSelfSignedClientAuth(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		mine, other := certify(t, nil, nil), certify(t, nil, nil)
		m := machine
		m.AuthMethod, m.Keys = oidc.AuthSelfSigned, keySet(t, mine.key)
		n.add(t, "by-key", m)
		m.Keys = json.RawMessage(strings.Replace(string(m.Keys), `"kid"`, `"x5c":["`+base64.StdEncoding.EncodeToString(mine.Raw)+`"],"kid"`, 1))
		n.add(t, "by-certificate", m)
		again := &issued{key: mine.key}
		der, err := x509.CreateCertificate(rand.Reader, mine.Certificate, mine.Certificate, mine.key.Public(), mine.key)
		must(t, err)
		again.Certificate, err = x509.ParseCertificate(der)
		must(t, err)
		form := func(id string) url.Values { return params("grant_type", "client_credentials", "client_id", id) }
		for _, id := range []string{"by-key", "by-certificate"} {
			n.post(t, "/oauth/token", form(id), mine.shows).token(t)
			n.post(t, "/oauth/token", form(id), other.shows).refused(t, 401, "invalid_client")
			n.post(t, "/oauth/token", form(id)).refused(t, 401, "invalid_client")
		}
		n.post(t, "/oauth/token", form("by-key"), again.shows).token(t)
		n.post(t, "/oauth/token", form("by-certificate"), again.shows).refused(t, 401, "invalid_client")
		n.clock.Set(mine.NotAfter.Add(time.Hour))
		n.post(t, "/oauth/token", form("by-key"), mine.shows).refused(t, 401, "invalid_client")
	})
}

func TestRefusedCertificateClients(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		for name, m := range map[string]oidc.Metadata{
			"no name":           byName(oidc.CertificateNames{}),
			"two names":         byName(oidc.CertificateNames{DNS: "a.example", IP: "192.0.2.1"}),
			"no dn":             byName(oidc.CertificateNames{SubjectDN: "billing"}),
			"an open escape":    byName(oidc.CertificateNames{SubjectDN: `CN=a\`}),
			"no address":        byName(oidc.CertificateNames{IP: "billing"}),
			"no URI":            byName(oidc.CertificateNames{URI: "billing"}),
			"no mail address":   byName(oidc.CertificateNames{Email: "billing"}),
			"a name without it": {Name: "x", GrantTypes: machine.GrantTypes, CertificateNames: oidc.CertificateNames{DNS: "a.example"}},
			"no keys":           {Name: "x", GrantTypes: machine.GrantTypes, AuthMethod: oidc.AuthSelfSigned},
		} {
			if _, _, err := n.AddClient(t.Context(), "", m); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

// Tokens that are bound to a certificate are worth nothing to who has copied them: not at our endpoints, nor for new ones. This is on real
// connections.
func TestCertificateBoundTokens(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		server := httptest.NewUnstartedServer(n.handler)
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		defer server.Close()
		mine, thief := certify(t, nil, nil), certify(t, nil, nil)
		public := shop
		public.AuthMethod, public.BindTokens = oidc.AuthNone, true
		n.add(t, "shop", public)
		_, secret := n.add(t, "api", oidc.Metadata{GrantTypes: machine.GrantTypes, Resources: []string{issuer}})
		p := n.person(t, "kim@example.com")
		over := func(cert *issued, r *http.Request) answer {
			t.Helper()
			transport := server.Client().Transport.(*http.Transport).Clone()
			if cert != nil {
				transport.TLSClientConfig.Certificates = []tls.Certificate{cert.tls()}
			}
			defer transport.CloseIdleConnections()
			u, err := url.Parse(server.URL + r.URL.RequestURI())
			must(t, err)
			r.URL, r.RequestURI, r.Host = u, "", ""
			res, err := (&http.Client{Transport: transport}).Do(r)
			must(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			must(t, err)
			return answer{res.StatusCode, res.Header, string(body)}
		}
		post := func(cert *issued, path string, form url.Values, change ...func(*http.Request)) answer {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
			must(t, err)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, c := range change {
				c(r)
			}
			return over(cert, r)
		}
		code := exchange(p.code(t, wish()), "client_id", "shop")
		post(nil, "/oauth/token", code).refused(t, 400, "invalid_request")
		got := post(mine, "/oauth/token", code).token(t)
		if got.TokenType != "Bearer" {
			t.Errorf("token_type %q", got.TokenType)
		}
		ask := func(cert *issued) int {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/oauth/userinfo", nil)
			must(t, err)
			r.Header.Set("Authorization", "Bearer "+got.AccessToken)
			return over(cert, r).status
		}
		if a, b, c := ask(mine), ask(thief), ask(nil); a != 200 || b != 401 || c != 401 {
			t.Errorf("userinfo: %d with the certificate, %d with another, %d without", a, b, c)
		}
		var said struct {
			Active bool              `json:"active"`
			CNF    map[string]string `json:"cnf"`
		}
		must(t, json.Unmarshal([]byte(post(nil, "/oauth/introspect", params("token", got.AccessToken), basic("api", secret)).body), &said))
		if !said.Active || said.CNF["x5t#S256"] != mine.thumbprint() || len(said.CNF) != 1 {
			t.Errorf("introspection %+v", said)
		}
		refresh := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken, "client_id", "shop")
		post(nil, "/oauth/token", refresh).refused(t, 400, "invalid_request")
		post(thief, "/oauth/token", refresh).refused(t, 400, "invalid_grant")
		next := post(mine, "/oauth/token", refresh).token(t)
		claims, err := n.verifier.VerifyBound(t.Context(), next.AccessToken)
		must(t, err)
		if claims.Confirmation != (auth.Confirmation{X5T: mine.thumbprint()}) {
			t.Errorf("after a refresh: %+v", claims.Confirmation)
		}
		if a := post(thief, "/oauth/revoke", params("token", next.AccessToken, "client_id", "shop")); a.status != 200 {
			t.Errorf("revocation: %d", a.status)
		}
		if _, err := n.verifier.VerifyBound(t.Context(), next.AccessToken); err == nil {
			t.Error("a revoked token is good")
		}
	})
}

// Who proves itself with a secret may have a new certificate: its refresh tokens are bound to it by the secret.
func TestCertificateOfAConfidentialClient(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		m := shop
		m.BindTokens = true
		_, secret := n.add(t, "shop", m)
		p := n.person(t, "kim@example.com")
		old, renewed := certify(t, nil, nil), certify(t, nil, nil)
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret), old.shows).token(t)
		form := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken)
		next := n.post(t, "/oauth/token", form, basic("shop", secret), renewed.shows).token(t)
		claims, err := n.verifier.VerifyBound(t.Context(), next.AccessToken)
		must(t, err)
		if claims.Confirmation.X5T != renewed.thumbprint() {
			t.Errorf("bound to %+v", claims.Confirmation)
		}
		n.post(t, "/oauth/token", form, basic("shop", secret), renewed.shows, func(r *http.Request) { r.Header.Set("DPoP", "x") }).
			refused(t, 400, "invalid_dpop_proof")
	})
}

func TestCertificateDiscovery(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		aliased := newNode(t, n.db, n.clock, func(c *oidc.Config) { c.MTLSURL = "https://mtls.id.example.com" })
		var said struct {
			Methods []string          `json:"token_endpoint_auth_methods_supported"`
			Bound   bool              `json:"tls_client_certificate_bound_access_tokens"`
			Aliases map[string]string `json:"mtls_endpoint_aliases"`
			Signed  []string          `json:"introspection_signing_alg_values_supported"`
		}
		a := aliased.send(t, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil))
		must(t, json.Unmarshal([]byte(a.body), &said))
		if !said.Bound || said.Aliases["token_endpoint"] != "https://mtls.id.example.com/oauth/token" || len(said.Aliases) != 6 ||
			!strings.Contains(strings.Join(said.Methods, " "), "tls_client_auth self_signed_tls_client_auth") || len(said.Signed) != 1 {
			t.Errorf("%+v", said)
		}
	})
}

// FuzzDN reads names as operators write them, and as certificates have them.
func FuzzDN(f *testing.F) {
	f.Add(`CN=billing,O=Example\, Inc,C=KR`)
	f.Add(`UID=1 + CN=a\20 , 2.5.4.3=#0c0161`)
	f.Add(`CN=\`)
	f.Fuzz(func(t *testing.T, text string) {
		raw, can := oidc.SubjectOf(text)
		if can && !oidc.IsSubject(text, raw) {
			t.Errorf("%q is not its own subject", text)
		}
		if oidc.IsSubject(text, root().RawSubject) && !strings.HasSuffix(strings.TrimRight(text, " "), "root") && !strings.ContainsAny(text, "#\\") {
			t.Errorf("%q is taken for CN=root", text)
		}
	})
}
