package token_test

import (
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
)

var algorithms = []string{auth.ES256, auth.EdDSA, auth.RS256}

// What a token says is what every service acts on; anything more would leak.
func TestIssuedTokensSayWhatTheGrantSays(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		f.clock.Advance(123456789) // not a whole second
		for _, algorithm := range algorithms {
			s := f.started(t, func(c *token.Config) { c.Algorithm = algorithm })
			if err := s.Rotate(t.Context(), token.RotateOptions{Now: true}); err != nil {
				t.Fatal(err)
			}
			signedIn := f.clock.Now().Add(-time.Hour).Truncate(time.Second)
			a, err := s.Issue(t.Context(), token.Grant{
				Subject: "alice", ClientID: "app", Scope: "read", SessionID: "s1", ACR: "1", Audience: []string{issuer, "b"},
				AMR: []string{"pwd"}, Roles: []string{"admin"}, Epoch: 4, ClientEpoch: 2, AuthTime: signedIn,
			})
			if err != nil {
				t.Fatal(err)
			}
			c, err := f.verify(t, s, a.Token)
			if err != nil {
				t.Fatal(err)
			}
			if key, err := s.Key(t.Context(), c.KeyID); err != nil || key.Algorithm != algorithm {
				t.Errorf("signed with %s, %v", key.Algorithm, err)
			}
			if !c.ExpiresAt.Equal(a.ExpiresAt) || !c.ExpiresAt.Equal(c.IssuedAt.Add(a.Lifetime)) || !c.AuthTime.Equal(signedIn) {
				t.Errorf("times of %+v, %+v", a, c)
			}
			want := &auth.Claims{
				Issuer: issuer, Subject: "alice", Audience: []string{issuer, "b"}, ClientID: "app", Scope: "read",
				SessionID: "s1", ID: a.ID, KeyID: c.KeyID, IssuedAt: c.IssuedAt, ExpiresAt: c.ExpiresAt, AuthTime: c.AuthTime,
				ACR: "1", AMR: []string{"pwd"}, Roles: []string{"admin"}, Epoch: 4, ClientEpoch: 2,
			}
			if !reflect.DeepEqual(c, want) {
				t.Errorf("got %+v\nwant %+v", c, want)
			}
		}
	})
}

func TestClaimsOfAToken(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, nil)
	full, err := s.Issue(t.Context(), token.Grant{
		Subject: "alice", ClientID: "sumun", Scope: "read", SessionID: "s1", ACR: "1", AMR: []string{"pwd"}, AuthTime: f.clock.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]string{
		full.Token:        "acr amr aud auth_time client_id epoch exp iat iss jti roles scope sid sub",
		issue(t, s).Token: "aud client_id epoch exp iat iss jti roles sub",
	} {
		header, payload := decode(t, raw, 0), decode(t, raw, 1)
		if got := names(payload); got != want {
			t.Errorf("claims %s, want %s", got, want)
		}
		if roles, ok := payload["roles"].([]any); !ok || len(roles) != 0 {
			t.Errorf("roles are %v", payload["roles"])
		}
		if names(header) != "alg kid typ" || header["typ"] != "at+jwt" {
			t.Errorf("header %v", header)
		}
	}
	if len(full.ID) < 22 { // 128 bits in base64
		t.Errorf("id %q can be guessed", full.ID)
	}
	for _, g := range []token.Grant{{Subject: "alice"}, {ClientID: "sumun"}} {
		if _, err := s.Issue(t.Context(), g); err == nil {
			t.Errorf("%+v is not enough for a token", g)
		}
	}
}

func decode(t *testing.T, raw string, part int) map[string]any {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[part])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func names(m map[string]any) string {
	var all []string
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Ten thousand people who signed in at once must not refresh at once.
func TestLifetimesAreSpread(t *testing.T) {
	t.Parallel()
	s := newFleet(t, openSQLite(t)).started(t, nil)
	shortest, longest := time.Hour, time.Duration(0)
	for range 200 {
		a := issue(t, s)
		shortest, longest = min(shortest, a.Lifetime), max(longest, a.Lifetime)
	}
	if shortest < 14*time.Minute+15*time.Second || longest > 15*time.Minute || longest-shortest < 20*time.Second {
		t.Errorf("lifetimes from %v to %v", shortest, longest)
	}
}

// Signing is shared by all requests; a data race would hand out broken or equal tokens.
func TestConcurrentIssue(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, nil)
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				a, err := s.Issue(t.Context(), token.Grant{Subject: "alice", ClientID: "sumun"})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := f.verify(t, s, a.Token); err != nil {
					t.Error(err)
				}
				mu.Lock()
				ids[a.ID] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(ids) != 16*20 {
		t.Errorf("%d different ids", len(ids))
	}
}

// While the database is away, people go on signing in and out with what the node knows.
func TestWithoutDatabase(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		lost, err := sqldb.Open(t.Context(), db.Config())
		if err != nil {
			t.Fatal(err)
		}
		s, err := token.New(token.DefaultConfig(), token.Deps{DB: lost, Keyring: f.keys, Issuer: issuer, Clock: f.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := lost.Close(); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(time.Minute)
		if err := s.Tick(t.Context()); err == nil {
			t.Error("a round without a database succeeded")
		}
		if _, err := f.verify(t, s, issue(t, s).Token); err != nil {
			t.Error(err)
		}
		if _, err := s.Key(t.Context(), "perhaps new"); err == nil || errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("nobody can say that a key does not exist, but: %v", err)
		}
	})
}

// A key that another node made just now is found at once, but strangers cannot make the database work for them.
func TestUnknownKeysAreLookedUpSeldom(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s, other := f.started(t, nil), f.started(t, nil)
		f.clock.Advance(time.Minute)
		if _, err := s.Key(t.Context(), "invented"); !errors.Is(err, auth.ErrUnknownKey) {
			t.Fatal(err)
		}
		if err := other.Rotate(t.Context(), token.RotateOptions{Now: true}); err != nil {
			t.Fatal(err)
		}
		id := f.signer(t, other)
		f.clock.Advance(999 * time.Millisecond)
		if _, err := s.Key(t.Context(), id); !errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("looked again within a second: %v", err)
		}
		f.clock.Advance(time.Millisecond)
		if _, err := s.Key(t.Context(), id); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

func TestKeySetOverHTTP(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.node(t, nil)
	mux := http.NewServeMux()
	s.Mount(mux)
	get := func(etag string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil), httptest.NewRecorder()
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		mux.ServeHTTP(w, r)
		return w
	}
	if w := get(""); w.Code != http.StatusOK || w.Body.String() != `{"keys":[]}` {
		t.Errorf("before the first key: %d %s", w.Code, w.Body)
	}
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range algorithms {
		rotating := f.started(t, func(c *token.Config) { c.Algorithm = algorithm })
		if err := rotating.Rotate(t.Context(), token.RotateOptions{Now: true}); err != nil {
			t.Fatal(err)
		}
	}
	f.tick(t, s)
	w := get("")
	h := w.Header()
	if h.Get("Content-Type") != "application/jwk-set+json" || h.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("headers %v", h)
	}
	for _, secret := range []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"k"`} {
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("the key set tells %s", secret)
		}
	}
	if again := get(h.Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("unchanged: %d %s", again.Code, again.Body)
	}
	if err := s.Rotate(t.Context(), token.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	if changed := get(h.Get("ETag")); changed.Code != http.StatusOK {
		t.Errorf("changed: %d", changed.Code)
	}
}

// A copy of the key set must not outlive a change that is known to come.
func TestKeySetIsFreshUntilItsNextChange(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, nil)
	f.clock.Advance(29*24*time.Hour - 90*time.Second) // the successor is published in 90 seconds
	if _, _, maxAge := s.JWKS(); maxAge != 90*time.Second {
		t.Errorf("before the publication: %v", maxAge)
	}
	f.clock.Advance(2 * time.Minute)
	f.tick(t, s)
	if _, _, maxAge := s.JWKS(); maxAge != 5*time.Minute {
		t.Errorf("after the publication: %v", maxAge)
	}
	_, before, _ := s.JWKS()
	f.clock.Advance(26 * time.Hour) // the old key has expired, and nobody looked at the database
	body, etag, _ := s.JWKS()
	if etag == before || strings.Count(string(body), `"kid"`) != 1 {
		t.Errorf("an expired key is still published: %s", body)
	}
}

// RFC 7638 section 3.1 and RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	t.Parallel()
	n, err := base64.RawURLEncoding.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86z" +
		"wu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_" +
		"FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRw" +
		"r3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	if err != nil {
		t.Fatal(err)
	}
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	for want, public := range map[string]any{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537},
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": ed25519.PublicKey(x),
	} {
		if got, err := token.Thumbprint(public); err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	if err := token.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := token.Config{Algorithm: "HS256", Lifetime: 2 * time.Hour, Jitter: 0.9, PublishAhead: time.Second}.Validate()
	for _, key := range []string{"algorithm", "lifetime", "jitter", "publish_ahead", "key_lifetime"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
}

func openSQLite(tb testing.TB) *sqldb.DB {
	tb.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(tb.TempDir(), "test.db")
	db, err := sqldb.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	if err := sqldb.Migrate(tb.Context(), db, sets...); err != nil {
		tb.Fatal(err)
	}
	return db
}

func BenchmarkIssue(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			s := newFleet(b, openSQLite(b)).started(b, func(c *token.Config) { c.Algorithm = algorithm })
			g := token.Grant{Subject: "alice", ClientID: "sumun", SessionID: "s1", Roles: []string{"admin"}, AuthTime: time.Now()}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Issue(b.Context(), g); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			f := newFleet(b, openSQLite(b))
			s := f.started(b, func(c *token.Config) { c.Algorithm = algorithm })
			v, err := auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: s, Clock: f.clock.Now})
			if err != nil {
				b.Fatal(err)
			}
			raw := issue(b, s).Token
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
