package oidc_test

import (
	"encoding/json"
	"html"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
)

// television is a client on which nobody can type.
var television = oidc.Metadata{
	Name: "Television", AuthMethod: oidc.AuthNone, GrantTypes: []string{oidc.GrantDevice, oidc.GrantRefreshToken}, Scope: "openid email",
}

type deviceCodes struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	Complete   string `json:"verification_uri_complete"`
	Interval   int64
	ExpiresIn  int64 `json:"expires_in"`
}

func (n *node) device(t testing.TB) (codes deviceCodes) {
	t.Helper()
	a := n.post(t, "/oauth/device_authorization", params("client_id", "tv", "scope", "openid email"))
	must(t, json.Unmarshal([]byte(a.body), &codes))
	if a.status != 200 || len(codes.UserCode) != 9 || codes.Interval != 5 || codes.ExpiresIn != 600 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return codes
}

func poll(code string) url.Values {
	return params("grant_type", oidc.GrantDevice, "device_code", code, "client_id", "tv")
}

// A person signs in to the television with their phone; it stays signed in when they leave the phone's browser.
func TestDevice(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "tv", television)
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		codes := n.device(t)
		n.post(t, "/oauth/token", poll(codes.DeviceCode)).refused(t, 400, "authorization_pending")
		n.clock.Advance(2 * time.Second)
		n.post(t, "/oauth/token", poll(codes.DeviceCode)).refused(t, 400, "slow_down")
		n.clock.Advance(9 * time.Second) // ten were asked for now
		n.post(t, "/oauth/token", poll(codes.DeviceCode)).refused(t, 400, "slow_down")
		n.clock.Advance(16 * time.Second)
		n.post(t, "/oauth/token", poll(codes.DeviceCode)).refused(t, 400, "authorization_pending")

		if a := (&person{n: n}).get(t, "/oauth/device?user_code="+codes.UserCode); !strings.HasPrefix(a.header.Get("Location"), "/sign-in?") {
			t.Errorf("a stranger: %d", a.status)
		}
		typed := strings.ToLower(strings.Replace(codes.UserCode, "-", " ", 1))
		page := p.get(t, "/oauth/device?"+params("user_code", typed).Encode())
		if page.status != 200 || !strings.Contains(page.body, codes.UserCode) || !strings.Contains(page.body, "Television") {
			t.Fatalf("device page: %d %s", page.status, page.body)
		}
		if a := p.get(t, "/oauth/device?user_code=BBBB-BBBB"); a.status != 404 {
			t.Errorf("a wrong code: %d", a.status)
		}
		if a := n.post(t, "/oauth/device", params("user_code", codes.UserCode, "decision", "allow"), p.show); a.status != 200 {
			t.Fatalf("allow: %d %s", a.status, a.body)
		}
		n.clock.Advance(30 * time.Second)
		got := n.post(t, "/oauth/token", poll(codes.DeviceCode)).token(t)
		if id := n.idClaims(t, got.IDToken); id["sub"] != p.account.ID || id["sid"] == p.session.ID {
			t.Errorf("ID token %v", id)
		}
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		refresh := func(token string) answer {
			return n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", token, "client_id", "tv"))
		}
		next := refresh(got.RefreshToken).token(t)
		// The code comes again: its tokens never arrived, or somebody has seen it.
		n.post(t, "/oauth/token", poll(codes.DeviceCode)).refused(t, 400, "invalid_grant")
		refresh(next.RefreshToken).refused(t, 400, "invalid_grant")

		p.signIn(t)
		denied := n.device(t)
		n.post(t, "/oauth/device", params("user_code", denied.UserCode, "decision", "deny"), p.show)
		n.post(t, "/oauth/token", poll(denied.DeviceCode)).refused(t, 400, "access_denied")
		late := n.device(t)
		n.clock.Advance(601 * time.Second)
		n.post(t, "/oauth/token", poll(late.DeviceCode)).refused(t, 400, "expired_token")
		if a := n.post(t, "/oauth/device", params("user_code", late.UserCode, "decision", "allow"), p.show); a.status != 404 {
			t.Errorf("too late: %d", a.status)
		}
		n.post(t, "/oauth/token", poll("x")).refused(t, 400, "invalid_grant")
		n.post(t, "/oauth/device_authorization", params("client_id", "nobody")).refused(t, 401, "invalid_client")
	})
}

// What a client leaves here nobody on the way can read or change, and where it always does, nothing else is accepted.
func TestPushedRequests(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		careful := shop
		careful.RequirePAR = true
		_, secret := n.add(t, "shop", careful)
		_, otherSecret := n.add(t, "other", shop)
		p := n.person(t, "kim@example.com")
		push := func(form url.Values) answer { return n.post(t, "/oauth/par", form, basic("shop", secret)) }
		a := push(wish("max_age", "60"))
		var pushed struct {
			RequestURI string `json:"request_uri"`
			ExpiresIn  int    `json:"expires_in"`
		}
		must(t, json.Unmarshal([]byte(a.body), &pushed))
		if a.status != 201 || !strings.HasPrefix(pushed.RequestURI, "urn:ietf:params:oauth:request_uri:") || pushed.ExpiresIn != 600 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		target := "/oauth/authorize?" + params("client_id", "shop", "request_uri", pushed.RequestURI, "scope", "openid orders", "redirect_uri", "https://evil.example").Encode()
		page := p.get(t, target)
		if strings.Contains(page.body, "orders") || strings.Contains(page.body, "st&amp;1") {
			t.Error("the browser can change, or see, what was left here")
		}
		code := p.allow(t, page, "allow").landed(t, callback).Get("code")
		if got := n.post(t, "/oauth/token", exchange(code), basic("shop", secret)).token(t); got.Scope != "openid email" {
			t.Errorf("scope %q", got.Scope)
		}
		n.clock.Advance(2 * time.Minute) // older than max_age
		if a := p.get(t, target); a.status != 400 || !strings.Contains(a.body, "answered already") {
			t.Errorf("a request that was answered: %d", a.status)
		}
		must(t, json.Unmarshal([]byte(push(wish("max_age", "60")).body), &pushed))
		target = "/oauth/authorize?" + params("client_id", "shop", "request_uri", pushed.RequestURI).Encode()
		to := p.get(t, target).header.Get("Location")
		back, err := url.Parse(to)
		must(t, err)
		n.clock.Advance(time.Second)
		p.signIn(t)
		again := strings.Replace(back.Query().Get("return_to"), "/oauth/continue", "/oauth/authorize", 1)
		if p.get(t, again).landed(t, callback).Get("code") == "" {
			t.Error("the detour by signing in loses the request")
		}
		if got := p.get(t, "/oauth/authorize?"+wish().Encode()).landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("brought by the browser: %v", got)
		}
		if a := p.get(t, "/oauth/authorize?"+params("client_id", "other", "request_uri", pushed.RequestURI).Encode()); a.status != 400 {
			t.Errorf("another client's: %d", a.status)
		}
		push(wish("redirect_uri", "https://evil.example")).refused(t, 400, "invalid_request")
		push(wish("response_type", "token")).refused(t, 400, "unsupported_response_type")
		push(wish("request_uri", pushed.RequestURI)).refused(t, 400, "invalid_request")
		n.post(t, "/oauth/par", wish("client_id", "")).refused(t, 401, "invalid_client")
		n.post(t, "/oauth/par", wish(), basic("other", otherSecret)).refused(t, 400, "invalid_request")
		n.clock.Advance(10 * time.Minute)
		if a := p.get(t, target); a.status != 400 {
			t.Errorf("too late: %d %s", a.status, html.EscapeString(a.header.Get("Location")))
		}
	})
}

// What somebody typed comes back to be corrected, not as half a letter.
func TestWrongCodeIsShownAgain(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		p := n.person(t, "kim@example.com")
		a := p.get(t, "/oauth/device?"+params("user_code", strings.Repeat("가", 30)).Encode())
		if a.status != 404 || !strings.Contains(a.body, `value="`+strings.Repeat("가", 20)+`"`) {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}
