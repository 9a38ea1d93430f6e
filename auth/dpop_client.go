package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Prover makes the proofs of a client (RFC 9449 section 4.2). It is safe for use by several goroutines at once.
type Prover struct {
	// Clock tells the time. Nil: time.Now. Set it before the first use.
	Clock func() time.Time

	key        crypto.Signer
	method     jwt.SigningMethod
	jwk        map[string]string
	thumbprint string
}

// NewProver returns the prover with a key: *ecdsa.PrivateKey on P-256, ed25519.PrivateKey or *rsa.PrivateKey.
func NewProver(key crypto.Signer) (*Prover, error) {
	p := &Prover{key: key}
	text := base64.RawURLEncoding.EncodeToString
	var err error
	if p.thumbprint, err = Thumbprint(key.Public()); err != nil {
		return nil, err
	}
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			return nil, fmt.Errorf("auth: key of a prover: %w", err)
		}
		p.method, p.jwk = jwt.SigningMethodES256, map[string]string{"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:])}
	case ed25519.PublicKey:
		p.method, p.jwk = jwt.SigningMethodEdDSA, map[string]string{"kty": "OKP", "crv": "Ed25519", "x": text(public)}
	case *rsa.PublicKey:
		p.method, p.jwk = jwt.SigningMethodRS256, map[string]string{"kty": "RSA", "n": text(public.N.Bytes()), "e": text(big.NewInt(int64(public.E)).Bytes())}
	}
	return p, nil
}

// Thumbprint is what tokens bound to the key carry in cnf.jkt.
func (p *Prover) Thumbprint() string { return p.thumbprint }

// Proof makes the value of the header DPoP for one request: its method, its URL, the access token that it presents or "", and
// the nonce that the server last sent in DPoP-Nonce or "".
func (p *Prover) Proof(method, url, accessToken, nonce string) (string, error) {
	now := time.Now
	if p.Clock != nil {
		now = p.Clock
	}
	c := jwt.MapClaims{"jti": rand.Text(), "htm": method, "htu": url, "iat": now().Unix()}
	if accessToken != "" {
		c["ath"] = tokenHash(accessToken)
	}
	if nonce != "" {
		c["nonce"] = nonce
	}
	t := jwt.NewWithClaims(p.method, c)
	t.Header["typ"], t.Header["jwk"] = "dpop+jwt", p.jwk
	signed, err := t.SignedString(p.key)
	if err != nil {
		return "", fmt.Errorf("auth: sign proof: %w", err)
	}
	return signed, nil
}
