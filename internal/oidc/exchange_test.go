package oidc_test

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
)

// A service that was called may call the next one for the same person, with no more than it was given and no longer; what ends the
// person's session ends that, too.
func TestTokenExchange(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		web := shop
		web.Resources = []string{"https://orders.example"}
		_, secret := n.add(t, "shop", web)
		service := oidc.Metadata{Name: "Orders", GrantTypes: []string{oidc.GrantExchange}, Resources: []string{"https://orders.example", "https://stock.example"}}
		_, ordersSecret := n.add(t, "orders", service)
		stranger := service
		stranger.Resources = []string{"https://stock.example"}
		_, strangerSecret := n.add(t, "stranger", stranger)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish("scope", "openid orders"))), basic("shop", secret)).token(t)
		swap := func(change ...string) answer {
			v := params("grant_type", oidc.GrantExchange, "subject_token", got.AccessToken, "subject_token_type",
				"urn:ietf:params:oauth:token-type:access_token", "resource", "https://stock.example", "scope", "orders")
			for i := 0; i+1 < len(change); i += 2 {
				v.Set(change[i], change[i+1])
			}
			return n.post(t, "/oauth/token", v, basic("orders", ordersSecret))
		}
		n.clock.Advance(10 * time.Minute)
		next := swap().token(t)
		stock, err := auth.New(auth.Config{Issuer: issuer, Audience: "https://stock.example", Keys: n.keys(), Revocations: n.sessions.Revocations(), Clock: n.clock.Now})
		must(t, err)
		claims, err := stock.Verify(t.Context(), next.AccessToken)
		must(t, err)
		payload := jwt.MapClaims{}
		_, _, err = jwt.NewParser().ParseUnverified(next.AccessToken, payload)
		must(t, err)
		actor, _ := payload["act"].(map[string]any)
		if claims.Subject != p.account.ID || claims.ClientID != "orders" || claims.SessionID != p.session.ID || claims.Scope != "orders" ||
			len(claims.Audience) != 1 || next.ExpiresIn > 5*60 || next.RefreshToken != "" || actor["sub"] != "orders" {
			t.Errorf("%+v acting %v for %d s", claims, actor, next.ExpiresIn)
		}
		swap("scope", "orders email").refused(t, 400, "invalid_scope")
		swap("resource", "https://other.example").refused(t, 400, "invalid_target")
		swap("resource", "").refused(t, 400, "invalid_target")
		swap("subject_token", "x").refused(t, 400, "invalid_request")
		swap("subject_token", got.IDToken).refused(t, 400, "invalid_request")
		swap("subject_token_type", "urn:ietf:params:oauth:token-type:saml2").refused(t, 400, "invalid_request")
		swap("actor_token", got.AccessToken).refused(t, 400, "invalid_request")
		// Who was not called cannot act.
		n.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", got.AccessToken, "subject_token_type",
			"urn:ietf:params:oauth:token-type:access_token", "resource", "https://stock.example"), basic("stranger", strangerSecret)).refused(t, 400, "invalid_request")
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		if _, err := stock.Verify(t.Context(), next.AccessToken); err == nil {
			t.Error("what was exchanged outlives the session")
		}
		swap().refused(t, 400, "invalid_request")
	})
}
