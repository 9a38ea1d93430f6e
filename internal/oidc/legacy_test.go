package oidc_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
)

// fragment returns the parameters with which the browser comes to the client, behind "#".
func (a answer) fragment(t testing.TB) url.Values {
	t.Helper()
	to := a.header.Get("Location")
	if refresh := a.header.Get("Refresh"); refresh != "" {
		to = strings.TrimPrefix(refresh, "0; url=")
	}
	base, fragment, found := strings.Cut(to, "#")
	values, err := url.ParseQuery(fragment)
	if err != nil || !found || base != callback {
		t.Fatalf("landed at %q (%d): %s", to, a.status, a.body)
	}
	if values.Get("iss") != issuer || values.Get("state") != "st&1" {
		t.Errorf("the answer lacks iss or state: %v", values)
	}
	return values
}

// legacyUse returns the legacy grants that the trail of an account speaks of, the newest first.
func (n *node) legacyUse(t testing.TB, account string) (used []string) {
	t.Helper()
	events, _, err := audit.New(audit.DefaultConfig(), n.clock.Now).List(t.Context(), n.db.Reader(), account, "", 50)
	must(t, err)
	for _, e := range events {
		if e.Action == "client.signed_in" {
			used = append(used, e.Detail["legacy_grant"])
		}
	}
	return used
}

// implicitly asks for tokens in the answer.
func implicitly(change ...string) url.Values {
	return wish(append([]string{"response_type", "id_token token", "code_challenge", "", "code_challenge_method", ""}, change...)...)
}

// An old application in the browser goes on as it is, where operators say so; nobody else gets tokens in an address.
func TestImplicit(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		old := shop
		old.AuthMethod, old.LegacyGrants = oidc.AuthNone, []string{"implicit"}
		n.add(t, "shop", old)
		n.add(t, "new", shop)
		p := n.person(t, "kim@example.com")
		ask := func(v url.Values) answer { return p.get(t, "/oauth/authorize?"+v.Encode()) }
		got := p.allow(t, ask(implicitly("scope", "openid email offline_access")), "allow").fragment(t)
		claims := n.claims(t, got.Get("access_token"))
		if claims.SessionID != p.session.ID || claims.ClientID != "shop" || claims.Scope != "openid email" || claims.GrantID == "" ||
			strings.Join(claims.Roles, " ") != "member" || got.Get("token_type") != "Bearer" || got.Get("expires_in") == "" || got.Has("refresh_token") || got.Has("code") {
			t.Errorf("%+v of %v", claims, got)
		}
		id := n.idClaims(t, got.Get("id_token"))
		if id["nonce"] != "n1" || id["at_hash"] == nil || id["email"] != nil || id["aud"] != "shop" {
			t.Errorf("ID token %v", id)
		}
		alone := ask(implicitly("response_type", "id_token")).fragment(t)
		if id := n.idClaims(t, alone.Get("id_token")); alone.Has("access_token") || id["at_hash"] != nil || id["email"] != "kim@example.com" {
			t.Errorf("an ID token alone: %v %v", alone, id)
		}
		only := ask(implicitly("response_type", "token", "nonce", "", "prompt", "none")).fragment(t)
		if only.Has("id_token") || n.claims(t, only.Get("access_token")).GrantID != claims.GrantID {
			t.Errorf("an access token alone: %v", only)
		}
		if a := ask(implicitly("response_mode", "form_post")); a.status != 200 || !strings.Contains(a.body, `name="access_token"`) || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("form_post: %d", a.status)
		}
		if used := n.legacyUse(t, p.account.ID); len(used) != 4 || strings.Join(used, "") != strings.Repeat("implicit", 4) {
			t.Errorf("the trail says %q", used)
		}
		for name, one := range map[string]struct {
			change []string
			want   string
		}{
			"without a nonce": {[]string{"nonce", ""}, "invalid_request"},
			"without openid":  {[]string{"scope", "email"}, "invalid_request"},
			"in the query":    {[]string{"response_mode", "query"}, "invalid_request"},
			"with a code":     {[]string{"response_type", "code id_token"}, "unsupported_response_type"},
			"none":            {[]string{"response_type", "none token"}, "unsupported_response_type"},
		} {
			if got := ask(implicitly(one.change...)).fragment(t); got.Get("error") != one.want || got.Has("access_token") {
				t.Errorf("%s: %v", name, got)
			}
		}
		if got := ask(implicitly("client_id", "new")).landed(t, callback); got.Get("error") != "unsupported_response_type" {
			t.Errorf("without the switch: %v", got)
		}
		if got := ask(wish("code_challenge", "", "code_challenge_method", "")).landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("a code without PKCE: %v", got)
		}
		must(t, n.Withdraw(t.Context(), p.account.ID, "shop"))
		if _, err := n.verifier.Verify(t.Context(), only.Get("access_token")); err == nil {
			t.Error("a token lives after the person has taken back what they allowed")
		}
		again := p.allow(t, ask(implicitly()), "allow").fragment(t)
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		if _, err := n.verifier.Verify(t.Context(), again.Get("access_token")); err == nil {
			t.Error("a token lives after the person has signed out")
		}
		if a := n.send(t, mustRequest(t, "/.well-known/openid-configuration")); strings.Contains(a.body, `"password"`) || strings.Contains(a.body, `"implicit"`) || strings.Contains(a.body, `"id_token token"`) {
			t.Error("legacy grants are advertised")
		}
	})
}

func mustRequest(t testing.TB, path string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	must(t, err)
	return r
}

const longPassword = "correct horse battery staple 7"

// An old application that asks for passwords itself goes on where operators say so, and everything that protects signing in counts for it
// as for everybody.
func TestPasswordGrant(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		old := shop
		old.LegacyGrants = []string{"password"}
		_, secret := n.add(t, "shop", old)
		client := basic("shop", secret)
		_, newSecret := n.add(t, "new", shop)
		public := old
		public.AuthMethod, public.LegacyGrants = oidc.AuthNone, nil
		n.add(t, "app", public)
		a, err := n.people.AddAccount(t.Context(), identity.NewAccount{Email: "kim@example.com", Name: "Kim", Password: longPassword, Verified: true})
		must(t, err)
		form := func(password string, change ...string) url.Values {
			v := params("grant_type", "password", "username", "kim@example.com", "password", password, "scope", "openid email")
			for i := 0; i+1 < len(change); i += 2 {
				v.Set(change[i], change[i+1])
			}
			return v
		}
		got := n.post(t, "/oauth/token", form(longPassword), client).token(t)
		claims := n.claims(t, got.AccessToken)
		if claims.Subject != a.ID || claims.ClientID != "shop" || claims.Scope != "openid email" || claims.GrantID == "" || strings.Join(claims.AMR, "") != "pwd" {
			t.Errorf("%+v", claims)
		}
		if id := n.idClaims(t, got.IDToken); id["sub"] != a.ID || id["aud"] != "shop" {
			t.Errorf("ID token %v", id)
		}
		refresh := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken)
		next := n.post(t, "/oauth/token", refresh, client).token(t)
		n.post(t, "/oauth/token", refresh, basic("new", newSecret)).refused(t, 400, "invalid_grant")
		if used := n.legacyUse(t, a.ID); len(used) != 1 || used[0] != "password" {
			t.Errorf("the trail says %q", used)
		}
		n.post(t, "/oauth/token", form(longPassword), basic("new", newSecret)).refused(t, 400, "unauthorized_client")
		n.post(t, "/oauth/token", form(longPassword, "client_id", "app")).refused(t, 400, "unauthorized_client")
		n.post(t, "/oauth/token", form(longPassword, "scope", "admin"), client).refused(t, 400, "invalid_scope")
		n.post(t, "/oauth/token", form(longPassword, "username", ""), client).refused(t, 400, "invalid_request")

		n.post(t, "/oauth/revoke", params("token", next.RefreshToken), client)
		if _, err := n.verifier.Verify(t.Context(), next.AccessToken); err == nil {
			t.Error("a token lives after its grant was revoked")
		}

		// Nobody is told which of the two was wrong, and after some guesses nobody gets in, not even with the right one.
		n.post(t, "/oauth/token", form("wrong", "username", "nobody@example.com"), client).refused(t, 400, "invalid_grant")
		locked := false
		for range 12 {
			a := n.post(t, "/oauth/token", form("wrong"), client)
			if a.status == 429 {
				locked = true
				break
			}
			a.refused(t, 400, "invalid_grant")
		}
		if a := n.post(t, "/oauth/token", form(longPassword), client); !locked || a.status != 429 || a.header.Get("Retry-After") == "" {
			t.Errorf("after many guesses: %d %s", a.status, a.body)
		}
		n.clock.Advance(24 * time.Hour)
		n.post(t, "/oauth/token", form(longPassword), client).token(t)
		must(t, n.people.SetStatus(t.Context(), a.ID, identity.Disabled))
		n.post(t, "/oauth/token", form(longPassword), client).refused(t, 400, "invalid_grant")
	})
}

func TestRefusedLegacyClients(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		for name, change := range map[string]func(*oidc.Metadata){
			"unknown":               func(m *oidc.Metadata) { m.LegacyGrants = []string{"telepathy"} },
			"as an ordinary grant":  func(m *oidc.Metadata) { m.GrantTypes = []string{"password"} },
			"implicit as such":      func(m *oidc.Metadata) { m.GrantTypes = []string{"implicit"} },
			"nowhere to go":         func(m *oidc.Metadata) { *m = machine; m.LegacyGrants = []string{"implicit"} },
			"bound to certificates": func(m *oidc.Metadata) { m.LegacyGrants, m.BindTokens = []string{"implicit"}, true },
		} {
			m := shop
			change(&m)
			if _, _, err := n.AddClient(t.Context(), "", m); !errors.Is(err, oidc.ErrClientRefused) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, grant := range []string{"implicit", "password"} {
			if !strings.HasPrefix(oidc.LegacyLoss(grant), grant+": ") {
				t.Errorf("%s: %q", grant, oidc.LegacyLoss(grant))
			}
		}
	})
}
