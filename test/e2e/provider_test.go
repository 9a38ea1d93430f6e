package e2e_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// provider is another service with whose word people sign in: an OpenID provider that sends everybody back at once.
type provider struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu     sync.Mutex
	who    jwt.MapClaims
	denies bool
	down   bool
	nonces map[string]string // by code
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key, nonces: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		tell(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/keys", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		tell(w, map[string]any{"keys": []map[string]string{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func tell(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// set says who is at the provider, and whether it is well.
func (p *provider) set(who jwt.MapClaims, denies, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.who, p.denies, p.down = who, denies, down
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	back := url.Values{"state": {q.Get("state")}}
	if p.denies {
		back.Set("error", "access_denied")
	} else {
		code := rand.Text()
		p.nonces[code] = q.Get("nonce")
		back.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nonce, known := p.nonces[r.PostFormValue("code")]
	delete(p.nonces, r.PostFormValue("code"))
	id, secret, _ := r.BasicAuth()
	switch {
	case p.down:
		w.WriteHeader(http.StatusBadGateway)
		return
	case !known || id != "sumun" || secret != "secret":
		w.WriteHeader(http.StatusBadRequest)
		tell(w, map[string]string{"error": "invalid_grant"})
		return
	}
	claims := jwt.MapClaims{"iss": p.URL, "aud": "sumun", "nonce": nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	for name, value := range p.who {
		claims[name] = value
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = "1"
	signed, err := t.SignedString(p.key)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	tell(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "id_token": signed})
}
