package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxTokenSize bounds a token in bytes. Longer ones are refused unread.
const MaxTokenSize = 8 << 10

const (
	defaultLeeway = 60 * time.Second
	maxLeeway     = 5 * time.Minute
)

// Config says whose tokens a [Verifier] accepts, and for whom.
type Config struct {
	// Issuer is the address of Sumun, exactly as in the claim iss. Required.
	Issuer string
	// Audience is the name of this service in the claim aud. Required.
	Audience string
	// Keys finds the issuer's public keys. Nil: they are fetched from Issuer/.well-known/jwks.json by [RemoteKeys].
	Keys KeySource
	// Revocations is what has been revoked. Nil: tokens live until they expire.
	Revocations *RevocationSet
	// Algorithms narrows what is accepted. Nil: ES256, EdDSA and RS256.
	Algorithms []string
	// Leeway is how far the clocks may be apart. Zero: 60 seconds. At most 5 minutes.
	Leeway time.Duration
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

func (c *Config) setDefaults() error {
	var faults []error
	if c.Issuer == "" {
		faults = append(faults, errors.New("auth.Config.Issuer is empty: set it to the address of Sumun"))
	}
	if c.Audience == "" {
		faults = append(faults, errors.New("auth.Config.Audience is empty: set it to the name that tokens carry for this service"))
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		faults = append(faults, fmt.Errorf("auth.Config.Leeway is %v: use 0 to %v", c.Leeway, maxLeeway))
	}
	supported := []string{ES256, EdDSA, RS256}
	for _, a := range c.Algorithms {
		if !slices.Contains(supported, a) {
			faults = append(faults, fmt.Errorf("auth.Config.Algorithms contains %q: use %v", a, supported))
		}
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = supported
	}
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return errors.Join(faults...)
}

// Verifier verifies access tokens. Make one with [New] and use it for the life of the process.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
}

// New returns a verifier, or every fault of the configuration at once. It does no I/O: the keys are fetched when the
// first token arrives.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if cfg.Keys == nil {
		keys, err := NewRemoteKeys(RemoteConfig{
			URL:   strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/jwks.json",
			Clock: cfg.Clock,
		})
		if err != nil {
			return nil, err
		}
		cfg.Keys = keys
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	return &Verifier{
		cfg: cfg,
		parser: jwt.NewParser(jwt.WithValidMethods(cfg.Algorithms), jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation()), // judge does it, with an error of its own for each claim
	}, nil
}

// Verify returns the claims of raw if it is a valid access token for this service at this moment, and otherwise an
// [*Error]. It waits only while no keys are loaded, or when raw names a key that is not among them.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Claims, error) {
	if raw == "" {
		return nil, ErrMissing
	}
	if len(raw) > MaxTokenSize || !compact(raw) {
		return nil, ErrMalformed
	}
	var wire wireClaims
	var key Key
	_, err := v.parser.ParseWithClaims(raw, &wire, func(t *jwt.Token) (any, error) {
		var err error
		key, err = v.key(ctx, t.Header)
		return key.Public, err
	})
	if err != nil {
		return nil, translate(err)
	}
	if err := v.judge(&wire); err != nil {
		return nil, err
	}
	claims := wire.claims(key.ID)
	if v.cfg.Revocations != nil && v.cfg.Revocations.Revoked(claims) {
		return nil, ErrRevoked
	}
	return claims, nil
}

// compact reports whether raw is made of exactly three parts of base64url characters (RFC 7515 section 7.1). The decoder
// would skip line breaks, so that one token could be spelt in many ways.
func compact(raw string) bool {
	dots := 0
	for _, c := range []byte(raw) {
		switch {
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

// headersRefused would let the token bring its own key, or change how it is read (RFC 7515 section 4.1).
var headersRefused = [...]string{"crit", "jwk", "jku", "x5u", "x5c"}

// key judges the header and returns the key that the signature must be checked with.
func (v *Verifier) key(ctx context.Context, header map[string]any) (Key, error) {
	for _, name := range headersRefused {
		if _, there := header[name]; there {
			return Key{}, ErrMalformed.wrap(fmt.Errorf("header %q is refused", name))
		}
	}
	typ, _ := header["typ"].(string)
	if !strings.EqualFold(typ, "at+jwt") && !strings.EqualFold(typ, "application/at+jwt") {
		return Key{}, ErrType
	}
	kid, _ := header["kid"].(string)
	if kid == "" {
		return Key{}, ErrUnknownKey
	}
	key, err := v.cfg.Keys.Key(ctx, kid)
	if errors.Is(err, ErrUnknownKey) {
		return Key{}, ErrUnknownKey
	}
	if err != nil {
		return Key{}, ErrKeysUnavailable.wrap(err)
	}
	if key.Algorithm != header["alg"] {
		return Key{}, ErrSignature.wrap(fmt.Errorf("key %q is for %s only", kid, key.Algorithm))
	}
	if err := key.check(); err != nil {
		return Key{}, ErrUnknownKey.wrap(err)
	}
	key.ID = kid
	return key, nil
}

// judge checks the claims of a token whose signature is right (RFC 9068 section 4).
func (v *Verifier) judge(w *wireClaims) error {
	if !w.complete() {
		return ErrClaims
	}
	if w.Issuer != v.cfg.Issuer {
		return ErrIssuer
	}
	if !slices.Contains(w.Audience, v.cfg.Audience) {
		return ErrAudience
	}
	now := v.cfg.Clock()
	if !now.Before(w.ExpiresAt.Add(v.cfg.Leeway)) {
		return ErrExpired
	}
	soon := now.Add(v.cfg.Leeway)
	if w.IssuedAt.After(soon) || w.NotBefore != nil && w.NotBefore.After(soon) {
		return ErrNotYetValid
	}
	return nil
}

// translate turns the parser's error into one of ours.
func translate(err error) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, jwt.ErrTokenMalformed):
		return ErrMalformed.wrap(err)
	default: // a wrong signature, an algorithm that is not accepted, or none
		return ErrSignature.wrap(err)
	}
}
