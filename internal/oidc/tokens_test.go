package oidc_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/oidc"
)

func accepting(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Accept", text) }
}

// A program that chose opaque tokens learns nothing from them, and neither does who sees them on the way; all that is done with tokens here
// is done with them, too, and services that read JWTs refuse them.
func TestOpaqueTokens(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		m := shop
		m.AccessToken, m.Resources = "opaque", []string{"https://orders.example"}
		_, secret := n.add(t, "shop", m)
		client := basic("shop", secret)
		_, apiSecret := n.add(t, "api", oidc.Metadata{GrantTypes: []string{oidc.GrantExchange, "client_credentials"}, Resources: []string{"https://orders.example"}})
		p := n.person(t, "kim@example.com")
		got := n.post(t, "/oauth/token", exchange(p.code(t, wish())), client).token(t)
		if !strings.HasPrefix(got.AccessToken, "sat_") || strings.Contains(got.AccessToken, ".") {
			t.Fatalf("token %.8s...", got.AccessToken)
		}
		if n.idClaims(t, got.IDToken)["at_hash"] == nil {
			t.Error("an ID token without at_hash")
		}
		if _, err := n.verifier.Verify(t.Context(), got.AccessToken); err == nil {
			t.Error("a service takes it for a JWT")
		}
		if a := n.send(t, bearerRequest(t, "GET", "/oauth/userinfo", got.AccessToken)); a.status != 200 || !strings.Contains(a.body, p.account.ID) {
			t.Errorf("userinfo: %d %s", a.status, a.body)
		}
		active := func(token string) (said map[string]any) {
			must(t, json.Unmarshal([]byte(n.post(t, "/oauth/introspect", params("token", token), basic("api", apiSecret)).body), &said))
			return said
		}
		said := active(got.AccessToken)
		if said["active"] != true || said["sub"] != p.account.ID || said["sid"] != p.session.ID || said["client_id"] != "shop" || said["token_type"] != "Bearer" {
			t.Errorf("introspection %v", said)
		}
		exchanged := n.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", got.AccessToken,
			"subject_token_type", "urn:ietf:params:oauth:token-type:access_token", "resource", "https://orders.example"), basic("api", apiSecret)).token(t)
		if strings.HasPrefix(exchanged.AccessToken, "sat_") {
			t.Error("the token of a client that did not choose it is opaque")
		}
		next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken), client).token(t)
		if !strings.HasPrefix(next.AccessToken, "sat_") {
			t.Error("after a refresh it is not opaque")
		}
		n.post(t, "/oauth/revoke", params("token", got.AccessToken), client)
		if active(got.AccessToken)["active"] != false || active(next.AccessToken)["active"] != true {
			t.Error("after one was revoked")
		}
		must(t, n.Withdraw(t.Context(), p.account.ID, "shop"))
		if active(next.AccessToken)["active"] != false {
			t.Error("a token of a grant that was taken back is active")
		}
		if a := n.send(t, bearerRequest(t, "GET", "/oauth/userinfo", next.AccessToken)); a.status != 401 {
			t.Errorf("userinfo: %d", a.status)
		}
		changed := next.AccessToken[:len(next.AccessToken)-2] + "AA"
		if active(changed)["active"] != false {
			t.Error("a token that was changed is active")
		}
		bad := m
		bad.AccessToken = "paper"
		if _, _, err := n.AddClient(t.Context(), "", bad); err == nil {
			t.Error("a form that there is not")
		}
	})
}

// What is said of a token can be shown to others: it is signed, and says for whom it was said.
func TestSignedIntrospection(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "billing", machine)
		client := basic("billing", secret)
		access := n.post(t, "/oauth/token", credentialsForm, client).token(t).AccessToken
		ask := func(token, accept string) answer {
			a := n.post(t, "/oauth/introspect", params("token", token), client, accepting(accept))
			if a.header.Get("Vary") != "Accept" || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("Accept %q: header %v", accept, a.header)
			}
			return a
		}
		a := ask(access, "application/token-introspection+jwt")
		if a.status != 200 || a.header.Get("Content-Type") != "application/token-introspection+jwt" {
			t.Fatalf("%d %v", a.status, a.header)
		}
		claims := jwt.MapClaims{}
		parsed, err := jwt.ParseWithClaims(a.body, claims, func(k *jwt.Token) (any, error) {
			key, err := n.tokens.Key(t.Context(), k.Header["kid"].(string))
			return key.Public, err
		}, jwt.WithTimeFunc(n.clock.Now))
		must(t, err)
		about, _ := claims["token_introspection"].(map[string]any)
		if parsed.Header["typ"] != "token-introspection+jwt" || claims["iss"] != issuer || claims["aud"] != "billing" || claims["iat"] == nil ||
			claims["sub"] != nil || claims["exp"] != nil || about["active"] != true || about["sub"] != "billing" {
			t.Errorf("%v %v", parsed.Header, claims)
		}
		if _, err := n.verifier.Verify(t.Context(), a.body); err == nil {
			t.Error("the answer is taken for an access token")
		}
		a = ask("x", "application/token-introspection+jwt")
		claims = jwt.MapClaims{}
		_, _, err = jwt.NewParser().ParseUnverified(a.body, claims)
		must(t, err)
		if about := claims["token_introspection"].(map[string]any); len(about) != 1 || about["active"] != false {
			t.Errorf("of no token: %v", about)
		}
		for _, accept := range []string{"", "*/*", "application/json", "application/json, application/token-introspection+jwt;q=0.5", "application/token-introspection+jwt;q=0"} {
			if a := ask(access, accept); a.header.Get("Content-Type") != "application/json" {
				t.Errorf("Accept %q: %s", accept, a.header.Get("Content-Type"))
			}
		}
		if a := ask(access, "application/json;q=0.9,  Application/Token-Introspection+JWT ; q=1.0"); a.header.Get("Content-Type") == "application/json" {
			t.Error("JSON, though less wanted")
		}
		m := machine
		m.IntrospectionAlg = "EdDSA" // which is not what this installation signs with
		_, secret = n.add(t, "strict", m)
		n.post(t, "/oauth/introspect", params("token", access), basic("strict", secret), accepting("application/token-introspection+jwt")).refused(t, 400, "invalid_request")
		m.IntrospectionAlg = "HS256"
		if _, _, err := n.AddClient(t.Context(), "", m); err == nil {
			t.Error("a symmetric signature")
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add("application/token-introspection+jwt;q=0.5, application/json")
	f.Add("application/token-introspection+jwt;q=NaN")
	f.Fuzz(func(t *testing.T, accept string) {
		if oidc.WantsSigned([]string{accept}) && !strings.Contains(strings.ToLower(accept), "token-introspection+jwt") {
			t.Errorf("%q", accept)
		}
	})
}

// Who may ask about tokens must not learn of those that are none of its business: a scope is for Sumun's own tokens, a resource for a service's.
func TestWhoMayIntrospect(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		machine := oidc.Metadata{Name: "Machine", GrantTypes: []string{"client_credentials"}}
		secrets := map[string]string{}
		for id, change := range map[string]func(*oidc.Metadata){
			"own":       func(*oidc.Metadata) {},
			"for":       func(m *oidc.Metadata) { m.Resources = []string{"https://orders.example"} },
			"service":   func(m *oidc.Metadata) { m.Resources = []string{"https://orders.example"} },
			"inspector": func(m *oidc.Metadata) { m.Scope = oidc.IntrospectScope },
			"stranger":  func(*oidc.Metadata) {},
		} {
			m := machine
			change(&m)
			_, secrets[id] = n.add(t, id, m)
		}
		for of, knows := range map[string][]string{"own": {"own", "inspector"}, "for": {"for", "service"}} {
			access := n.post(t, "/oauth/token", credentialsForm, basic(of, secrets[of])).token(t).AccessToken
			for id, secret := range secrets {
				said := n.post(t, "/oauth/introspect", params("token", access), basic(id, secret))
				if got := strings.Contains(said.body, `"active":true`); got != slices.Contains(knows, id) {
					t.Errorf("%s asks about the token of %s: %s", id, of, said.body)
				}
			}
		}
	})
}
