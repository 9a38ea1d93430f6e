package oidc_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

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
	a := identity.Account{ID: uuid.NewString(), Email: email, EmailVerified: true, Name: "Kim", UpdatedAt: n.clock.Now()}
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
			Page: true, Subject: p.account.ID, Roles: []string{"member"}, ACR: identity.ACR, AMR: []string{"pwd"}, AuthTime: p.n.clock.Now(),
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
	}, jwt.WithTimeFunc(n.clock.Now), jwt.WithValidMethods([]string{"ES256", "RS256"}))
	must(t, err)
	if parsed.Header["typ"] != "JWT" {
		t.Errorf("typ %v", parsed.Header["typ"])
	}
	return claims
}

func bearerRequest(t testing.TB, method, path, token string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}
