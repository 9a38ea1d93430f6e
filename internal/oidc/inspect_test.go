package oidc_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/sumunio/sumun/internal/oidc"
)

// Whoever asks what a token is worth is told only what is theirs to know; and a client can give back what it has.
func TestIntrospectionAndRevocation(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		_, otherSecret := n.add(t, "other", machine)
		seer := machine
		seer.Scope = oidc.IntrospectScope
		_, seerSecret := n.add(t, "seer", seer)
		public := shop
		public.AuthMethod = oidc.AuthNone
		n.add(t, "app", public)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t)
		active := func(token string, as func(*http.Request)) bool {
			var body map[string]any
			a := n.post(t, "/oauth/introspect", params("token", token), as)
			must(t, json.Unmarshal([]byte(a.body), &body))
			if body["active"] == true && (body["sub"] != p.account.ID || body["client_id"] != "shop" || body["iss"] != issuer) {
				t.Errorf("introspection %v", body)
			}
			if body["active"] != true && len(body) != 1 {
				t.Errorf("says too much: %v", body)
			}
			return body["active"] == true
		}
		if !active(got.AccessToken, basic("shop", secret)) || !active(got.AccessToken, basic("seer", seerSecret)) {
			t.Error("who may know is not told")
		}
		if active(got.AccessToken, basic("other", otherSecret)) || active("x", basic("shop", secret)) || active(got.IDToken, basic("shop", secret)) ||
			active(got.RefreshToken, basic("shop", secret)) {
			t.Error("active although it is not")
		}
		n.post(t, "/oauth/introspect", params("token", got.AccessToken)).refused(t, 401, "invalid_client")
		n.post(t, "/oauth/introspect", params("token", got.AccessToken, "client_id", "app")).refused(t, 400, "unauthorized_client")
		n.post(t, "/oauth/introspect", url.Values{}, basic("shop", secret)).refused(t, 400, "invalid_request")

		revoke := func(token string, as func(*http.Request)) {
			if a := n.post(t, "/oauth/revoke", params("token", token), as); a.status != 200 || a.body != "" {
				t.Errorf("revoke: %d %s", a.status, a.body)
			}
		}
		for _, token := range []string{"x", got.AccessToken, got.RefreshToken} {
			revoke(token, basic("other", otherSecret))
		}
		if !active(got.AccessToken, basic("shop", secret)) {
			t.Error("another client could revoke it")
		}
		revoke(got.AccessToken, basic("shop", secret))
		if active(got.AccessToken, basic("shop", secret)) {
			t.Error("active after it was revoked")
		}
		next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), basic("shop", secret)).token(t)
		revoke(next.RefreshToken, basic("shop", secret))
		if active(next.AccessToken, basic("shop", secret)) {
			t.Error("its grant was revoked")
		}
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", next.RefreshToken), basic("shop", secret)).refused(t, 400, "invalid_grant")
		again := n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t)
		if !active(again.AccessToken, basic("shop", secret)) {
			t.Error("dead on arrival after a revocation")
		}
	})
}
