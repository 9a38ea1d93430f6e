package oidc_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	callback = "https://shop.example/cb"
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// shop is a client that people sign in to.
var shop = oidc.Metadata{
	Name: "Shop", RedirectURIs: []string{callback, "http://127.0.0.1/cb"}, Scope: "openid profile email offline_access orders",
	GrantTypes:             []string{"authorization_code", "refresh_token"},
	PostLogoutRedirectURIs: []string{"https://shop.example/bye"},
}

// person is somebody with a browser, signed in.
type person struct {
	n       *node
	account identity.Account
	session session.Session
	cookie  string
}

func (n *node) person(t testing.TB, email string) *person {
	t.Helper()
	a := identity.Account{ID: uuid.NewString(), Email: email, EmailVerified: true, Name: "Kim", UpdatedAt: n.clock.now()}
	n.people.byID.Store(a.ID, a)
	p := &person{n: n, account: a}
	p.signIn(t)
	return p
}

func (p *person) signIn(t testing.TB) {
	t.Helper()
	var st *session.Starting
	must(t, p.n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
		st, err = p.n.sessions.Begin(t.Context(), tx, session.Start{
			Page: true, Subject: p.account.ID, Roles: []string{"member"}, ACR: identity.ACR, AMR: []string{"pwd"}, AuthTime: p.n.clock.now(),
		})
		return err
	}))
	started, err := st.Commit(t.Context())
	must(t, err)
	p.session, p.cookie = started.Session, started.Cookie
}

// get asks for a page as the person's browser does.
func (p *person) get(t testing.TB, target string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	p.show(r)
	return p.n.send(t, r)
}

func (p *person) show(r *http.Request) {
	if p.cookie != "" {
		r.AddCookie(&http.Cookie{Name: cookies.Session(), Value: p.cookie})
	}
}

// wish is a request for a code of the client shop.
func wish(change ...string) url.Values {
	v := params("client_id", "shop", "redirect_uri", callback, "response_type", "code", "scope", "openid email", "state", "st&1", "nonce", "n1",
		"code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	for i := 0; i+1 < len(change); i += 2 {
		if v.Del(change[i]); change[i+1] != "" {
			v.Set(change[i], change[i+1])
		}
	}
	return v
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

var hidden = regexp.MustCompile(`name="request" value="([^"]*)"`)

// allow answers the consent page.
func (p *person) allow(t testing.TB, page answer, decision string) answer {
	t.Helper()
	m := hidden.FindStringSubmatch(page.body)
	if page.status != 200 || m == nil {
		t.Fatalf("no consent page: %d %v %s", page.status, page.header["Location"], page.body)
	}
	return p.n.post(t, "/oauth/consent", params("request", html.UnescapeString(m[1]), "decision", decision), p.show)
}

// landed returns the parameters with which the browser comes to the client.
func (a answer) landed(t testing.TB, at string) url.Values {
	t.Helper()
	to := a.header.Get("Location")
	if refresh := a.header.Get("Refresh"); refresh != "" {
		to = strings.TrimPrefix(refresh, "0; url=")
	}
	base, query, _ := strings.Cut(to, "?")
	values, err := url.ParseQuery(query)
	if err != nil || base != at {
		t.Fatalf("landed at %q (%d), want %s: %s", to, a.status, at, a.body)
	}
	if values.Get("iss") != issuer {
		t.Errorf("the answer does not say whose it is: %v", values)
	}
	return values
}

// code signs in to shop, with consent where it is asked.
func (p *person) code(t testing.TB, wish url.Values) string {
	t.Helper()
	a := p.get(t, "/oauth/authorize?"+wish.Encode())
	if a.status == 200 {
		a = p.allow(t, a, "allow")
	}
	got := a.landed(t, wish.Get("redirect_uri"))
	if got.Get("code") == "" || got.Get("state") != wish.Get("state") {
		t.Fatalf("landed with %v", got)
	}
	return got.Get("code")
}

// exchange is the request for tokens with a code.
func exchange(code string, change ...string) url.Values {
	v := params("grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier)
	for i := 0; i+1 < len(change); i += 2 {
		if v.Del(change[i]); change[i+1] != "" {
			v.Set(change[i], change[i+1])
		}
	}
	return v
}

// idClaims reads an ID token, whose signature must be ours.
func (n *node) idClaims(t testing.TB, raw string) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	parsed, err := jwt.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		key, err := n.tokens.Key(context.Background(), t.Header["kid"].(string))
		return key.Public, err
	}, jwt.WithTimeFunc(n.clock.now), jwt.WithValidMethods([]string{"ES256", "RS256"}))
	must(t, err)
	if parsed.Header["typ"] != "JWT" {
		t.Errorf("typ %v", parsed.Header["typ"])
	}
	return claims
}

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
		n.clock.advance(10 * time.Minute)
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

func bearerRequest(t testing.TB, method, path, token string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
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
		n.clock.advance(10 * time.Minute)
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
			n.clock.advance(time.Second)
			p.signIn(t)
			if a := p.get(t, back); change[1] == "login consent" {
				p.allow(t, a, "allow").landed(t, callback)
			} else if a.landed(t, callback).Get("code") == "" {
				t.Errorf("%v: after signing in: %d", change, a.status)
			}
			n.clock.advance(10 * time.Minute)
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
		n.clock.advance(61 * time.Second)
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
		n.clock.advance(2 * time.Hour) // the ID token has expired, which does not matter
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
				}, jwt.WithTimeFunc(n.clock.now))
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
				n.clock.advance(time.Second) // the second attempt is due after ten
			}
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
