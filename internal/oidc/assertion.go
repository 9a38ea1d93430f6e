package oidc

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
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// AuthPrivateKey is the proof by a JWT that the client signs (RFC 7523, section 2.2; OpenID Connect Core 1.0, section 9).
	AuthPrivateKey = "private_key_jwt"

	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// maxAssertion is how long an assertion may be good for: so long its id is remembered.
	maxAssertion = 10 * time.Minute
	// assertionLeeway is for clocks that differ.
	assertionLeeway = time.Minute
	// maxKeys bounds a client's keys.
	maxKeys = 20
)

// assertionMethods are the signatures that are taken. None of them is symmetric: a client's key that we knew would be no proof.
var assertionMethods = []string{"ES256", "EdDSA", "RS256", "PS256"}

// clientKeys is a JWK Set as a client registers it (RFC 7517), as far as it is for signatures.
type clientKeys struct {
	Keys []clientKey `json:"keys"`
}

type clientKey struct {
	Type      string `json:"kty"`
	ID        string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
	D         string `json:"d,omitempty"` // a private key, which nobody should give away

	Certificates []string `json:"x5c,omitempty"` // the key's, in base64 and DER
}

var errClientKey = errors.New("the key is malformed, too weak, or of a kind that is not supported")

// public reads the key.
func (k clientKey) public() (crypto.PublicKey, error) {
	number := func(text string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil
		}
		return b
	}
	switch {
	case k.D != "" || k.Use != "" && k.Use != "sig":
		return nil, errClientKey
	case k.Type == "EC" && k.Curve == "P-256":
		x, y := number(k.X), number(k.Y)
		if len(x) != 32 || len(y) != 32 {
			return nil, errClientKey
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	case k.Type == "OKP" && k.Curve == "Ed25519" && len(number(k.X)) == ed25519.PublicKeySize:
		return ed25519.PublicKey(number(k.X)), nil
	case k.Type == "RSA":
		n, e := new(big.Int).SetBytes(number(k.N)), new(big.Int).SetBytes(number(k.E))
		if n.BitLen() < 2048 || n.BitLen() > 8192 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, errClientKey
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	}
	return nil, errClientKey
}

// fits reports whether the key is for a signature method.
func (k clientKey) fits(method, kid string) bool {
	kinds := map[string]string{"ES256": "EC", "EdDSA": "OKP", "RS256": "RSA", "PS256": "RSA"}
	return kinds[method] == k.Type && (k.Algorithm == "" || k.Algorithm == method) && (kid == "" || k.ID == kid)
}

// parseClientKeys reads a JWK Set as a client gives it away. What is not for us in it, keys for encryption or of other kinds, is left out
// (RFC 7517, section 5); a private key, and a set of which nothing is left, is refused.
func parseClientKeys(document json.RawMessage) (clientKeys, error) {
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &all); err != nil || len(all.Keys) > maxKeys {
		return clientKeys{}, errClientKey
	}
	var set clientKeys
	for _, text := range all.Keys {
		var k clientKey
		if json.Unmarshal(text, &k) != nil {
			continue
		}
		if k.D != "" {
			return clientKeys{}, errClientKey
		}
		if _, err := k.public(); err == nil {
			set.Keys = append(set.Keys, k)
		}
	}
	if len(set.Keys) == 0 {
		return clientKeys{}, errClientKey
	}
	return set, nil
}

// assertedID reads whose assertion it claims to be, without believing it.
func assertedID(form url.Values) (string, error) {
	var claims jwt.RegisteredClaims
	if form.Get("client_assertion_type") != assertionType {
		return "", ErrInvalidClient.With("The client_assertion_type is not supported.")
	}
	if _, _, err := jwt.NewParser().ParseUnverified(form.Get("client_assertion"), &claims); err != nil {
		return "", ErrInvalidClient.With("The client_assertion cannot be read.")
	}
	if id := form.Get("client_id"); id != "" && id != claims.Subject {
		return "", ErrInvalidRequest.With("The client_assertion is another client's.")
	}
	return claims.Subject, nil
}

// signedBy reads by which key a JWT says it was signed, without believing it.
func signedBy(raw string) (method, kid string) {
	t, _, err := jwt.NewParser().ParseUnverified(raw, &jwt.RegisteredClaims{})
	if err != nil {
		return "", ""
	}
	kid, _ = t.Header["kid"].(string)
	return t.Method.Alg(), kid
}

// checkAssertion reports whether a JWT proves that its sender is the client: signed with a registered key, for us, for a short time, and
// for the first time, on whichever node.
func (s *Service) checkAssertion(ctx context.Context, c Client, raw string) (bool, error) {
	now := s.deps.Clock()
	var claims jwt.RegisteredClaims
	header, err := s.verifiedBy(ctx, c, raw, &claims, jwt.WithValidMethods(assertionMethods), jwt.WithIssuer(c.ID), jwt.WithSubject(c.ID))
	if kind, _ := header["typ"].(string); strings.Contains(strings.ToLower(kind), "oauth-authz-req") { // signed for something else
		return false, nil
	}
	if errors.Is(err, ErrUnavailable) {
		return false, err
	}
	meant := slices.ContainsFunc(claims.Audience, func(a string) bool { return a == s.deps.Issuer || a == s.deps.Issuer+tokenPath })
	if err != nil || !meant || claims.ID == "" || claims.ExpiresAt.After(now.Add(maxAssertion)) {
		return false, nil
	}
	return s.deps.Replays.Once(ctx, c.ID+"\x00"+claims.ID, claims.ExpiresAt.Sub(now)+2*assertionLeeway)
}
