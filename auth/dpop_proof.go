package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// MaxProofSize bounds a proof in bytes. Longer ones are refused unread.
const MaxProofSize = 4 << 10

const (
	maxProofID      = 512
	maxProofRSABits = 4096 // anybody may send a proof, and verifying beyond it is dear
)

// proofAlgorithms are those of signatures, as for tokens: none and symmetric ones prove nothing (RFC 9449 section 4.3).
var proofAlgorithms = [...]string{ES256, EdDSA, RS256}

// proof is a proof whose signature is right.
type proof struct {
	claims     proofClaims
	thumbprint string // of the key that made it
}

// proofClaims is the payload of a proof (RFC 9449 section 4.2).
type proofClaims struct {
	jwt.RegisteredClaims
	Method    string `json:"htm"`
	URL       string `json:"htu"`
	TokenHash string `json:"ath,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// proofParser leaves the claims to Proofs, with an error of its own for each.
func proofParser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods(proofAlgorithms[:]), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
}

// parseProof reads a proof and checks its signature with the key that it brings along. What it says is not judged here.
func parseProof(raw string) (proof, error) {
	if len(raw) > MaxProofSize {
		return proof{}, improper("It is too long.")
	}
	if !compact(raw) {
		return proof{}, improper("It is not a signed JWT.")
	}
	if err := unambiguous(raw); err != nil {
		return proof{}, improper("It is not a signed JWT.").wrap(err)
	}
	var got proof
	_, err := proofParser().ParseWithClaims(raw, &got.claims, func(t *jwt.Token) (key any, err error) {
		key, got.thumbprint, err = proofKey(t.Header)
		return key, err
	})
	var own *Error
	switch {
	case errors.As(err, &own):
		return proof{}, own
	case errors.Is(err, jwt.ErrTokenMalformed):
		return proof{}, improper("It is not a signed JWT.").wrap(err)
	case err != nil:
		return proof{}, improper("Its signature is wrong, or of an algorithm that is not accepted.").wrap(err)
	}
	c := got.claims
	if c.ID == "" || len(c.ID) > maxProofID || c.IssuedAt == nil || c.Method == "" || c.URL == "" {
		return proof{}, improper("It needs jti, iat, htm and htu.")
	}
	return got, nil
}

// unambiguous refuses objects that two readers could read differently.
func unambiguous(raw string) error {
	for _, part := range strings.SplitN(raw, ".", 3)[:2] {
		document, err := decode(part)
		if err == nil {
			err = members(document, func(string, json.RawMessage) error { return nil })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proofKey judges the header and returns the key in it with its thumbprint.
func proofKey(header map[string]any) (crypto.PublicKey, string, error) {
	if typ, _ := header["typ"].(string); !strings.EqualFold(typ, "dpop+jwt") {
		return nil, "", improper("Its typ is not dpop+jwt.")
	}
	for name := range header {
		if refusedMember(name) && name != "jwk" {
			return nil, "", improper("Its header has a member that is refused.")
		}
	}
	members, _ := header["jwk"].(map[string]any)
	for _, private := range [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, there := members[private]; there {
			return nil, "", improper("Its jwk has private members: never send them, and throw this key away.")
		}
	}
	text := func(name string) string {
		s, _ := members[name].(string)
		return s
	}
	j := jwk{Type: text("kty"), Curve: text("crv"), X: text("x"), Y: text("y"), N: text("n"), E: text("e")}
	public, algorithm, err := j.public()
	if err == nil {
		err = Key{Algorithm: algorithm, Public: public}.check()
	}
	if rsaKey, ok := public.(*rsa.PublicKey); err == nil && ok && rsaKey.N.BitLen() > maxProofRSABits {
		err = fmt.Errorf("more than %d bits", maxProofRSABits)
	}
	if err != nil {
		return nil, "", improper("Its jwk is not a key that is accepted.").wrap(err)
	}
	if use, alg := text("use"), text("alg"); header["alg"] != algorithm || use != "" && use != "sig" || alg != "" && alg != algorithm {
		return nil, "", improper("Its jwk is not for its alg.")
	}
	thumbprint, err := Thumbprint(public)
	return public, thumbprint, err
}

// Thumbprint returns the JWK SHA-256 thumbprint of a public key (RFC 7638), in base64url. It is made from the key, not from
// somebody's way of writing it, so that a key has one.
func Thumbprint(public crypto.PublicKey) (string, error) {
	text := base64.RawURLEncoding.EncodeToString
	var canonical string
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil || len(point) != 65 {
			return "", fmt.Errorf("thumbprint: not a key on P-256: %w", err)
		}
		canonical = `{"crv":"P-256","kty":"EC","x":"` + text(point[1:33]) + `","y":"` + text(point[33:]) + `"}`
	case ed25519.PublicKey:
		canonical = `{"crv":"Ed25519","kty":"OKP","x":"` + text(key) + `"}`
	case *rsa.PublicKey:
		canonical = `{"e":"` + text(big.NewInt(int64(key.E)).Bytes()) + `","kty":"RSA","n":"` + text(key.N.Bytes()) + `"}`
	default:
		return "", fmt.Errorf("thumbprint: keys like %T have none here", public)
	}
	sum := sha256.Sum256([]byte(canonical))
	return text(sum[:]), nil
}
