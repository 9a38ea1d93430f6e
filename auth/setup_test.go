package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

const (
	issuer   = "https://id.example"
	audience = "https://api.example"
)

var algorithms = []string{auth.ES256, auth.EdDSA, auth.RS256}

// signers holds one private key per algorithm. RSA keys take long to make, so that the tests share them.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	ec, errEC := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, errEd := ed25519.GenerateKey(rand.Reader)
	rs, errRS := rsa.GenerateKey(rand.Reader, 2048)
	if errEC != nil || errEd != nil || errRS != nil {
		panic("no keys without randomness")
	}
	return map[string]crypto.Signer{auth.ES256: ec, auth.EdDSA: ed, auth.RS256: rs}
})

// source is a KeySource whose key ids are the names of the algorithms.
type source map[string]auth.Key

func (s source) Key(_ context.Context, kid string) (auth.Key, error) {
	if k, there := s[kid]; there {
		return k, nil
	}
	return auth.Key{}, auth.ErrUnknownKey
}

func newSource() source {
	s := source{}
	for algorithm, private := range signers() {
		s[algorithm] = auth.Key{ID: algorithm, Algorithm: algorithm, Public: private.Public()}
	}
	return s
}

// failing is a KeySource that has no keys to offer.
type failing struct{ err error }

func (f failing) Key(context.Context, string) (auth.Key, error) { return auth.Key{}, f.err }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newVerifier(tb testing.TB, change func(*auth.Config)) *auth.Verifier {
	tb.Helper()
	cfg := auth.Config{Issuer: issuer, Audience: audience, Keys: newSource(), Clock: func() time.Time { return now }}
	if change != nil {
		change(&cfg)
	}
	v, err := auth.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// token is what a test wants signed. Nil values remove a header or claim.
type token struct {
	algorithm string
	header    map[string]any
	claims    map[string]any
	key       any // instead of the algorithm's private key
}

func (o token) sign(tb testing.TB) string {
	tb.Helper()
	if o.algorithm == "" {
		o.algorithm = auth.ES256
	}
	t := jwt.NewWithClaims(jwt.GetSigningMethod(o.algorithm), jwt.MapClaims{
		"iss": issuer, "sub": "alice", "aud": []string{"other", audience}, "client_id": "sumun", "scope": "read write",
		"sid": "session-1", "jti": "token-1", "iat": now.Unix() - 60, "exp": now.Unix() + 840,
		"auth_time": now.Unix() - 3600, "acr": "1", "amr": []string{"pwd"}, "roles": []string{"admin"}, "epoch": 7,
	})
	t.Header["typ"], t.Header["kid"] = "at+jwt", o.algorithm
	change(t.Header, o.header)
	change(t.Claims.(jwt.MapClaims), o.claims)
	if o.key == nil {
		o.key = signers()[o.algorithm]
	}
	signed, err := t.SignedString(o.key)
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

func change(m, changes map[string]any) {
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
}
