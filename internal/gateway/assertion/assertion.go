// Package assertion makes what services behind the gateway are told instead of the caller's token: a JWT that says who calls, for one
// service alone.
//
// It owns the gateway's signing keys and their publication. It promises that an assertion is good for the one audience it was made for,
// for a minute; that all gateways with the same secrets sign with the same keys and publish them, also after a restart; that
// nothing is signed with a key that was replaced; and that signing is not done for each request, but once in half a minute for each token and service.
//
// It refuses to say more than the token did.
package assertion

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

const (
	lifetime = time.Minute
	// reuse is how long an assertion is used again: what is left then is enough for whatever the service does with it.
	reuse = lifetime / 2
	// maxKept bounds the assertions that are kept for one audience.
	maxKept = 1 << 16
)

// Signer makes assertions. It is safe for concurrent use.
type Signer struct {
	issuer string
	clock  func() time.Time
	now    atomic.Pointer[signing]
}

// signing is what is signed with, and published.
type signing struct {
	key    *ecdsa.PrivateKey
	header string // of every assertion, encoded
	keys   []byte // the JWK set
}

// New returns a signer that signs with the key of the first secret, and publishes those of all.
func New(issuer string, secrets [][]byte, clock func() time.Time) (*Signer, error) {
	s := &Signer{issuer: issuer, clock: clock}
	return s, s.Replace(secrets)
}

// Replace makes other secrets take the place of those that there were. Nothing that was signed before is used again.
func (s *Signer) Replace(secrets [][]byte) error {
	if len(secrets) == 0 {
		return errors.New("no secret to derive a key from")
	}
	next := &signing{}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for i, secret := range secrets {
		key, err := derive(secret)
		if err != nil {
			return err
		}
		public, err := describe(&key.PublicKey)
		if err != nil {
			return err
		}
		set.Keys = append(set.Keys, public)
		if i == 0 {
			next.key = key
			next.header = encode(fmt.Appendf(nil, `{"alg":"ES256","typ":%q,"kid":%q}`, auth.TypeAssertion, public.ID))
		}
	}
	var err error
	if next.keys, err = json.Marshal(set); err != nil {
		return err
	}
	s.now.Store(next)
	return nil
}

// KeyID is the kid of what is signed with the key of a secret.
func KeyID(secret []byte) (string, error) {
	key, err := derive(secret)
	if err != nil {
		return "", err
	}
	public, err := describe(&key.PublicKey)
	return public.ID, err
}

// derive makes a key out of a secret, always the same one. That a candidate is no key has a probability of 2^-32.
func derive(secret []byte) (*ecdsa.PrivateKey, error) {
	for i := 0; ; i++ {
		candidate, err := hkdf.Key(sha256.New, secret, nil, "sumun gateway assertion ES256 "+strconv.Itoa(i), 32)
		if err != nil {
			return nil, fmt.Errorf("derive key: %w", err)
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), candidate); err == nil {
			return key, nil
		}
	}
}

// jwk is a public key (RFC 7517). The members that make its thumbprint come first, in their order (RFC 7638, section 3.2).
type jwk struct {
	Curve     string `json:"crv"`
	Type      string `json:"kty"`
	X         string `json:"x"`
	Y         string `json:"y"`
	ID        string `json:"kid,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Use       string `json:"use,omitempty"`
}

func describe(key *ecdsa.PublicKey) (jwk, error) {
	point, err := key.Bytes()
	if err != nil {
		return jwk{}, fmt.Errorf("describe key: %w", err)
	}
	j := jwk{Curve: "P-256", Type: "EC", X: encode(point[1:33]), Y: encode(point[33:])}
	bare, err := json.Marshal(j)
	if err != nil {
		return jwk{}, fmt.Errorf("describe key: %w", err)
	}
	sum := sha256.Sum256(bare)
	j.ID, j.Algorithm, j.Use = encode(sum[:]), auth.ES256, "sig"
	return j, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ServeHTTP answers with the public keys.
func (s *Signer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(s.now.Load().keys) // the client is gone when this fails
}

// Audience makes the assertions for one service.
type Audience struct {
	signer *Signer
	name   string
	kept   atomic.Pointer[generation]
}

// generation is assertions made within reuse of each other. Claims are known by their address: a verifier returns the same for the
// same token as long as it remembers it, and while they are here the address is not given to others.
type generation struct {
	by     *signing
	until  time.Time
	count  atomic.Int64
	signed sync.Map // *auth.Claims to []string
}

// For returns what makes assertions for a service.
func (s *Signer) For(name string) *Audience { return &Audience{signer: s, name: name} }

// Authorization returns the value of the header of that name that tells the service what the claims say. It is shared: nobody may
// change it.
func (a *Audience) Authorization(c *auth.Claims) ([]string, error) {
	now := a.signer.clock()
	kept := a.generation(now)
	if value, found := kept.signed.Load(c); found {
		return value.([]string), nil
	}
	token, err := a.sign(c, now, kept.by)
	if err != nil {
		return nil, err
	}
	value, found := kept.signed.LoadOrStore(c, []string{"Bearer " + token})
	if !found {
		kept.count.Add(1)
	}
	return value.([]string), nil
}

// generation returns the current one. The time in which one is used begins with it, so that whatever is in it has half of its life left.
func (a *Audience) generation(now time.Time) *generation {
	by := a.signer.now.Load()
	for {
		kept := a.kept.Load()
		if kept != nil && kept.by == by && now.Before(kept.until) && kept.count.Load() < maxKept {
			return kept
		}
		next := &generation{by: by, until: now.Add(reuse)}
		if a.kept.CompareAndSwap(kept, next) {
			return next
		}
	}
}

// statement is what an assertion says. The ids under which the token can be revoked are the token's own.
type statement struct {
	Issuer      string   `json:"iss"`
	Subject     string   `json:"sub"`
	Audience    string   `json:"aud"`
	IssuedAt    int64    `json:"iat"`
	ExpiresAt   int64    `json:"exp"`
	ID          string   `json:"jti,omitempty"`
	ClientID    string   `json:"client_id"`
	Scope       string   `json:"scope,omitempty"`
	SessionID   string   `json:"sid,omitempty"`
	AuthTime    int64    `json:"auth_time,omitempty"`
	ACR         string   `json:"acr,omitempty"`
	AMR         []string `json:"amr,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	Epoch       int64    `json:"epoch,omitempty"`
	ClientEpoch int64    `json:"client_epoch,omitempty"`

	Through []auth.Party `json:"exchanged_through,omitempty"`
}

func (a *Audience) sign(c *auth.Claims, now time.Time, by *signing) (string, error) {
	said := statement{
		Issuer: a.signer.issuer, Subject: c.Subject, Audience: a.name, IssuedAt: now.Unix(), ExpiresAt: now.Add(lifetime).Unix(),
		ID: c.ID, ClientID: c.ClientID, Scope: c.Scope, SessionID: c.SessionID, ACR: c.ACR, AMR: c.AMR, Roles: c.Roles,
		Epoch: c.Epoch, ClientEpoch: c.ClientEpoch, Through: c.Through,
	}
	if !c.AuthTime.IsZero() {
		said.AuthTime = c.AuthTime.Unix()
	}
	payload, err := json.Marshal(said)
	if err != nil {
		return "", fmt.Errorf("make assertion: %w", err)
	}
	text := by.header + "." + encode(payload)
	signature, err := jwt.SigningMethodES256.Sign(text, by.key)
	if err != nil {
		return "", fmt.Errorf("sign assertion: %w", err)
	}
	return text + "." + encode(signature), nil
}
