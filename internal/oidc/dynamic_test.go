package oidc_test

import (
	"crypto/ecdsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
)

// dynamic is a run of one module: a provider that signs with RS256, as the plan has it, and a program with keys of its own.
type dynamic struct {
	*node
	person *person
	token  string // the initial one
	key    *ecdsa.PrivateKey
	kid    string
	keys   *published
}

// program registers a program that proves itself with keys, and says what more is given.
func (d *dynamic) program(t testing.TB, more string) said {
	t.Helper()
	return d.register(t, "POST", "/oauth/register", d.token, d.body(t, more)).said(t, 201)
}

func (d *dynamic) body(t testing.TB, more string) string {
	t.Helper()
	if !strings.Contains(more, "redirect_uris") {
		more = `"redirect_uris":["` + callback + `"]` + more
	}
	if !strings.Contains(more, "jwks_uri") {
		set := strings.Replace(string(keySet(t, d.key)), `"k1"`, `"`+d.kid+`"`, 1)
		more += `,"jwks":` + set
	}
	return `{"token_endpoint_auth_method":"private_key_jwt","grant_types":["authorization_code","refresh_token"],"scope":"openid offline_access","client_name":"Suite",` + more + `}`
}

// proved adds the program's proof to a form.
func (d *dynamic) proved(t testing.TB, c said, form url.Values) url.Values {
	t.Helper()
	for name, values := range asserted(t, d.node, c.ID, d.kid, d.key) {
		if name != "grant_type" {
			form[name] = values
		}
	}
	return form
}

// flow signs the person in to the program.
func (d *dynamic) flow(t testing.TB, c said, change ...string) tokenAnswer {
	t.Helper()
	w := wish(append([]string{"client_id", c.ID, "scope", "openid"}, change...)...)
	form := exchange(d.code(t, w), "redirect_uri", w.Get("redirect_uri"))
	return d.post(t, "/oauth/token", d.proved(t, c, form)).token(t)
}

func (d *dynamic) code(t testing.TB, w url.Values) string {
	t.Helper()
	a := d.person.get(t, "/oauth/authorize?"+w.Encode())
	if a.status == 200 {
		a = d.person.allow(t, a, "allow")
	}
	to := a.header.Get("Location")
	if refresh := a.header.Get("Refresh"); refresh != "" {
		to = strings.TrimPrefix(refresh, "0; url=")
	}
	u, err := url.Parse(to)
	must(t, err)
	if u.Query().Get("code") == "" || !strings.HasPrefix(to, w.Get("redirect_uri")) {
		t.Fatalf("landed at %s", to)
	}
	return u.Query().Get("code")
}

// asked is the error with which a request ends: with the person, or at the program.
func (d *dynamic) asked(t testing.TB, w url.Values) (atProgram string, status int) {
	t.Helper()
	a := d.person.get(t, "/oauth/authorize?"+w.Encode())
	u, err := url.Parse(a.header.Get("Location"))
	must(t, err)
	return u.Query().Get("error"), a.status
}

// dynamicModules are those of the foundation's plan oidcc-dynamic-certification-test-plan, by their published names.
var dynamicModules = map[string]func(t *testing.T, d *dynamic){
	"oidcc-idtoken-rs256": func(t *testing.T, d *dynamic) {
		got := d.flow(t, d.program(t, `,"id_token_signed_response_alg":"RS256"`))
		parsed, _, err := jwt.NewParser().ParseUnverified(got.IDToken, jwt.MapClaims{})
		must(t, err)
		if d.idClaims(t, got.IDToken); parsed.Method.Alg() != "RS256" {
			t.Errorf("signed with %s", parsed.Method.Alg())
		}
	},
	"oidcc-idtoken-unsigned": func(t *testing.T, d *dynamic) { // not offered, and refused
		d.register(t, "POST", "/oauth/register", d.token, d.body(t, `,"id_token_signed_response_alg":"none"`)).refused(t, 400, "invalid_client_metadata")
	},
	"oidcc-userinfo-rs256": func(t *testing.T, d *dynamic) {
		c := d.program(t, `,"userinfo_signed_response_alg":"RS256"`)
		a := d.send(t, bearerRequest(t, "GET", "/oauth/userinfo", d.flow(t, c).AccessToken))
		claims := jwt.MapClaims{}
		parsed, err := jwt.ParseWithClaims(a.body, claims, func(j *jwt.Token) (any, error) {
			key, err := d.tokens.Key(t.Context(), j.Header["kid"].(string))
			return key.Public, err
		}, jwt.WithValidMethods([]string{"RS256"}))
		must(t, err)
		if a.header.Get("Content-Type") != "application/jwt" || claims["sub"] != d.person.account.ID || claims["iss"] != issuer || claims["aud"] != c.ID || parsed.Header["typ"] == "JWT" {
			t.Errorf("%v %v", a.header, claims)
		}
	},
	"oidcc-ensure-redirect-uri-in-authorization-request": func(t *testing.T, d *dynamic) {
		if to, status := d.asked(t, wish("client_id", d.program(t, "").ID, "redirect_uri", "")); to != "" || status != 400 {
			t.Errorf("%d %s", status, to)
		}
	},
	"oidcc-redirect-uri-query-OK": func(t *testing.T, d *dynamic) {
		c := d.program(t, `"redirect_uris":["`+callback+`?foo=bar"]`)
		d.flow(t, c, "redirect_uri", callback+"?foo=bar")
	},
	"oidcc-redirect-uri-query-mismatch": func(t *testing.T, d *dynamic) {
		c := d.program(t, `"redirect_uris":["`+callback+`?foo=bar"]`)
		if to, status := d.asked(t, wish("client_id", c.ID, "redirect_uri", callback+"?foo=baz")); to != "" || status != 400 {
			t.Errorf("%d %s", status, to)
		}
	},
	"oidcc-redirect-uri-query-added": func(t *testing.T, d *dynamic) {
		if to, status := d.asked(t, wish("client_id", d.program(t, "").ID, "redirect_uri", callback+"?foo=bar")); to != "" || status != 400 {
			t.Errorf("%d %s", status, to)
		}
	},
	"oidcc-redirect-uri-regfrag": func(t *testing.T, d *dynamic) {
		d.register(t, "POST", "/oauth/register", d.token, d.body(t, `"redirect_uris":["`+callback+`#foo"]`)).refused(t, 400, "invalid_redirect_uri")
	},
	"oidcc-discovery-endpoint-verification": func(t *testing.T, d *dynamic) {
		var about map[string]any
		must(t, json.Unmarshal([]byte(d.send(t, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil)).body), &about))
		if about["issuer"] != issuer {
			t.Errorf("issuer %v", about["issuer"])
		}
		for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "registration_endpoint"} {
			if at, _ := about[name].(string); !strings.HasPrefix(at, "https://") {
				t.Errorf("%s: %v", name, about[name])
			}
		}
		for name, want := range map[string]string{
			"scopes_supported": "openid", "response_types_supported": "code", "subject_types_supported": "pairwise", "id_token_signing_alg_values_supported": "RS256",
			"claims_supported": "sub", "token_endpoint_auth_methods_supported": "private_key_jwt",
		} {
			if all, _ := about[name].([]any); !slices.Contains(all, any(want)) {
				t.Errorf("%s: %v", name, about[name])
			}
		}
	},
	"oidcc-server": func(t *testing.T, d *dynamic) {
		c := d.program(t, "")
		got := d.flow(t, c)
		if id := d.idClaims(t, got.IDToken); id["sub"] != d.userInfo(t, got.AccessToken)["sub"] || id["aud"] != c.ID {
			t.Errorf("%v", id)
		}
	},
	"oidcc-registration-logo-uri": func(t *testing.T, d *dynamic) { // kept and told; no page shows it
		c := d.program(t, `,"logo_uri":"https://shop.example/logo.png"`)
		if d.flow(t, c); c.LogoURI != "https://shop.example/logo.png" {
			t.Errorf("%+v", c)
		}
	},
	"oidcc-registration-policy-uri": func(t *testing.T, d *dynamic) {
		d.shows(t, d.program(t, `,"policy_uri":"https://shop.example/policy"`), "https://shop.example/policy")
	},
	"oidcc-registration-tos-uri": func(t *testing.T, d *dynamic) {
		d.shows(t, d.program(t, `,"tos_uri":"https://shop.example/terms"`), "https://shop.example/terms")
	},
	"oidcc-registration-jwks-uri": func(t *testing.T, d *dynamic) {
		d.keys.set(named(t, map[string]*ecdsa.PrivateKey{d.kid: d.key}))
		d.flow(t, d.program(t, `,"jwks_uri":"`+d.keys.URL+`"`))
	},
	"oidcc-registration-sector-uri": func(t *testing.T, d *dynamic) {
		d.keys.set(`["` + callback + `"]`)
		got := d.flow(t, d.program(t, `,"subject_type":"pairwise","sector_identifier_uri":"`+d.keys.URL+`"`))
		if id := d.idClaims(t, got.IDToken); id["sub"] == d.person.account.ID || id["sub"] != d.userInfo(t, got.AccessToken)["sub"] {
			t.Errorf("%v", id)
		}
	},
	"oidcc-registration-sector-bad": func(t *testing.T, d *dynamic) {
		d.keys.set(`["https://other.example/cb"]`)
		d.register(t, "POST", "/oauth/register", d.token, d.body(t, `,"subject_type":"pairwise","sector_identifier_uri":"`+d.keys.URL+`"`)).refused(t, 400, "invalid_client_metadata")
	},
	"oidcc-server-rotate-keys": func(t *testing.T, d *dynamic) {
		c := d.program(t, "")
		before := d.flow(t, c).IDToken
		must(t, d.tokens.Rotate(t.Context(), token.RotateOptions{Now: true}))
		d.idClaims(t, before) // its key is still published
		parsed, _, err := jwt.NewParser().ParseUnverified(before, jwt.MapClaims{})
		must(t, err)
		after, _, err := jwt.NewParser().ParseUnverified(d.flow(t, c).IDToken, jwt.MapClaims{})
		must(t, err)
		if parsed.Header["kid"] == after.Header["kid"] {
			t.Error("it goes on signing with the old key")
		}
	},
	"oidcc-refresh-token-rp-key-rotation": func(t *testing.T, d *dynamic) {
		d.keys.set(named(t, map[string]*ecdsa.PrivateKey{d.kid: d.key}))
		c := d.program(t, `,"jwks_uri":"`+d.keys.URL+`"`)
		got := d.flow(t, c, "scope", "openid offline_access")
		d.key, d.kid = newKey(t), "next"
		d.keys.set(named(t, map[string]*ecdsa.PrivateKey{d.kid: d.key}))
		d.clock.Advance(time.Minute)
		d.post(t, "/oauth/token", d.proved(t, c, params("grant_type", "refresh_token", "refresh_token", got.RefreshToken))).token(t)
	},
	"oidcc-request-uri-unsigned":     func(t *testing.T, d *dynamic) { d.refusesAddress(t, "none") },
	"oidcc-request-uri-signed-rs256": func(t *testing.T, d *dynamic) { d.refusesAddress(t, "RS256") },
	"oidcc-ensure-request-object-with-redirect-uri": func(t *testing.T, d *dynamic) { // without a signature it is nobody's
		w := wish("client_id", d.program(t, "").ID, "request", "eyJhbGciOiJub25lIn0.eyJyZWRpcmVjdF91cmkiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.")
		if got, _ := d.asked(t, w); got != "request_not_supported" && got != "invalid_request_object" {
			t.Errorf("answered %q", got)
		}
	},
	"oidcc-refresh-token": func(t *testing.T, d *dynamic) {
		c := d.program(t, "")
		got := d.flow(t, c, "scope", "openid offline_access")
		next := d.post(t, "/oauth/token", d.proved(t, c, params("grant_type", "refresh_token", "refresh_token", got.RefreshToken))).token(t)
		if before, after := d.idClaims(t, got.IDToken), d.idClaims(t, next.IDToken); before["sub"] != after["sub"] || next.RefreshToken == got.RefreshToken {
			t.Errorf("%v, then %v", before, after)
		}
	},
	"oidcc-ensure-client-assertion-with-iss-aud-succeeds": func(t *testing.T, d *dynamic) { d.flow(t, d.program(t, "")) }, // asserted says so
}

// shows fails unless people are shown an address of the program's.
func (d *dynamic) shows(t *testing.T, c said, address string) {
	t.Helper()
	if a := d.person.get(t, "/oauth/authorize?"+wish("client_id", c.ID, "scope", "openid").Encode()); a.status != http.StatusOK || !strings.Contains(a.body, `href="`+address+`"`) {
		t.Errorf("not shown: %d", a.status)
	}
	d.flow(t, c)
}

// refusesAddress fails unless a request at an address of a stranger's choice is refused, and the address not asked.
func (d *dynamic) refusesAddress(t *testing.T, algorithm string) {
	t.Helper()
	more := `,"request_object_signing_alg":"` + algorithm + `"`
	if algorithm == "none" { // is no signature to register
		d.register(t, "POST", "/oauth/register", d.token, d.body(t, more)).refused(t, 400, "invalid_client_metadata")
		more = ""
	}
	c := d.program(t, more)
	before := d.keys.asked.Load()
	if got, _ := d.asked(t, wish("client_id", c.ID, "request_uri", d.keys.URL+"/request")); got != "request_uri_not_supported" && got != "invalid_request_uri" {
		t.Errorf("answered %q", got)
	}
	if d.keys.asked.Load() != before {
		t.Error("the address was asked")
	}
}

// The modules of the foundation's plan for providers with dynamic registration.
func TestDynamicPlan(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		n := newNodeSigning(t, db, clocktest.Noon(), auth.RS256, letIn)
		token := n.initial(t, oidc.NewInitialToken{Uses: 100})
		for name, run := range dynamicModules {
			t.Run(name, func(t *testing.T) {
				run(t, &dynamic{node: n, person: n.person(t, "kim@example.com"), token: token, key: newKey(t), kid: "first", keys: publish(t)})
			})
		}
	})
}
