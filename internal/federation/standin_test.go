package federation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// person is somebody with an account at a provider.
type person struct {
	id, email, name string
	verified        bool
	hosted          string // Google's hd
}

// standIn speaks what the providers document, on this machine. Requests to their hosts end up here.
type standIn struct {
	t      *testing.T
	server *httptest.Server
	clock  func() time.Time

	mu     sync.Mutex
	key    *rsa.PrivateKey
	kid    string
	grants map[string]grant // by code
	tokens map[string]person
	claims func(jwt.MapClaims) // changes an ID token before it is signed
	broken func(w http.ResponseWriter, r *http.Request) bool
	asked  []string // host and path of every request
	apple  *ecdsa.PrivateKey
	idp    *identityProvider
}

// grant is what a person approved.
type grant struct {
	who   person
	query url.Values
}

func newStandIn(t *testing.T, clock func() time.Time) *standIn {
	t.Helper()
	s := &standIn{t: t, clock: clock, grants: map[string]grant{}, tokens: map[string]person{}}
	s.idp = newIdentityProvider(t, clock)
	s.rotate()
	var err error
	if s.apple, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.server.Close)
	return s
}

// RoundTrip brings requests for the providers' hosts here.
func (s *standIn) RoundTrip(r *http.Request) (*http.Response, error) {
	there := r.Clone(r.Context())
	there.Host = r.URL.Host
	there.URL.Scheme, there.URL.Host = "http", strings.TrimPrefix(s.server.URL, "http://")
	return http.DefaultTransport.RoundTrip(there)
}

// rotate replaces the key that ID tokens are signed with.
func (s *standIn) rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.kid = key, rand.Text()
}

// appleKey is the .p8 file.
func (s *standIn) appleKey() string {
	der, err := x509.MarshalPKCS8PrivateKey(s.apple)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// approve is the person saying yes at the address that the browser was sent to. It returns what the provider sends back.
func (s *standIn) approve(address string, who person) url.Values {
	s.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		s.t.Fatal(err)
	}
	q := u.Query()
	code := rand.Text()
	s.mu.Lock()
	s.grants[code] = grant{who, q}
	s.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	if u.Host == "id.work.example" {
		back.Set("iss", "https://id.work.example")
	}
	return back
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Host+r.URL.Path)
	broken := s.broken
	s.mu.Unlock()
	if broken != nil && broken(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	switch r.Host + r.URL.Path {
	case "accounts.google.com/.well-known/openid-configuration":
		s.discovery(w, "https://accounts.google.com", "https://oauth2.googleapis.com/token", "https://www.googleapis.com/oauth2/v3/certs",
			"https://openidconnect.googleapis.com/v1/userinfo")
	case "kauth.kakao.com/.well-known/openid-configuration":
		s.discovery(w, "https://kauth.kakao.com", "https://kauth.kakao.com/oauth/token", "https://kauth.kakao.com/.well-known/jwks.json",
			"https://kapi.kakao.com/v1/oidc/userinfo")
	case "appleid.apple.com/.well-known/openid-configuration":
		s.discovery(w, "https://appleid.apple.com", "https://appleid.apple.com/auth/token", "https://appleid.apple.com/auth/keys", "")
	case "id.work.example/.well-known/openid-configuration":
		s.discovery(w, "https://id.work.example", "https://id.work.example/token", "https://id.work.example/keys", "https://id.work.example/userinfo")
	case "www.googleapis.com/oauth2/v3/certs", "kauth.kakao.com/.well-known/jwks.json", "appleid.apple.com/auth/keys", "id.work.example/keys":
		s.keys(w)
	case "oauth2.googleapis.com/token", "kauth.kakao.com/oauth/token", "appleid.apple.com/auth/token", "id.work.example/token",
		"nid.naver.com/oauth2.0/token", "github.com/login/oauth/access_token":
		s.token(w, r)
	case "idp.corp.example/metadata":
		_, _ = w.Write(s.idp.metadata())
	case "kapi.kakao.com/v2/user/me", "openapi.naver.com/v1/nid/me", "api.github.com/user", "api.github.com/user/emails", "id.work.example/userinfo":
		s.profile(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *standIn) discovery(w http.ResponseWriter, issuer, token, keys, userinfo string) {
	doc := map[string]any{
		"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": token, "jwks_uri": keys,
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_post"},
	}
	if userinfo != "" {
		doc["userinfo_endpoint"] = userinfo
	}
	if issuer == "https://id.work.example" {
		doc["authorization_response_iss_parameter_supported"] = true
		doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_basic"}
	}
	_ = json.NewEncoder(w).Encode(doc)
}

func (s *standIn) keys(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": s.kid,
		"n": base64.RawURLEncoding.EncodeToString(s.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(s.key.E)).Bytes())}}})
}

// refuse answers as RFC 6749 says, or as Naver and GitHub do: with status 200.
func refuse(w http.ResponseWriter, r *http.Request, code string) {
	switch r.Host {
	case "nid.naver.com":
	case "github.com":
		if code == "invalid_grant" {
			code = "bad_verification_code"
		}
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "no"})
}

func (s *standIn) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	g, known := s.grants[r.PostForm.Get("code")]
	delete(s.grants, r.PostForm.Get("code"))
	s.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	switch {
	case r.Method != http.MethodPost, basic != (r.Host == "id.work.example"), !s.authentic(r.Host, id, secret):
		refuse(w, r, "invalid_client")
		return
	case !known, r.PostForm.Get("redirect_uri") != g.query.Get("redirect_uri"), id != g.query.Get("client_id"), !verifies(g.query, r.PostForm.Get("code_verifier")):
		refuse(w, r, "invalid_grant")
		return
	case r.Host == "nid.naver.com" && r.PostForm.Get("state") != g.query.Get("state"):
		refuse(w, r, "invalid_request")
		return
	}
	access := rand.Text()
	s.mu.Lock()
	s.tokens[access] = g.who
	s.mu.Unlock()
	answer := map[string]any{"access_token": access, "token_type": "bearer", "expires_in": 3600}
	switch r.Host {
	case "nid.naver.com":
		answer["expires_in"] = "3600"
	case "github.com":
		answer["scope"] = "read:user,user:email"
	default:
		answer["id_token"] = s.idToken(r.Host, id, access, g)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *standIn) authentic(host, id, secret string) bool {
	if host != "appleid.apple.com" {
		return id == "our-client" && secret == "our-secret"
	}
	token, err := jwt.Parse(secret, func(*jwt.Token) (any, error) { return &s.apple.PublicKey, nil }, jwt.WithValidMethods([]string{"ES256"}),
		jwt.WithAudience("https://appleid.apple.com"), jwt.WithIssuer("TEAM123456"), jwt.WithSubject("our-client"), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(s.clock))
	return err == nil && token.Header["kid"] == "KEY1234567"
}

// verifies is RFC 7636, section 4.6. Only Naver, which knows no PKCE, may be asked without.
func verifies(q url.Values, verifier string) bool {
	if q.Get("code_challenge") == "" {
		return strings.HasPrefix(q.Get("redirect_uri"), "https://") && strings.HasSuffix(q.Get("redirect_uri"), "/federation/naver/callback")
	}
	sum := sha256.Sum256([]byte(verifier))
	return q.Get("code_challenge_method") == "S256" && q.Get("code_challenge") == base64.RawURLEncoding.EncodeToString(sum[:])
}

func (s *standIn) idToken(host, client, access string, g grant) string {
	issuers := map[string]string{"oauth2.googleapis.com": "https://accounts.google.com"}
	issuer := issuers[host]
	if issuer == "" {
		issuer = "https://" + host
	}
	now := s.clock()
	c := jwt.MapClaims{"iss": issuer, "sub": g.who.id, "aud": client, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "nonce": g.query.Get("nonce")}
	sum := sha256.Sum256([]byte(access))
	c["at_hash"] = base64.RawURLEncoding.EncodeToString(sum[:16])
	switch host {
	case "oauth2.googleapis.com":
		c["email"], c["email_verified"], c["name"], c["azp"] = g.who.email, g.who.verified, g.who.name, client
		if g.who.hosted != "" {
			c["hd"] = g.who.hosted
		}
	case "kauth.kakao.com":
		c["nickname"] = g.who.name
		if g.who.email != "" {
			c["email"] = g.who.email
		}
	case "appleid.apple.com":
		c["email"], c["email_verified"] = g.who.email, fmt.Sprint(g.who.verified) // a string
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims != nil {
		s.claims(c)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = s.kid
	signed, err := t.SignedString(crypto.PrivateKey(s.key))
	if err != nil {
		s.t.Error(err)
	}
	return signed
}

func (s *standIn) profile(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	who, known := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	s.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var doc any
	switch r.Host + r.URL.Path {
	case "kapi.kakao.com/v2/user/me":
		account := map[string]any{"profile": map[string]string{"nickname": who.name}, "email_needs_agreement": who.email == ""}
		if who.email != "" {
			account["email"], account["is_email_valid"], account["is_email_verified"] = who.email, true, who.verified
		}
		doc = map[string]any{"id": json.Number(who.id), "kakao_account": account}
	case "openapi.naver.com/v1/nid/me":
		doc = map[string]any{"resultcode": "00", "message": "success",
			"response": map[string]string{"id": who.id, "email": who.email, "name": who.name}}
	case "api.github.com/user":
		doc = map[string]any{"id": json.Number(who.id), "login": "octo", "name": who.name, "email": "public@example.org"}
	case "api.github.com/user/emails":
		doc = []map[string]any{{"email": "old@example.org", "primary": false, "verified": true},
			{"email": who.email, "primary": true, "verified": who.verified}}
	default:
		doc = map[string]any{"sub": who.id, "email": who.email, "email_verified": who.verified, "name": who.name}
	}
	_ = json.NewEncoder(w).Encode(doc)
}
