package oidc_test

import (
	"errors"
	"fmt"
	"slices"
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

// A client is disabled because it leaks tokens. What services have got for its tokens dies with them, however many hands it has gone
// through; so does what went through the hands of a service that is disabled, and nothing else.
func TestExchangedTokensDieWithEveryClient(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		service := func(id, of, next string) func(token string) string {
			_, secret := n.add(t, id, oidc.Metadata{GrantTypes: []string{oidc.GrantExchange, "client_credentials"}, Resources: []string{of, next}})
			return func(token string) string {
				t.Helper()
				return n.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", token, "subject_token_type",
					"urn:ietf:params:oauth:token-type:access_token", "resource", next), basic(id, secret)).token(t).AccessToken
			}
		}
		const ordersAPI, stockAPI, shelfAPI = "https://orders.example", "https://stock.example", "https://shelf.example"
		orders, stock := service("orders", ordersAPI, stockAPI), service("stock", stockAPI, shelfAPI)
		clients := map[string]func() string{}
		p := n.person(t, "kim@example.com")
		for _, id := range []string{"leaky", "sound"} {
			m := shop
			m.Resources, m.GrantTypes = []string{ordersAPI}, append([]string{"client_credentials"}, shop.GrantTypes...)
			_, secret := n.add(t, id, m)
			clients[id] = func() string {
				return n.post(t, "/oauth/token", exchange(p.code(t, wish("client_id", id))), basic(id, secret)).token(t).AccessToken
			}
			clients[id+" for itself"] = func() string {
				return n.post(t, "/oauth/token", params("grant_type", "client_credentials"), basic(id, secret)).token(t).AccessToken
			}
		}
		shelf, err := auth.New(auth.Config{Issuer: issuer, Audience: shelfAPI, Keys: n.keys(), Revocations: n.sessions.Revocations(), Clock: n.clock.Now})
		must(t, err)
		last := map[string]string{}
		for name, token := range clients {
			last[name] = stock(orders(token()))
			claims, err := shelf.Verify(t.Context(), last[name])
			must(t, err)
			if len(claims.Through) != 2 || claims.Through[1].ClientID != "orders" {
				t.Errorf("came through %v", claims.Through)
			}
		}
		dead := func(after string, want ...string) {
			t.Helper()
			for name, token := range last {
				if _, err := shelf.Verify(t.Context(), token); errors.Is(err, auth.ErrRevoked) != slices.Contains(want, name) {
					t.Errorf("after %s: %s: %v", after, name, err)
				}
			}
		}
		must(t, n.Disable(t.Context(), "leaky"))
		dead("the first client was disabled", "leaky", "leaky for itself")
		must(t, n.Remove(t.Context(), "orders"))
		dead("the service between was removed", "leaky", "leaky for itself", "sound", "sound for itself")
	})
}

// Services that pass tokens round in a circle do not make them grow without end.
func TestExchangesInARow(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		const api = "https://ring.example"
		m := oidc.Metadata{GrantTypes: []string{oidc.GrantExchange, "client_credentials"}, Resources: []string{api}}
		var secrets []string
		for i := range 10 {
			_, secret := n.add(t, fmt.Sprintf("s%d", i), m)
			secrets = append(secrets, secret)
		}
		token := n.post(t, "/oauth/token", params("grant_type", "client_credentials"), basic("s0", secrets[0])).token(t).AccessToken
		swap := func(i int) answer {
			return n.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", token, "subject_token_type",
				"urn:ietf:params:oauth:token-type:access_token", "resource", api), basic(fmt.Sprintf("s%d", i), secrets[i]))
		}
		for i := range 20 { // two in turns
			token = swap(i % 2).token(t).AccessToken
		}
		for i := 2; i < 9; i++ {
			token = swap(i).token(t).AccessToken
		}
		swap(9).refused(t, 400, "invalid_request")
	})
}
