package federation_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/federation"
)

// providers are those that answer with a code; SAML's failures are in saml_test.go.
var providers = []string{"google", "kakao", "naver", "apple", "github", "work"}

// Whatever a provider does wrong is told by a page of its own, with a way to try again, and trying again works.
func TestEveryProviderFails(t *testing.T) {
	atToken := func(answer func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/token") && !strings.HasSuffix(r.URL.Path, "/access_token") {
				return false
			}
			answer(w, r)
			return true
		}
	}
	failures := []struct {
		name   string
		answer func(url.Values)
		broken func(http.ResponseWriter, *http.Request) bool
		status int
		says   string
	}{
		{"denied", func(a url.Values) { a.Del("code"); a.Set("error", "access_denied") }, nil, 403, "cancelled"},
		{"expired code", func(a url.Values) { a.Set("code", "expired") }, nil, 410, "too long"},
		{"down", nil, atToken(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), 503, "does not answer"},
		{"slow", nil, atToken(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
			<-r.Context().Done()
		}), 503, "does not answer"},
		{"gone", nil, atToken(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }), 503, "does not answer"},
	}
	each(t, func(w *world) {
		who := person{id: "77", email: "p@gmail.com", verified: true, name: "P"}
		set := func(broken func(http.ResponseWriter, *http.Request) bool) {
			w.others.mu.Lock()
			defer w.others.mu.Unlock()
			w.others.broken = broken
		}
		for _, f := range failures {
			var wg sync.WaitGroup
			for _, provider := range providers {
				b := w.browser()
				answer := w.others.approve(b.leave("/federation/"+provider+"?return_to=%2Faccount%2Fsessions"), who)
				if f.answer != nil {
					f.answer(answer)
				}
				set(f.broken)
				wg.Go(func() {
					p := b.back(provider, answer)
					if p.status != f.status || !strings.Contains(p.text, f.says) || b.whose() != "" {
						t.Errorf("%s at %s: %d %q", f.name, provider, p.status, headline(p))
					}
					p.has(w.t, `href="/federation/`+provider+`?return_to=%2Faccount%2Fsessions"`)
				})
				if f.name != "slow" {
					wg.Wait()
				}
			}
			wg.Wait()
			set(nil)
			for _, provider := range providers {
				if p := w.browser().with(provider, who); p.path != "/sign-up/finish" {
					t.Errorf("after %s, %s: %d %q", f.name, provider, p.status, headline(p))
				}
			}
		}
		w.others.rotate()
		for _, provider := range providers {
			if p := w.browser().with(provider, who); p.path != "/sign-up/finish" {
				t.Errorf("after its keys have changed, %s: %d %q", provider, p.status, headline(p))
			}
		}
	}, func(c *federation.Config) { c.RequestsPerClient = 10000 })
}

// Strangers begin so many sign-ins and no more, and are told when to come again.
func TestRequestsAreLimited(t *testing.T) {
	each(t, func(w *world) {
		b := w.browser()
		for range 3 {
			b.leave("/federation/google")
		}
		for _, path := range []string{"/federation/google", "/federation/google/callback?code=x", "/federation/corp/metadata"} {
			p := b.get(path)
			if p.status != http.StatusTooManyRequests || p.header.Get("Retry-After") == "" {
				w.t.Errorf("%s: %d, Retry-After %q", path, p.status, p.header.Get("Retry-After"))
			}
			p.has(w.t, "wait a little")
		}
		w.clock.Advance(time.Minute)
		b.leave("/federation/google")
	}, func(c *federation.Config) { c.RequestsPerClient = 6 })
}

// A page to come back to is remembered up to 2 KiB, in a cookie that browsers accept; a longer one costs the way back, not the sign-in.
func TestLongWayBack(t *testing.T) {
	each(t, func(w *world) {
		w.member("owner@gmail.com")
		who := person{id: "1", email: "owner@gmail.com", verified: true}
		page := "/account/sessions?cursor="
		for size, want := range map[int]string{2048: "/account/sessions", 2049: "/account"} {
			b := w.browser()
			address := b.leave("/federation/google?return_to=" + url.QueryEscape(page+strings.Repeat("x", size-len(page))))
			for _, c := range b.http.Jar.Cookies(mustURL(w.t, w.site.URL)) {
				if n := len(c.Name) + len(c.Value); n > 4000 {
					w.t.Errorf("the cookie %s has %d bytes", c.Name, n)
				}
			}
			if p := b.back("google", w.others.approve(address, who)); p.path != want {
				w.t.Errorf("%d bytes lead to %s", size, p.path)
			}
		}
	}, func(c *federation.Config) { c.Providers[0].LinkVerifiedEmail = true })
}
