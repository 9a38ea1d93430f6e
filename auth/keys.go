package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// The signature algorithms a token may have (RFC 7518 section 3.1, RFC 8037 section 3.1).
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
	RS256 = "RS256"
)

const (
	minRSABits = 2048 // RFC 7518 section 3.3
	maxRSABits = 8192 // beyond it a verification costs too much to do for strangers
	maxKeys    = 64
)

// Key is a public key of the issuer. A key is for one algorithm only.
type Key struct {
	ID        string
	Algorithm string           // ES256, EdDSA or RS256
	Public    crypto.PublicKey // *ecdsa.PublicKey on P-256, ed25519.PublicKey, *rsa.PublicKey of 2048 bits or more
}

// KeySource finds the issuer's keys. Key returns [ErrUnknownKey] when the issuer has no such key; any other error
// means that the keys are not available. It is called on every verification, by several goroutines at once.
type KeySource interface {
	Key(ctx context.Context, kid string) (Key, error)
}

// check returns an error unless the key is fit for its algorithm.
func (k Key) check() error {
	switch pub := k.Public.(type) {
	case *ecdsa.PublicKey:
		if k.Algorithm == ES256 && pub.Curve == elliptic.P256() {
			return nil
		}
	case ed25519.PublicKey:
		if k.Algorithm == EdDSA && len(pub) == ed25519.PublicKeySize {
			return nil
		}
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("key %q has %d bits, not %d to %d", k.ID, bits, minRSABits, maxRSABits)
		}
		if k.Algorithm == RS256 {
			return nil
		}
	}
	return fmt.Errorf("key %q (%T) does not fit algorithm %q", k.ID, k.Public, k.Algorithm)
}

// jwk is a public JSON Web Key (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).
type jwk struct {
	Type       string   `json:"kty"`
	ID         string   `json:"kid"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	Curve      string   `json:"crv"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
	N          string   `json:"n"`
	E          string   `json:"e"`
}

// parseKeys reads a JWK Set. Keys that are for something else (encryption, other algorithms, too weak) are left out,
// as RFC 7517 section 5 asks; a set in which two usable keys share an id is refused.
func parseKeys(document []byte) (map[string]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("parse key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("parse key set: %d keys, at most %d are accepted", len(set.Keys), maxKeys)
	}
	keys := make(map[string]Key, len(set.Keys))
	for _, raw := range set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil {
			continue
		}
		key, err := j.key()
		if err != nil {
			continue
		}
		if _, twice := keys[key.ID]; twice {
			return nil, fmt.Errorf("parse key set: two keys have the id %q", key.ID)
		}
		keys[key.ID] = key
	}
	if len(keys) == 0 {
		return nil, errors.New("parse key set: no usable key in it")
	}
	return keys, nil
}

func (j jwk) key() (Key, error) {
	if j.ID == "" {
		return Key{}, errors.New("no kid")
	}
	if j.Use != "" && j.Use != "sig" || len(j.Operations) > 0 && !slices.Contains(j.Operations, "verify") {
		return Key{}, errors.New("not for signatures")
	}
	public, algorithm, err := j.public()
	if err != nil {
		return Key{}, err
	}
	if j.Algorithm != "" && j.Algorithm != algorithm {
		return Key{}, fmt.Errorf("algorithm %q is not supported", j.Algorithm)
	}
	key := Key{ID: j.ID, Algorithm: algorithm, Public: public}
	return key, key.check()
}

// public decodes the key itself and names the one algorithm this package uses such keys for.
func (j jwk) public() (crypto.PublicKey, string, error) {
	switch {
	case j.Type == "EC" && j.Curve == "P-256":
		x, errX := member(j.X)
		y, errY := member(j.Y)
		if err := errors.Join(errX, errY); err != nil {
			return nil, "", err
		}
		if len(x) != 32 || len(y) != 32 { // full size, RFC 7518 section 6.2.1.2
			return nil, "", errors.New("a coordinate is not 32 bytes")
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		return public, ES256, err
	case j.Type == "OKP" && j.Curve == "Ed25519":
		x, err := member(j.X)
		return ed25519.PublicKey(x), EdDSA, err
	case j.Type == "RSA":
		n, errN := member(j.N)
		e, errE := member(j.E)
		if err := errors.Join(errN, errE); err != nil {
			return nil, "", err
		}
		exponent := new(big.Int).SetBytes(e)
		if exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Int64() < 3 {
			return nil, "", errors.New("exponent out of range")
		}
		modulus := new(big.Int).SetBytes(n)
		if factorable(modulus) {
			return nil, "", errors.New("made by a generator whose keys can be factored (CVE-2017-15361)")
		}
		return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, RS256, nil
	}
	return nil, "", fmt.Errorf("key type %q is not supported", j.Type)
}

// factorable recognises moduli of the generator of CVE-2017-15361 (Nemec and others, The Return of Coppersmith's Attack, 2017,
// section 3): modulo every small prime they are a power of 65537. One in 2^27 others is.
func factorable(modulus *big.Int) bool {
	const generator = 65537
	for _, prime := range [...]int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		rest := new(big.Int).Mod(modulus, big.NewInt(prime)).Int64()
		power, found := int64(1), false
		for range prime {
			if found = power == rest; found {
				break
			}
			power = power * generator % prime
		}
		if !found {
			return false
		}
	}
	return true
}

func member(s string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
