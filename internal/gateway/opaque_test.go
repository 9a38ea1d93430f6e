package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/oauth"
	"github.com/sumunio/sumun/internal/httpd"
)

// unsigned knows no signing keys.
type unsigned struct{}

func (unsigned) Key(context.Context, string) (auth.Key, error) { return auth.Key{}, auth.ErrUnknownKey }

// Opaque tokens are for routes on which identity is asked about each: there they do what others do, and end at once when identity says so;
// elsewhere nobody could tell what they are.
func TestOpaqueTokens(t *testing.T) {
	t.Parallel()
	const issuer = "https://id.example"
	asked := 0
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		now, audience, scope := time.Now().Unix(), issuer, "read"
		switch r.PostFormValue("token") {
		case "sat_foreign":
			audience = "https://other.example"
		case "sat_weak":
			scope = "nothing"
		case "sat_kim":
		default:
			fmt.Fprint(w, `{"active":false}`)
			return
		}
		fmt.Fprintf(w, `{"active":true,"token_type":"Bearer","iss":%q,"aud":[%q],"sub":"kim","client_id":"shop","scope":%q,"sid":"s1","jti":"j","iat":%d,"exp":%d}`,
			issuer, audience, scope, now, now+60)
	}))
	defer identity.Close()
	pay := required("pay", "/pay")
	pay.Critical, pay.Introspect, pay.Scopes, pay.IdentityHeaders = true, true, []string{"read"}, true
	w := setup(t, routes(pay, required("ordinary", "/")), func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		d.OAuth = oauth.New(oauth.Config{HTTP: identity.Client(), URL: identity.URL, ID: "gateway", Secret: "secret", Clock: time.Now})
		var err error
		d.Opaque, err = auth.New(auth.Config{Issuer: issuer, Opener: d.OAuth, Keys: unsigned{}, Cache: auth.NoCache{}})
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, tc := range []struct {
		token  string
		status int
		code   string
	}{{"sat_kim", 200, ""}, {"sat_kim", 200, ""}, {"sat_gone", 401, "auth.revoked"}, {"sat_foreign", 401, "auth.audience"}, {"sat_weak", 403, "auth.scope"}} {
		before := asked
		a := w.send(t, "GET /pay", as(tc.token))
		if a.status != tc.status || a.code() != tc.code || asked != before+1 {
			t.Errorf("%s: %d %s, identity was asked %d times", tc.token, a.status, a.body, asked-before)
		}
		if tc.status == 200 && w.last(t).Header.Get("X-Sumun-Subject") != "kim" {
			t.Errorf("the service was told %v", w.last(t).Header)
		}
	}
	if a := w.send(t, "GET /", as("sat_kim")); a.status != 401 {
		t.Errorf("an ordinary route: %d", a.status)
	}
	identity.Close()
	if a := w.send(t, "GET /pay", as("sat_kim")); a.status != 503 {
		t.Errorf("while identity is away: %d %s", a.status, a.body)
	}
}

// A critical route may let in programs with keys beside people with tokens, opaque ones included: identity is asked about each, and its
// word ends the one like the other.
func TestOpaqueTokensBesideKeys(t *testing.T) {
	t.Parallel()
	const issuer, given = "https://id.example", "a.b.c"
	var gone atomic.Bool
	var asked []string // requests come one after the other
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.PostFormValue("token")
		asked = append(asked, token)
		if token != "sat_kim" && token != given || gone.Load() {
			fmt.Fprint(w, `{"active":false}`)
			return
		}
		now := time.Now().Unix()
		fmt.Fprintf(w, `{"active":true,"iss":%q,"aud":[%q],"sub":"kim","client_id":"shop","scope":"read","jti":"j","iat":%d,"exp":%d}`, issuer, issuer, now, now+60)
	}))
	defer identity.Close()
	k := &register{key: apikey.New(), tokens: []string{given}}
	pay := keyed("pay", "/pay")
	pay.Critical, pay.Introspect, pay.Scopes, pay.IdentityHeaders = true, true, []string{"read"}, true
	w := setup(t, withKeys(k), routes(pay), func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		d.Verifier = tokens{given: callers["robot"]}
		d.OAuth = oauth.New(oauth.Config{HTTP: identity.Client(), URL: identity.URL, ID: "gateway", Secret: "secret", Clock: time.Now})
		var err error
		if d.Opaque, err = auth.New(auth.Config{Issuer: issuer, Opener: d.OAuth, Keys: unsigned{}, Cache: auth.NoCache{}}); err != nil {
			t.Fatal(err)
		}
	})
	if err := w.config.Validate(); err != nil {
		t.Errorf("such a route cannot be configured: %v", err)
	}
	shown := map[string]string{as("sat_kim"): "sat_kim", "X-API-Key: " + k.key.Reveal(): given, as(k.key.Reveal()): given, as(given): given}
	for line, about := range shown {
		asked = nil
		if a := w.send(t, "GET /pay", line); a.status != 200 {
			t.Errorf("%.20s: %d %s", line, a.status, a.body)
		}
		if !slices.Equal(asked, []string{about}) {
			t.Errorf("%.20s: identity was asked about %v", line, asked)
		}
	}
	gone.Store(true)
	for line := range shown {
		if a := w.send(t, "GET /pay", line); a.status != 401 || a.code() != "auth.revoked" {
			t.Errorf("%.20s, which is worth nothing any more: %d %s", line, a.status, a.body)
		}
	}
}

// A service that verifies the token itself gets to know the certificate that it is bound to, from the gateway alone.
func TestClientCertificateIsPassedOn(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	own, sends := required("own", "/own"), required("sends", "/sends")
	own.Forward, sends.Forward = gateway.ForwardNone, gateway.ForwardToken
	shown := ":" + base64.StdEncoding.EncodeToString(der) + ":"
	for _, believed := range []bool{false, true} {
		w := setup(t, routes(own, sends), trusting, func(_ *gateway.Config, _ *gateway.Deps, h *httpd.Config) {
			h.TLS.ClientCertificates.Header = believed
		})
		for path, want := range map[string]string{"/own": "", "/sends": shown} {
			if !believed {
				want = ""
			}
			a := w.send(t, "GET "+path, as("kim"), "Client-Cert: "+shown, "Client-Cert-Chain: "+shown)
			if got := w.last(t).Header; a.status != 200 || got.Get("Client-Cert") != want || got.Get("Client-Cert-Chain") != want {
				t.Errorf("believed %v, %s: %d, the service was told %v", believed, path, a.status, got)
			}
		}
	}
}

// A proxy that does not say that it vouches for certificates would pass on what its client made up.
func TestQuestionsAboutMadeUpCertificates(t *testing.T) {
	t.Parallel()
	h := questions(t, proxied("orders", "/"))
	if a := ask(t, h, "/nginx", original("GET", "/", as("kim"))...); a.StatusCode != 200 {
		t.Fatalf("without one: %d", a.StatusCode)
	}
	if a := ask(t, h, "/nginx", original("GET", "/", as("kim"), "Client-Cert: :AAAA:")...); a.StatusCode != 403 {
		t.Errorf("with one: %d", a.StatusCode)
	}
}
