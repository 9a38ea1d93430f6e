package oidc_test

import (
	"context"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/session"
)

// Leaving one program leaves the browser's session, and only the programs that know it can end it unasked.
func TestLogout(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t)
		bye := func(change ...string) string {
			v := params(append([]string{"id_token_hint", got.IDToken, "post_logout_redirect_uri", "https://shop.example/bye", "state", "s"}, change...)...)
			return "/oauth/logout?" + v.Encode()
		}
		for name, target := range map[string]string{
			"another address":   "/oauth/logout?" + params("id_token_hint", got.IDToken, "post_logout_redirect_uri", "https://evil.example").Encode(),
			"an unknown client": "/oauth/logout?" + params("client_id", "x", "post_logout_redirect_uri", "https://shop.example/bye").Encode(),
			"another's token":   bye("client_id", "other"),
			"an access token":   "/oauth/logout?" + params("id_token_hint", got.AccessToken, "post_logout_redirect_uri", "https://shop.example/bye").Encode(),
		} {
			if a := p.get(t, target); a.status != 400 || a.header.Get("Location") != "" {
				t.Errorf("%s: %d", name, a.status)
			}
		}
		if a := p.get(t, "/oauth/logout"); a.status != 200 || hidden.FindString(a.body) == "" {
			t.Errorf("without a hint nobody is asked: %d", a.status)
		}
		n.claims(t, got.AccessToken)
		n.clock.Advance(2 * time.Hour) // the ID token has expired, which does not matter
		a := p.get(t, bye())
		if a.status != 303 || a.header.Get("Location") != "https://shop.example/bye?state=s" {
			t.Errorf("logout: %d %v", a.status, a.header)
		}
		if cleared := a.header.Get("Set-Cookie"); !strings.HasPrefix(cleared, cookies.Session()+"=;") {
			t.Errorf("the cookie stays: %q", cleared)
		}
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), basic("shop", secret)).refused(t, 400, "invalid_grant")
		p.signIn(t)
		page := p.get(t, bye()) // of the session before
		m := hidden.FindStringSubmatch(page.body)
		if page.status != 200 || m == nil {
			t.Fatalf("the hint of another session: %d", page.status)
		}
		done := n.post(t, "/oauth/sign-out", params("request", html.UnescapeString(m[1])), p.show)
		if done.header.Get("Refresh") != "0; url=https://shop.example/bye?state=s" {
			t.Errorf("after asking: %d %v", done.status, done.header)
		}
	})
}

// A program that keeps sessions of its own is told when its person leaves, however that comes about, and as often as it takes.
func TestBackChannelLogout(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		told := make(chan string, 10)
		fail := true
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if fail {
				w.WriteHeader(503)
				fail = false
				return
			}
			told <- r.FormValue("logout_token")
		}))
		defer s.Close()
		listening := shop
		listening.BackchannelLogoutURI = s.URL + "/logout"
		_, secret := n.add(t, "shop", listening)
		p := n.person(t, "kim@example.com")
		id := n.idClaims(t, n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t).IDToken)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { n.Run(ctx) })
		wg.Go(func() { n.sessions.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		must(t, n.sessions.EndOthers(t.Context(), p.account.ID, "", session.EndedByOwner))
		deadline := time.After(20 * time.Second)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case raw := <-told:
				claims := jwt.MapClaims{}
				parsed, err := jwt.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
					key, err := n.tokens.Key(context.Background(), t.Header["kid"].(string))
					return key.Public, err
				}, jwt.WithTimeFunc(n.clock.Now))
				must(t, err)
				events, _ := claims["events"].(map[string]any)
				if parsed.Header["typ"] != "logout+jwt" || claims["sid"] != id["sid"] || claims["sub"] != id["sub"] || claims["aud"] != "shop" ||
					claims["nonce"] != nil || claims["jti"] == "" || events["http://schemas.openid.net/event/backchannel-logout"] == nil {
					t.Errorf("logout token %v %v", parsed.Header, claims)
				}
				return
			case <-deadline:
				t.Fatal("it was never told")
			case <-tick.C:
				n.clock.Advance(time.Second) // the second attempt is due after ten
			}
		}
	})
}
