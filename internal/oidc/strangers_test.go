package oidc_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
)

// fuzzNode is a node on SQLite with the clients shop, which signs, and app, which is public.
func fuzzNode(f *testing.F) (*node, signer) {
	f.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(f.TempDir(), "fuzz.db")
	db, err := sqldb.Open(f.Context(), cfg)
	must(f, err)
	f.Cleanup(func() { must(f, db.Close()) })
	must(f, sqldb.Migrate(f.Context(), db, migrations()...))
	n := newNode(f, db, clocktest.Noon(), func(c *oidc.Config) { c.Requests, c.Failures = 10_000_000, 10_000_000 })
	s, _ := newSigner(f, n, func(m *oidc.Metadata) { m.Scope = everything.Scope })
	app := shop
	app.AuthMethod, app.GrantTypes = oidc.AuthNone, []string{"authorization_code", "refresh_token", oidc.GrantDevice}
	n.add(f, "app", app)
	return n, s
}

// Whatever a stranger posts to the endpoints of clients is answered as RFC 6749 says, and is worth no token.
func FuzzEndpoints(f *testing.F) {
	n, s := fuzzNode(f)
	endpoints := []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/par", "/oauth/device_authorization", "/oauth/userinfo"}
	assertion := s.sign(f, jwt.SigningMethodES256, newKey(f), nil, s.claims(map[string]any{"sub": "shop"}))
	for i, form := range []url.Values{
		exchange("x", "client_id", "app"), params("token", "x", "client_id", "app"), params("token", assertion, "client_id", "app"),
		wish("client_id", "app", "resource", "https://x.example", "claims", `{"userinfo":{}}`), params("client_id", "app", "scope", "openid \x00"),
		params("access_token", assertion),
	} {
		f.Add(i, "application/x-www-form-urlencoded", "", form.Encode())
	}
	f.Add(0, "application/x-www-form-urlencoded", "Basic "+base64.StdEncoding.EncodeToString([]byte("shop:%zz")), "grant_type=client_credentials")
	f.Add(0, "application/x-www-form-urlencoded", "", params("grant_type", "refresh_token", "client_assertion", assertion,
		"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer").Encode())
	f.Add(4, "application/x-www-form-urlencoded; charset=\xff", "basic ", "client_id=app&client_id=app")
	f.Fuzz(func(t *testing.T, which int, media, authorization, body string) {
		path := endpoints[(which%len(endpoints)+len(endpoints))%len(endpoints)]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		r.Header["Content-Type"], r.Header["Authorization"] = []string{media}, []string{authorization}
		if authorization == "" {
			r.Header.Del("Authorization")
		}
		a := n.send(t, r)
		var answer map[string]any
		if err := json.Unmarshal([]byte(a.body), &answer); a.body != "" && err != nil || a.status >= 500 || a.status >= 400 && answer["error"] == nil {
			t.Errorf("%s answers %d %s", path, a.status, a.body)
		}
		if answer["access_token"] != nil || answer["sub"] != nil || answer["active"] == true {
			t.Errorf("%s tells a stranger %s", path, a.body)
		}
	})
}

// Whatever a browser is made to ask for, it ends up at an address of the client's or of ours.
func FuzzBrowser(f *testing.F) {
	n, s := fuzzNode(f)
	p := n.person(f, "kim@example.com")
	paths := []string{"/oauth/authorize", "/oauth/continue", "/oauth/logout", "/oauth/device"}
	for i, v := range []url.Values{
		wish("id_token_hint", "x", "claims", `{"id_token":{"sub":{"value":"x"}}}`), wish("prompt", "none"),
		params("id_token_hint", "x", "post_logout_redirect_uri", "https://shop.example/bye", "client_id", "shop", "state", "\r\n"),
		params("user_code", "bcdf-ghjk"),
		params("client_id", "shop", "request", s.object(f, nil), "redirect_uri", "https://evil.example"),
	} {
		f.Add(i%4, v.Encode())
	}
	f.Add(0, "client_id=shop&request_uri=urn:ietf:params:oauth:request_uri:x")
	f.Add(0, "client_id=shop&redirect_uri=http://127.0.0.1:1%40evil.example/cb&response_mode=form_post")
	f.Fuzz(func(t *testing.T, which int, query string) {
		path := paths[(which%len(paths)+len(paths))%len(paths)]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.URL.RawQuery = query
		p.show(r)
		a := n.send(t, r)
		if a.status >= 500 {
			t.Errorf("%s?%s answers %d %s", path, query, a.status, a.body)
		}
		to := a.header.Get("Location")
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		if err != nil || u.Host != "" && u.Host != "shop.example" && u.Hostname() != "127.0.0.1" || u.User != nil || strings.ContainsAny(to, "\r\n") {
			t.Errorf("%s?%s leads to %q", path, query, to)
		}
	})
}

// Even what a client has signed is anybody's JSON: it names the client, and no other request.
func FuzzRequestObject(f *testing.F) {
	n, s := fuzzNode(f)
	good, err := json.Marshal(s.claims(nil))
	must(f, err)
	f.Add([]byte(`{"alg":"ES256","typ":"oauth-authz-req+jwt"}`), good)
	f.Add([]byte(`{"alg":"ES256","crit":["b64"]}`), good)
	f.Add([]byte(`{"alg":"none"}`), good)
	f.Add([]byte(`{"alg":"ES256","kid":["k1"],"typ":1}`), []byte(`{"iss":"shop","aud":["`+issuer+`"],"exp":1772366500,"max_age":1e3,"resource":["a"],"x":{"y":[1]}}`))
	f.Add([]byte(`{"alg":"ES256"}`), []byte(`{"iss":"shop","aud":"`+issuer+`","exp":1772366500.5,"client_id":1}`))
	f.Fuzz(func(t *testing.T, header, claims []byte) {
		text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
		signature, err := jwt.SigningMethodES256.Sign(text, s.key)
		must(t, err)
		got, err := n.Unpack(t.Context(), "shop", text+"."+base64.RawURLEncoding.EncodeToString(signature))
		if err != nil {
			return
		}
		if got.Get("client_id") != "shop" || len(got["client_id"]) != 1 || got.Has("request") || got.Has("request_uri") || got.Has("sumun_since") || got.Has("sub") {
			t.Errorf("%s is taken for %v", claims, got)
		}
		if _, err := n.Unpack(t.Context(), "shop", text+"."); err == nil {
			t.Errorf("%s %s is taken without its signature", header, claims)
		}
	})
}

// What a client signs proves that it is the client only if it says so, to us, under an id.
func FuzzClientAssertion(f *testing.F) {
	n, s := fuzzNode(f)
	billing := machine
	billing.AuthMethod, billing.Keys = oidc.AuthPrivateKey, keySet(f, s.key)
	n.add(f, "billing", billing)
	for _, seed := range []string{
		`{"iss":"billing","sub":"billing","aud":"` + issuer + `","jti":"1","exp":1772366500}`,
		`{"iss":"billing","sub":"billing","aud":["` + issuer + `/oauth/token"],"jti":"","exp":1772366500}`,
		`{"iss":"billing","sub":"shop","aud":[],"jti":1,"exp":1e99}`, `{"sub":["billing"],"exp":null}`, `[]`, `{"SUB":"billing"}`,
	} {
		f.Add([]byte(`{"alg":"ES256","kid":"k1"}`), []byte(seed))
	}
	f.Add([]byte(`{"alg":"ES256","typ":"OAUTH-AUTHZ-REQ+JWT"}`), []byte(`{"iss":"billing","sub":"billing","aud":"`+issuer+`","jti":"2","exp":1772366500}`))
	f.Fuzz(func(t *testing.T, header, claims []byte) {
		text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
		signature, err := jwt.SigningMethodES256.Sign(text, s.key)
		must(t, err)
		a := n.post(t, "/oauth/token", params("grant_type", "client_credentials", "client_assertion", text+"."+base64.RawURLEncoding.EncodeToString(signature),
			"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"))
		if a.status != 200 {
			if a.status >= 500 {
				t.Errorf("%s: %d %s", claims, a.status, a.body)
			}
			return
		}
		var said jwt.RegisteredClaims
		if err := json.Unmarshal(claims, &said); err != nil || said.Issuer != "billing" || said.Subject != "billing" || said.ID == "" || said.ExpiresAt == nil ||
			!slices.Contains(said.Audience, issuer) && !slices.Contains(said.Audience, issuer+"/oauth/token") {
			t.Errorf("%s %s is a proof: %v", header, claims, err)
		}
	})
}

// A hint that we did not sign says nothing of anybody.
func FuzzIDTokenHint(f *testing.F) {
	n, _ := fuzzNode(f)
	p := n.person(f, "kim@example.com")
	now := n.clock.Now()
	claims := map[string]any{"iss": issuer, "sub": p.account.ID, "aud": "shop", "sid": p.session.ID, "exp": now.Add(-time.Hour).Unix()}
	ours, err := n.tokens.Sign(f.Context(), "JWT", claims)
	must(f, err)
	if subject, session, ok := n.Hint(f.Context(), ours); !ok || subject != p.account.ID || session != p.session.ID {
		f.Fatal("an expired ID token of ours is no hint")
	}
	other, err := n.tokens.Sign(f.Context(), "logout+jwt", claims)
	must(f, err)
	for _, seed := range []string{ours, other, ours + ".x", strings.Replace(ours, ".", "..", 1), "x", "", "a.b.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		subject, session, ok := n.Hint(t.Context(), raw)
		if ok && (subject != p.account.ID || session != p.session.ID || !strings.HasPrefix(raw, ours[:strings.LastIndexByte(ours, '.')])) {
			t.Errorf("%q is a hint at %q", raw, subject)
		}
	})
}

func FuzzUserCode(f *testing.F) {
	for _, seed := range []string{"BCDF-GHJK", "bcdf ghjk", "ſbcdfghj", "BCDFGHJK9", "\xff", "--------", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		code, ok := oidc.ParseUserCode(typed)
		if !ok {
			return
		}
		if again, ok := oidc.ParseUserCode(code[:4] + "-" + code[4:]); len(code) != 8 || strings.ContainsAny(code, "AEIOUY '%-") || !ok || again != code {
			t.Errorf("%q is the code %q", typed, code)
		}
	})
}

// What is kept of the parameter is what may be asked for, and reads the same again: a code carries it.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"userinfo":{"name":{"essential":true},"address":null},"id_token":{"sub":{"value":"x"},"acr":{"essential":true,"values":["1",2,null]}}}`,
		`{"id_token":{"email":{"value":{"a":[1e99,"\u0000"]}}}}`, `{"userinfo":null,"id_token":{"shoe_size":{"value":1}}}`, `[]`, `null`, `{`, ``,
		`{"USERINFO":{"name":null},"userinfo":{"name":{"value":null}}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		kept, scopes, err := oidc.ParseClaims(text)
		if err != nil {
			return
		}
		again, sameScopes, err := oidc.ParseClaims(kept)
		if len(kept) <= 4000 && (err != nil || again != kept || !slices.Equal(scopes, sameScopes)) {
			t.Errorf("%q is kept as %q, and then as %q: %v", text, kept, again, err)
		}
		if slices.Contains(scopes, "address") || strings.Contains(kept, "shoe_size") {
			t.Errorf("%q asks for %v and keeps %s", text, scopes, kept)
		}
	})
}

// Nobody gets more than their client was registered for.
func FuzzScopeAndResource(f *testing.F) {
	c := oidc.Client{ID: "billing", Metadata: oidc.Metadata{Scope: "openid orders:read orders:write", Resources: []string{"https://api.example/v1"}}}
	f.Add("orders:read", "https://api.example/v1")
	f.Add("orders:read  orders:read", "https://api.example/v1#")
	f.Add("openid", "HTTPS://api.example/v1")
	f.Add(" \x00\"", "//api.example/v1")
	f.Fuzz(func(t *testing.T, scope, resource string) {
		if oidc.ValidResource(resource) && strings.Contains(resource, "#") {
			t.Errorf("%q may be registered", resource)
		}
		words, audience, err := c.Granted(scope, resource)
		if err != nil {
			return
		}
		for _, word := range strings.Fields(words) {
			if word != "orders:read" && word != "orders:write" {
				t.Errorf("%q is granted %q", scope, words)
			}
		}
		if len(audience) != 1 || audience[0] != c.Resources[0] && audience[0] != issuer {
			t.Errorf("%q is granted %q", resource, audience)
		}
	})
}
