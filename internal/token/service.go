package token

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
)

// attempts bounds how often a key is made anew because other nodes were faster.
const attempts = 10

// readTimeout bounds a look at the keys in the database.
const readTimeout = 5 * time.Second

// Deps is what a [Service] works with.
type Deps struct {
	DB      *sqldb.DB
	Keyring *keyring.Keyring
	Issuer  string           // the claim iss
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: nothing is logged
}

// Service issues access tokens and publishes the keys to verify them with. It is safe for concurrent use, once Load has
// returned.
type Service struct {
	cfg     Config
	db      *sqldb.DB
	keyring *keyring.Keyring
	issuer  string
	clock   func() time.Time
	log     *slog.Logger

	ring atomic.Pointer[ring]

	reading  chan struct{} // held while the keys are read, so that an older state never replaces a newer one
	readAt   time.Time     // when they were last read; guarded by reading
	readFail error         // the outcome; guarded by reading
}

var _ auth.KeySource = (*Service)(nil)

// New returns a service that knows no keys until [Service.Load].
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.DB == nil || deps.Keyring == nil || deps.Issuer == "" {
		return nil, errors.New("token: a database, a keyring and an issuer are needed")
	}
	s := &Service{
		cfg: cfg, db: deps.DB, keyring: deps.Keyring, issuer: deps.Issuer, clock: deps.Clock, log: deps.Log,
		reading: make(chan struct{}, 1),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	empty, err := newRing(0, nil, time.Time{})
	if err != nil {
		return nil, err
	}
	s.ring.Store(empty)
	return s, nil
}

// Load reads the keys and makes the one that is missing, if any: the first, one of a newly configured algorithm, or one
// that was due while no node ran. What a previous master key sealed is sealed anew. Load fails when a private key cannot
// be opened with the master keys at hand.
func (s *Service) Load(ctx context.Context) error {
	if err := s.ensure(ctx, s.cfg.Algorithm); err != nil {
		return err
	}
	_, err := s.Reseal(ctx)
	return err
}

// Run keeps the keys up to date until ctx ends: it reads what other nodes did, makes successors in time and deletes what
// has expired. While the database is away it goes on with the keys it has.
func (s *Service) Run(ctx context.Context) error {
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := s.tick(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		level := slog.LevelWarn
		if s.view(s.clock()).signer(s.clock()) == nil {
			level = slog.LevelError
		}
		s.log.Log(ctx, level, "signing keys not kept up to date", "error", err)
	}
}

// tick is one round of Run. Its successors have the algorithm of the newest key: see the package documentation.
func (s *Service) tick(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reloadInterval)
	defer cancel()
	if err := s.ensure(ctx, ""); err != nil {
		return err
	}
	if _, err := s.db.Writer().ExecContext(ctx, deleteExpired, sqldb.Micros(s.clock())); err != nil {
		return fmt.Errorf("delete expired signing keys: %w", err)
	}
	return nil
}

// ensure reads the keys and makes the one that is due. An empty algorithm means that of the newest key.
func (s *Service) ensure(ctx context.Context, algorithm string) error {
	for range attempts {
		if err := s.reload(ctx); err != nil {
			return err
		}
		now := s.clock()
		r := s.view(now)
		newest, want := r.newest(), algorithm
		if want == "" {
			want = s.cfg.Algorithm
			if newest != nil {
				want = newest.algorithm
			}
		}
		activeAt, needed := s.cfg.successor(newest, r.signer(now), want, now)
		if !needed {
			return nil
		}
		if _, err := s.insert(ctx, r.generation+1, want, now, activeAt, RotateOptions{}); err != nil {
			return err
		}
	}
	return errors.New("agree on a signing key: other nodes keep making new ones; do their clocks differ?")
}

// Rotate makes a new key of the configured algorithm besides the schedule.
func (s *Service) Rotate(ctx context.Context, o RotateOptions) error {
	for range attempts {
		if err := s.reload(ctx); err != nil {
			return err
		}
		now := s.clock()
		r := s.view(now)
		activeAt := now.Add(publishLead)
		if o.Now || o.RevokeOld || r.signer(now) == nil {
			activeAt = now
		}
		made, err := s.insert(ctx, r.generation+1, s.cfg.Algorithm, now, activeAt, o)
		if err != nil {
			return err
		}
		if made {
			return s.reload(ctx)
		}
	}
	return errors.New("rotate signing keys: other nodes kept making new ones meanwhile")
}

// Reload makes this node know the keys as they are in the database now: when others have been revoked, it signs with the new
// one and refuses what the old ones signed.
func (s *Service) Reload(ctx context.Context) error { return s.reload(ctx) }

// reload reads the keys now.
func (s *Service) reload(ctx context.Context) error { return s.readUnlessWithin(ctx, 0) }

// readUnlessWithin reads the keys, unless they were read less than interval ago: then it returns that outcome.
func (s *Service) readUnlessWithin(ctx context.Context, interval time.Duration) error {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for signing keys: %w", context.Cause(ctx))
	}
	defer func() { <-s.reading }()
	now := s.clock()
	if since := now.Sub(s.readAt); since >= 0 && since < interval {
		return s.readFail
	}
	// Others share the outcome: it does not depend on whether the one who asked first goes on waiting.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	s.readAt, s.readFail = now, s.read(ctx, now)
	return s.readFail
}

// view returns what this node knows, without the keys that expired since it was read.
func (s *Service) view(now time.Time) *ring {
	r := s.ring.Load()
	if r.until.IsZero() || now.Before(r.until) {
		return r
	}
	rest, err := newRing(r.generation, r.keys, now)
	if err != nil { // it described the same keys before
		return r
	}
	if s.ring.CompareAndSwap(r, rest) {
		return rest
	}
	return s.view(now)
}

// Key returns a published key, so that a [auth.Verifier] in this process needs no request. An unknown id makes it look
// at the database, at most once a second: another node may have made the key just now.
func (s *Service) Key(ctx context.Context, kid string) (auth.Key, error) {
	if k, there := s.view(s.clock()).byID[kid]; there {
		return k.public(), nil
	}
	if err := s.readUnlessWithin(ctx, askInterval); err != nil {
		return auth.Key{}, err
	}
	if k, there := s.view(s.clock()).byID[kid]; there {
		return k.public(), nil
	}
	return auth.Key{}, auth.ErrUnknownKey
}

// claims is the payload of an access token (RFC 9068 section 2.2). It holds no personal data.
type claims struct {
	jwt.RegisteredClaims
	ClientID    string           `json:"client_id"`
	Scope       string           `json:"scope,omitempty"`
	SessionID   string           `json:"sid,omitempty"`
	GrantID     string           `json:"gid,omitempty"`
	AuthTime    *jwt.NumericDate `json:"auth_time,omitempty"`
	ACR         string           `json:"acr,omitempty"`
	AMR         []string         `json:"amr,omitempty"`
	Roles       []string         `json:"roles"`
	Epoch       int64            `json:"epoch"`
	ClientEpoch int64            `json:"client_epoch,omitempty"`
	Through     []auth.Party     `json:"exchanged_through,omitempty"`
	Actor       *actor           `json:"act,omitempty"`

	Confirmation *auth.Confirmation `json:"cnf,omitempty"`
}

// actor is who acts in the subject's name (RFC 8693 section 4.1).
type actor struct {
	Subject string `json:"sub"`
}

// Lifetime is how long an access token lives, before jitter.
func (s *Service) Lifetime() time.Duration { return s.cfg.Lifetime }

// Algorithm is that of the key that signs now, the configured one while there is none.
func (s *Service) Algorithm() string {
	now := s.clock()
	if key := s.view(now).signer(now); key != nil {
		return key.algorithm
	}
	return s.cfg.Algorithm
}

// Sign signs claims that are no access token, such as an ID token, as a JWT whose header says which type it is. An access token's is
// refused: those are for Issue. The only expected failure is [ErrNoKey].
func (s *Service) Sign(_ context.Context, kind string, claims map[string]any) (string, error) {
	if strings.EqualFold(kind, "at+jwt") || strings.EqualFold(kind, "application/at+jwt") {
		return "", errors.New("sign token: access tokens are issued")
	}
	now := s.clock()
	key := s.view(now).signer(now)
	if key == nil {
		return "", ErrNoKey
	}
	text, err := key.sign(kind, claims)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}

// Issue signs a token for g, or seals it. It does no I/O, but for the keyring's when a key to seal with is used for the first time. The
// only expected failure is [ErrNoKey].
func (s *Service) Issue(ctx context.Context, g Grant) (Access, error) {
	if g.Subject == "" || g.ClientID == "" {
		return Access{}, errors.New("issue token: subject and client are needed")
	}
	now := s.clock()
	key := s.view(now).signer(now)
	if key == nil && !g.Opaque {
		return Access{}, ErrNoKey
	}
	// NumericDate has whole seconds: the lifetime is counted from the second in which the token is issued.
	issued := now.Truncate(time.Second)
	shorter := time.Duration(rand.Float64() * s.cfg.Jitter * float64(s.cfg.Lifetime))
	lifetime := (s.cfg.Lifetime - shorter).Truncate(time.Second)
	if !g.NotAfter.IsZero() {
		lifetime = max(time.Second, min(lifetime, g.NotAfter.Sub(issued).Truncate(time.Second)))
	}
	access := Access{ID: g.ID, ExpiresAt: issued.Add(lifetime), Lifetime: lifetime}
	if access.ID == "" {
		access.ID = crand.Text()
	}
	c := s.claimsOf(g, access, issued)
	var err error
	if g.Opaque {
		access.Token, err = s.seal(ctx, c)
	} else if access.Token, err = key.sign("at+jwt", c); err != nil {
		err = fmt.Errorf("sign token: %w", err)
	}
	if err != nil {
		return Access{}, err
	}
	return access, nil
}

// claimsOf are the claims of a token for a grant.
func (s *Service) claimsOf(g Grant, access Access, issued time.Time) claims {
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer, Subject: g.Subject, Audience: g.Audience, ID: access.ID,
			IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(access.ExpiresAt),
		},
		ClientID: g.ClientID, Scope: g.Scope, SessionID: g.SessionID, GrantID: g.GrantID, ACR: g.ACR, AMR: g.AMR, Roles: g.Roles,
		Epoch: g.Epoch, ClientEpoch: g.ClientEpoch, Through: g.Through,
	}
	if g.Actor != "" {
		c.Actor = &actor{g.Actor}
	}
	if len(g.Audience) == 0 {
		c.Audience = jwt.ClaimStrings{s.issuer}
	}
	if c.Roles == nil {
		c.Roles = []string{}
	}
	if g.Thumbprint != "" || g.Certificate != "" {
		c.Confirmation = &auth.Confirmation{JKT: g.Thumbprint, X5T: g.Certificate}
	}
	if !g.AuthTime.IsZero() {
		c.AuthTime = jwt.NewNumericDate(g.AuthTime)
	}
	return c
}
