package oidc_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/oidc"
)

// attacked is a provider with a client and somebody who is signed in to it.
type attacked struct {
	*node
	person *person
	client func(*http.Request) // shop proves itself
}

// attacks are those of RFC 9700, section 4, by their numbers and names there.
var attacks = []struct {
	name string
	run  func(a attacked, t *testing.T)
}{
	{"4.1 insufficient redirection URI validation", attacked.redirection},
	{"4.2 leakage via Referer headers", attacked.referrer},
	{"4.3 leakage via browser history", attacked.history},
	{"4.4 mix-up", attacked.mixUp},
	{"4.5 authorization code injection", attacked.codeInjection},
	{"4.6 access token injection", attacked.tokenInjection},
	{"4.7 cross-site request forgery", attacked.forgery},
	{"4.8 PKCE downgrade", attacked.downgrade},
	{"4.9 access token leakage at the resource server", attacked.leakage},
	{"4.10 misuse of stolen access tokens", attacked.stolenToken},
	{"4.11 open redirection", attacked.openRedirection},
	{"4.12 307 redirect", attacked.status307},
	{"4.13 TLS terminating reverse proxies", attacked.proxies},
	{"4.14 refresh token protection", attacked.refreshTheft},
	{"4.15 client impersonating resource owner", attacked.impersonation},
	{"4.16 clickjacking", attacked.clickjacking},
	{"4.17 in-browser communication", attacked.inBrowser},
}

// Whoever attacks a person, their program or their services in a way that the best current practice knows gets nothing for it.
func TestSecurityBCP(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		a := attacked{n, n.person(t, "kim@example.com"), basic("shop", secret)}
		a.person.code(t, wish())
		for _, one := range attacks {
			t.Run(one.name, func(t *testing.T) { one.run(a, t) }) // one after the other: they share a clock
		}
	})
}

// The list that people read names every attack.
func TestAttacksAreListed(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/conformance.md")
	must(t, err)
	for _, one := range attacks {
		if !strings.Contains(string(document), "| "+one.name+" |") {
			t.Errorf("docs/conformance.md does not list %s", one.name)
		}
	}
}

func (a attacked) ask(t testing.TB, change ...string) answer {
	t.Helper()
	return a.person.get(t, "/oauth/authorize?"+wish(change...).Encode())
}

func (a attacked) signIn(t testing.TB, change ...string) tokenAnswer {
	t.Helper()
	return a.post(t, "/oauth/token", exchange(a.person.code(t, wish(change...))), a.client).token(t)
}

func (a attacked) redirection(t *testing.T) {
	for _, uri := range []string{
		"https://shop.example.evil.example/cb", "https://shop.example@evil.example/cb", "https://SHOP.example/cb", "https://shop.example:443/cb",
		callback + "/", callback + "/../x", callback + "?x=1", callback + "#x", callback + "%2f", "http://shop.example/cb", "//shop.example/cb",
		"http://127.0.0.1.evil.example/cb", "http://127.0.0.1:1@evil.example/cb", "http://127.0.0.1:1\\@evil.example/cb", "http://localhost:1/cb",
		"javascript:alert(1)", "data:text/html,x",
	} {
		if got := a.ask(t, "redirect_uri", uri); got.status != 400 || got.header.Get("Location")+got.header.Get("Refresh") != "" {
			t.Errorf("%s: %d %v", uri, got.status, got.header)
		}
		a.post(t, "/oauth/par", wish("redirect_uri", uri), a.client).refused(t, 400, "invalid_request")
	}
}

// pages are what a person sees on the way, and what sends them on.
func (a attacked) pages(t testing.TB) map[string]answer {
	return map[string]answer{
		"consent": a.ask(t, "prompt", "consent"), "answer": a.ask(t), "form": a.ask(t, "response_mode", "form_post"),
		"sign-out": a.person.get(t, "/oauth/logout"), "device": a.person.get(t, "/oauth/device"), "programs": a.person.get(t, "/account/apps"),
		"refusal": a.ask(t, "client_id", "nobody"), "way on": a.person.get(t, "/oauth/continue?"+wish().Encode()),
	}
}

func (a attacked) referrer(t *testing.T) {
	for name, page := range a.pages(t) {
		policy := page.header.Get("Referrer-Policy") // neither tells another site anything
		if policy != "no-referrer" && policy != "same-origin" || strings.Contains(page.body, `src="http`) {
			t.Errorf("%s: %v", name, page.header)
		}
	}
}

func (a attacked) history(t *testing.T) {
	got := a.signIn(t)
	if in := a.send(t, bearerless(t, "/oauth/userinfo?access_token="+url.QueryEscape(got.AccessToken))); in.status != 401 {
		t.Errorf("an access token in an address: %d", in.status)
	}
	if in := a.post(t, "/oauth/introspect?token="+url.QueryEscape(got.AccessToken), url.Values{}, a.client); in.status != 400 {
		t.Errorf("a token in an address: %d", in.status)
	}
	for _, wanted := range []string{"token", "id_token", "id_token token"} {
		if in := a.ask(t, "response_type", wanted).landed(t, callback); in.Get("error") != "unsupported_response_type" {
			t.Errorf("%s: %v", wanted, in)
		}
	}
	if page := a.ask(t); page.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a code may be kept: %v", page.header)
	}
}

func bearerless(t testing.TB, path string) *http.Request {
	r := bearerRequest(t, "GET", path, "")
	r.Header.Del("Authorization")
	return r
}

func (a attacked) mixUp(t *testing.T) {
	var about map[string]any
	must(t, json.Unmarshal([]byte(a.get(t, "/.well-known/openid-configuration").body), &about))
	if about["authorization_response_iss_parameter_supported"] != true {
		t.Error("programs are not told that answers say whose they are")
	}
	for name, change := range map[string][]string{"code": nil, "error": {"scope", "nothing"}, "silent": {"prompt", "none"}} {
		if got := a.ask(t, change...).landed(t, callback); got.Get("iss") != issuer {
			t.Errorf("%s: %v", name, got)
		}
	}
	denied := a.person.allow(t, a.ask(t, "prompt", "consent"), "deny").landed(t, callback)
	form := a.ask(t, "response_mode", "form_post")
	if denied.Get("iss") != issuer || !strings.Contains(form.body, `name="iss" value="`+issuer+`"`) {
		t.Errorf("denied %v, form %s", denied, form.body)
	}
}

// Injected into another's sign-in, which has a challenge of its own, a code is worth nothing; used again, it takes back what it gave, in
// whichever form that is.
func (a attacked) codeInjection(t *testing.T) {
	stolen := a.person.code(t, wish())
	a.post(t, "/oauth/token", exchange(stolen, "code_verifier", strings.Repeat("b", 43)), a.client).refused(t, 400, "invalid_grant")
	_, secret := a.add(t, "api", oidc.Metadata{GrantTypes: []string{oidc.GrantExchange}, Resources: []string{"https://orders.example"}})
	for name, m := range map[string]oidc.Metadata{
		"jwt": {}, "opaque": {AccessToken: oidc.TokensOpaque}, "pairwise": pairwise,
		"both": {AccessToken: oidc.TokensOpaque, SubjectType: oidc.SubjectPairwise},
	} {
		for _, scope := range []string{"openid", "openid offline_access"} {
			id := name + strings.ReplaceAll(scope, " ", "-")
			uri := "https://" + name + ".example/cb"
			m.RedirectURIs, m.Scope, m.GrantTypes, m.Resources = []string{uri}, shop.Scope, shop.GrantTypes, []string{"https://orders.example"}
			_, own := a.add(t, id, m)
			code := a.person.code(t, wish("client_id", id, "redirect_uri", uri, "scope", scope))
			form := exchange(code, "redirect_uri", uri)
			got := a.post(t, "/oauth/token", form, basic(id, own)).token(t)
			swapped := a.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", got.AccessToken, "subject_token_type",
				"urn:ietf:params:oauth:token-type:access_token", "resource", "https://orders.example"), basic("api", secret)).token(t)
			active := func(token, id, secret string) bool {
				return strings.Contains(a.post(t, "/oauth/introspect", params("token", token), basic(id, secret)).body, `"active":true`)
			}
			if !active(got.AccessToken, id, own) || !active(swapped.AccessToken, "api", secret) {
				t.Fatalf("%s, %s: not active at first", name, scope)
			}
			a.post(t, "/oauth/token", form, basic(id, own)).refused(t, 400, "invalid_grant")
			if active(got.AccessToken, id, own) || active(swapped.AccessToken, "api", secret) {
				t.Errorf("%s, %s: what a replayed code gave is active", name, scope)
			}
			a.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), basic(id, own)).refused(t, 400, "invalid_grant")
		}
	}
}

func (a attacked) tokenInjection(t *testing.T) {
	got := a.signIn(t)
	if id := a.idClaims(t, got.IDToken); id["at_hash"] == nil || id["nonce"] != "n1" || id["azp"] != "shop" {
		t.Errorf("nothing ties the access token to its sign-in: %v", id)
	}
	a.add(t, "old", oidc.Metadata{RedirectURIs: []string{callback}, Scope: "openid", LegacyGrants: []string{oidc.LegacyImplicit}, AuthMethod: oidc.AuthNone})
	page := a.person.get(t, "/oauth/authorize?"+implicitly("client_id", "old", "nonce", "", "scope", "openid").Encode())
	if in := page.fragment(t); in.Get("error") != "invalid_request" {
		t.Errorf("without a nonce: %v", in)
	}
}

func (a attacked) forgery(t *testing.T) {
	crossSite := func(r *http.Request) {
		a.person.show(r)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://evil.example")
	}
	for path, form := range map[string]url.Values{
		"/oauth/consent": params("request", wish().Encode(), "decision", "allow"), "/oauth/device": params("user_code", "BCDF-GHJK", "decision", "allow"),
		"/oauth/sign-out": params("request", ""), "/account/apps": params("client_id", "shop"),
	} {
		if got := a.post(t, path, form, crossSite); got.status != 403 {
			t.Errorf("%s from another site: %d", path, got.status)
		}
	}
	if got := a.ask(t).landed(t, callback); got.Get("state") != "st&1" {
		t.Errorf("state %q", got.Get("state"))
	}
}

func (a attacked) downgrade(t *testing.T) {
	a.post(t, "/oauth/token", exchange(a.person.code(t, wish()), "code_verifier", ""), a.client).refused(t, 400, "invalid_grant")
	bare := a.person.code(t, wish("code_challenge", "", "code_challenge_method", ""))
	a.post(t, "/oauth/token", exchange(bare), a.client).refused(t, 400, "invalid_grant")
	for _, change := range [][]string{{"code_challenge_method", "plain"}, {"code_challenge_method", ""}, {"code_challenge", ""}} {
		if got := a.ask(t, change...).landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("%v: %v", change, got)
		}
	}
	m := shop
	m.RequirePKCE = true
	a.add(t, "strict", m)
	if got := a.ask(t, "client_id", "strict", "code_challenge", "", "code_challenge_method", "").landed(t, callback); got.Get("error") != "invalid_request" {
		t.Errorf("left away: %v", got)
	}
}

func (a attacked) leakage(t *testing.T) {
	m := machine
	m.Resources = []string{"https://orders.example"}
	_, secret := a.add(t, "orders", m)
	got := a.post(t, "/oauth/token", credentialsForm, basic("orders", secret)).token(t)
	if _, err := a.verifier.Verify(t.Context(), got.AccessToken); !errors.Is(err, auth.ErrAudience) {
		t.Errorf("a token for one service at another: %v", err)
	}
	for _, resource := range []string{"https://evil.example", "", "https://orders.example/"} {
		a.post(t, "/oauth/token", params("grant_type", "client_credentials", "resource", resource), basic("orders", secret)).refused(t, 400, "invalid_target")
	}
}

func (a attacked) stolenToken(t *testing.T) {
	m := shop
	m.BindTokens = true
	_, secret := a.add(t, "bound", m)
	mine, thief := certify(t, nil, nil), certify(t, nil, nil)
	got := a.post(t, "/oauth/token", exchange(a.person.code(t, wish("client_id", "bound"))), basic("bound", secret), mine.shows).token(t)
	for name, one := range map[string]struct {
		show   func(*http.Request)
		status int
	}{"its owner": {mine.shows, 200}, "a thief": {thief.shows, 401}, "without": {func(*http.Request) {}, 401}, "its owner again": {mine.shows, 200}} {
		r := bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)
		if one.show(r); a.send(t, r).status != one.status {
			t.Errorf("%s: not %d", name, one.status)
		}
	}
	a.post(t, "/oauth/revoke", params("token", got.AccessToken), basic("bound", secret))
	r := bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)
	if mine.shows(r); a.send(t, r).status != 401 {
		t.Error("a token that was revoked is remembered as good")
	}
}

// Who registered a program themselves cannot have people sent to it by an address of ours that they never did anything at.
func (a attacked) openRedirection(t *testing.T) {
	c := a.register(t, "POST", "/oauth/register", a.initial(t, oidc.NewInitialToken{}),
		`{"redirect_uris":["https://evil.example/cb"],"post_logout_redirect_uris":["https://evil.example/bye"]}`).said(t, 201)
	stranger := &person{n: a.node}
	evil := func(change ...string) url.Values {
		return wish(append([]string{"client_id", c.ID, "redirect_uri", "https://evil.example/cb"}, change...)...)
	}
	for name, change := range map[string][]string{"scope": {"scope", "nothing"}, "type": {"response_type", "x"}, "form": {"response_mode", "form_post", "scope", "nothing"}} {
		got := stranger.get(t, "/oauth/authorize?"+evil(change...).Encode())
		if got.status != 400 || got.header.Get("Location")+got.header.Get("Refresh") != "" || strings.Contains(got.body, `="https://evil.example`) {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
	if got := stranger.get(t, "/oauth/authorize?"+evil("prompt", "none").Encode()).landed(t, "https://evil.example/cb"); got.Get("error") != "login_required" {
		t.Errorf("a silent question is answered with %v", got)
	}
	if got := a.person.get(t, "/oauth/authorize?"+evil("scope", "nothing").Encode()).landed(t, "https://evil.example/cb"); got.Get("error") != "invalid_scope" {
		t.Errorf("who is signed in lands with %v", got)
	}
	bye := stranger.get(t, "/oauth/logout?"+params("client_id", c.ID, "post_logout_redirect_uri", "https://evil.example/bye").Encode())
	if bye.status != 200 || bye.header.Get("Location")+bye.header.Get("Refresh") != "" {
		t.Errorf("signing out: %d %v", bye.status, bye.header)
	}
	bye = stranger.get(t, "/oauth/logout?"+params("client_id", "shop", "post_logout_redirect_uri", "https://shop.example/bye").Encode())
	if bye.header.Get("Location") != "https://shop.example/bye" {
		t.Errorf("from a program that operators know: %d %v", bye.status, bye.header)
	}
}

func (a attacked) status307(t *testing.T) {
	all := a.pages(t)
	all["posted"] = a.post(t, "/oauth/authorize", wish(), a.person.show)
	all["posted sign-out"] = a.post(t, "/oauth/logout", url.Values{}, a.person.show)
	all["withdrawn"] = a.post(t, "/account/apps", params("client_id", "nothing"), a.person.show)
	all["agreed"] = a.person.allow(t, a.ask(t, "prompt", "consent"), "allow")
	for name, one := range all {
		if one.status/100 == 3 && one.status != http.StatusSeeOther {
			t.Errorf("%s: %d", name, one.status)
		}
	}
	if all["posted"].status != 303 || all["agreed"].status != 200 {
		t.Errorf("posted %d, agreed %d", all["posted"].status, all["agreed"].status)
	}
}

func (a attacked) proxies(t *testing.T) {
	mine := certify(t, root(), func(c *x509.Certificate) { c.DNSNames = []string{"billing.example"} })
	a.add(t, "tls", byName(oidc.CertificateNames{DNS: "billing.example"}))
	form := params("grant_type", "client_credentials", "client_id", "tls")
	a.post(t, "/oauth/token", form, func(r *http.Request) {
		r.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(mine.Raw)+":")
	}).refused(t, 401, "invalid_client")
	a.post(t, "/oauth/token", form, mine.shows).token(t)
}

func (a attacked) refreshTheft(t *testing.T) {
	refresh := func(token string) answer {
		return a.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", token), a.client)
	}
	stolen := a.signIn(t)
	first := refresh(stolen.RefreshToken).token(t)
	a.clock.Advance(time.Minute)
	second := refresh(first.RefreshToken).token(t)
	a.clock.Advance(time.Minute)
	refresh(stolen.RefreshToken).refused(t, 400, "invalid_grant")
	refresh(second.RefreshToken).refused(t, 400, "invalid_grant")
	if _, err := a.verifier.Verify(t.Context(), second.AccessToken); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after the theft: %v", err)
	}
	_, secret := a.add(t, "thief", shop)
	a.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", a.signIn(t).RefreshToken), basic("thief", secret)).refused(t, 400, "invalid_grant")
}

func (a attacked) impersonation(t *testing.T) {
	for _, id := range []string{a.person.account.ID, strings.ToUpper(a.person.account.ID), strings.ReplaceAll(uuid.NewString(), "-", "")} {
		if _, _, err := a.AddClient(t.Context(), id, machine); !errors.Is(err, oidc.ErrClientRefused) {
			t.Errorf("a client called %s: %v", id, err)
		}
	}
	m := machine
	m.Scope, m.Resources = "openid email", []string{issuer}
	_, secret := a.add(t, "robot", m)
	got := a.post(t, "/oauth/token", params("grant_type", "client_credentials"), basic("robot", secret)).token(t)
	if in := a.send(t, bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)); in.status != 403 || got.Scope != "" {
		t.Errorf("a program is taken for a person: %d %q", in.status, got.Scope)
	}
}

func (a attacked) clickjacking(t *testing.T) {
	for name, page := range a.pages(t) {
		if page.header.Get("X-Frame-Options") != "DENY" || !strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s: %v", name, page.header)
		}
	}
}

func (a attacked) inBrowser(t *testing.T) {
	if got := a.ask(t, "response_mode", "web_message").landed(t, callback); got.Get("error") != "invalid_request" || got.Has("code") {
		t.Errorf("an answer by postMessage: %v", got)
	}
	for name, page := range a.pages(t) {
		if page.header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s can be reached from the window that opened it: %v", name, page.header)
		}
	}
}
