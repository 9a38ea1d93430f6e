package oidc_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/oidc"
)

// The modules of the OpenID Foundation's certification plans for providers, written out as tests of ours under the names that the
// foundation publishes. Its own suite was not run. docs/conformance.md lists them.

// plan is what the modules of a plan are run against.
type plan struct {
	*node
	mode   string // response_mode, "" for the default
	secret string
	signer signer
}

// modules are those of oidcc-basic-certification-test-plan, and of oidcc-formpost-basic-certification-test-plan, which has the same ones
// with another response_mode. The last three were in earlier releases of the plan.
var modules = []struct {
	name string
	run  func(t *testing.T, s plan)
}{
	{"oidcc-server", func(t *testing.T, s plan) {
		p := s.full(t)
		got, id := s.signIn(t, p, s.wish())
		if about := s.info(t, got.AccessToken); about["sub"] != id["sub"] {
			t.Errorf("userinfo is of %v, the ID token of %v", about["sub"], id["sub"])
		}
	}},
	{"oidcc-response-type-missing", func(t *testing.T, s plan) {
		if got := s.authorize(t, s.full(t), s.wish("response_type", "")); got.Get("error") != "invalid_request" {
			t.Errorf("%v", got)
		}
	}},
	{"oidcc-userinfo-get", func(t *testing.T, s plan) {
		got, id := s.signIn(t, s.full(t), s.wish())
		if s.info(t, got.AccessToken)["sub"] != id["sub"] {
			t.Error("another person")
		}
	}},
	{"oidcc-userinfo-post-header", func(t *testing.T, s plan) {
		got, _ := s.signIn(t, s.full(t), s.wish())
		if a := s.send(t, bearerRequest(t, "POST", "/oauth/userinfo", got.AccessToken)); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}},
	{"oidcc-userinfo-post-body", func(t *testing.T, s plan) {
		got, _ := s.signIn(t, s.full(t), s.wish())
		if a := s.post(t, "/oauth/userinfo", params("access_token", got.AccessToken)); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}},
	{"oidcc-ensure-request-without-nonce-succeeds-for-code-flow", func(t *testing.T, s plan) {
		if _, id := s.signIn(t, s.full(t), s.wish("nonce", "")); id["nonce"] != nil {
			t.Errorf("a nonce out of nowhere: %v", id["nonce"])
		}
	}},
	{"oidcc-scope-profile", func(t *testing.T, s plan) { s.scope(t, "profile", "locale name preferred_username sub updated_at") }},
	{"oidcc-scope-email", func(t *testing.T, s plan) { s.scope(t, "email", "email email_verified sub") }},
	{"oidcc-scope-address", func(t *testing.T, s plan) { s.scope(t, "address", "address sub") }},
	{"oidcc-scope-phone", func(t *testing.T, s plan) { s.scope(t, "phone", "phone_number phone_number_verified sub") }},
	{"oidcc-scope-all", func(t *testing.T, s plan) {
		s.scope(t, "address email phone profile",
			"address email email_verified locale name phone_number phone_number_verified preferred_username sub updated_at")
	}},
	{"oidcc-alternate-happy-flow", func(t *testing.T, s plan) {
		p := s.full(t)
		s.signIn(t, p, s.wish("scope", "email openid"))
		fields := strings.Split(s.wish("scope", "email openid").Encode(), "&")
		slices.Reverse(fields)
		if got := s.land(t, p.get(t, "/oauth/authorize?"+strings.Join(fields, "&"))); got.Get("code") == "" {
			t.Errorf("the order matters: %v", got)
		}
	}},
	{"oidcc-display-page", func(t *testing.T, s plan) { s.signIn(t, s.full(t), s.wish("display", "page")) }},
	{"oidcc-display-popup", func(t *testing.T, s plan) { s.signIn(t, s.full(t), s.wish("display", "popup")) }},
	{"oidcc-prompt-login", func(t *testing.T, s plan) {
		p := s.full(t)
		_, first := s.signIn(t, p, s.wish())
		s.clock.Advance(2 * time.Second)
		got := s.signsInAgain(t, p, s.wish("prompt", "login"))
		if _, id := s.tokens(t, p, got.Get("code")); id["auth_time"].(float64) <= first["auth_time"].(float64) {
			t.Error("auth_time is that of the first sign-in")
		}
	}},
	{"oidcc-prompt-none-not-logged-in", func(t *testing.T, s plan) {
		if got := s.authorize(t, &person{n: s.node}, s.wish("prompt", "none")); got.Get("error") != "login_required" {
			t.Errorf("%v", got)
		}
	}},
	{"oidcc-prompt-none-logged-in", func(t *testing.T, s plan) {
		p := s.full(t)
		_, first := s.signIn(t, p, s.wish())
		s.clock.Advance(2 * time.Second)
		s.same(t, p, first, s.wish("prompt", "none"))
	}},
	{"oidcc-max-age-1", func(t *testing.T, s plan) {
		p := s.full(t)
		_, first := s.signIn(t, p, s.wish())
		s.clock.Advance(2 * time.Second)
		got := s.signsInAgain(t, p, s.wish("max_age", "1"))
		_, id := s.tokens(t, p, got.Get("code"))
		if id["auth_time"].(float64) <= first["auth_time"].(float64) {
			t.Error("auth_time is that of the first sign-in")
		}
	}},
	{"oidcc-max-age-10000", func(t *testing.T, s plan) {
		p := s.full(t)
		_, first := s.signIn(t, p, s.wish())
		s.clock.Advance(2 * time.Second)
		s.same(t, p, first, s.wish("max_age", "10000"))
	}},
	{"oidcc-ensure-request-with-unknown-parameter-succeeds", func(t *testing.T, s plan) { s.signIn(t, s.full(t), s.wish("extra", "foobar")) }},
	{"oidcc-id-token-hint", func(t *testing.T, s plan) {
		p := s.full(t)
		got, first := s.signIn(t, p, s.wish())
		s.clock.Advance(2 * time.Second)
		s.same(t, p, first, s.wish("prompt", "none", "id_token_hint", got.IDToken))
	}},
	{"oidcc-login-hint", func(t *testing.T, s plan) {
		a := (&person{n: s.node}).get(t, "/oauth/authorize?"+s.wish("login_hint", "kim@example.com").Encode())
		if to, err := url.Parse(a.header.Get("Location")); err != nil || to.Query().Get("login_hint") != "kim@example.com" {
			t.Errorf("sent to %v", to)
		}
		s.signIn(t, s.full(t), s.wish("login_hint", "kim@example.com"))
	}},
	{"oidcc-ui-locales", func(t *testing.T, s plan) { s.signIn(t, s.full(t), s.wish("ui_locales", "se ko")) }},
	{"oidcc-claims-locales", func(t *testing.T, s plan) { s.signIn(t, s.full(t), s.wish("claims_locales", "se")) }},
	{"oidcc-ensure-request-with-acr-values-succeeds", func(t *testing.T, s plan) {
		if _, id := s.signIn(t, s.full(t), s.wish("acr_values", strings.Join(s.metadata(t).ACRs, " "))); id["acr"] != "1" {
			t.Errorf("acr %v", id["acr"])
		}
	}},
	{"oidcc-codereuse", func(t *testing.T, s plan) {
		p := s.full(t)
		code := s.authorize(t, p, s.wish()).Get("code")
		s.tokens(t, p, code)
		s.redeem(t, code).refused(t, 400, "invalid_grant")
	}},
	{"oidcc-codereuse-30seconds", func(t *testing.T, s plan) {
		p := s.full(t)
		code := s.authorize(t, p, s.wish()).Get("code")
		got, _ := s.tokens(t, p, code)
		s.clock.Advance(30 * time.Second)
		s.redeem(t, code).refused(t, 400, "invalid_grant")
		s.send(t, bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)).is(t, 401, "invalid_token")
	}},
	{"oidcc-ensure-registered-redirect-uri", func(t *testing.T, s plan) {
		if a := s.full(t).get(t, "/oauth/authorize?"+s.wish("redirect_uri", callback+"/other").Encode()); a.status != 400 || a.header.Get("Location") != "" {
			t.Errorf("%d %v", a.status, a.header)
		}
	}},
	{"oidcc-ensure-post-request-succeeds", func(t *testing.T, s plan) {
		p := s.full(t)
		s.signIn(t, p, s.wish())
		sent := s.post(t, "/oauth/authorize", s.wish(), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
		if got := s.land(t, p.get(t, sent.header.Get("Location"))); sent.status != 303 || got.Get("code") == "" {
			t.Errorf("%d %v: %v", sent.status, sent.header, got)
		}
	}},
	{"oidcc-server-client-secret-post", func(t *testing.T, s plan) {
		form := exchange(s.authorize(t, s.full(t), s.wish()).Get("code"), "code_verifier", "", "client_id", "shop", "client_secret", s.secret)
		s.post(t, "/oauth/token", form).token(t)
	}},
	{"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported", func(t *testing.T, s plan) {
		object := s.signer.sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, s.signer.claims(nil))
		if got := s.authorize(t, s.full(t), s.wish("request", object)); got.Get("error") != "request_not_supported" {
			t.Errorf("%v", got)
		}
	}},
	{"oidcc-claims-essential", func(t *testing.T, s plan) {
		got, id := s.signIn(t, s.full(t), s.wish("scope", "openid", "claims", `{"userinfo":{"name":{"essential":true}}}`))
		if about := s.info(t, got.AccessToken); about["name"] != "Kim" || id["name"] != nil {
			t.Errorf("userinfo %v, ID token %v", about, id)
		}
	}},
	{"oidcc-ensure-request-object-with-redirect-uri", func(t *testing.T, s plan) {
		change := map[string]any{"code_challenge": nil, "code_challenge_method": nil}
		if s.mode != "" {
			change["response_mode"] = s.mode
		}
		got := s.authorize(t, s.full(t), s.wish("request", s.signer.object(t, change), "redirect_uri", "https://shop.example/not-registered"))
		if got.Get("code") == "" {
			t.Errorf("the address beside the object counts: %v", got)
		}
	}},
	{"oidcc-refresh-token", func(t *testing.T, s plan) {
		p := s.full(t)
		got, first := s.signIn(t, p, s.wish("scope", "openid offline_access", "prompt", "consent"))
		s.clock.Advance(2 * time.Second)
		next := s.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), basic("shop", s.secret)).token(t)
		id := s.idClaims(t, next.IDToken)
		for _, name := range []string{"iss", "sub", "aud", "auth_time", "azp"} {
			if id[name] != first[name] {
				t.Errorf("%s was %v and is %v", name, first[name], id[name])
			}
		}
		s.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", next.RefreshToken, "client_id", "other")).refused(t, 400, "invalid_grant")
	}},
	{"oidcc-ensure-request-with-valid-pkce-succeeds", func(t *testing.T, s plan) {
		got := s.authorize(t, s.full(t), s.wish("code_challenge", challengeOf(verifier), "code_challenge_method", "S256"))
		s.post(t, "/oauth/token", exchange(got.Get("code")), basic("shop", s.secret)).token(t)
	}},
	{"oidcc-idtoken-signature", func(t *testing.T, s plan) {
		got, _ := s.signIn(t, s.full(t), s.wish())
		parsed, _, err := jwt.NewParser().ParseUnverified(got.IDToken, jwt.MapClaims{})
		must(t, err)
		if !strings.Contains(s.keySet(t), `"`+parsed.Header["kid"].(string)+`"`) || !slices.Contains(s.metadata(t).SigningAlgs, parsed.Method.Alg()) {
			t.Errorf("header %v", parsed.Header)
		}
	}},
	{"oidcc-idtoken-unsigned", func(t *testing.T, s plan) {
		if slices.Contains(s.metadata(t).SigningAlgs, "none") { // without which the module is skipped
			t.Error("unsigned ID tokens are offered")
		}
	}},
	{"oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported", func(t *testing.T, s plan) {
		got := s.authorize(t, s.full(t), s.wish("request_uri", "https://shop.example/request.jwt"))
		if got.Get("error") != "request_uri_not_supported" || s.metadata(t).RequestURI {
			t.Errorf("%v", got)
		}
	}},
}

// wish is a request without PKCE, which the plans leave out.
func (s plan) wish(change ...string) url.Values {
	return wish(append([]string{"code_challenge", "", "code_challenge_method", "", "response_mode", s.mode}, change...)...)
}

// authorize sends a person with a request, who allows it where they are asked, and returns the answer.
func (s plan) authorize(t *testing.T, p *person, v url.Values) url.Values {
	t.Helper()
	a := p.get(t, "/oauth/authorize?"+v.Encode())
	if hidden.MatchString(a.body) {
		a = p.allow(t, a, "allow")
	}
	return s.land(t, a)
}

var posted = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// land reads the answer in the way that was asked for.
func (s plan) land(t *testing.T, a answer) url.Values {
	t.Helper()
	if s.mode != "form_post" {
		return a.landed(t, callback)
	}
	if a.status != 200 || !strings.Contains(a.body, `method="post" action="`+callback+`"`) || a.header.Get("Location") != "" {
		t.Fatalf("no form for the client: %d %v %s", a.status, a.header, a.body)
	}
	values := url.Values{}
	for _, m := range posted.FindAllStringSubmatch(a.body, -1) {
		values.Add(m[1], html.UnescapeString(m[2]))
	}
	if values.Get("iss") != issuer {
		t.Errorf("the answer does not say whose it is: %v", values)
	}
	return values
}

func (s plan) redeem(t *testing.T, code string) answer {
	t.Helper()
	return s.post(t, "/oauth/token", exchange(code, "code_verifier", ""), basic("shop", s.secret))
}

// tokens exchanges a code, and checks the ID token (OpenID Connect Core 1.0, section 3.1.3.7).
func (s plan) tokens(t *testing.T, p *person, code string) (tokenAnswer, jwt.MapClaims) {
	t.Helper()
	got := s.redeem(t, code).token(t)
	id := s.idClaims(t, got.IDToken)
	half := sha256.Sum256([]byte(got.AccessToken))
	if id["iss"] != issuer || id["aud"] != "shop" || id["sub"] != p.account.ID || id["at_hash"] != base64.RawURLEncoding.EncodeToString(half[:16]) ||
		id["exp"].(float64) <= float64(s.clock.Now().Unix()) || id["iat"].(float64) > float64(s.clock.Now().Unix()) || got.TokenType != "Bearer" {
		t.Errorf("%+v with the ID token %v", got, id)
	}
	return got, id
}

// signIn is the whole way.
func (s plan) signIn(t *testing.T, p *person, v url.Values) (tokenAnswer, jwt.MapClaims) {
	t.Helper()
	answer := s.authorize(t, p, v)
	if answer.Get("code") == "" || answer.Get("state") != v.Get("state") {
		t.Fatalf("answer %v", answer)
	}
	got, id := s.tokens(t, p, answer.Get("code"))
	if nonce, _ := id["nonce"].(string); nonce != v.Get("nonce") {
		t.Errorf("nonce %q", nonce)
	}
	return got, id
}

// scope checks what a scope opens, at the userinfo endpoint alone.
func (s plan) scope(t *testing.T, words, want string) {
	t.Helper()
	got, id := s.signIn(t, s.full(t), s.wish("scope", "openid "+words))
	about := s.info(t, got.AccessToken)
	if names(about) != want || got.Scope != "openid "+words {
		t.Errorf("userinfo has %s for %q, want %s", names(about), got.Scope, want)
	}
	if address, there := about["address"]; there {
		if parts := address.(map[string]any); parts["country"] != "Korea" || parts["street_address"] != "209 Sejong-daero" {
			t.Errorf("address %v", parts)
		}
	}
	for _, word := range strings.Fields(want) {
		if word != "sub" && id[word] != nil {
			t.Errorf("%s is in the ID token", word)
		}
	}
	for _, word := range strings.Fields(words) {
		if !slices.Contains(s.metadata(t).Scopes, word) {
			t.Errorf("the scope %s is not published", word)
		}
	}
}

// signsInAgain demands that the person is sent to sign in, and returns the answer after they did.
func (s plan) signsInAgain(t *testing.T, p *person, v url.Values) url.Values {
	t.Helper()
	to, err := url.Parse(p.get(t, "/oauth/authorize?"+v.Encode()).header.Get("Location"))
	must(t, err)
	if to.Path != "/account/reauthenticate" {
		t.Fatalf("sent to %s", to)
	}
	p.signIn(t)
	return s.land(t, p.get(t, strings.Replace(to.Query().Get("return_to"), "/oauth/continue", "/oauth/authorize", 1)))
}

// same demands an answer without anything being shown, about the same sign-in of the same person.
func (s plan) same(t *testing.T, p *person, first jwt.MapClaims, v url.Values) {
	t.Helper()
	got := s.land(t, p.get(t, "/oauth/authorize?"+v.Encode()))
	if _, id := s.tokens(t, p, got.Get("code")); id["sub"] != first["sub"] || id["auth_time"] != first["auth_time"] {
		t.Errorf("%v after %v", id, first)
	}
}

// metadata is what the provider publishes of itself.
type metadata struct {
	Issuer      string   `json:"issuer"`
	JWKSURI     string   `json:"jwks_uri"`
	Scopes      []string `json:"scopes_supported"`
	Responses   []string `json:"response_types_supported"`
	Modes       []string `json:"response_modes_supported"`
	Grants      []string `json:"grant_types_supported"`
	Subjects    []string `json:"subject_types_supported"`
	SigningAlgs []string `json:"id_token_signing_alg_values_supported"`
	RequestAlgs []string `json:"request_object_signing_alg_values_supported"`
	Claims      []string `json:"claims_supported"`
	ACRs        []string `json:"acr_values_supported"`
	Challenges  []string `json:"code_challenge_methods_supported"`
	ClaimsParam bool     `json:"claims_parameter_supported"`
	Request     bool     `json:"request_parameter_supported"`
	RequestURI  bool     `json:"request_uri_parameter_supported"`
}

func (n *node) metadata(t *testing.T) (m metadata) {
	t.Helper()
	must(t, json.Unmarshal([]byte(n.get(t, "/.well-known/openid-configuration").body), &m))
	return m
}

func (n *node) get(t *testing.T, path string) answer {
	t.Helper()
	return n.send(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
}

// keySet is the published JWK Set.
func (n *node) keySet(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	n.tokens.Mount(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/jwks.json", nil))
	return w.Body.String()
}

// Programs that work with a certified provider work with this one.
func TestBasicPlan(t *testing.T)    { runPlan(t, "") }
func TestFormPostPlan(t *testing.T) { runPlan(t, "form_post") }

func runPlan(t *testing.T, mode string) {
	onEach(t, func(t *testing.T, n *node) {
		s := plan{node: n, mode: mode}
		s.signer, s.secret = newSigner(t, n, func(m *oidc.Metadata) { m.Scope = everything.Scope })
		other := shop
		other.AuthMethod = oidc.AuthNone
		n.add(t, "other", other)
		for _, m := range modules {
			t.Run(m.name, func(t *testing.T) { m.run(t, s) }) // one after the other: they share a clock
		}
	})
}

// What a program reads of the provider before it sends anybody there is whole, and true.
func TestConfigPlan(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		t.Run("oidcc-discovery-endpoint-verification", func(t *testing.T) {
			a, m := n.get(t, "/.well-known/openid-configuration"), n.metadata(t)
			if a.status != 200 || a.header.Get("Content-Type") != "application/json" || m.Issuer != issuer || m.JWKSURI != issuer+"/.well-known/jwks.json" {
				t.Errorf("%d %v %+v", a.status, a.header, m)
			}
			for what, missing := range map[string]bool{
				"openid":            !slices.Contains(m.Scopes, "openid"),
				"the code flow":     !slices.Contains(m.Responses, "code") || !slices.Contains(m.Grants, "authorization_code"),
				"form_post":         !slices.Contains(m.Modes, "form_post"),
				"public subjects":   !slices.Contains(m.Subjects, "public"),
				"a signature":       len(m.SigningAlgs) == 0 || slices.Contains(m.SigningAlgs, "none"),
				"RS256 of requests": !slices.Contains(m.RequestAlgs, "RS256") || slices.Contains(m.RequestAlgs, "none"),
				"claims":            !m.ClaimsParam || !slices.Contains(m.Claims, "sub") || !slices.Contains(m.Claims, "phone_number"),
				"request objects":   !m.Request || m.RequestURI,
				"PKCE":              !slices.Equal(m.Challenges, []string{"S256"}),
			} {
				if missing {
					t.Errorf("%s is not there, or not as it must be: %+v", what, m)
				}
			}
			var all map[string]any
			must(t, json.Unmarshal([]byte(a.body), &all))
			for name, value := range all {
				if text, ok := value.(string); ok && (strings.HasSuffix(name, "_endpoint") || strings.HasSuffix(name, "_uri")) && !strings.HasPrefix(text, issuer+"/") {
					t.Errorf("%s is %s", name, text)
				}
			}
			var keys struct {
				Keys []map[string]any `json:"keys"`
			}
			must(t, json.Unmarshal([]byte(n.keySet(t)), &keys))
			for _, key := range keys.Keys {
				if key["d"] != nil || key["k"] != nil || key["kid"] == nil || key["kty"] == nil {
					t.Errorf("key %v", key)
				}
			}
			if len(keys.Keys) == 0 {
				t.Error("no keys")
			}
		})
	})
}

// The list that people read names every module that is tested here.
func TestModulesAreListed(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/conformance.md")
	must(t, err)
	for _, m := range modules {
		if !strings.Contains(string(document), "| "+m.name+" |") {
			t.Errorf("docs/conformance.md does not list %s", m.name)
		}
	}
}
