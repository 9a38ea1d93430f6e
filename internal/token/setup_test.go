package token_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

const issuer = "https://id.example"

var sets = []sqldb.Migrations{keyring.Migrations, token.Migrations}

// masterFile makes a file with a new master key.
func masterFile(tb testing.TB) string {
	tb.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	name := filepath.Join(tb.TempDir(), "master.key")
	if err := os.WriteFile(name, []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

func openKeyring(tb testing.TB, db *sqldb.DB, clk *clocktest.Clock, master string, previous ...string) *keyring.Keyring {
	tb.Helper()
	k, err := keyring.Open(tb.Context(), db, keyring.Config{MasterKeyFile: master, PreviousKeyFiles: previous}, clk.Now)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// fleet is a database and what its nodes share.
type fleet struct {
	db    *sqldb.DB
	keys  *keyring.Keyring
	clock *clocktest.Clock
}

func newFleet(tb testing.TB, db *sqldb.DB) *fleet {
	tb.Helper()
	clk := clocktest.Noon()
	return &fleet{db: db, keys: openKeyring(tb, db, clk, masterFile(tb)), clock: clk}
}

// node returns a node that has not loaded its keys.
func (f *fleet) node(tb testing.TB, change func(*token.Config)) *token.Service {
	tb.Helper()
	cfg := token.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	s, err := token.New(cfg, token.Deps{DB: f.db, Keyring: f.keys, Issuer: issuer, Clock: f.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// started returns a node that has.
func (f *fleet) started(tb testing.TB, change func(*token.Config)) *token.Service {
	tb.Helper()
	s := f.node(tb, change)
	if err := s.Load(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (f *fleet) tick(tb testing.TB, nodes ...*token.Service) {
	tb.Helper()
	for _, s := range nodes {
		if err := s.Tick(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}

func (f *fleet) count(tb testing.TB) (n int) {
	tb.Helper()
	if err := f.db.Reader().QueryRowContext(tb.Context(), "SELECT COUNT(*) FROM signing_keys").Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}

// verify returns the claims of raw as a service sees them that finds its keys in keys.
func (f *fleet) verify(tb testing.TB, keys auth.KeySource, raw string) (*auth.Claims, error) {
	tb.Helper()
	v, err := auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: keys, Clock: f.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return v.Verify(tb.Context(), raw)
}

// cached returns the keys of a service that fetched the key set of s now and cannot fetch it again.
func (f *fleet) cached(tb testing.TB, s *token.Service) auth.KeySource {
	tb.Helper()
	document, _, _ := s.JWKS()
	once := &transport{body: document}
	k, err := auth.NewRemoteKeys(auth.RemoteConfig{
		URL: issuer + "/.well-known/jwks.json", Client: &http.Client{Transport: once}, Clock: f.clock.Now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := k.Key(tb.Context(), "none"); !errors.Is(err, auth.ErrUnknownKey) {
		tb.Fatalf("fetch key set: %v", err)
	}
	return k
}

// transport answers once.
type transport struct {
	body []byte
	used atomic.Bool
}

func (o *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.used.Swap(true) {
		return nil, errors.New("the issuer is down")
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: r, Body: io.NopCloser(bytes.NewReader(o.body))}, nil
}

func issue(tb testing.TB, s *token.Service) token.Access {
	tb.Helper()
	a, err := s.Issue(context.Background(), token.Grant{Subject: "alice", ClientID: "sumun"})
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// signer returns the id of the key that s signs with.
func (f *fleet) signer(tb testing.TB, s *token.Service) string {
	tb.Helper()
	c, err := f.verify(tb, s, issue(tb, s).Token)
	if err != nil {
		tb.Fatal(err)
	}
	return c.KeyID
}
