package oidc_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// machine is a client that asks for tokens for itself.
var machine = oidc.Metadata{Name: "Billing", GrantTypes: []string{"client_credentials"}, Scope: "a b"}

var credentialsForm = params("grant_type", "client_credentials")

// A service gets a token that says who it is, and nothing that could be taken for a person's.
func TestClientCredentials(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "billing", machine)
		got := n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)).token(t)
		if got.TokenType != "Bearer" || got.Scope != "a b" || got.RefreshToken != "" || got.ExpiresIn < 14*60 {
			t.Errorf("answer %+v", got)
		}
		c := n.claims(t, got.AccessToken)
		if c.Subject != "billing" || c.ClientID != "billing" || c.SessionID != "" || c.Scope != "a b" || !c.AuthTime.IsZero() || len(c.Roles) > 0 {
			t.Errorf("claims %+v", c)
		}
		body := params("grant_type", "client_credentials", "client_id", "billing", "client_secret", secret, "scope", "b b")
		if got := n.post(t, "/oauth/token", body).token(t); got.Scope != "b" {
			t.Errorf("scope %q", got.Scope)
		}
		_, secret = n.add(t, "targeted", oidc.Metadata{GrantTypes: machine.GrantTypes, Resources: []string{"https://a.example", "urn:b"}})
		for resource, want := range map[string]string{"": "https://a.example urn:b", "urn:b": "urn:b", issuer: issuer} {
			form := params("grant_type", "client_credentials")
			if resource != "" {
				form.Set("resource", resource)
			}
			verifier, err := auth.New(auth.Config{Issuer: issuer, Audience: strings.Fields(want)[0], Keys: n.keys(), Clock: n.clock.Now})
			must(t, err)
			claims, err := verifier.Verify(t.Context(), n.post(t, "/oauth/token", form, basic("targeted", secret)).token(t).AccessToken)
			must(t, err)
			if strings.Join(claims.Audience, " ") != want {
				t.Errorf("resource %q: audience %v", resource, claims.Audience)
			}
		}
		again := params("grant_type", "client_credentials", "resource", "urn:b", "resource", issuer, "resource", "urn:b")
		c = n.claims(t, n.post(t, "/oauth/token", again, basic("targeted", secret)).token(t).AccessToken)
		if strings.Join(c.Audience, " ") != "urn:b "+issuer {
			t.Errorf("a resource twice: audience %v", c.Audience)
		}
	})
}

// What is not allowed is refused in the words of the standard, so that any library understands it.
func TestTokenRefusals(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "billing", machine)
		_, webSecret := n.add(t, "web", oidc.Metadata{RedirectURIs: []string{"https://web.example/cb"}, Scope: "openid"})
		n.add(t, "app", oidc.Metadata{AuthMethod: oidc.AuthNone, RedirectURIs: []string{"https://app.example/cb"}})
		good := basic("billing", secret)
		twice := params("grant_type", "client_credentials", "scope", "a", "scope", "b")
		for name, one := range map[string]struct {
			form   url.Values
			change func(*http.Request)
			status int
			want   string
		}{
			"wrong secret":         {credentialsForm, basic("billing", "scs_x"), 401, "invalid_client"},
			"no secret":            {credentialsForm, basic("billing", ""), 401, "invalid_client"},
			"unknown client":       {credentialsForm, basic("nobody", secret), 401, "invalid_client"},
			"no id of a client":    {params("grant_type", "client_credentials", "client_id", "a\x00b", "client_secret", "x"), func(*http.Request) {}, 401, "invalid_client"},
			"no text":              {params("grant_type", "client_credentials", "client_id", "\xff", "client_secret", "x"), func(*http.Request) {}, 401, "invalid_client"},
			"no client":            {credentialsForm, func(*http.Request) {}, 401, "invalid_client"},
			"id alone":             {params("grant_type", "client_credentials", "client_id", "billing"), func(*http.Request) {}, 401, "invalid_client"},
			"public with a secret": {params("grant_type", "refresh_token", "client_id", "app", "client_secret", "x"), func(*http.Request) {}, 401, "invalid_client"},
			"two proofs":           {params("grant_type", "client_credentials", "client_secret", secret), good, 400, "invalid_request"},
			"two clients":          {params("grant_type", "client_credentials", "client_id", "web"), good, 400, "invalid_request"},
			"another scheme":       {credentialsForm, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }, 401, "invalid_client"},
			"two headers":          {credentialsForm, func(r *http.Request) { good(r); r.Header.Add("Authorization", "Basic eDp5") }, 401, "invalid_client"},
			"no grant":             {params("scope", "a"), good, 400, "invalid_request"},
			"unknown grant":        {params("grant_type", "telepathy"), good, 400, "unsupported_grant_type"},
			"another's grant":      {credentialsForm, basic("web", webSecret), 400, "unauthorized_client"},
			"a public client":      {params("grant_type", "client_credentials", "client_id", "app"), func(*http.Request) {}, 400, "unauthorized_client"},
			"more scope":           {params("grant_type", "client_credentials", "scope", "a c"), good, 400, "invalid_scope"},
			"malformed scope":      {params("grant_type", "client_credentials", "scope", "a  b"), good, 400, "invalid_scope"},
			"another resource":     {params("grant_type", "client_credentials", "resource", "https://a.example"), good, 400, "invalid_target"},
			"twice":                {twice, good, 400, "invalid_request"},
			"JSON":                 {credentialsForm, func(r *http.Request) { good(r); r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request"},
			"too much":             {params("grant_type", strings.Repeat("x", 70<<10)), good, 413, "invalid_request"},
		} {
			t.Run(name, func(t *testing.T) { n.post(t, "/oauth/token", one.form, one.change).refused(t, one.status, one.want) })
		}
		inAddress := httptest.NewRequestWithContext(t.Context(), "POST", "/oauth/token?grant_type=client_credentials", strings.NewReader(""))
		inAddress.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		good(inAddress)
		n.send(t, inAddress).refused(t, 400, "invalid_request")
		if a := n.send(t, httptest.NewRequest("GET", "/oauth/token", nil)); a.status != 405 {
			t.Errorf("GET: %d", a.status)
		}
	})
}

// Two secrets work for a while, so that a program can be given a new one without standing still; never three.
func TestSecretRotation(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, first := n.add(t, "billing", machine)
		works := func(secret string) bool {
			n.clock.Advance(2 * time.Second) // what is known of the client is not older
			return n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)).status == 200
		}
		second, err := n.RotateSecret(t.Context(), "billing", time.Hour)
		must(t, err)
		if !works(first) || !works(second) {
			t.Error("one of the two secrets does not work")
		}
		third, err := n.RotateSecret(t.Context(), "billing", time.Hour)
		must(t, err)
		if works(first) || !works(second) || !works(third) {
			t.Error("after another rotation")
		}
		n.clock.Advance(time.Hour)
		if works(second) || !works(third) {
			t.Error("after the overlap")
		}
		n.add(t, "app", oidc.Metadata{AuthMethod: oidc.AuthNone, RedirectURIs: []string{"https://app.example/cb"}})
		if _, err := n.RotateSecret(t.Context(), "app", 0); !errors.Is(err, oidc.ErrNoSecret) {
			t.Errorf("a public client: %v", err)
		}
		if _, err := n.RotateSecret(t.Context(), "nobody", 0); !errors.Is(err, oidc.ErrClientUnknown) {
			t.Errorf("nobody: %v", err)
		}
	})
}

// What is taken from a client is gone everywhere, and does not come back with its name.
func TestWithdrawnClients(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		_, secret := n.add(t, "billing", machine)
		ask := func(n *node) answer { return n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)) }
		had := ask(other).token(t).AccessToken
		must(t, n.Disable(t.Context(), "billing"))
		must(t, n.Disable(t.Context(), "billing"))
		ask(n).refused(t, 401, "invalid_client")
		late := ask(other).token(t).AccessToken // it has not heard
		must(t, other.sessions.Apply(t.Context()))
		for name, access := range map[string]string{"before": had, "late": late} {
			if _, err := other.verifier.Verify(t.Context(), access); !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("a token from %s: %v", name, err)
			}
		}
		must(t, n.Enable(t.Context(), "billing"))
		n.claims(t, ask(n).token(t).AccessToken)
		must(t, n.Remove(t.Context(), "billing"))
		if err := n.Remove(t.Context(), "billing"); !errors.Is(err, oidc.ErrClientUnknown) {
			t.Errorf("removed twice: %v", err)
		}
		c.Advance(2 * time.Second)
		ask(other).refused(t, 401, "invalid_client")
		again, next := n.add(t, "billing", machine)
		if again.Epoch != 2 || next == secret {
			t.Errorf("again as %+v", again)
		}
		n.claims(t, n.post(t, "/oauth/token", credentialsForm, basic("billing", next)).token(t).AccessToken)
		if _, err := n.verifier.Verify(t.Context(), had); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("a token of the one before: %v", err)
		}
	})
}

// Who has the id of a client that was removed must not go on with what people had given that one, however long ago it was.
func TestRefreshTokensOfAClientOfBefore(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		public := shop
		public.AuthMethod = oidc.AuthNone
		n.add(t, "shop", public)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish("scope", "openid offline_access")), "client_id", "shop")).token(t)
		form := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken, "client_id", "shop")
		must(t, n.Remove(t.Context(), "shop"))
		n.clock.Advance(time.Minute)
		n.add(t, "shop", public)
		n.post(t, "/oauth/token", form).refused(t, 400, "invalid_grant")

		// One that was only disabled keeps its people.
		mine := n.post(t, "/oauth/token", exchange(p.code(t, wish("scope", "openid offline_access")), "client_id", "shop")).token(t)
		must(t, n.Disable(t.Context(), "shop"))
		must(t, n.Enable(t.Context(), "shop"))
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", mine.RefreshToken, "client_id", "shop")).token(t)
	})
}

// A node that remembers clients, to spare the database, must forget one as soon as it hears that it was disabled elsewhere, and at once what
// it changed itself.
func TestNobodyActsOnAClientOfBefore(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		_, secret := n.add(t, "billing", machine)
		ask := func(n *node) answer { return n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)) }
		ask(n).token(t)
		ask(other).token(t)
		must(t, n.Disable(t.Context(), "billing"))
		ask(n).refused(t, 401, "invalid_client")
		other.Hear(t.Context(), session.OfClient("billing", 1))
		ask(other).refused(t, 401, "invalid_client")
		must(t, n.Enable(t.Context(), "billing"))
		ask(n).token(t)
		_, err := n.RotateSecret(t.Context(), "billing", 0)
		must(t, err)
		ask(n).refused(t, 401, "invalid_client")
	})
}

// A secret that leaked is replaced without an overlap: no node that hears of it may go on taking it, and none may refuse the new one. The
// tokens that the client has are as good as before.
func TestNobodyTakesASecretOfBefore(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		_, leaked := n.add(t, "billing", machine)
		ask := func(n *node, secret string) answer {
			return n.post(t, "/oauth/token", credentialsForm, basic("billing", secret))
		}
		had := ask(other, leaked).token(t).AccessToken
		next, err := n.RotateSecret(t.Context(), "billing", 0)
		must(t, err)
		must(t, other.sessions.Apply(t.Context()))
		var told int
		must(t, db.Reader().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM revocations`).Scan(&told))
		if told != 1 {
			t.Fatalf("%d entries in the feed", told)
		}
		other.NoteEnded(t.Context(), other.sessions)
		ask(other, leaked).refused(t, 401, "invalid_client")
		n.claims(t, ask(other, next).token(t).AccessToken)
		other.claims(t, had)
	})
}

// One id, one client: of two operators who add it one is refused.
func TestOneClientPerID(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		var wg sync.WaitGroup
		errs := make([]error, 16)
		for i := range errs {
			wg.Go(func() { _, _, errs[i] = n.AddClient(t.Context(), "one", machine) })
		}
		wg.Wait()
		added := 0
		for _, err := range errs {
			switch {
			case err == nil:
				added++
			case !errors.Is(err, oidc.ErrClientExists):
				t.Error(err)
			}
		}
		if added != 1 {
			t.Errorf("%d were added", added)
		}
	})
}

// What a client says about itself becomes a page and a redirect later: it is refused at the door.
func TestRefusedClients(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		web := func(uri string) oidc.Metadata { return oidc.Metadata{Name: "x", RedirectURIs: []string{uri}} }
		for name, m := range map[string]oidc.Metadata{
			"no name":            {GrantTypes: machine.GrantTypes},
			"control characters": {Name: "a\nb", GrantTypes: machine.GrantTypes},
			"no redirect":        {Name: "x"},
			"unknown grant":      {Name: "x", GrantTypes: []string{"x"}},
			"unknown proof":      {Name: "x", GrantTypes: machine.GrantTypes, AuthMethod: "x"},
			"public machine":     {Name: "x", GrantTypes: machine.GrantTypes, AuthMethod: oidc.AuthNone},
			"scope":              {Name: "x", GrantTypes: machine.GrantTypes, Scope: `a "b"`},
			"resource":           {Name: "x", GrantTypes: machine.GrantTypes, Resources: []string{"/x"}},
			"signed, no keys":    {Name: "x", GrantTypes: machine.GrantTypes, RequireRequestObject: true},
			"once, no keys":      {Name: "x", GrantTypes: machine.GrantTypes, RequestObjectOnce: true},
			"broken keys":        {Name: "x", GrantTypes: machine.GrantTypes, Keys: json.RawMessage(`{"keys":[{"kty":"oct","k":"x"}]}`)},
			"unsigned requests":  {Name: "x", GrantTypes: machine.GrantTypes, Keys: keySet(t, newKey(t)), RequestObjectAlg: "none"},
			"relative":           web("/callback"),
			"http":               web("http://web.example/cb"),
			"fragment":           web("https://web.example/cb#x"),
			"user":               web("https://a@web.example/cb"),
			"javascript":         web("javascript:alert(1)"),
			"data":               web("data:text/html,x"),
			"scheme":             web("myapp:/cb"),
			"upper case":         web("HTTPS://web.example/cb"),
			"space":              web("https://web.example/c b"),
		} {
			_, _, err := n.AddClient(t.Context(), "", m)
			if f := fault.From(err); !errors.Is(err, oidc.ErrClientRefused) || len(f.Fields()) == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, id := range []string{"sumun", "a b", "a:b", "0198a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", strings.Repeat("x", 65)} {
			if _, _, err := n.AddClient(t.Context(), id, machine); !errors.Is(err, oidc.ErrClientRefused) {
				t.Errorf("id %q: %v", id, err)
			}
		}
		for _, uri := range []string{"https://web.example/cb?x=1", "http://127.0.0.1/cb", "http://[::1]:80/", "http://localhost:3000/cb", "com.example.app:/cb"} {
			n.add(t, "", web(uri))
		}
	})
}

// Guessing is slowed down by address, and one client's storm is nobody else's.
func TestTokenLimits(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, clocktest.Noon(), func(c *oidc.Config) { c.Requests, c.Failures = 20, 6 })
		_, secret := n.add(t, "billing", machine)
		_, otherSecret := n.add(t, "other", machine)
		for range 3 {
			n.post(t, "/oauth/token", credentialsForm, basic("x", "y")).refused(t, 401, "invalid_client")
		}
		a := n.post(t, "/oauth/token", credentialsForm, basic("z", "y"))
		if a.refused(t, 429, "temporarily_unavailable"); a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		for range 10 {
			n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)).token(t)
		}
		n.post(t, "/oauth/token", credentialsForm, basic("billing", secret)).refused(t, 429, "temporarily_unavailable")
		n.post(t, "/oauth/token", credentialsForm, basic("other", otherSecret)).token(t)
	})
}

// Clients find everything by the issuer alone, from a copy that any proxy may keep.
func TestDiscovery(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
			a := n.send(t, httptest.NewRequest("GET", path, nil))
			if a.status != 200 || !strings.Contains(a.body, `"issuer":"`+issuer+`"`) || !strings.Contains(a.body, issuer+"/oauth/token") ||
				!strings.HasPrefix(a.header.Get("Cache-Control"), "public") {
				t.Errorf("%s: %d %v %s", path, a.status, a.header, a.body)
			}
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("If-None-Match", a.header.Get("ETag"))
			if a := n.send(t, r); a.status != 304 {
				t.Errorf("%s again: %d", path, a.status)
			}
		}
	})
}
