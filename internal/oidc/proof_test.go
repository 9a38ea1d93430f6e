package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// keySet is the JWK Set of a key.
func keySet(t testing.TB, key *ecdsa.PrivateKey) json.RawMessage {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	must(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "kid": "k1", "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
	must(t, err)
	return set
}

// A program that signs proves itself without a secret that anybody could read on the way: once for each request.
func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		key, stranger := newKey(t), newKey(t)
		m := machine
		m.AuthMethod, m.Keys = oidc.AuthPrivateKey, keySet(t, key)
		_, secret := n.add(t, "billing", m)
		if secret != "" {
			t.Error("it has a secret")
		}
		sign := func(method jwt.SigningMethod, with any, change map[string]any) url.Values {
			claims := jwt.MapClaims{"iss": "billing", "sub": "billing", "aud": issuer + "/oauth/token", "jti": rand.Text(), "exp": c.Now().Add(time.Minute).Unix()}
			for name, value := range change {
				if claims[name] = value; value == nil {
					delete(claims, name)
				}
			}
			raw, err := jwt.NewWithClaims(method, claims).SignedString(with)
			must(t, err)
			return params("grant_type", "client_credentials", "client_assertion", raw, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		}
		es := jwt.SigningMethodES256
		n.post(t, "/oauth/token", sign(es, key, nil)).token(t)
		n.post(t, "/oauth/token", sign(es, key, map[string]any{"aud": []string{issuer}})).token(t)
		for name, form := range map[string]url.Values{
			"another key":      sign(es, stranger, nil),
			"another audience": sign(es, key, map[string]any{"aud": "https://other.example"}),
			"another issuer":   sign(es, key, map[string]any{"iss": "other"}),
			"expired":          sign(es, key, map[string]any{"exp": c.Now().Add(-2 * time.Minute).Unix()}),
			"too long":         sign(es, key, map[string]any{"exp": c.Now().Add(time.Hour).Unix()}),
			"for ever":         sign(es, key, map[string]any{"exp": nil}),
			"without an id":    sign(es, key, map[string]any{"jti": nil}),
			"none":             sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
			"HS256":            sign(jwt.SigningMethodHS256, []byte(m.Keys), nil),
			"malformed":        params("grant_type", "client_credentials", "client_assertion", "x", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
			"its id alone":     params("grant_type", "client_credentials", "client_id", "billing"),
			"a secret":         params("grant_type", "client_credentials", "client_id", "billing", "client_secret", "x"),
		} {
			t.Run(name, func(t *testing.T) { n.post(t, "/oauth/token", form).refused(t, 401, "invalid_client") })
		}
		again := sign(es, key, nil)
		var wg sync.WaitGroup
		answers := make([]answer, 12)
		for i := range answers {
			wg.Go(func() { answers[i] = []*node{n, other}[i%2].post(t, "/oauth/token", again) })
		}
		wg.Wait()
		good := 0
		for _, a := range answers {
			if a.status == 200 {
				good++
			}
		}
		if good != 1 {
			t.Errorf("one assertion was good %d times", good)
		}
		for name, keys := range map[string]string{"none": "", "no set": "{}", "a private key": `{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","d":"c"}]}`} {
			bad := m
			if bad.Keys = json.RawMessage(keys); keys == "" {
				bad.Keys = nil
			}
			if _, _, err := n.AddClient(t.Context(), "", bad); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

// proving adds a DPoP proof to a request.
func proving(t testing.TB, p *auth.Prover, access string) func(*http.Request) {
	return func(r *http.Request) {
		proof, err := p.Proof(r.Method, issuer+r.URL.Path, access, "")
		must(t, err)
		r.Header.Set("DPoP", proof)
		if access != "" {
			r.Header.Set("Authorization", "DPoP "+access)
		}
	}
}

// Tokens that are bound to a key are worth nothing to who steals them, at no endpoint.
func TestBoundTokens(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.At(time.Now()) // provers have no other clock
		n := newNode(t, db, c)
		public := shop
		public.AuthMethod = oidc.AuthNone
		n.add(t, "shop", public)
		p := n.person(t, "kim@example.com")
		prover := func() *auth.Prover {
			made, err := auth.NewProver(crypto.Signer(newKey(t)))
			must(t, err)
			return made
		}
		mine, thief := prover(), prover()
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish()), "client_id", "shop"), proving(t, mine, "")).token(t)
		if got.TokenType != "DPoP" {
			t.Errorf("token_type %q", got.TokenType)
		}
		ask := func(with func(*http.Request)) int {
			r := bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)
			with(r)
			return n.send(t, r).status
		}
		if mineStatus, bare, stolen := ask(proving(t, mine, got.AccessToken)), ask(func(*http.Request) {}), ask(proving(t, thief, got.AccessToken)); mineStatus != 200 || bare != 401 || stolen != 401 {
			t.Errorf("userinfo: %d with the key, %d without, %d with another", mineStatus, bare, stolen)
		}
		refresh := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken, "client_id", "shop")
		n.post(t, "/oauth/token", refresh).refused(t, 400, "invalid_dpop_proof")
		n.post(t, "/oauth/token", refresh, proving(t, thief, "")).refused(t, 400, "invalid_dpop_proof")
		n.post(t, "/oauth/token", refresh, func(r *http.Request) { r.Header.Set("DPoP", "x") }).refused(t, 400, "invalid_dpop_proof")
		if next := n.post(t, "/oauth/token", refresh, proving(t, mine, "")).token(t); next.TokenType != "DPoP" {
			t.Errorf("after a refresh: %q", next.TokenType)
		}
	})
}
