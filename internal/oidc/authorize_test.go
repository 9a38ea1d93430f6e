package oidc_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
)

// The way a person takes: sign in, be asked once, land at the program, which then knows who they are for as long as they stay.
func TestCodeFlow(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		client := basic("shop", secret)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), client).token(t)
		claims := n.claims(t, got.AccessToken)
		if claims.Subject != p.account.ID || claims.SessionID != p.session.ID || claims.ClientID != "shop" || got.Scope != "openid email" || got.RefreshToken == "" {
			t.Errorf("%+v of %+v", claims, got)
		}
		id := n.idClaims(t, got.IDToken)
		half := sha256.Sum256([]byte(got.AccessToken))
		if id["iss"] != issuer || id["sub"] != p.account.ID || id["aud"] != "shop" || id["nonce"] != "n1" || id["sid"] != p.session.ID ||
			id["at_hash"] != base64.RawURLEncoding.EncodeToString(half[:16]) || id["auth_time"] != float64(p.session.AuthTime.Unix()) || id["email"] != nil {
			t.Errorf("ID token %v", id)
		}
		info := n.send(t, bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken))
		var about map[string]any
		must(t, json.Unmarshal([]byte(info.body), &about))
		if about["sub"] != p.account.ID || about["email"] != "kim@example.com" || about["email_verified"] != true || about["name"] != nil {
			t.Errorf("userinfo %v", about)
		}
		n.clock.Advance(10 * time.Minute)
		next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), client).token(t)
		again := n.idClaims(t, next.IDToken)
		if again["sub"] != id["sub"] || again["auth_time"] != id["auth_time"] || again["nonce"] != nil || next.Scope != "openid email" {
			t.Errorf("after a refresh: %v", again)
		}
		less := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", next.RefreshToken, "scope", "email"), client).token(t)
		if less.Scope != "email" || less.IDToken != "" {
			t.Errorf("less: %+v", less)
		}
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", less.RefreshToken, "scope", "email orders"), client).refused(t, 400, "invalid_scope")

		// Asked once, and again only for more.
		if a := p.get(t, "/oauth/authorize?"+wish().Encode()); a.landed(t, callback).Get("code") == "" {
			t.Errorf("asked again: %d", a.status)
		}
		if a := p.get(t, "/oauth/authorize?"+wish("scope", "openid email orders").Encode()); a.status != 200 || !strings.Contains(a.body, "orders") {
			t.Errorf("not asked for more: %d", a.status)
		}
	})
}

// Whoever is not signed in comes back to the program after signing in; prompt and max_age decide how recent that must be.
func TestSigningInFirst(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		stranger := &person{n: n}
		a := stranger.get(t, "/oauth/authorize?"+wish("login_hint", "kim@example.com", "ui_locales", "fr ko-KR").Encode())
		to, err := url.Parse(a.header.Get("Location"))
		must(t, err)
		if a.status != 303 || to.Path != "/sign-in" || to.Query().Get("login_hint") != "kim@example.com" || to.Query().Get("lang") != "ko" {
			t.Fatalf("a stranger is sent to %s", to)
		}
		on := p.get(t, to.Query().Get("return_to"))
		if refresh := strings.TrimPrefix(on.header.Get("Refresh"), "0; url="); p.get(t, refresh).landed(t, callback).Get("code") == "" {
			t.Error("the way back does not lead to the program")
		}
		for name, one := range map[string]struct {
			change []string
			want   string
		}{
			"none, a stranger": {[]string{"prompt", "none"}, "login_required"},
			"none and more":    {[]string{"prompt", "none login"}, "invalid_request"},
			"malformed age":    {[]string{"max_age", "x"}, "invalid_request"},
		} {
			if got := stranger.get(t, "/oauth/authorize?"+wish(one.change...).Encode()).landed(t, callback); got.Get("error") != one.want || got.Get("state") != "st&1" {
				t.Errorf("%s: %v", name, got)
			}
		}
		if got := p.get(t, "/oauth/authorize?"+wish("prompt", "none").Encode()).landed(t, callback); got.Get("code") == "" {
			t.Errorf("none, signed in: %v", got)
		}
		if got := p.get(t, "/oauth/authorize?"+wish("prompt", "none", "scope", "openid orders").Encode()).landed(t, callback); got.Get("error") != "consent_required" {
			t.Errorf("none, to be asked: %v", got)
		}
		n.clock.Advance(10 * time.Minute)
		if got := p.get(t, "/oauth/authorize?"+wish("max_age", "700").Encode()).landed(t, callback); got.Get("code") == "" {
			t.Errorf("recent enough: %v", got)
		}
		if got := p.get(t, "/oauth/authorize?"+wish("max_age", "300", "prompt", "none").Encode()).landed(t, callback); got.Get("error") != "login_required" {
			t.Errorf("too old, and nothing may be shown: %v", got)
		}
		for _, change := range [][]string{{"prompt", "login"}, {"max_age", "0"}, {"max_age", "300"}, {"prompt", "login consent"}} {
			a := p.get(t, "/oauth/authorize?"+wish(change...).Encode())
			to, err := url.Parse(a.header.Get("Location"))
			must(t, err)
			if to.Path != "/account/reauthenticate" {
				t.Errorf("%v: sent to %s", change, to)
				continue
			}
			back := strings.Replace(to.Query().Get("return_to"), "/oauth/continue", "/oauth/authorize", 1)
			if a := p.get(t, back); !strings.HasPrefix(a.header.Get("Location"), "/account/reauthenticate") {
				t.Errorf("%v: coming back without signing in: %d %s", change, a.status, a.header.Get("Location"))
			}
			n.clock.Advance(time.Second)
			p.signIn(t)
			if a := p.get(t, back); change[1] == "login consent" {
				p.allow(t, a, "allow").landed(t, callback)
			} else if a.landed(t, callback).Get("code") == "" {
				t.Errorf("%v: after signing in: %d", change, a.status)
			}
			n.clock.Advance(10 * time.Minute)
		}
	})
}

// What is wrong with the client or its address is told the person: an answer would go to whoever made it up.
func TestUnsafeRequests(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		for name, v := range map[string]url.Values{
			"unknown client":  wish("client_id", "other"),
			"no client":       wish("client_id", ""),
			"another address": wish("redirect_uri", "https://evil.example/cb"),
			"a longer one":    wish("redirect_uri", callback+"/x"),
			"no address":      wish("redirect_uri", ""),
			"script":          wish("redirect_uri", "javascript:alert(1)"),
		} {
			a := p.get(t, "/oauth/authorize?"+v.Encode())
			if a.status != 400 || a.header.Get("Location") != "" || a.header.Get("Refresh") != "" || strings.Contains(a.body, `href="https://evil`) {
				t.Errorf("%s: %d %v", name, a.status, a.header)
			}
		}
		twice := p.get(t, "/oauth/authorize?"+wish().Encode()+"&redirect_uri=https://evil.example/cb")
		if twice.status != 400 {
			t.Errorf("two addresses: %d", twice.status)
		}
		for name, one := range map[string]struct {
			change []string
			want   string
		}{
			"implicit":        {[]string{"response_type", "token"}, "unsupported_response_type"},
			"hybrid":          {[]string{"response_type", "code id_token"}, "unsupported_response_type"},
			"no type":         {[]string{"response_type", ""}, "invalid_request"},
			"plain PKCE":      {[]string{"code_challenge_method", "plain"}, "invalid_request"},
			"PKCE by default": {[]string{"code_challenge_method", ""}, "invalid_request"},
			"method alone":    {[]string{"code_challenge", ""}, "invalid_request"},
			"short challenge": {[]string{"code_challenge", "abc"}, "invalid_request"},
			"request object":  {[]string{"request", "eyJ"}, "request_not_supported"},
			"request address": {[]string{"request_uri", "https://evil.example"}, "request_uri_not_supported"},
			"registration":    {[]string{"registration", "{}"}, "registration_not_supported"},
			"no scope left":   {[]string{"scope", "admin"}, "invalid_scope"},
			"resource":        {[]string{"resource", "https://evil.example"}, "invalid_target"},
			"claims":          {[]string{"claims", "{"}, "invalid_request"},
			"response mode":   {[]string{"response_mode", "web_message"}, "invalid_request"},
			"prompt":          {[]string{"prompt", "create"}, "invalid_request"},
		} {
			if got := p.get(t, "/oauth/authorize?"+wish(one.change...).Encode()).landed(t, callback); got.Get("error") != one.want || got.Get("code") != "" || got.Get("state") != "st&1" {
				t.Errorf("%s: %v", name, got)
			}
		}
		if got := p.get(t, "/oauth/authorize?"+wish().Encode()+"&scope=openid").landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("repeated: %v", got)
		}
		denied := p.allow(t, p.get(t, "/oauth/authorize?"+wish("prompt", "consent").Encode()), "deny").landed(t, callback)
		if denied.Get("error") != "access_denied" || denied.Get("state") != "st&1" {
			t.Errorf("denied: %v", denied)
		}
		public := shop
		public.AuthMethod = oidc.AuthNone
		n.add(t, "app", public)
		if got := p.get(t, "/oauth/authorize?"+wish("client_id", "app", "code_challenge", "", "code_challenge_method", "").Encode()).landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("a public client without PKCE: %v", got)
		}
		// Another site must not be able to agree in a person's name.
		forged := n.post(t, "/oauth/consent", params("request", wish().Encode(), "decision", "allow"), p.show, func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		})
		if forged.status != 403 {
			t.Errorf("forged consent: %d", forged.status)
		}
		posted := n.post(t, "/oauth/authorize", wish(), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
		if posted.status != 303 || !strings.HasPrefix(posted.header.Get("Location"), "/oauth/authorize?") {
			t.Errorf("a posted request: %d %v", posted.status, posted.header)
		}
	})
}

// A code is worth tokens once, to the client that it was given to, with all that it was given for.
func TestCodeMisuse(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		other := shop
		_, otherSecret := n.add(t, "other", other)
		client := basic("shop", secret)
		p := n.person(t, "kim@example.com")
		code := p.code(t, wish())
		for name, one := range map[string]struct {
			form   url.Values
			change func(*http.Request)
		}{
			"no such code":      {exchange("x"), client},
			"another client":    {exchange(code), basic("other", otherSecret)},
			"another address":   {exchange(code, "redirect_uri", "http://127.0.0.1/cb"), client},
			"another verifier":  {exchange(code, "code_verifier", strings.Repeat("a", 43)), client},
			"no verifier":       {exchange(code, "code_verifier", ""), client},
			"malformed":         {exchange(code, "code_verifier", "short"), client},
			"challenge instead": {exchange(code, "code_verifier", challengeOf(verifier)), client},
		} {
			t.Run(name, func(t *testing.T) { n.post(t, "/oauth/token", one.form, one.change).refused(t, 400, "invalid_grant") })
		}
		n.post(t, "/oauth/token", exchange(code, "redirect_uri", ""), client).refused(t, 400, "invalid_request")
		got := n.post(t, "/oauth/token", exchange(code), client).token(t)
		n.claims(t, got.AccessToken)

		// The code comes again: it was seen on the way. What it gave is taken back.
		n.post(t, "/oauth/token", exchange(code), client).refused(t, 400, "invalid_grant")
		if _, err := n.verifier.Verify(t.Context(), got.AccessToken); err == nil {
			t.Error("the access token of a code that was used twice lives")
		}
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), client).refused(t, 400, "invalid_grant")

		// The person stays signed in, and may sign in to the program again.
		again := n.post(t, "/oauth/token", exchange(p.code(t, wish())), client).token(t)
		n.claims(t, again.AccessToken)

		// PKCE cannot be left away on the way: a verifier for a code without a challenge is refused.
		bare := p.code(t, wish("code_challenge", "", "code_challenge_method", ""))
		n.post(t, "/oauth/token", exchange(bare), client).refused(t, 400, "invalid_grant")
		n.post(t, "/oauth/token", exchange(bare, "code_verifier", ""), client).token(t)

		late := p.code(t, wish())
		n.clock.Advance(61 * time.Second)
		n.post(t, "/oauth/token", exchange(late), client).refused(t, 400, "invalid_grant")
		gone := p.code(t, wish())
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		n.post(t, "/oauth/token", exchange(gone), client).refused(t, 400, "invalid_grant")
	})
}

// However many try a code at once, one gets tokens; and when others tried, not even that one keeps them.
func TestCodeIsUsedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		code := p.code(t, wish())
		answers := make([]answer, 12)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = n.post(t, "/oauth/token", exchange(code), basic("shop", secret)) })
		}
		wg.Wait()
		won := slices.DeleteFunc(answers, func(a answer) bool { return a.status != 200 })
		if len(won) > 1 {
			t.Fatalf("%d got tokens", len(won))
		}
		for _, a := range won {
			if _, err := n.verifier.Verify(t.Context(), a.token(t).AccessToken); err == nil {
				t.Error("who was first keeps what a stolen code gave")
			}
		}
	})
}

// What is to be kept after signing out has a session of its own, which the person sees and can end; the rest ends with theirs.
func TestOfflineAccess(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		client := basic("shop", secret)
		p := n.person(t, "kim@example.com")
		stays := n.post(t, "/oauth/token", exchange(p.code(t, wish("scope", "openid offline_access"))), client).token(t)
		ends := n.post(t, "/oauth/token", exchange(p.code(t, wish())), client).token(t)
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		refresh := func(token string) answer {
			return n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", token), client)
		}
		refresh(ends.RefreshToken).refused(t, 400, "invalid_grant")
		next := refresh(stays.RefreshToken).token(t)
		n.claims(t, next.AccessToken)
		p.signIn(t)
		must(t, n.Withdraw(t.Context(), p.account.ID, "shop"))
		refresh(next.RefreshToken).refused(t, 400, "invalid_grant")
		if _, err := n.verifier.Verify(t.Context(), next.AccessToken); err == nil {
			t.Error("what was taken back is accepted")
		}
		if a := p.get(t, "/oauth/authorize?"+wish().Encode()); a.status != 200 {
			t.Errorf("not asked again after it was taken back: %d", a.status)
		}
		if a := p.get(t, "/account/apps"); a.status != 200 {
			t.Errorf("apps: %d", a.status)
		}
	})
}

// An answer as a form does not lie in the browser's history, nor in logs.
func TestResponseModes(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		a := p.get(t, "/oauth/authorize?"+wish("response_mode", "form_post").Encode())
		if a.status != 200 || !strings.Contains(a.body, `action="`+callback+`"`) || !strings.Contains(a.body, `name="code"`) ||
			!strings.Contains(a.body, `value="st&amp;1"`) || !strings.Contains(a.header.Get("Content-Security-Policy"), "form-action https://shop.example;") {
			t.Errorf("form_post: %d %v %s", a.status, a.header, a.body)
		}
		a = p.get(t, "/oauth/authorize?"+wish("response_mode", "fragment").Encode())
		if !strings.HasPrefix(a.header.Get("Location"), callback+"#") {
			t.Errorf("fragment: %v", a.header)
		}
	})
}

// Every parameter is a stranger's text.
func FuzzAuthorize(f *testing.F) {
	f.Add(wish().Encode())
	f.Add("client_id=shop&redirect_uri=http://127.0.0.1:1/cb&response_type=code&max_age=-1&prompt=none&claims={}&state=%0d%0aX:1")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if r, err := oidc.ParseRequest(shop, values); err == nil && !strings.HasPrefix(r, callback) && !strings.HasPrefix(r, "http://127.0.0.1") {
			t.Errorf("%q is answered at %q", query, r)
		}
	})
}
