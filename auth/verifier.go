package auth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// MaxTokenSize bounds a token in bytes. Longer ones are refused unread.
const MaxTokenSize = 8 << 10

const (
	defaultLeeway   = 60 * time.Second
	maxLeeway       = 5 * time.Minute
	defaultMaxStale = 10 * time.Second
)

// What tokens can be, in the header typ.
const (
	TypeAssertion = "sumun-assertion+jwt"
	typeAccess    = "at+jwt"
)

// Config says whose tokens a [Verifier] accepts, for whom, and how it learns what has been revoked.
type Config struct {
	// Issuer is the address of the issuer, exactly as in the claim iss. Required.
	Issuer string
	// Audience is the name of this service in the claim aud. Empty: Issuer, the audience of Sumun's own API. Name it for any
	// other service, or a token that is meant for one is good at all.
	Audience string
	// Type is the header typ that tokens must have. Empty: at+jwt, an access token of RFC 9068. [TypeAssertion]: what a Sumun
	// gateway tells services about callers, with its own Issuer.
	Type string
	// Algorithms narrows what is accepted. Nil: ES256, EdDSA and RS256.
	Algorithms []string
	// Proofs judges the proofs that come with tokens bound to a client's key. Nil: with the zero [ProofConfig].
	Proofs *Proofs
	// ClientCertificate returns the certificate, in DER, that the client has shown in TLS; nil for none. It is asked for tokens that are
	// bound to one. Nil: the one of the connection to this process. Where a proxy ends TLS, read what it says, and make sure that nobody
	// but the proxy can say it (RFC 9440).
	ClientCertificate func(*http.Request) []byte
	// Leeway is how far the clocks may be apart. Zero: 60 seconds. At most 5 minutes.
	Leeway time.Duration

	// Opener reads access tokens that are no JWTs. Nil: they are [ErrMalformed].
	Opener Opener
	// Keys finds the issuer's public keys. Nil: [RemoteKeys] of Issuer.
	Keys KeySource
	// Credentials of this service open the issuer's revocation feed, which [Verifier.Run] then follows. See
	// [ClientCredentials]. Nil: there is no feed, and tokens live until they expire, unless somebody else fills Revocations.
	Credentials TokenSource
	// FeedURL is where the feed is. Empty: Issuer/v1/revocations.
	FeedURL string
	// Revocations is what has been revoked. Nil: a set of the verifier's own.
	Revocations *RevocationSet
	// MaxRevocations bounds what the feed may fill the set with. Beyond it the feed counts as stale. Zero: a million, which
	// takes some 200 MB.
	MaxRevocations int
	// Age tells how old Revocations is, where somebody else fills it. Nil: the feed's.
	Age func() time.Duration
	// MaxStale is how old the news from the feed may be before it counts as stale: critical routes then refuse
	// ([Verifier.RequireFresh]), others go on. Zero: 10 seconds.
	MaxStale time.Duration
	// OnStale is called by Run when the feed becomes stale and when it is fresh again, once each. It must not wait. It is not
	// called where there is no feed.
	OnStale func(stale bool, age time.Duration)

	// Cache keeps verified tokens. Nil: a [TokenCache] for 16,384 of them. [NoCache] keeps none.
	Cache Cache
	// Snapshot keeps keys and revocations on disk, so that a service can start while the issuer is down.
	Snapshot SnapshotConfig

	// Lenient accepts what issuers write that do not keep to RFC 9068: access tokens whose header has no typ, or JWT, and that
	// lack client_id, jti or iat. Such an access token may be hard to tell from an ID token; what shows that it is not one is
	// refused, and Audience must be named and be no client's id. Off by default.
	Lenient bool
	// RolesClaim is where a Lenient issuer puts roles: names of members with dots between, such as "realm_access.roles".
	RolesClaim string

	// Client makes the requests for keys and feed. Nil: one that follows no redirects.
	Client *http.Client
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
	// Log is for what an operator should see: the feed lost and found, a snapshot that cannot be used. Nil: slog.Default().
	Log *slog.Logger
}

func (c *Config) setDefaults() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("auth.Config."+format, args...)) }
	if c.Issuer == "" {
		fault("Issuer is empty: set it to the address of the issuer")
	}
	if c.Lenient && c.Audience == "" {
		fault("Audience is empty: with Lenient, name this service as the tokens do")
	}
	if c.Lenient && c.Type != "" {
		fault("Type is %q: leave it empty with Lenient", c.Type)
	}
	if c.RolesClaim != "" && !c.Lenient {
		fault("RolesClaim is for issuers that need Lenient")
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		fault("Leeway is %v: use 0 to %v", c.Leeway, maxLeeway)
	}
	if c.MaxStale < 0 || c.MaxRevocations < 0 {
		fault("MaxStale and MaxRevocations cannot be negative: use 0 for the default")
	}
	supported := []string{ES256, EdDSA, RS256}
	for _, a := range c.Algorithms {
		if !slices.Contains(supported, a) {
			fault("Algorithms contains %q: use %v", a, supported)
		}
	}
	if err := c.Snapshot.check(); err != nil {
		faults = append(faults, err)
	}
	c.fill(supported)
	return errors.Join(faults...)
}

func (c *Config) fill(algorithms []string) {
	if c.Audience == "" {
		c.Audience = c.Issuer
	}
	if c.Type == "" {
		c.Type = typeAccess
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = algorithms
	}
	c.Algorithms = slices.Clone(c.Algorithms)
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if c.MaxStale == 0 {
		c.MaxStale = defaultMaxStale
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Client == nil {
		c.Client = newClient()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Revocations == nil {
		c.Revocations = NewRevocationSet(c.Clock)
	}
	if c.Cache == nil {
		c.Cache = NewTokenCache(CacheConfig{})
	}
	if c.ClientCertificate == nil {
		c.ClientCertificate = connectionCertificate
	}
}

// Verifier verifies access tokens. Make one with [New], start it with [Verifier.Load] and [Verifier.Run], and use it for the
// life of the process.
type Verifier struct {
	cfg      Config
	remote   *RemoteKeys // nil where the keys are somebody else's
	feed     *feed       // nil where there is none
	snapshot *snapshotFile
	loaded   atomic.Bool
}

// New returns a verifier, or every fault of the configuration at once. It does no I/O and starts nothing. A verifier works as it
// is, fetching keys when the first token arrives; what has been revoked it learns from [Verifier.Run].
func New(cfg Config) (*Verifier, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg}
	if cfg.Keys == nil {
		keys, err := NewRemoteKeys(RemoteConfig{Issuer: cfg.Issuer, Client: cfg.Client, Clock: cfg.Clock})
		if err != nil {
			return nil, err
		}
		v.cfg.Keys = keys
	}
	if cfg.Proofs == nil {
		proofs, err := NewProofs(ProofConfig{Clock: cfg.Clock})
		if err != nil {
			return nil, err
		}
		v.cfg.Proofs = proofs
	}
	v.remote, _ = v.cfg.Keys.(*RemoteKeys)
	if cfg.Credentials != nil {
		feed, err := newFeed(&v.cfg)
		if err != nil {
			return nil, err
		}
		v.feed = feed
	}
	if cfg.Snapshot.Path != "" {
		v.snapshot = &snapshotFile{cfg: cfg.Snapshot, issuer: cfg.Issuer, clock: v.cfg.Clock}
	}
	return v, nil
}

// Verify returns the claims of raw if it is a valid access token for this service at this moment, and otherwise an
// [*Error]. It waits only while no keys are loaded, or when raw names a key that is not among them.
//
// A token that is bound to a client's key is [ErrBound], and one that is bound to a certificate [ErrNoCertificate]: whether it is the
// client who presents it shows in the request only, which is for VerifyRequest to judge.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Claims, error) {
	claims, err := v.VerifyBound(ctx, raw)
	if err == nil {
		if err = claims.Confirmation.bare(); err != nil {
			return nil, err
		}
	}
	return claims, err
}

// VerifyBound is Verify for whoever judges Confirmation by other means, or only tells others what a token says.
func (v *Verifier) VerifyBound(ctx context.Context, raw string) (*Claims, error) {
	now := v.cfg.Clock()
	if known := v.cfg.Cache.Get(raw, now); known != nil && known.verifier == v && known.token == raw {
		if err := v.stillGood(ctx, known, now); err != nil {
			return nil, err
		}
		return known.claims, nil
	}
	known, err := v.examine(ctx, raw, now)
	if err != nil {
		return nil, err
	}
	v.cfg.Cache.Put(known.token, known, now)
	return known.claims, nil
}

// examine judges a token from its first byte to its last.
func (v *Verifier) examine(ctx context.Context, raw string, now time.Time) (*Verified, error) {
	if raw == "" {
		return nil, ErrMissing
	}
	read := v.readSigned
	if v.cfg.Opener != nil && !strings.Contains(raw, ".") {
		read = v.readOpaque
	}
	payload, key, err := read(ctx, raw)
	if err != nil {
		return nil, err
	}
	claims, err := v.judge(payload, now)
	if err != nil {
		return nil, err
	}
	claims.KeyID = key.ID
	known := &Verified{
		verifier: v, token: strings.Clone(raw), claims: claims, key: key, who: newRevocable(claims),
		expires: claims.ExpiresAt.Add(v.cfg.Leeway),
	}
	known.keySeen.Store(now.Unix())
	if err := v.notRevoked(known, now); err != nil {
		return nil, err
	}
	return known, nil
}

// readSigned returns what a JWT says and with which key it is rightly signed.
func (v *Verifier) readSigned(ctx context.Context, raw string) ([]byte, Key, error) {
	s, err := open(raw)
	if err != nil {
		return nil, Key{}, err
	}
	if !v.isAccessToken(s.typ) {
		return nil, Key{}, ErrType
	}
	key, err := v.authenticate(ctx, s)
	return s.payload, key, err
}

func (v *Verifier) accepts(algorithm string) bool {
	return slices.Contains(v.cfg.Algorithms, algorithm)
}

// isAccessToken judges the header typ (RFC 9068 section 4, RFC 8725 section 3.11).
func (v *Verifier) isAccessToken(typ string) bool {
	typ = strings.ToLower(typ)
	typ = strings.TrimPrefix(typ, "application/") // RFC 7515 section 4.1.9
	return typ == v.cfg.Type || v.cfg.Lenient && (typ == "" || typ == "jwt")
}

// judge checks the claims of a token whose signature is right (RFC 9068 section 4).
func (v *Verifier) judge(document []byte, now time.Time) (*Claims, error) {
	first, _, _ := strings.Cut(v.cfg.RolesClaim, ".")
	p, err := parsePayload(document, func(name string) bool { return first != "" && name == first })
	if err != nil {
		return nil, ErrMalformed.wrap(err)
	}
	if v.cfg.Lenient {
		if err := p.adopt(v.cfg.RolesClaim); err != nil {
			return nil, err
		}
	}
	c := &p.claims
	soon := now.Add(v.cfg.Leeway)
	switch {
	case !p.complete():
		return nil, ErrClaims
	case c.Issuer != v.cfg.Issuer:
		return nil, ErrIssuer
	case !slices.Contains(c.Audience, v.cfg.Audience):
		return nil, ErrAudience
	case !now.Before(c.ExpiresAt.Add(v.cfg.Leeway)):
		return nil, ErrExpired
	case c.IssuedAt.After(soon), p.notBefore.After(soon):
		return nil, ErrNotYetValid
	}
	claims := *c // not the rest of the payload
	return &claims, nil
}

// stillGood checks of a token that was verified before what may have changed since.
func (v *Verifier) stillGood(ctx context.Context, known *Verified, now time.Time) error {
	if !now.Before(known.expires) {
		return ErrExpired
	}
	if second := now.Unix(); known.key.Public != nil && known.keySeen.Load() != second {
		if err := v.keyStands(ctx, known); err != nil {
			return err
		}
		known.keySeen.Store(second)
	}
	return v.notRevoked(known, now)
}

// keyStands reports whether the key of a token is still published, and the same. It is asked once a second for each token.
func (v *Verifier) keyStands(ctx context.Context, known *Verified) error {
	key, err := v.key(ctx, known.key.ID)
	if err != nil {
		return err
	}
	public, ok := known.key.Public.(interface{ Equal(crypto.PublicKey) bool })
	if key.Algorithm != known.key.Algorithm || !ok || !public.Equal(key.Public) {
		return ErrUnknownKey
	}
	return nil
}

// notRevoked looks for the token in the set, unless nothing was added since it last did.
func (v *Verifier) notRevoked(known *Verified, now time.Time) error {
	additions := v.cfg.Revocations.additions.Load() + 1 // read before the set is: what comes later counts as new
	if known.cleanAt.Load() == additions {
		return nil
	}
	if v.cfg.Revocations.has(&known.who, now) {
		return ErrRevoked
	}
	known.cleanAt.Store(additions)
	return nil
}
