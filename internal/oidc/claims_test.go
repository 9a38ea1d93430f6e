package oidc_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/oidc"
)

// everything is a client that may ask for all that there is.
var everything = func() oidc.Metadata {
	m := shop
	m.Scope = "openid profile email phone address offline_access orders"
	return m
}()

// full is a person of whom everything is known.
func (n *node) full(t testing.TB) *person {
	t.Helper()
	p := n.person(t, "kim@example.com")
	p.account.UserName, p.account.Locale, p.account.Phone = "kim", "en", "+821012345678"
	p.account.Address = identity.PostalAddress{Street: "209 Sejong-daero", Locality: "Jongno-gu", Region: "Seoul", PostalCode: "03171", Country: "Korea"}
	n.people.byID.Store(p.account.ID, p.account)
	return p
}

// info asks the userinfo endpoint.
func (n *node) info(t testing.TB, access string) (about map[string]any) {
	t.Helper()
	a := n.send(t, bearerRequest(t, "GET", "/oauth/userinfo", access))
	if a.status != 200 {
		t.Fatalf("userinfo: %d %s", a.status, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &about))
	return about
}

// names are the names of claims, sorted.
func names(claims map[string]any) string {
	var out []string
	for name := range claims {
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A program that asks for one thing gets one thing, of what it may ask for and what its person has agreed to.
func TestClaimsParameter(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", everything)
		_, narrowSecret := n.add(t, "narrow", shop) // may not ask for phone and address
		p := n.full(t)
		const claims = `{"userinfo":{"name":{"essential":true},"phone_number":null,"address":null,"email":{"value":"other@example.com"},
			"locale":{"values":["en","ko"]},"shoe_size":{"essential":true,"value":[1]}},
			"id_token":{"email":null,"email_verified":{"value":true},"auth_time":{"essential":true},"acr":{"values":["9"]}},"other":1}`
		v := wish("scope", "openid", "claims", claims)
		page := p.get(t, "/oauth/authorize?"+v.Encode())
		for _, words := range []string{"See your name", "See your e-mail address", "See your phone number", "See your postal address"} {
			if !strings.Contains(page.body, words) {
				t.Errorf("the person is not asked: %s", words)
			}
		}
		code := p.allow(t, page, "allow").landed(t, callback).Get("code")
		got := n.post(t, "/oauth/token", exchange(code), basic("shop", secret)).token(t)
		about, id := n.info(t, got.AccessToken), n.idClaims(t, got.IDToken)
		if names(about) != "address locale name phone_number sub" || about["name"] != "Kim" || got.Scope != "openid" {
			t.Errorf("userinfo %v for %q", about, got.Scope)
		}
		if id["email"] != "kim@example.com" || id["email_verified"] != true || id["name"] != nil || id["acr"] != "1" {
			t.Errorf("ID token %v", id)
		}
		next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), basic("shop", secret)).token(t)
		if again := n.info(t, next.AccessToken); names(again) != names(about) {
			t.Errorf("after a refresh: %v", again)
		}
		p.account.Email = "kim@new.example"
		n.people.byID.Store(p.account.ID, p.account)
		next = n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", next.RefreshToken), basic("shop", secret)).token(t)
		if id := n.idClaims(t, next.IDToken); id["email"] != "kim@new.example" || id["email_verified"] != true || id["name"] != nil || id["nonce"] != nil {
			t.Errorf("the ID token of a refresh does not say what was asked for: %v", id)
		}
		if p.get(t, "/oauth/authorize?"+v.Encode()).landed(t, callback).Get("code") == "" {
			t.Error("asked again for the same")
		}
		code = p.code(t, wish("client_id", "narrow", "scope", "openid", "claims", claims))
		less := n.post(t, "/oauth/token", exchange(code), basic("narrow", narrowSecret)).token(t)
		if about := n.info(t, less.AccessToken); names(about) != "locale name sub" {
			t.Errorf("a client that may not ask gets %v", about)
		}
		plain := n.post(t, "/oauth/token", exchange(p.code(t, wish("scope", "openid offline_access"))), basic("shop", secret)).token(t)
		plain = n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", plain.RefreshToken), basic("shop", secret)).token(t)
		if id := n.idClaims(t, plain.IDToken); id["email"] != nil {
			t.Errorf("an ID token says what was not asked for: %v", id)
		}
	})
}

// A program that means a certain person never gets somebody else; who it means may be signed in next.
func TestTheRightPerson(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		n.add(t, "other", shop)
		kim, lee := n.person(t, "kim@example.com"), n.person(t, "lee@example.com")
		got := n.post(t, "/oauth/token", exchange(kim.code(t, wish())), basic("shop", secret)).token(t)
		lee.code(t, wish())
		named := func(who *person) string { return `{"id_token":{"sub":{"value":"` + who.account.ID + `"}}}` }
		n.clock.Advance(2 * time.Hour) // the ID token has expired, which does not matter
		for name, change := range map[string][]string{"hint": {"id_token_hint", got.IDToken}, "sub": {"claims", named(kim)}} {
			if a := kim.get(t, "/oauth/authorize?"+wish(append(change, "prompt", "none")...).Encode()).landed(t, callback); a.Get("code") == "" {
				t.Errorf("%s: the one who is meant: %v", name, a)
			}
			if a := lee.get(t, "/oauth/authorize?"+wish(append(change, "prompt", "none")...).Encode()).landed(t, callback); a.Get("error") != "login_required" {
				t.Errorf("%s: another one, and nothing may be shown: %v", name, a)
			}
			sent := lee.get(t, "/oauth/authorize?"+wish(change...).Encode())
			to, err := url.Parse(sent.header.Get("Location"))
			must(t, err)
			if to.Path != "/sign-in" || !to.Query().Has("another") {
				t.Fatalf("%s: another one is sent to %s", name, to)
			}
			back := strings.Replace(to.Query().Get("return_to"), "/oauth/continue", "/oauth/authorize", 1)
			n.clock.Advance(time.Second)
			lee.signIn(t)
			if a := lee.get(t, back).landed(t, callback); a.Get("error") != "login_required" {
				t.Errorf("%s: another one again: %v", name, a)
			}
			kim.signIn(t)
			if a := kim.get(t, back).landed(t, callback); a.Get("code") == "" {
				t.Errorf("%s: the right one at last: %v", name, a)
			}
			forged := n.post(t, "/oauth/consent", params("request", wish(change...).Encode(), "decision", "allow"), lee.show)
			if strings.Contains(forged.header.Get("Refresh"), "code=") {
				t.Errorf("%s: another one agrees: %v", name, forged.header)
			}
		}
		for name, change := range map[string][]string{
			"no token":          {"id_token_hint", "x"},
			"an access token":   {"id_token_hint", got.AccessToken},
			"another client's":  {"id_token_hint", got.IDToken, "client_id", "other"},
			"two people":        {"id_token_hint", got.IDToken, "claims", named(lee)},
			"two in the claims": {"claims", `{"id_token":{"sub":{"value":"a"}},"userinfo":{"sub":{"value":"b"}}}`},
			"a number":          {"claims", `{"id_token":{"sub":{"value":1}}}`},
			"no object":         {"claims", `[]`},
			"null":              {"claims", `null`},
			"a list":            {"claims", `{"id_token":["email"]}`},
			"a word":            {"claims", `{"id_token":{"email":"yes"}}`},
			"too long":          {"claims", `{"id_token":{"email":{"value":"` + strings.Repeat("x", 4000) + `"}}}`},
		} {
			if a := kim.get(t, "/oauth/authorize?"+wish(change...).Encode()).landed(t, callback); a.Get("error") != "invalid_request" {
				t.Errorf("%s: %v", name, a)
			}
		}
	})
}

// A program that demands a stronger sign-in than there is is told so, instead of being given a weaker one.
func TestUnmetAuthentication(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		for claims, want := range map[string]string{
			`{"id_token":{"acr":{"essential":true,"values":["2","3"]}}}`: "unmet_authentication_requirements",
			`{"id_token":{"acr":{"essential":true,"value":"2"}}}`:        "unmet_authentication_requirements",
			`{"id_token":{"acr":{"essential":true,"values":["2","1"]}}}`: "",
			`{"id_token":{"acr":{"essential":true}}}`:                    "",
			`{"id_token":{"acr":{"values":["2"]}}}`:                      "",
		} {
			if a := p.get(t, "/oauth/authorize?"+wish("claims", claims).Encode()).landed(t, callback); a.Get("error") != want || (a.Get("code") == "") != (want != "") {
				t.Errorf("%s: %v", claims, a)
			}
		}
	})
}

// How old a sign-in may be is asked when the person comes, not when they have read what they agree to.
func TestAgreeingTakesTime(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		n.clock.Advance(10 * time.Second)
		page := p.get(t, "/oauth/authorize?"+wish("max_age", "3600", "state", strings.Repeat("s", 1900)).Encode())
		if strings.Contains(page.body, "ssss") {
			t.Error("a long request travels with its person")
		}
		n.clock.Advance(time.Minute)
		if p.allow(t, page, "allow").landed(t, callback).Get("code") == "" {
			t.Error("the person has to sign in again because they read")
		}
	})
}

// A token in the body is as good as one in the header, and two are one too many.
func TestUserInfoByBody(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t)
		if a := n.post(t, "/oauth/userinfo", params("access_token", got.AccessToken)); a.status != 200 || !strings.Contains(a.body, p.account.ID) {
			t.Errorf("in the body: %d %s", a.status, a.body)
		}
		n.post(t, "/oauth/userinfo", params("access_token", got.AccessToken), func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+got.AccessToken)
		}).is(t, 400, "invalid_request")
		n.post(t, "/oauth/userinfo", params("access_token", got.AccessToken, "access_token", got.AccessToken)).is(t, 400, "invalid_request")
		n.post(t, "/oauth/userinfo", params("access_token", "x")).is(t, 401, "invalid_token")
		n.post(t, "/oauth/userinfo", url.Values{}).is(t, 401, "invalid_token")
		inAddress := (&person{n: n}).get(t, "/oauth/userinfo?access_token="+got.AccessToken) // where logs would keep it
		inAddress.is(t, 401, "invalid_token")
	})
}

// is fails unless the answer is that refusal of a protected resource (RFC 6750, section 3).
func (a answer) is(t testing.TB, status int, name string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, `"`+name+`"`) || status == 401 && a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("answer %d %v %s, want %d %s", a.status, a.header, a.body, status, name)
	}
}
