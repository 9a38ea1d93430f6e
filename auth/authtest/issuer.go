// Package authtest is an issuer for the tests of services that verify tokens with package auth.
//
// It owns what such a test needs: tokens with any claims, a [auth.Verifier] that accepts them, and everything that happens to
// tokens in real life: they are revoked, they expire, the news about revocations stop, the issuer is down.
//
// It promises that what a test does is in force when the call returns: no waiting, no retrying. [New] makes an issuer without a
// network; [Serve] makes one that speaks HTTP like a real one, for tests of a service from the outside.
//
// It is for tests only: whoever imports it elsewhere accepts tokens that anybody can make.
package authtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// Audience is the audience of tokens and verifiers where a test says nothing else.
const Audience = "https://service.test"

const keyID = "authtest"

// Issuer makes tokens and withdraws them. It is safe for use by several goroutines at once.
type Issuer struct {
	// Name is the claim iss, and for [Serve] the address.
	Name string

	tb  testing.TB
	key *ecdsa.PrivateKey
	set *auth.RevocationSet

	mu      sync.Mutex
	offset  time.Duration
	silent  bool
	entries []auth.Revocation
	changed chan struct{} // closed and replaced when entries or silent change
	clients map[string]string
}

// New returns an issuer without a network.
func New(tb testing.TB) *Issuer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	i := &Issuer{Name: "https://issuer.test", tb: tb, key: key, changed: make(chan struct{}), clients: map[string]string{}}
	i.set = auth.NewRevocationSet(i.Now)
	return i
}

// Now is the issuer's time, and that of its verifiers.
func (i *Issuer) Now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().Add(i.offset)
}

// Advance lets time pass.
func (i *Issuer) Advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.offset += d
}

// Config is that of a verifier which accepts this issuer's tokens for [Audience] and learns of revocations at once.
func (i *Issuer) Config() auth.Config {
	return auth.Config{
		Issuer: i.Name, Audience: Audience, Keys: keys{i}, Revocations: i.set, Age: i.age, Clock: i.Now,
	}
}

// Verifier returns a verifier of [Issuer.Config]. It needs no Load and no Run.
func (i *Issuer) Verifier() *auth.Verifier {
	i.tb.Helper()
	v, err := auth.New(i.Config())
	if err != nil {
		i.tb.Fatal(err)
	}
	return v
}

func (i *Issuer) age() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.silent {
		return time.Hour
	}
	return 0
}

type keys struct{ i *Issuer }

func (k keys) Key(_ context.Context, kid string) (auth.Key, error) {
	if kid != keyID {
		return auth.Key{}, auth.ErrUnknownKey
	}
	return auth.Key{ID: keyID, Algorithm: auth.ES256, Public: k.i.key.Public()}, nil
}

// Token returns a token that is good for 15 minutes: of the person "alice", in the session "session-1", for [Audience]. Each
// change is made to the claims before they are signed; times that are zero are left out.
func (i *Issuer) Token(changes ...func(*auth.Claims)) string {
	i.tb.Helper()
	now := i.Now()
	c := &auth.Claims{
		Issuer: i.Name, Subject: "alice", Audience: []string{Audience}, ClientID: "app", SessionID: "session-1", ID: rand.Text(),
		IssuedAt: now, ExpiresAt: now.Add(15 * time.Minute), AuthTime: now,
	}
	for _, change := range changes {
		change(c)
	}
	claims := jwt.MapClaims{}
	for name, value := range map[string]any{
		"iss": c.Issuer, "sub": c.Subject, "client_id": c.ClientID, "scope": c.Scope, "sid": c.SessionID, "jti": c.ID, "acr": c.ACR,
	} {
		if value != "" {
			claims[name] = value
		}
	}
	for name, value := range map[string][]string{"aud": c.Audience, "amr": c.AMR, "roles": c.Roles} {
		if len(value) > 0 {
			claims[name] = value
		}
	}
	for name, value := range map[string]time.Time{"iat": c.IssuedAt, "exp": c.ExpiresAt, "auth_time": c.AuthTime} {
		if !value.IsZero() {
			claims[name] = value.Unix()
		}
	}
	claims["epoch"], claims["client_epoch"] = c.Epoch, c.ClientEpoch
	if len(c.Through) > 0 {
		claims["exchanged_through"] = c.Through
	}
	return i.sign(claims)
}

func (i *Issuer) sign(claims jwt.MapClaims) string {
	i.tb.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["typ"], token.Header["kid"] = "at+jwt", keyID
	raw, err := token.SignedString(i.key)
	if err != nil {
		i.tb.Fatal(err)
	}
	return raw
}

// WithScope gives a token these scopes.
func WithScope(scopes ...string) func(*auth.Claims) {
	return func(c *auth.Claims) { c.Scope = strings.Join(scopes, " ") }
}

// WithRoles gives a token these roles.
func WithRoles(roles ...string) func(*auth.Claims) {
	return func(c *auth.Claims) { c.Roles = roles }
}

// WithSubject makes a token somebody's.
func WithSubject(subject string) func(*auth.Claims) {
	return func(c *auth.Claims) { c.Subject = subject }
}

// WithSession makes a token one of this session.
func WithSession(id string) func(*auth.Claims) {
	return func(c *auth.Claims) { c.SessionID = id }
}

// RevokeSession ends a session.
func (i *Issuer) RevokeSession(id string) { i.Revoke(auth.RevokeSession, id, 0) }

// Revoke withdraws what is named. Subjects and clients are withdrawn below an epoch, the others altogether.
func (i *Issuer) Revoke(kind auth.RevocationKind, id string, epoch int64) {
	r := auth.Revocation{Kind: kind, ID: auth.RevocationHash(kind, id), Epoch: epoch, Until: i.Now().Add(time.Hour)}
	i.set.Add(r)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.entries = append(i.entries, r)
	i.change()
}

// GoStale stops the news about revocations, until [Issuer.GoFresh].
func (i *Issuer) GoStale() { i.setSilent(true) }

// GoFresh lets the news flow again.
func (i *Issuer) GoFresh() { i.setSilent(false) }

func (i *Issuer) setSilent(silent bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.silent = silent
	i.change()
}

// change wakes the streams. The caller holds the lock.
func (i *Issuer) change() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// jwks is the key set as it is published.
func (i *Issuer) jwks() ([]byte, error) {
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "kid": keyID, "use": "sig", "alg": auth.ES256, "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
}

// since returns the entries after a position, whether the position was unknown, and what to wait for.
func (i *Issuer) since(position int) (entries []auth.Revocation, reset, silent bool, changed <-chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if position < 0 || position > len(i.entries) {
		position, reset = 0, true
	}
	return i.entries[position:], reset, i.silent, i.changed
}

const unknown = math.MinInt
