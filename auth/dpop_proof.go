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
	"time"
)

// MaxProofSize bounds a proof in bytes. Longer ones are refused unread.
const MaxProofSize = 4 << 10

const (
	maxProofID      = 512
	maxProofRSABits = 4096 // anybody may send a proof, and verifying beyond it is dear
)

// proofAlgorithms are those that a proof may have, as for tokens.
var proofAlgorithms = [...]string{ES256, EdDSA, RS256}

// proof is a proof whose signature is right.
type proof struct {
	claims     proofClaims
	thumbprint string // of the key that made it
}

// proofClaims is the payload of a proof (RFC 9449 section 4.2).
type proofClaims struct {
	id, method, url  string
	tokenHash, nonce string
	issuedAt         time.Time
}

func (c *proofClaims) member(name string, value json.RawMessage) error {
	switch name {
	case "jti":
		return json.Unmarshal(value, &c.id)
	case "htm":
		return json.Unmarshal(value, &c.method)
	case "htu":
		return json.Unmarshal(value, &c.url)
	case "iat":
		return date(value, &c.issuedAt)
	case "ath":
		return json.Unmarshal(value, &c.tokenHash)
	case "nonce":
		return json.Unmarshal(value, &c.nonce)
	}
	return nil
}

func (c *proofClaims) complete() bool {
	return c.id != "" && len(c.id) <= maxProofID && c.method != "" && c.url != "" && !c.issuedAt.IsZero()
}

// parseProof reads a proof and checks its signature with the key that it brings along. What it says is not judged here.
func parseProof(raw string) (proof, error) {
	if len(raw) > MaxProofSize {
		return proof{}, improper("It is too long.")
	}
	if !compact(raw) {
		return proof{}, improper("It is not a signed JWT.")
	}
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	header, errHeader := decode(raw[:first])
	payload, errPayload := decode(raw[first+1 : last])
	signature, errSignature := decode(raw[last+1:])
	if err := errors.Join(errHeader, errPayload, errSignature); err != nil {
		return proof{}, improper("It is not a signed JWT.").wrap(err)
	}
	key, err := proofKey(header)
	if err != nil {
		return proof{}, err
	}
	if err := key.verify(raw[:last], signature); err != nil {
		return proof{}, improper("Its signature is wrong.").wrap(err)
	}
	var got proof
	if err := members(payload, got.claims.member); err != nil {
		return proof{}, improper("Its claims cannot be read.").wrap(err)
	}
	if !got.claims.complete() {
		return proof{}, improper("It needs jti, iat, htm and htu.")
	}
	got.thumbprint, err = Thumbprint(key.Public)
	return got, err
}

// proofHeader is what the header of a proof says (RFC 9449 section 4.2).
type proofHeader struct {
	typ, algorithm string
	key            jwk
	private        bool // the key has members that are nobody else's business
}

func (h *proofHeader) member(name string, value json.RawMessage) error {
	switch name {
	case "typ":
		return json.Unmarshal(value, &h.typ)
	case "alg":
		return json.Unmarshal(value, &h.algorithm)
	case "jwk":
		return members(value, h.keyMember)
	}
	if refusedMember(name) {
		return fmt.Errorf("header %q is refused", name)
	}
	return nil
}

func (h *proofHeader) keyMember(name string, value json.RawMessage) error {
	switch name {
	case "kty":
		return json.Unmarshal(value, &h.key.Type)
	case "use":
		return json.Unmarshal(value, &h.key.Use)
	case "alg":
		return json.Unmarshal(value, &h.key.Algorithm)
	case "crv":
		return json.Unmarshal(value, &h.key.Curve)
	case "x":
		return json.Unmarshal(value, &h.key.X)
	case "y":
		return json.Unmarshal(value, &h.key.Y)
	case "n":
		return json.Unmarshal(value, &h.key.N)
	case "e":
		return json.Unmarshal(value, &h.key.E)
	case "d", "p", "q", "dp", "dq", "qi", "oth", "k": // RFC 7518 section 6
		h.private = true
	}
	return nil
}

// proofKey judges the header and returns the key in it. The algorithm is the one that the key is for: none and symmetric ones
// prove nothing (RFC 9449 section 4.3).
func proofKey(header []byte) (Key, error) {
	var h proofHeader
	if err := members(header, h.member); err != nil {
		return Key{}, improper("Its header cannot be read, or has a member that is refused.").wrap(err)
	}
	if !strings.EqualFold(h.typ, "dpop+jwt") {
		return Key{}, improper("Its typ is not dpop+jwt.")
	}
	if h.private {
		return Key{}, improper("Its jwk has private members: never send them, and throw this key away.")
	}
	public, algorithm, err := h.key.public()
	key := Key{Algorithm: algorithm, Public: public}
	if err == nil {
		err = key.check()
	}
	if rsaKey, ok := public.(*rsa.PublicKey); err == nil && ok && rsaKey.N.BitLen() > maxProofRSABits {
		err = fmt.Errorf("more than %d bits", maxProofRSABits)
	}
	if err != nil {
		return Key{}, improper("Its jwk is not a key that is accepted.").wrap(err)
	}
	if h.algorithm != algorithm || h.key.Use != "" && h.key.Use != "sig" || h.key.Algorithm != "" && h.key.Algorithm != algorithm {
		return Key{}, improper("Its jwk is not for its alg.")
	}
	return key, nil
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
