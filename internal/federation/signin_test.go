package federation_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/federation"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// A new person with any provider gets an account, once, and comes back to the same one. Who trusts a provider's word for an address is
// not asked for it again; who must not, is.
func TestEveryProvider(t *testing.T) {
	t.Parallel()
	people := map[string]person{
		"google":  {id: "110169484474386276334", email: "haneul@gmail.com", verified: true, name: "김하늘"},
		"kakao":   {id: "2892345678", email: "haneul@kakao.example", verified: true, name: "하늘"},
		"naver":   {id: "32742776", email: "haneul@naver.example", name: "김하늘"},
		"apple":   {id: "001999.abc.1234", email: "x7@privaterelay.example", verified: true},
		"github":  {id: "583231", email: "octo@example.org", verified: true, name: "Octo"},
		"work":    {id: "u-1", email: "me@work.example", verified: true, name: "Me"},
		"kakao-1": {id: "2892345679", name: "숨김"}, // keeps the address
	}
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		for name, who := range people {
			provider, _, _ := strings.Cut(name, "-")
			b := w.browser()
			p := b.with(provider, who)
			if p.path != "/sign-up/finish" || b.whose() != "" {
				t.Fatalf("%s: a new person is led to %s (%d %s)", name, p.path, p.status, headline(p))
			}
			email := who.email
			if who.verified {
				p.has(t, who.email, who.name)
				p = b.post("/sign-up/finish", url.Values{"name": {"New Name"}})
			} else {
				if email == "" {
					email = "given@example.org"
				}
				p = b.post("/sign-up/finish", url.Values{"email": {email}})
				if b.whose() != "" || p.status != http.StatusOK {
					t.Fatalf("%s: an address that nobody has verified is believed", name)
				}
				p = b.get(w.link(email))
				p.has(t, email, who.name)
				p = b.post("/sign-up/connect", url.Values{"token": {p.token(t)}, "name": {"New Name"}})
			}
			if got := b.whose(); got != email {
				t.Errorf("%s: signed in to %q, want %q (at %s, %d %s)", name, got, email, p.path, p.status, headline(p))
			}
			again := w.browser()
			if p := again.with(provider, who); p.path != "/account" || again.whose() != email {
				t.Errorf("%s: the second time ends at %s as %q", name, p.path, again.whose())
			}
			a, err := w.people.AccountByAddress(t.Context(), email)
			if err != nil || !a.EmailVerified || a.HasPassword() {
				t.Errorf("%s: the account is %+v, %v", name, a, err)
			}
		}
	})
}

func (p page) token(t *testing.T) string {
	t.Helper()
	_, rest, _ := strings.Cut(p.text, `name="token" value="`)
	token, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("no token on %s (%d %s)", p.path, p.status, headline(p))
	}
	return token
}

// Apple posts its answer from its own origin, where the browser sends no cookies along, and tells the name once.
func TestApplePosts(t *testing.T) {
	each(t, func(w *world) {
		b := w.browser()
		address := b.leave("/federation/apple")
		if u, _ := url.Parse(address); u.Query().Get("response_mode") != "form_post" || u.Query().Get("nonce") == "" {
			w.t.Errorf("Apple is asked at %s", address)
		}
		answer := w.others.approve(address, person{id: "001.a", email: "a@icloud.example", verified: true})
		answer.Set("user", `{"name":{"firstName":"Ha","lastName":"Neul"},"email":"evil@example.org"}`)
		foreign, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.site.URL+"/federation/apple/callback", strings.NewReader(answer.Encode()))
		w.must(err)
		foreign.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		foreign.Header.Set("Origin", "https://appleid.apple.com")
		foreign.Header.Set("Sec-Fetch-Site", "cross-site")
		bare := *w.site.Client()
		bare.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, err := bare.Do(foreign)
		w.must(err)
		resp.Body.Close()
		to := resp.Header.Get("Location")
		if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) > 0 || strings.Contains(to, answer.Get("code")) || strings.Contains(to, "Neul") {
			w.t.Fatalf("the form is answered with %d to %s", resp.StatusCode, to)
		}
		p := b.get(to)
		p.has(w.t, "Ha Neul", "a@icloud.example")
		if strings.Contains(p.text, "evil@example.org") {
			w.t.Error("an address that came through the browser is believed")
		}
	})
}

// What goes wrong at a provider is told in words, with a way to try again, and nobody is signed in.
func TestFailuresAtProviders(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/token") || strings.HasSuffix(r.URL.Path, "/access_token") {
				w.WriteHeader(code)
				return true
			}
			return false
		}
	}
	claim := func(name string, value any) func(*world) {
		return func(w *world) { w.others.claims = func(c jwt.MapClaims) { c[name] = value } }
	}
	tests := []struct {
		name     string
		prepare  func(*world)
		answer   func(url.Values)
		provider string
		status   int
		says     string
	}{
		{"denied", nil, func(a url.Values) { a.Del("code"); a.Set("error", "access_denied") }, "", 403, "cancelled"},
		{"denied at Apple", nil, func(a url.Values) { a.Del("code"); a.Set("error", "user_cancelled_authorize") }, "apple", 403, "cancelled"},
		{"overloaded", nil, func(a url.Values) { a.Del("code"); a.Set("error", "temporarily_unavailable") }, "", 503, "does not answer"},
		{"misregistered", nil, func(a url.Values) { a.Del("code"); a.Set("error", "unauthorized_client") }, "", 502, "refuses"},
		{"no code", nil, func(a url.Values) { a.Del("code") }, "", 502, "could not be verified"},
		{"expired code", nil, func(a url.Values) { a.Set("code", "expired") }, "", 410, "too long"},
		{"expired code, status 200", nil, func(a url.Values) { a.Set("code", "expired") }, "github", 410, "too long"},
		{"expired code at Naver", nil, func(a url.Values) { a.Set("code", "expired") }, "naver", 410, "too long"},
		{"down", func(w *world) { w.others.broken = status(502) }, nil, "", 503, "does not answer"},
		{"limited", func(w *world) { w.others.broken = status(429) }, nil, "", 503, "does not answer"},
		{"garbage", func(w *world) {
			w.others.broken = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/token") {
					return false
				}
				rw.Header().Set("Content-Type", "application/json")
				_, _ = rw.Write([]byte(`{"access_token":`))
				return true
			}
		}, nil, "", 502, "could not be verified"},
		{"slow", func(w *world) {
			w.others.broken = func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/token") {
					_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
					<-r.Context().Done()
					return true
				}
				return false
			}
		}, nil, "", 503, "does not answer"},
		{"profile down", func(w *world) {
			w.others.broken = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Host == "kapi.kakao.com" {
					rw.WriteHeader(500)
				}
				return r.Host == "kapi.kakao.com"
			}
		}, nil, "kakao", 503, "does not answer"},
		{"profile refused by Naver", func(w *world) {
			w.others.broken = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Host == "openapi.naver.com" {
					_, _ = rw.Write([]byte(`{"resultcode":"024","message":"Authentication failed"}`))
				}
				return r.Host == "openapi.naver.com"
			}
		}, nil, "naver", 502, "refuses"},
		{"another nonce", claim("nonce", "other"), nil, "", 502, "could not be verified"},
		{"another audience", claim("aud", "other-client"), nil, "", 502, "could not be verified"},
		{"several audiences", claim("aud", []string{"our-client", "other"}), func(url.Values) {}, "work", 502, "could not be verified"},
		{"another issuer", claim("iss", "https://evil.example"), nil, "", 502, "could not be verified"},
		{"expired ID token", claim("exp", 1000), nil, "", 502, "could not be verified"},
		{"another access token", claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), nil, "", 502, "could not be verified"},
		{"no subject", claim("sub", ""), nil, "", 502, "could not be verified"},
		{"somebody else's userinfo", claim("sub", "u-2"), nil, "work", 502, "could not be verified"},
		{"an answer that names another issuer", nil, func(a url.Values) { a.Set("iss", "https://evil.example") }, "work", 502, "could not be verified"},
		{"an answer that names none", nil, func(a url.Values) { a.Del("iss") }, "work", 502, "could not be verified"},
		{"an answer of GitHub's that names another issuer", nil, func(a url.Values) { a.Set("iss", "https://evil.example") }, "github", 502, "could not be verified"},
	}
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		for _, tt := range tests {
			provider := tt.provider
			if provider == "" {
				provider = "google"
			}
			w.others.broken, w.others.claims = nil, nil
			b := w.browser()
			answer := w.others.approve(b.leave("/federation/"+provider), person{id: "77", email: "p@gmail.com", verified: true, name: "P"})
			w.others.mu.Lock()
			if tt.prepare != nil {
				tt.prepare(w)
			}
			w.others.mu.Unlock()
			if tt.answer != nil {
				tt.answer(answer)
			}
			p := b.back(provider, answer)
			if p.status != tt.status || !strings.Contains(p.text, tt.says) {
				t.Errorf("%s: answered with %d %q at %s, want %d with %q", tt.name, p.status, headline(p), p.path, tt.status, tt.says)
			}
			p.has(t, `href="/federation/`+provider+`"`, `href="/sign-in"`)
			if p.header.Get("Cache-Control") != "no-store" || b.whose() != "" {
				t.Errorf("%s: Cache-Control %q, signed in as %q", tt.name, p.header.Get("Cache-Control"), b.whose())
			}
		}
		if log := w.logged.String(); strings.Contains(log, "our-secret") || strings.Contains(log, "p@gmail.com") || !strings.Contains(log, "provider=google") {
			t.Errorf("the log tells a secret or an address, or nothing: %s", log)
		}
	})
}

// A provider that would have tokens, or what it says of people, go in the clear is not asked.
func TestNoEndpointInTheClear(t *testing.T) {
	each(t, func(w *world) {
		for _, endpoint := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"} {
			doc := map[string]any{"issuer": "https://id.work.example", "authorization_endpoint": "https://id.work.example/authorize",
				"token_endpoint": "https://id.work.example/token", "jwks_uri": "https://id.work.example/keys",
				"userinfo_endpoint": "https://id.work.example/userinfo", endpoint: "http://id.work.example/"}
			w.others.mu.Lock()
			w.others.broken = func(rw http.ResponseWriter, r *http.Request) bool {
				rw.Header().Set("Content-Type", "application/json")
				return json.NewEncoder(rw).Encode(doc) == nil
			}
			w.others.mu.Unlock()
			if p := w.browser().get("/federation/work"); p.status != http.StatusBadGateway {
				w.t.Errorf("%s: answered with %d at %s", endpoint, p.status, p.path)
			}
			w.clock.Advance(2 * time.Hour)
		}
	})
}

// A provider that changes its keys, and one that is down before anybody has left.
func TestKeysChangeAndOutage(t *testing.T) {
	each(t, func(w *world) {
		who := person{id: "1", email: "k@gmail.com", verified: true, name: "K"}
		if p := w.browser().with("google", who); p.path != "/sign-up/finish" {
			w.t.Fatalf("ended at %s", p.path)
		}
		w.others.rotate()
		if p := w.browser().with("google", who); p.path != "/sign-up/finish" {
			w.t.Errorf("after the keys have changed a sign-in ends at %s with %d", p.path, p.status)
		}
		w.others.mu.Lock()
		w.others.broken = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(503); return true }
		w.others.mu.Unlock()
		if p := w.browser().get("/federation/work?return_to=%2Faccount%2Fsessions"); p.status != 503 || p.header.Get("Retry-After") == "" {
			w.t.Errorf("a provider that is down: %d, Retry-After %q", p.status, p.header.Get("Retry-After"))
		} else {
			p.has(w.t, `href="/federation/work"`)
		}
		w.browser().get("/federation/work")
		asked := 0
		w.others.mu.Lock()
		for _, one := range w.others.asked {
			if strings.HasPrefix(one, "id.work.example/") {
				asked++
			}
		}
		w.others.broken = nil
		w.others.mu.Unlock()
		if asked != 1 {
			t.Errorf("a provider that is down was asked %d times", asked)
		}
		w.clock.Advance(6 * time.Second)
		w.browser().leave("/federation/work")
		if p := w.browser().get("/federation/nobody"); p.status != 404 {
			w.t.Errorf("an unknown provider: %d", p.status)
		}
	})
}

// An answer counts in the browser that asked, at the provider that was asked, once, and for ten minutes (RFC 9700, section 4.7).
func TestAnswersBelongToTheirBrowser(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		who := person{id: "5", email: "five@gmail.com", verified: true, name: "Five"}
		refused := func(what string, p page) {
			w.t.Helper()
			if p.status != http.StatusBadRequest || !strings.Contains(p.text, "Please begin again") {
				w.t.Errorf("%s: %d %q at %s", what, p.status, headline(p), p.path)
			}
		}
		mine := w.browser()
		answer := w.others.approve(mine.leave("/federation/google"), who)
		refused("another browser", w.browser().back("google", answer))
		other := w.browser()
		other.leave("/federation/google")
		refused("a browser with a sign-in of its own", other.back("google", answer))
		refused("another provider's address", mine.back("kakao", answer))
		forged := url.Values{"code": answer["code"], "state": {"forged"}}
		refused("another state", mine.back("google", forged))
		cookies := mine.http.Jar.Cookies(mustURL(t, w.site.URL+"/"))
		if p := mine.back("google", answer); p.path != "/sign-up/finish" {
			w.t.Fatalf("the true answer ends at %s with %d", p.path, p.status)
		}
		mine.http.Jar.SetCookies(mustURL(t, w.site.URL), cookies)
		refused("a second use", mine.back("google", answer))
		late := w.browser()
		answer = w.others.approve(late.leave("/federation/google"), who)
		w.clock.Advance(11 * time.Minute)
		refused("after eleven minutes", late.back("google", answer))
		twice := w.browser()
		answer = w.others.approve(twice.leave("/federation/google"), who)
		answer.Add("code", "second")
		refused("a parameter twice", twice.back("google", answer))
	})
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Nobody gets into an account because a provider says an address.
func TestAddressesOpenNothing(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		w.member("victim@gmail.com")
		for name, who := range map[string]person{
			"unverified": {id: "9", email: "victim@gmail.com", name: "Thief"},
			"verified":   {id: "9", email: "Victim@gmail.com", verified: true, name: "Thief"},
		} {
			b := w.browser()
			p := b.with("google", who)
			if b.whose() != "" {
				t.Fatalf("%s: the account is open", name)
			}
			if name == "verified" {
				p.has(w.t, "You already have an account")
			} else if strings.Contains(p.text, "already have an account") && !strings.Contains(p.text, "ask") && strings.Contains(p.text, "You already") {
				t.Errorf("%s: who has not proved the address is told that it has an account", name)
			}
			b.post("/sign-up/finish", url.Values{"name": {"Thief"}, "email": {"victim@gmail.com"}})
			if b.whose() != "" {
				t.Fatalf("%s: the account is open after the form", name)
			}
			if p := b.get("/account/connections/confirm"); p.path != "/sign-in" {
				t.Errorf("%s: without a sign-in the identity can be connected at %s", name, p.path)
			}
		}
		if p := w.browser().with("google", person{id: "9", email: "victim@gmail.com", verified: true}); p.path == "/account" {
			t.Error("the identity opens the account now")
		}
	})
}

// Whoever asks for a mail in the name of a stranger's address gets nothing of the account that the stranger then makes.
func TestAnotherPersonsMail(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		thief := w.browser()
		who := person{id: "31", email: "", name: "Thief"}
		thief.with("kakao", who)
		thief.post("/sign-up/finish", url.Values{"email": {"stranger@example.org"}})
		link := w.link("stranger@example.org")
		stranger := w.browser()
		p := stranger.get(link)
		if p.path != "/sign-up/confirm" {
			t.Fatalf("the mail leads the stranger to %s", p.path)
		}
		stranger.post("/sign-up/confirm", url.Values{"token": {p.token(t)}, "name": {"Stranger"}, "new_password": {goodPW}})
		stranger.signIn("stranger@example.org")
		if thief.with("kakao", who); thief.whose() != "" {
			t.Errorf("the thief's identity opens %s", thief.whose())
		}
		if p := thief.get(link); strings.Contains(p.text, `name="name"`) {
			t.Error("the link works twice")
		}
	})
}

// The owner of both connects them: signed in first, or with the identity first.
func TestConnecting(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		w.member("owner@gmail.com")
		who := person{id: "12", email: "owner@gmail.com", verified: true, name: "Owner"}
		b := w.browser()
		b.with("google", who)
		if p := b.post("/sign-in", url.Values{"identifier": {"owner@gmail.com"}, "password": {goodPW}, "return_to": {"/account/connections/confirm"}}); p.path != "/account/connections/confirm" {
			t.Fatalf("sign-in leads to %s", p.path)
		}
		if p := b.post("/account/connections/confirm", nil); p.path != "/account/connections" || p.status != 200 {
			t.Fatalf("connecting ends at %s with %d", p.path, p.status)
		}
		fresh := w.browser()
		if fresh.with("google", who); fresh.whose() != "owner@gmail.com" {
			t.Error("the identity does not open the account")
		}
		if p := b.connect("kakao", person{id: "400", name: "카카오"}); p.path != "/account/connections" || p.status != 200 {
			t.Errorf("connecting from the account page ends at %s with %d", p.path, p.status)
		}
		if p := b.connect("google", person{id: "13", email: "second@gmail.com", verified: true}); p.status != 409 {
			t.Errorf("a second identity of one provider: %d", p.status)
		}
		w.member("other@gmail.com")
		other := w.browser()
		other.signIn("other@gmail.com")
		if p := other.connect("google", who); p.status != 409 || !strings.Contains(p.text, "another account") {
			t.Errorf("an identity that opens another account: %d %q", p.status, headline(p))
		}
		subjects := ""
		for _, m := range w.mails("owner@gmail.com") {
			subjects += m.Subject + "\n"
		}
		if !strings.Contains(subjects, "Google now opens your Sumun account") || !strings.Contains(subjects, "Kakao now opens") {
			t.Errorf("the owner was told: %s", subjects)
		}
		w.clock.Advance(20 * time.Minute)
		if p := b.post("/account/connections", url.Values{"action": {"connect"}, "provider": {"github"}}); p.path != "/account/reauthenticate" {
			t.Errorf("a sign-in that is long ago is enough to connect: %s", p.path)
		}
		proof := b.leave("/federation/google?for=proof&return_to=%2Faccount%2Fconnections")
		if p := b.back("google", w.others.approve(proof, who)); p.path != "/account/connections" || p.status != 200 {
			t.Errorf("proving with a provider ends at %s with %d", p.path, p.status)
		}
		if p := b.post("/account/connections", url.Values{"action": {"disconnect"}, "provider": {"kakao"}}); p.path != "/account/connections" || p.status != 200 {
			t.Errorf("after the proof disconnecting ends at %s with %d", p.path, p.status)
		}
		proof = b.leave("/federation/google?for=proof")
		if p := b.back("google", w.others.approve(proof, person{id: "13", email: "second@gmail.com", verified: true})); p.status != 403 {
			t.Errorf("somebody else's identity proves the owner: %d", p.status)
		}
	})
}

// connect asks, from the account page, to connect a provider.
func (b *browser) connect(provider string, who person) page {
	b.w.t.Helper()
	p := b.post("/account/connections", url.Values{"action": {"connect"}, "provider": {provider}})
	to, found := strings.CutPrefix(p.header.Get("Refresh"), "0; url=")
	if !found {
		b.w.t.Fatalf("connecting %s is answered with %d at %s", provider, p.status, p.path)
	}
	return b.back(provider, b.w.others.approve(to, who))
}

// Where the operator trusts a provider, its verified address opens the account whose confirmed address it is; nothing less does.
func TestTrustedAddresses(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		w.member("owner@gmail.com")
		_, err := w.people.AddAccount(t.Context(), identity.NewAccount{Email: "unconfirmed@gmail.com", Name: "U", Password: goodPW})
		w.must(err)
		w.member("kelvin@gmail.com")
		for who, want := range map[person]string{
			{id: "1", email: "owner@gmail.com", verified: false}:      "",
			{id: "2", email: "unconfirmed@gmail.com", verified: true}: "",
			{id: "3", email: "\u212Aelvin@gmail.com", verified: true}: "", // the Kelvin sign, which folds to k
			{id: "4", email: "Owner@GMAIL.com", verified: true}:       "owner@gmail.com",
			{id: "5", email: "owner@company.example", verified: true}: "", // Google does not vouch for it
		} {
			b := w.browser()
			if b.with("google", who); b.whose() != want {
				t.Errorf("%+v opens %q, want %q", who, b.whose(), want)
			}
		}
	}, func(c *federation.Config) { c.Providers[0].LinkVerifiedEmail = true })
}

// A disabled account stays shut, whoever vouches for its owner, and nobody is led away from this site.
func TestDisabledAccountsAndRedirects(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		who := person{id: "70", email: "seven@gmail.com", verified: true, name: "Seven"}
		b := w.browser()
		b.with("google", who)
		b.post("/sign-up/finish", url.Values{"name": {"Seven"}})
		for _, to := range []string{"https://evil.example", "//evil.example", `/\evil.example`, "/account/sessions"} {
			want := "/account"
			if to == "/account/sessions" {
				want = to
			}
			one := w.browser()
			p := one.back("google", w.others.approve(one.leave("/federation/google?return_to="+url.QueryEscape(to)), who))
			if p.path != want || p.status != 200 {
				t.Errorf("return_to %q leads to %s (%d)", to, p.path, p.status)
			}
		}
		a, err := w.people.AccountByAddress(t.Context(), "seven@gmail.com")
		w.must(err)
		w.must(w.people.SetStatus(t.Context(), a.ID, identity.Disabled))
		if p := w.browser().with("google", who); p.status != 403 || !strings.Contains(p.text, "disabled") {
			t.Errorf("a disabled account: %d %q", p.status, headline(p))
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.site.URL+"/federation/google", nil)
		w.must(err)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if p := w.browser().do(req); p.path != "/sign-in" {
			t.Errorf("another site begins a sign-in: %d at %s", p.status, p.path)
		}
		if p := w.browser().post("/account/connections", url.Values{"action": {"connect"}, "provider": {"google"}}); p.path != "/sign-in" {
			t.Errorf("a stranger connects at %s", p.path)
		}
	})
}

// Of the ways into an account one stays, however many are taken away at once. A password is a way, and so can be set without one.
func TestTheLastWayStays(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		who := person{id: "80", email: "eight@gmail.com", verified: true, name: "Eight"}
		b := w.browser()
		b.with("google", who)
		b.post("/sign-up/finish", url.Values{"name": {"Eight"}})
		for provider, id := range map[string]string{"kakao": "81", "github": "82", "naver": "83"} {
			b.connect(provider, person{id: id, email: "eight@example.org", name: "E"})
		}
		var wg sync.WaitGroup
		statuses := make([]int, 8)
		providers := []string{"google", "kakao", "github", "naver"}
		for i := range statuses {
			wg.Go(func() {
				statuses[i] = b.post("/account/connections", url.Values{"action": {"disconnect"}, "provider": {providers[i%4]}}).status
			})
		}
		wg.Wait()
		a, err := w.people.AccountByAddress(t.Context(), "eight@gmail.com")
		w.must(err)
		left := w.connections(a.ID)
		if len(left) != 1 {
			t.Fatalf("%d ways are left after %v", len(left), statuses)
		}
		if p := b.post("/account/connections", url.Values{"action": {"disconnect"}, "provider": {left[0]}}); p.status != 409 {
			t.Errorf("the last way is taken away: %d", p.status)
		} else {
			p.has(t, "This is the only way into your account")
		}
		if p := b.post("/account/password", url.Values{"new_password": {goodPW}}); p.path != "/account" || p.status != 200 {
			t.Fatalf("setting a password ends at %s with %d %q", p.path, p.status, headline(p))
		}
		if p := b.post("/account/connections", url.Values{"action": {"disconnect"}, "provider": {left[0]}}); p.path != "/account/connections" || p.status != 200 {
			t.Errorf("with a password the last provider cannot be disconnected: %d", p.status)
		}
		w.browser().signIn("eight@gmail.com")
	})
}

func (w *world) connections(account string) []string {
	w.t.Helper()
	all, err := sqldb.All(w.t.Context(), w.db.Reader(), func(r sqldb.Row) (s string, err error) { return s, r.Scan(&s) },
		`SELECT provider FROM federated_identities WHERE account_id = $1`, account)
	w.must(err)
	return all
}

// Many people who sign up with, or connect, one identity at once: it opens one account.
func TestOneIdentityOpensOneAccount(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		who := person{id: "90", name: "Nine"}
		const n = 6
		var wg sync.WaitGroup
		statuses := make([]int, n)
		for i := range n {
			email := "member" + string(rune('a'+i)) + "@example.org"
			w.member(email)
			b := w.browser()
			b.signIn(email)
			wg.Go(func() { statuses[i] = b.connect("kakao", who).status })
		}
		wg.Wait()
		won := 0
		for _, s := range statuses {
			if s == http.StatusOK {
				won++
			} else if s != http.StatusConflict {
				t.Errorf("answers: %v", statuses)
			}
		}
		if won != 1 {
			t.Errorf("the identity was connected %d times: %v", won, statuses)
		}
	})
}

// Everything that is wrong with a configuration is told at once, and no secret with it.
func TestConfig(t *testing.T) {
	t.Parallel()
	err := federation.Config{Timeout: time.Second, Providers: []federation.Provider{
		{Name: "Google", Kind: "google"}, {Name: "work", ClientID: "x", Issuer: "http://id.work.example"},
		{Name: "apple", ClientID: "x", Key: "hunter2"}, {Name: "x", Kind: "y"}, {Name: "work", ClientID: "x"},
	}}.Validate()
	for _, want := range []string{"providers[0].name", "providers[0].client_id", "providers[0].client_secret", "providers[1].issuer", "providers[2].team_id",
		"providers[2].key", "providers[3].kind", "two providers"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the key is told: %v", err)
	}
	if _, err := federation.New(federation.Config{}, federation.Deps{}); err == nil || errors.Is(err, federation.ErrProvider) {
		t.Errorf("a timeout of zero: %v", err)
	}
}
