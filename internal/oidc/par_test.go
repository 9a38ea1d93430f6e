package oidc_test

import (
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// push leaves a request of the client shop here, and returns where its person is sent.
func (n *node) push(t testing.TB, secret string, form url.Values) string {
	t.Helper()
	a := n.post(t, "/oauth/par", form, basic("shop", secret))
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	must(t, json.Unmarshal([]byte(a.body), &pushed))
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return "/oauth/authorize?" + params("client_id", "shop", "request_uri", pushed.RequestURI).Encode()
}

// over fails unless the address is worth nothing to the person any more.
func (p *person) over(t testing.TB, when, target string) {
	t.Helper()
	if a := p.get(t, target); a.status != 400 || !strings.Contains(a.body, "answered already") || a.header.Get("Location") != "" {
		t.Errorf("%s: %d %q", when, a.status, a.header.Get("Location"))
	}
}

// back is where somebody comes back to who was sent to sign in.
func (a answer) back(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	must(t, err)
	return strings.Replace(u.Query().Get("return_to"), "/oauth/continue", "/oauth/authorize", 1)
}

// Whoever finds the address of a pushed request in a browser's history, a log or a proxy gets nothing with it after its person was answered,
// whatever the answer was; before that the person may load the page again.
func TestPushedRequestIsAnsweredOnce(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		target := n.push(t, secret, wish())
		p.get(t, target)
		page := p.get(t, target)
		code := p.allow(t, page, "allow").landed(t, callback).Get("code")
		p.over(t, "allowed", target)
		if a := n.post(t, "/oauth/consent", params("request", html.UnescapeString(hidden.FindStringSubmatch(page.body)[1]), "decision", "allow"), p.show); a.status != 400 {
			t.Errorf("the form again: %d", a.status)
		}
		n.post(t, "/oauth/token", exchange(code), basic("shop", secret)).token(t)

		target = n.push(t, secret, wish()) // allowed before: no page is shown
		p.get(t, target).landed(t, callback)
		p.over(t, "answered at once", target)

		target = n.push(t, secret, wish("prompt", "consent"))
		if denied := p.allow(t, p.get(t, target), "deny").landed(t, callback); denied.Get("error") != "access_denied" {
			t.Errorf("denied: %v", denied)
		}
		p.over(t, "denied", target)

		target = n.push(t, secret, wish("prompt", "none"))
		nobody := &person{n: n}
		if refused := nobody.get(t, target).landed(t, callback); refused.Get("error") != "login_required" {
			t.Errorf("nobody: %v", refused)
		}
		p.over(t, "refused", target)
	})
}

// Signing in takes a detour, in several tabs and as long as it takes; the answer is given once all the same.
func TestPushedRequestAfterSigningIn(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		target := n.push(t, secret, wish("prompt", "login"))
		n.clock.Advance(9 * time.Minute)
		tab, other := p.get(t, target).back(t), p.get(t, target).back(t)
		n.clock.Advance(20 * time.Minute) // the request itself has expired
		n.Sweep(t.Context())
		p.signIn(t)
		p.get(t, tab).landed(t, callback)
		p.over(t, "the other tab", other)
		p.over(t, "the tab again", tab)
		n.clock.Advance(time.Hour)
		n.Sweep(t.Context())
		p.over(t, "later", tab)

		target = n.push(t, secret, wish("prompt", "login"))
		tab = p.get(t, target).back(t)
		n.clock.Advance(time.Second)
		p.signIn(t)
		p.get(t, tab).landed(t, callback)
		p.over(t, "the request itself", target)
	})
}

// However many come with one request at the same moment, by whatever detour, one gets a code.
func TestPushedRequestRaces(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		for range 5 {
			target := n.push(t, secret, wish("prompt", "login"))
			var tabs []string
			for range 3 {
				tab := p.get(t, target).back(t)
				tabs = append(tabs, tab, tab)
			}
			n.clock.Advance(time.Second)
			p.signIn(t)
			answers := make([]answer, len(tabs))
			var wg sync.WaitGroup
			for i, tab := range tabs {
				wg.Go(func() { answers[i] = p.get(t, tab) })
			}
			wg.Wait()
			got := slices.DeleteFunc(answers, func(a answer) bool { return a.status == 400 })
			if len(got) != 1 || got[0].landed(t, callback).Get("code") == "" {
				t.Fatalf("%d answers to one request", len(got))
			}
		}
	})
}
