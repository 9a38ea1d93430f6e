package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
)

// published is the key set that a client publishes.
type published struct {
	*httptest.Server
	mu    sync.Mutex
	body  string
	asked atomic.Int64
}

func publish(t testing.TB) *published {
	t.Helper()
	s := &published{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.body == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(s.body))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *published) set(body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body = body
}

// named is the JWK Set of keys under ids of their own, among some that are not for signatures.
func named(t testing.TB, keys map[string]*ecdsa.PrivateKey) string {
	t.Helper()
	all := []any{map[string]string{"kty": "oct", "kid": "other"}, map[string]string{"kty": "RSA", "use": "enc", "kid": "enc"}, 7}
	for id, key := range keys {
		var set struct {
			Keys []map[string]string `json:"keys"`
		}
		must(t, json.Unmarshal(keySet(t, key), &set))
		set.Keys[0]["kid"] = id
		all = append(all, set.Keys[0])
	}
	text, err := json.Marshal(map[string]any{"keys": all})
	must(t, err)
	return string(text)
}

// asserted is a request for tokens with an assertion under a key.
func asserted(t testing.TB, n *node, client, kid string, key *ecdsa.PrivateKey) url.Values {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": client, "sub": client, "aud": issuer, "jti": rand.Text(), "exp": n.clock.Now().Add(time.Minute).Unix(),
	})
	if kid != "" {
		token.Header["kid"] = kid
	}
	raw, err := token.SignedString(key)
	must(t, err)
	return params("grant_type", "client_credentials", "client_assertion", raw, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
}

// A program that publishes its keys replaces them without telling anybody, and stands while its address is down; who makes keys up has us
// ask it no more than twice a minute.
func TestPublishedKeys(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		first, second := newKey(t), newKey(t)
		s := publish(t)
		m := machine
		m.AuthMethod, m.JWKSURI = oidc.AuthPrivateKey, s.URL
		n.add(t, "billing", m)
		ask := func(kid string, key *ecdsa.PrivateKey) answer {
			return n.post(t, "/oauth/token", asserted(t, n, "billing", kid, key))
		}
		a := ask("1", first)
		if a.refused(t, 503, "temporarily_unavailable"); a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After while nobody knows its keys")
		}
		n.clock.Advance(time.Minute)
		s.set(named(t, map[string]*ecdsa.PrivateKey{"1": first}))
		for range 5 {
			ask("1", first).token(t)
			ask("", first).token(t)
		}
		if s.asked.Load() != 2 {
			t.Errorf("asked %d times", s.asked.Load())
		}
		n.clock.Advance(time.Minute)
		s.set(named(t, map[string]*ecdsa.PrivateKey{"2": second}))
		ask("1", first).token(t) // nobody has said that it is over
		ask("2", second).token(t)
		ask("1", first).refused(t, 401, "invalid_client")
		asked := s.asked.Load()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if a := n.post(t, "/oauth/token", asserted(t, n, "billing", rand.Text(), first)); a.status != 401 && a.status != 429 {
					t.Errorf("a key that was made up: %d", a.status)
				}
			})
		}
		wg.Wait()
		if got := s.asked.Load() - asked; got > 1 {
			t.Errorf("asked %d times for keys that were made up", got)
		}
		s.set("")
		n.clock.Advance(20 * time.Hour)
		ask("2", second).token(t)
		n.clock.Advance(5 * time.Hour)
		ask("2", second).refused(t, 503, "temporarily_unavailable")
		for _, body := range []string{`{"keys":[]}`, `[]`, `<html>`, `{"keys":[{"kty":"EC"}]}`, string(make([]byte, 70<<10))} {
			s.set(body)
			n.clock.Advance(time.Minute)
			ask("2", second).refused(t, 503, "temporarily_unavailable")
		}
	})
}

// Nobody makes Sumun ask what only its own network may: for keys, for a sector, for news of a sign-out.
func TestNothingInsideIsAsked(t *testing.T) {
	onEachWith(t, func(c *oidc.Config) { c.Registration = true }, func(t *testing.T, n *node) {
		key := newKey(t)
		s := publish(t)
		s.set(string(keySet(t, key)))
		token := n.initial(t, oidc.NewInitialToken{Uses: 9, Grants: []string{"authorization_code", "client_credentials"}})
		n.register(t, "POST", "/oauth/register", token, `{"subject_type":"pairwise","sector_identifier_uri":"`+s.URL+`","redirect_uris":["https://a.example/cb"]}`).refused(t, 400, "invalid_client_metadata")
		robot := n.register(t, "POST", "/oauth/register", token, `{"grant_types":["client_credentials"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"`+s.URL+`"}`).said(t, 201)
		n.post(t, "/oauth/token", asserted(t, n, robot.ID, "k1", key)).refused(t, 503, "temporarily_unavailable")

		web := n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"],"backchannel_logout_uri":"`+s.URL+`"}`).said(t, 201)
		p := n.person(t, "kim@example.com")
		n.post(t, "/oauth/token", exchange(p.code(t, wish("client_id", web.ID))), basic(web.ID, web.Secret)).token(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { n.sessions.Follow(ctx, func(ctx context.Context, r []auth.Revocation) { n.Hear(ctx, r...) }) })
		defer wg.Wait()
		defer cancel()
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		must(t, n.sessions.Apply(t.Context()))
		tried := func() (attempts int64) {
			must(t, n.db.Reader().QueryRowContext(t.Context(), `SELECT MAX(attempts) FROM oauth_grants`).Scan(&attempts))
			return attempts
		}
		for end := time.Now().Add(20 * time.Second); tried() == 0; {
			if time.Now().After(end) {
				t.Fatal("nobody tried to tell it")
			}
			must(t, n.Notify(t.Context()))
		}
		if s.asked.Load() > 0 {
			t.Errorf("an address inside was asked %d times", s.asked.Load())
		}
	})
}
