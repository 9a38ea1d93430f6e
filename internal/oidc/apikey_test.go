package oidc_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// nightly is a key of the client billing.
var nightly = oidc.NewAPIKey{ClientID: "billing", Name: "Nightly", Scope: "a", Life: 24 * time.Hour}

func (n *node) addKey(t testing.TB, asked oidc.NewAPIKey) (oidc.APIKey, apikey.Key) {
	t.Helper()
	k, key, err := n.AddKey(t.Context(), asked)
	must(t, err)
	return k, key
}

// A program with a key gets what the key says and no more: its client, its scope, until it expires.
func TestKeyToken(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "billing", machine)
		k, key := n.addKey(t, nightly)
		access, scope, err := n.KeyToken(t.Context(), key.Reveal())
		must(t, err)
		c := n.claims(t, access.Token)
		if c.Subject != "billing" || c.ClientID != "billing" || c.GrantID != k.ID || c.Scope != "a" || scope != "a" || c.SessionID != "" || !c.AuthTime.IsZero() {
			t.Errorf("claims %+v", c)
		}
		all, err := n.Keys(t.Context(), "", 10)
		must(t, err)
		if len(all) != 1 || all[0].ID != k.ID || !all[0].UsedAt.Equal(n.clock.Now()) || strings.Contains(fmt.Sprintf("%+v", all), key.Reveal()) {
			t.Errorf("listed %+v", all)
		}
		none := nightly
		none.Scope = ""
		_, bare := n.addKey(t, none)
		if _, scope, err := n.KeyToken(t.Context(), bare.Reveal()); err != nil || scope != "" {
			t.Errorf("a key without scope has %q, %v", scope, err)
		}
		n.clock.Advance(24*time.Hour - time.Minute)
		if access, _, err = n.KeyToken(t.Context(), key.Reveal()); err != nil || access.ExpiresAt.After(k.ExpiresAt) {
			t.Errorf("its last token lives until %v, the key until %v, %v", access.ExpiresAt, k.ExpiresAt, err)
		}
		n.clock.Advance(time.Minute)
		if _, _, err = n.KeyToken(t.Context(), key.Reveal()); !errors.Is(err, oidc.ErrInvalidGrant) {
			t.Errorf("expired: %v", err)
		}
	})
}

// Whoever guesses learns nothing: a wrong secret, an unknown id and a revoked key are refused alike.
func TestKeyRefusals(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "billing", machine)
		n.add(t, "app", oidc.Metadata{AuthMethod: oidc.AuthNone, RedirectURIs: []string{"https://app.example/cb"}})
		k, key := n.addKey(t, nightly)
		other := apikey.New()
		// A key of another secret under an id that is there.
		_, err := n.db.Writer().ExecContext(t.Context(), `UPDATE api_keys SET id = $1 WHERE id = $2`, other.ID(), k.ID)
		must(t, err)
		for what, text := range map[string]string{
			"its id was renamed": key.Reveal(), "another secret": other.Reveal(), "unknown": apikey.New().Reveal(), "no key": "x\x00", "empty": "",
		} {
			if _, _, err := n.KeyToken(t.Context(), text); !errors.Is(err, oidc.ErrInvalidGrant) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, change := range map[string]func(*oidc.NewAPIKey){
			"a scope that the client lacks": func(k *oidc.NewAPIKey) { k.Scope = "a c" },
			"a person's scope":              func(k *oidc.NewAPIKey) { k.Scope = "openid" },
			"another audience":              func(k *oidc.NewAPIKey) { k.Audience = []string{"https://other.example"} },
			"no name":                       func(k *oidc.NewAPIKey) { k.Name = "" },
			"too short":                     func(k *oidc.NewAPIKey) { k.Life = time.Second },
			"too long":                      func(k *oidc.NewAPIKey) { k.Life = oidc.MaxKeyLife + 1 },
			"a public client":               func(k *oidc.NewAPIKey) { k.ClientID = "app" },
		} {
			asked := nightly
			change(&asked)
			if _, _, err := n.AddKey(t.Context(), asked); !errors.Is(err, oidc.ErrKeyRefused) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, err := n.AddKey(t.Context(), oidc.NewAPIKey{ClientID: "nobody", Name: "x", Life: time.Hour}); !errors.Is(err, oidc.ErrClientUnknown) {
			t.Errorf("unknown client: %v", err)
		}
		if err := n.RevokeKey(t.Context(), apikey.New().ID()); !errors.Is(err, oidc.ErrKeyUnknown) {
			t.Errorf("revoke nothing: %v", err)
		}
	})
}

// A revoked key is worth nothing on any node, and neither are the tokens that were given for it; those of other keys live.
func TestRevokeKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, db, c)
		n.add(t, "billing", machine)
		k, key := n.addKey(t, nightly)
		_, second := n.addKey(t, nightly)
		given, _, err := other.KeyToken(t.Context(), key.Reveal())
		must(t, err)
		kept, _, err := other.KeyToken(t.Context(), second.Reveal())
		must(t, err)
		must(t, n.RevokeKey(t.Context(), k.ID))
		must(t, n.RevokeKey(t.Context(), k.ID))
		if _, err := n.verifier.Verify(t.Context(), given.Token); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("its token: %v", err)
		}
		must(t, other.sessions.Apply(t.Context()))
		for _, node := range []*node{n, other} {
			if _, _, err := node.KeyToken(t.Context(), key.Reveal()); !errors.Is(err, oidc.ErrInvalidGrant) {
				t.Errorf("a revoked key: %v", err)
			}
			if _, err := node.verifier.Verify(t.Context(), given.Token); !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("its token: %v", err)
			}
			if _, err := node.verifier.Verify(t.Context(), kept.Token); err != nil {
				t.Errorf("another key's token: %v", err)
			}
		}
		// A client that is disabled takes its keys along, and brings them back.
		must(t, n.Disable(t.Context(), "billing"))
		if _, _, err := n.KeyToken(t.Context(), second.Reveal()); !errors.Is(err, oidc.ErrInvalidGrant) {
			t.Errorf("of a disabled client: %v", err)
		}
		must(t, n.Enable(t.Context(), "billing"))
		if _, _, err := n.KeyToken(t.Context(), second.Reveal()); err != nil {
			t.Errorf("of a client that is enabled again: %v", err)
		}
	})
}

// A client's id may be given to somebody else once it was removed. They must not be called by the old one's keys, even by those that
// were made while it was removed.
func TestRemovedClientLeavesNoKeys(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		for round := range 5 {
			n.add(t, "billing", machine)
			var (
				group sync.WaitGroup
				mu    sync.Mutex
				keys  []apikey.Key
			)
			for range 8 {
				group.Go(func() {
					_, key, err := n.AddKey(t.Context(), nightly)
					if err != nil && !errors.Is(err, oidc.ErrClientUnknown) {
						t.Error(err)
					}
					if err == nil {
						mu.Lock()
						keys = append(keys, key)
						mu.Unlock()
					}
				})
			}
			group.Go(func() {
				if err := n.Remove(t.Context(), "billing"); err != nil {
					t.Error(err)
				}
			})
			group.Wait()
			n.add(t, "billing", machine)
			for _, key := range keys {
				if _, _, err := n.KeyToken(t.Context(), key.Reveal()); !errors.Is(err, oidc.ErrInvalidGrant) {
					t.Fatalf("round %d: a key of the removed client: %v", round, err)
				}
			}
			must(t, n.Remove(t.Context(), "billing"))
		}
	})
}

// A gateway elsewhere exchanges keys like tokens. Nobody else may, and no client can ask for more than the key has.
func TestExchangeKey(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "billing", machine)
		k, key := n.addKey(t, nightly)
		_, secret := n.add(t, "gateway", oidc.Metadata{GrantTypes: []string{oidc.GrantExchange}, Scope: oidc.KeyScope})
		_, otherSecret := n.add(t, "other", oidc.Metadata{GrantTypes: []string{oidc.GrantExchange}, Scope: "a"})
		ask := func(text string, more ...string) (form map[string][]string) {
			return params(append([]string{"grant_type", oidc.GrantExchange, "subject_token_type", "urn:sumun:token-type:api_key",
				"subject_token", text}, more...)...)
		}
		got := n.post(t, "/oauth/token", ask(key.Reveal()), basic("gateway", secret)).token(t)
		if c := n.claims(t, got.AccessToken); c.GrantID != k.ID || got.TokenType != "Bearer" || got.Scope != "a" || got.RefreshToken != "" || got.ExpiresIn < 14*60 {
			t.Errorf("answer %+v", got)
		}
		for what, one := range map[string]struct {
			form   map[string][]string
			change func(*http.Request)
			status int
			want   string
		}{
			"unknown key":     {ask(apikey.New().Reveal()), basic("gateway", secret), 400, "invalid_request"},
			"no key":          {ask(""), basic("gateway", secret), 400, "invalid_request"},
			"more scope":      {ask(key.Reveal(), "scope", "a b"), basic("gateway", secret), 400, "invalid_request"},
			"another service": {ask(key.Reveal(), "resource", issuer), basic("gateway", secret), 400, "invalid_request"},
			"another client":  {ask(key.Reveal()), basic("other", otherSecret), 400, "unauthorized_client"},
			"nobody":          {ask(key.Reveal()), func(*http.Request) {}, 401, "invalid_client"},
		} {
			t.Log(what)
			n.post(t, "/oauth/token", one.form, one.change).refused(t, one.status, one.want)
		}
	})
}
