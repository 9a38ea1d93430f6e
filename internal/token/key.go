package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"github.com/sumunio/sumun/auth"
)

const rsaBits = 2048

// signingKey is a key with its life. It does not change once made.
type signingKey struct {
	generation int64
	id         string // JWK thumbprint, RFC 7638
	algorithm  string
	private    crypto.Signer

	publishedAt, activeAt, retireAt, expireAt time.Time
}

func (k *signingKey) signsAt(t time.Time) bool { return !t.Before(k.activeAt) && t.Before(k.retireAt) }

func (k *signingKey) public() auth.Key {
	return auth.Key{ID: k.id, Algorithm: k.algorithm, Public: k.private.Public()}
}

func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case auth.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case auth.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case auth.RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("algorithm %q is not supported", algorithm)
}

// parsePrivate is the way back from x509.MarshalPKCS8PrivateKey.
func parsePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, nil
}

// jwk is a public key as the key set shows it. Its members are in alphabetic order, as the thumbprint wants them.
type jwk struct {
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	E         string `json:"e,omitempty"`
	ID        string `json:"kid,omitempty"`
	Type      string `json:"kty"`
	N         string `json:"n,omitempty"`
	Use       string `json:"use,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

// describe returns the required members only (RFC 7518 section 6, RFC 8037 section 2).
func describe(public crypto.PublicKey) (jwk, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 0x04, x, y
		if err != nil {
			return jwk{}, err
		}
		return jwk{Type: "EC", Curve: "P-256", X: b64(point[1:33]), Y: b64(point[33:])}, nil
	case ed25519.PublicKey:
		return jwk{Type: "OKP", Curve: "Ed25519", X: b64(k)}, nil
	case *rsa.PublicKey:
		return jwk{Type: "RSA", N: b64(k.N.Bytes()), E: b64(big.NewInt(int64(k.E)).Bytes())}, nil
	}
	return jwk{}, fmt.Errorf("%T is not supported", public)
}

// thumbprint returns the key's id: SHA-256 of its required members in alphabetic order (RFC 7638 section 3).
func thumbprint(public crypto.PublicKey) (string, error) {
	j, err := describe(public)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
