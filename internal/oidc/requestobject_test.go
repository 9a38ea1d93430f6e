package oidc_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// signer signs requests of the client shop.
type signer struct {
	n   *node
	key *ecdsa.PrivateKey
}

// newSigner registers shop, with what change makes of it.
func newSigner(t testing.TB, n *node, change func(*oidc.Metadata)) (s signer, secret string) {
	t.Helper()
	s = signer{n, newKey(t)}
	m := shop
	m.Keys = keySet(t, s.key)
	if change != nil {
		change(&m)
	}
	_, secret = n.add(t, "shop", m)
	return s, secret
}

// claims are a good request object; nil removes one.
func (s signer) claims(change map[string]any) jwt.MapClaims {
	claims := jwt.MapClaims{"iss": "shop", "aud": issuer, "exp": s.n.clock.Now().Add(5 * time.Minute).Unix(), "jti": rand.Text()}
	for name := range wish() {
		claims[name] = wish().Get(name)
	}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func (s signer) object(t testing.TB, change map[string]any) string {
	t.Helper()
	return s.sign(t, jwt.SigningMethodES256, s.key, map[string]any{"typ": "oauth-authz-req+jwt", "kid": "k1"}, s.claims(change))
}

func (s signer) sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	delete(token.Header, "typ")
	for name, value := range header {
		token.Header[name] = value
	}
	raw, err := token.SignedString(key)
	must(t, err)
	return raw
}

// at is the authorization endpoint with a request object.
func at(object string, beside ...string) string {
	v := params(append([]string{"client_id", "shop", "request", object}, beside...)...)
	return "/oauth/authorize?" + v.Encode()
}

// What a client signed is what counts, whatever the browser makes of it; and it counts for as long as the person takes to sign in.
func TestRequestObjects(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		s, secret := newSigner(t, n, nil)
		p := n.person(t, "kim@example.com")
		page := p.get(t, at(s.object(t, nil), "scope", "openid orders", "redirect_uri", "https://evil.example", "state", "evil", "nonce", "evil"))
		if page.status != 200 || strings.Contains(page.body, "orders") {
			t.Fatalf("what stands beside it counts: %d %s", page.status, page.body)
		}
		landed := p.allow(t, page, "allow").landed(t, callback)
		got := n.post(t, "/oauth/token", exchange(landed.Get("code")), basic("shop", secret)).token(t)
		if id := n.idClaims(t, got.IDToken); landed.Get("state") != "st&1" || got.Scope != "openid email" || id["nonce"] != "n1" {
			t.Errorf("%v, %+v, %v", landed, got, id)
		}

		// Signing in takes longer than the object lasts, and what the browser has meanwhile can be neither read nor changed.
		n.clock.Advance(time.Second)
		stranger := &person{n: n}
		sent := stranger.get(t, at(s.object(t, map[string]any{"prompt": "login", "login_hint": "kim@example.com"})))
		to, err := url.Parse(sent.header.Get("Location"))
		must(t, err)
		back := to.Query().Get("return_to")
		if to.Path != "/sign-in" || !strings.Contains(back, "request_uri") || strings.Contains(back, "nonce") || strings.Contains(back, "request=") {
			t.Fatalf("a stranger is sent to %s", to)
		}
		back = strings.Replace(back, "/oauth/continue", "/oauth/authorize", 1)
		if a := p.get(t, back+"&sumun_since=1&prompt=none"); !strings.HasPrefix(a.header.Get("Location"), "/account/reauthenticate?") {
			t.Errorf("the browser talks itself out of prompt=login: %d %v", a.status, a.header)
		}
		n.clock.Advance(8 * time.Minute)
		p.signIn(t)
		if p.get(t, back).landed(t, callback).Get("code") == "" {
			t.Error("the request is lost while its person signs in")
		}

		// Numbers, objects and lists are what they are as parameters.
		n.clock.Advance(2 * time.Minute)
		if got := p.get(t, at(s.object(t, map[string]any{"max_age": 60, "prompt": "none"}))).landed(t, callback); got.Get("error") != "login_required" {
			t.Errorf("max_age as a number: %v", got)
		}
		rich := s.object(t, map[string]any{"claims": map[string]any{"id_token": map[string]any{"email": nil}}, "client_id": nil})
		code := p.get(t, at(rich)).landed(t, callback).Get("code")
		if id := n.idClaims(t, n.post(t, "/oauth/token", exchange(code), basic("shop", secret)).token(t).IDToken); id["email"] != "kim@example.com" {
			t.Errorf("claims as an object: %v", id)
		}
		for _, header := range []map[string]any{{}, {"typ": "JWT"}, {"typ": "application/OAUTH-AUTHZ-REQ+jwt"}} {
			if p.get(t, at(s.sign(t, jwt.SigningMethodES256, s.key, header, s.claims(nil)))).landed(t, callback).Get("code") == "" {
				t.Errorf("refused with the header %v", header)
			}
		}
	})
}

// An object that somebody else made, or made for something else, is refused: at the client's address where that is beside it, else on a
// page.
func TestForgedRequestObjects(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		s, _ := newSigner(t, n, nil)
		n.add(t, "plain", shop)
		p := n.person(t, "kim@example.com")
		p.code(t, wish())
		now := n.clock.Now()
		with := func(name string, value any) string { return s.object(t, map[string]any{name: value}) }
		signed := func(method jwt.SigningMethod, key any, header map[string]any) string {
			return s.sign(t, method, key, header, s.claims(nil))
		}
		parts := strings.Split(s.object(t, nil), ".")
		other, err := json.Marshal(s.claims(map[string]any{"scope": "openid orders"}))
		must(t, err)
		es := jwt.SigningMethodES256
		for name, one := range map[string]struct{ object, want string }{
			"another key":       {signed(es, newKey(t), nil), "invalid_request_object"},
			"the public key":    {signed(jwt.SigningMethodHS256, []byte(keySet(t, s.key)), nil), "invalid_request_object"},
			"no signature":      {signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), "request_not_supported"},
			"encrypted":         {"a.b.c.d.e", "invalid_request_object"},
			"no JWT":            {"x", "invalid_request_object"},
			"empty":             {"", "invalid_request_object"},
			"other claims":      {parts[0] + "." + base64.RawURLEncoding.EncodeToString(other) + "." + parts[2], "invalid_request_object"},
			"an access token":   {signed(es, s.key, map[string]any{"typ": "at+jwt"}), "invalid_request_object"},
			"an extension":      {signed(es, s.key, map[string]any{"crit": []string{"b64"}, "b64": false}), "invalid_request_object"},
			"another key's id":  {signed(es, s.key, map[string]any{"kid": "k2"}), "invalid_request_object"},
			"expired":           {with("exp", now.Add(-2*time.Minute).Unix()), "invalid_request_object"},
			"for ever":          {with("exp", nil), "invalid_request_object"},
			"for a day":         {with("exp", now.Add(24*time.Hour).Unix()), "invalid_request_object"},
			"not yet":           {with("nbf", now.Add(10*time.Minute).Unix()), "invalid_request_object"},
			"another issuer":    {with("iss", "other"), "invalid_request_object"},
			"no issuer":         {with("iss", nil), "invalid_request_object"},
			"another provider":  {with("aud", "https://other.example"), "invalid_request_object"},
			"no audience":       {with("aud", nil), "invalid_request_object"},
			"another client":    {with("client_id", "other"), "invalid_request_object"},
			"an assertion":      {with("sub", "shop"), "invalid_request_object"},
			"one in it":         {with("request", "x"), "invalid_request_object"},
			"a reference in it": {with("request_uri", "https://shop.example/r"), "invalid_request_object"},
			"a list of numbers": {with("resource", []int{1}), "invalid_request_object"},
			"a word twice":      {with("scope", []string{"openid", "email"}), "invalid_request"},
			"another type":      {with("response_type", "token"), "unsupported_response_type"},
		} {
			t.Run(name, func(t *testing.T) {
				got := p.get(t, at(one.object, "redirect_uri", callback, "state", "beside")).landed(t, callback)
				if got.Get("error") != one.want || got.Get("code") != "" {
					t.Errorf("%v, want %s", got, one.want)
				}
				if a := p.get(t, at(one.object, "redirect_uri", "https://evil.example")); strings.HasPrefix(one.want, "invalid_request_o") && (a.status != 400 || a.header.Get("Location") != "") {
					t.Errorf("at another address: %d %v", a.status, a.header)
				}
			})
		}
		if a := p.get(t, at(with("redirect_uri", "https://evil.example"), "redirect_uri", callback)); a.status != 400 {
			t.Errorf("an address in it that is not registered: %d %v", a.status, a.header)
		}
		both := p.get(t, at(s.object(t, nil), "redirect_uri", callback, "request_uri", "https://shop.example/r")).landed(t, callback)
		if both.Get("error") != "invalid_request_object" {
			t.Errorf("with a reference beside it: %v", both)
		}
		reference := p.get(t, "/oauth/authorize?"+wish("request_uri", "https://shop.example/r").Encode()).landed(t, callback)
		if reference.Get("error") != "request_uri_not_supported" {
			t.Errorf("at an address: %v", reference)
		}
		keyless := p.get(t, "/oauth/authorize?"+params("client_id", "plain", "request", s.object(t, nil), "redirect_uri", callback).Encode()).landed(t, callback)
		if keyless.Get("error") != "request_not_supported" {
			t.Errorf("of a client without keys: %v", keyless)
		}
	})
}

// A client that always signs is not fooled into a request that it did not make; where each of its objects counts once, on all nodes
// together.
func TestDemandedRequestObjects(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		s, secret := newSigner(t, n, func(m *oidc.Metadata) {
			m.RequireRequestObject, m.RequestObjectOnce, m.RequestObjectAlg, m.Trusted = true, true, "ES256", true
		})
		p := n.person(t, "kim@example.com")
		other.people.byID.Store(p.account.ID, p.account)
		if got := p.get(t, "/oauth/authorize?"+wish().Encode()).landed(t, callback); got.Get("error") != "invalid_request" {
			t.Errorf("unsigned: %v", got)
		}
		push := func(form url.Values) answer { return n.post(t, "/oauth/par", form, basic("shop", secret)) }
		push(wish()).refused(t, 400, "invalid_request")
		push(params("request", s.object(t, map[string]any{"aud": "x"}))).refused(t, 400, "invalid_request_object")
		push(params("request", s.object(t, map[string]any{"iss": "other"}))).refused(t, 400, "invalid_request_object")
		push(params("request", s.object(t, map[string]any{"jti": nil}))).refused(t, 400, "invalid_request_object")
		push(params("request", s.object(t, map[string]any{"redirect_uri": "https://evil.example"}))).refused(t, 400, "invalid_request")

		object := s.object(t, nil)
		var pushed struct {
			RequestURI string `json:"request_uri"`
		}
		a := push(params("request", object))
		must(t, json.Unmarshal([]byte(a.body), &pushed))
		if a.status != http.StatusCreated {
			t.Fatalf("pushed: %d %s", a.status, a.body)
		}
		push(params("request", object)).refused(t, 400, "invalid_request_object")
		if p.get(t, "/oauth/authorize?"+params("client_id", "shop", "request_uri", pushed.RequestURI).Encode()).landed(t, callback).Get("code") == "" {
			t.Error("a signed request that was pushed leads nowhere")
		}

		again := at(s.object(t, nil), "redirect_uri", callback)
		var wg sync.WaitGroup
		answers := make([]answer, 12)
		for i := range answers {
			wg.Go(func() { answers[i] = (&person{n: []*node{n, other}[i%2], cookie: p.cookie}).get(t, again) })
		}
		wg.Wait()
		good := 0
		for _, a := range answers {
			if a.landed(t, callback).Get("code") != "" {
				good++
			}
		}
		if good != 1 {
			t.Errorf("one object was good %d times", good)
		}
	})
}

// What a client signed to ask for a sign-in proves nothing at the token endpoint.
func TestRequestObjectIsNoAssertion(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		s, _ := newSigner(t, n, func(m *oidc.Metadata) {
			m.AuthMethod, m.GrantTypes = oidc.AuthPrivateKey, []string{"authorization_code", "client_credentials"}
		})
		ask := func(typ string) answer {
			raw := s.sign(t, jwt.SigningMethodES256, s.key, map[string]any{"typ": typ}, s.claims(map[string]any{"sub": "shop"}))
			return n.post(t, "/oauth/token", params("grant_type", "client_credentials", "client_assertion", raw,
				"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"))
		}
		ask("JWT").token(t)
		ask("oauth-authz-req+jwt").refused(t, 401, "invalid_client")
	})
}
