// Package token issues access tokens and keeps the keys that sign them.
//
// It owns the signing keys from creation to deletion, their rotation, the public key set (JWKS, RFC 7517) and the form of
// an access token: a JWT (RFC 9068), or the same claims sealed where nobody but the issuer is to read them.
//
// It promises that issuing a token does no I/O; that every token verifies until it expires, at every node and at whoever
// fetched the key set within its max-age, whatever rotation happens meanwhile; that several nodes started at once agree on
// one key; and that a private key is stored sealed only.
//
// It refuses to decide who gets a token, for what, or whether it was revoked: that is for its callers.
//
// # The life of a key
//
// Keys are numbered by generation. A key is published in the key set when it is made, signs from active_at until
// retire_at, and leaves the key set at expire_at, when its last token has died. The successor of a key is made PublishAhead before
// the key retires and becomes active at that moment, so that verifiers know it long before they need it. Where that much
// time is not left, because no node ran, the old key signs a little longer. Where nothing can sign, a key is made that
// signs at once. Among several active keys the highest generation signs.
//
// A changed algorithm in the configuration is noticed when a node loads the keys at its start: it makes a successor of
// that algorithm, which signs after PublishAhead, since verifiers elsewhere may need that time to accept it. Nodes that run
// already follow, whatever their own configuration says, so that a rolling deployment does not go back and forth.
package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	// maxLifetime bounds Config.Lifetime. Keys stay published that long after they retire, so that the lifetime can be
	// raised without regard to the keys there are.
	maxLifetime = time.Hour
	// afterlife is how long a retired key stays published: for its longest-lived token, issued by a node that had not
	// heard of the retirement, and a verifier whose clock is late.
	afterlife = maxLifetime + reloadInterval + 5*time.Minute

	// reloadInterval is how often a node looks at the keys in the database.
	reloadInterval = 30 * time.Second
	// askInterval is how often unknown key ids may cause one more look.
	askInterval = time.Second
	// documentAge is the max-age of the key set.
	documentAge = 5 * time.Minute
	// publishLead is the shortest time between publishing a key and signing with it, if there is another one that can
	// sign: every node serves it, then every cached key set without it is stale, then clocks that are late agree.
	publishLead = documentAge + reloadInterval + 30*time.Second

	minPublishAhead = 10 * time.Minute
)

// ErrNoKey says that no key can sign at the moment: the database could not be reached for so long that the last key
// retired without a successor, or the keys were never loaded.
var ErrNoKey = fault.New(fault.Unavailable, "token.no_key", "No token can be issued at the moment. Try again shortly.").
	After(reloadInterval)

// Config says how tokens are signed and how long they and their keys live.
type Config struct {
	Algorithm    string        `yaml:"algorithm" doc:"Signature algorithm of new keys: ES256, EdDSA or RS256."`
	Lifetime     time.Duration `yaml:"lifetime" doc:"Lifetime of an access token, before jitter. At most one hour."`
	Jitter       float64       `yaml:"jitter" doc:"Each lifetime is shortened by a random share up to this one, so that expiries do not line up."`
	KeyLifetime  time.Duration `yaml:"key_lifetime" doc:"How long a signing key signs."`
	PublishAhead time.Duration `yaml:"publish_ahead" doc:"How long a scheduled signing key is published before it signs."`
}

// DefaultConfig signs with ES256 for 15 minutes and changes keys every 30 days.
func DefaultConfig() Config {
	return Config{
		Algorithm:    auth.ES256,
		Lifetime:     15 * time.Minute,
		Jitter:       0.05,
		KeyLifetime:  30 * 24 * time.Hour,
		PublishAhead: 24 * time.Hour,
	}
}

// Validate returns every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	if supported := []string{auth.ES256, auth.EdDSA, auth.RS256}; !slices.Contains(supported, c.Algorithm) {
		faults = append(faults, fmt.Errorf("algorithm: %q is unknown; use one of %v", c.Algorithm, supported))
	}
	if c.Lifetime < time.Minute || c.Lifetime > maxLifetime {
		faults = append(faults, fmt.Errorf("lifetime: %v is not between %v and %v; use a value such as 15m", c.Lifetime, time.Minute, maxLifetime))
	}
	if !(c.Jitter >= 0 && c.Jitter <= 0.5) {
		faults = append(faults, fmt.Errorf("jitter: %v is not between 0 and 0.5; use a value such as 0.05", c.Jitter))
	}
	if c.PublishAhead < minPublishAhead {
		faults = append(faults, fmt.Errorf("publish_ahead: %v is below %v; use a value such as 24h", c.PublishAhead, minPublishAhead))
	}
	if c.KeyLifetime < 2*c.PublishAhead {
		faults = append(faults, fmt.Errorf("key_lifetime: %v is below twice publish_ahead, %v; raise it, or "+
			"lower publish_ahead", c.KeyLifetime, 2*c.PublishAhead))
	}
	return errors.Join(faults...)
}

// Grant is what a token says. Subject and ClientID are required.
type Grant struct {
	ID        string // the claim jti; empty: a random one
	Subject   string // the account, or the client itself where no person is involved
	ClientID  string
	Scope     string // space-separated
	SessionID string // empty where there is no session
	GrantID   string // the client's grant in the session; empty for clients that go with the session
	ACR       string
	Audience  []string // empty: the issuer itself
	AMR       []string // RFC 8176
	Roles     []string
	// Epoch is the subject's epoch, ClientEpoch the client's. A client whose privileges were never withdrawn has 0, and
	// the claim is left out.
	Epoch       int64
	ClientEpoch int64
	// Through are the clients that had what the token is exchanged for, the first one first.
	Through []auth.Party
	// Actor is who acts in the subject's name (RFC 8693 section 4.1); empty: the subject.
	Actor string
	// NotAfter is when the token expires at the latest; zero: only its lifetime decides.
	NotAfter time.Time
	// AuthTime is when the person proved who they are. Zero where no person did.
	AuthTime time.Time
	// Thumbprint is of the key that the token is bound to (RFC 9449 section 6.1). Empty: it is a bearer token.
	Thumbprint string
	// Certificate is the thumbprint of the TLS certificate that the token is bound to (RFC 8705 section 3.1). Empty: to none.
	Certificate string
	// Opaque makes a token that only this installation can read, instead of a JWT.
	Opaque bool
}

// Access is an issued access token.
type Access struct {
	Token     string
	ID        string // the claim jti
	ExpiresAt time.Time
	Lifetime  time.Duration // for expires_in; whole seconds
}

// RotateOptions say how fast a rotation takes effect. The zero value is the gentle one: the new key is published now and
// signs when every cached key set has become stale, about six minutes later.
type RotateOptions struct {
	// Now signs with the new key at once. Verifiers that do not fetch the key set for an unknown key id refuse its tokens
	// until their copy is stale.
	Now bool
	// RevokeOld is for keys that became known: it deletes every other key, and with them all access tokens. It includes
	// Now. Other nodes follow within 30 seconds; verifiers that cache the key set, within its max-age.
	RevokeOld bool
	// Revoked, if given, is told with RevokeOld the ids of the keys that go, in the transaction that deletes them, so that
	// verifiers can be told sooner.
	Revoked func(ctx context.Context, tx sqldb.Tx, kids []string) error
}

// successor decides whether a key has to be made now, and when it begins to sign. newest is the key of the highest
// generation and signs whether any key can sign now; both may be the same key.
func (c Config) successor(newest, signs *signingKey, algorithm string, now time.Time) (activeAt time.Time, needed bool) {
	switch {
	case signs == nil:
		return now, true
	case !now.Before(newest.retireAt.Add(-c.PublishAhead)):
		return latest(newest.retireAt, now.Add(publishLead)), true
	case newest.algorithm != algorithm:
		return now.Add(c.PublishAhead), true
	}
	return time.Time{}, false
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
