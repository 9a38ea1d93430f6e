package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// selfMade returns a certificate that nobody vouches for, which is over already: it proves a key all the same.
func selfMade(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A token that was copied out of a client's memory or logs is worth nothing on a connection without the client's key.
func TestCertificateBoundToken(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	server := httptest.NewUnstartedServer(v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	mine, other, prover := selfMade(t), selfMade(t), newProver(t, auth.ES256)
	thumbprint := auth.CertificateThumbprint(mine.Certificate[0])
	bound := token{claims: map[string]any{"cnf": map[string]any{"x5t#S256": thumbprint}}}.sign(t)
	twice := token{claims: map[string]any{"cnf": map[string]any{"x5t#S256": thumbprint, "jkt": prover.Thumbprint()}}}.sign(t)
	plain := token{}.sign(t)
	for name, one := range map[string]struct {
		authorization string
		shows         *tls.Certificate
		status        int
		code          string
	}{
		"with its certificate":      {"Bearer " + bound, &mine, 204, ""},
		"without one":               {"Bearer " + bound, nil, 401, "auth.certificate_missing"},
		"with another":              {"Bearer " + bound, &other, 401, "auth.certificate"},
		"as DPoP":                   {"DPoP " + bound, &mine, 401, "auth.unbound"},
		"bound to a key as well":    {"Bearer " + twice, &mine, 401, "auth.bound"},
		"its proof is missing":      {"DPoP " + twice, &mine, 401, "auth.dpop_proof"},
		"its certificate is":        {"DPoP " + twice, nil, 401, "auth.certificate_missing"},
		"unbound, without":          {"Bearer " + plain, nil, 204, ""},
		"unbound, with certificate": {"Bearer " + plain, &mine, 204, ""},
	} {
		transport := server.Client().Transport.(*http.Transport).Clone()
		if one.shows != nil {
			transport.TLSClientConfig.Certificates = []tls.Certificate{*one.shows}
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", one.authorization)
		// What a client says of its certificate itself is nobody's word.
		r.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(mine.Certificate[0])+":")
		res, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var problem struct{ Code string }
		_ = json.NewDecoder(res.Body).Decode(&problem) // empty where let through
		_ = res.Body.Close()
		if res.StatusCode != one.status || problem.Code != one.code {
			t.Errorf("%s: %d %q, want %d %q", name, res.StatusCode, problem.Code, one.status, one.code)
		}
		if one.code == "auth.certificate" && !strings.Contains(res.Header.Get("WWW-Authenticate"), `Bearer realm="sumun", error="invalid_token"`) {
			t.Errorf("%s: challenge %q", name, res.Header.Get("WWW-Authenticate"))
		}
		transport.CloseIdleConnections()
	}
	if _, err := v.Verify(t.Context(), bound); !errors.Is(err, auth.ErrNoCertificate) {
		t.Errorf("a bound token alone: %v", err)
	}
	if claims, err := v.VerifyBound(t.Context(), bound); err != nil || claims.Confirmation.X5T != thumbprint {
		t.Errorf("its claims: %+v, %v", claims, err)
	}
}

// Behind a proxy the service says where the certificate is; the connection, which is the proxy's, then does not count.
func TestCertificateFromElsewhere(t *testing.T) {
	t.Parallel()
	mine, proxy := selfMade(t), selfMade(t)
	var said []byte
	v := newVerifier(t, func(c *auth.Config) { c.ClientCertificate = func(*http.Request) []byte { return said } })
	r := request("GET", "/x", "Bearer "+token{claims: map[string]any{
		"cnf": map[string]any{"x5t#S256": auth.CertificateThumbprint(mine.Certificate[0])},
	}}.sign(t))
	leaf, err := x509.ParseCertificate(proxy.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	for _, one := range []struct {
		said []byte
		want error
	}{{nil, auth.ErrNoCertificate}, {proxy.Certificate[0], auth.ErrCertificate}, {[]byte("x"), auth.ErrCertificate}, {mine.Certificate[0], nil}} {
		said = one.said
		if _, err := v.VerifyRequest(r); !errors.Is(err, one.want) {
			t.Errorf("%v, want %v", err, one.want)
		}
	}
}

// vault knows one opaque token.
type vault struct{ claims string }

func (o vault) Open(_ context.Context, raw string) ([]byte, string, error) {
	if raw != "opaque_token" {
		return nil, "", auth.ErrMalformed
	}
	return []byte(o.claims), "vault-1", nil
}

// An opaque token is judged like any other: only how it is read differs.
func TestOpaqueToken(t *testing.T) {
	t.Parallel()
	const good = `{"iss":"` + issuer + `","sub":"alice","aud":"` + audience + `","client_id":"c","iat":1772366400,"exp":1772367000,"jti":"j"}`
	for name, one := range map[string]struct {
		claims string
		want   error
	}{
		"good":            {good, nil},
		"another issuer":  {strings.Replace(good, issuer, "https://other.example", 1), auth.ErrIssuer},
		"another service": {strings.Replace(good, `"aud":"`+audience, `"aud":"other`, 1), auth.ErrAudience},
		"expired":         {strings.Replace(good, "1772367000", "1772366300", 1), auth.ErrExpired},
		"bound":           {strings.Replace(good, `{`, `{"cnf":{"x5t#S256":"a"},`, 1), auth.ErrNoCertificate},
		"nonsense":        {"x", auth.ErrMalformed},
	} {
		v := newVerifier(t, func(c *auth.Config) { c.Opener = vault{one.claims} })
		for range 2 { // the second time from the cache
			c, err := v.Verify(t.Context(), "opaque_token")
			if !errors.Is(err, one.want) || err == nil && c.KeyID != "vault-1" {
				t.Errorf("%s: %+v, %v, want %v", name, c, err, one.want)
			}
		}
	}
	set := auth.NewRevocationSet(func() time.Time { return now })
	v := newVerifier(t, func(c *auth.Config) { c.Opener, c.Revocations = vault{good}, set })
	if _, err := v.Verify(t.Context(), "opaque_token"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), token{}.sign(t)); err != nil {
		t.Errorf("a JWT beside it: %v", err)
	}
	set.Add(auth.Revocation{Kind: auth.RevokeToken, ID: auth.RevocationHash(auth.RevokeToken, "j"), Until: now.Add(time.Hour)})
	if _, err := v.Verify(t.Context(), "opaque_token"); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after it was revoked: %v", err)
	}
	if _, err := newVerifier(t, nil).Verify(t.Context(), "opaque_token"); !errors.Is(err, auth.ErrMalformed) {
		t.Errorf("where only JWTs are known: %v", err)
	}
}
