package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// Deps are what a Service works with. All are required, except Proofs, Outside, Certificates, Authorities and Metrics.
type Deps struct {
	DB       *sqldb.DB
	Sessions *session.Service
	People   People
	Tokens   *token.Service
	Keyring  *keyring.Keyring
	Audit    *audit.Log
	Limiter  ratelimit.Limiter
	Replays  replay.Store
	Proofs   *auth.Proofs // nil: tokens are bound to no keys
	Outside  *http.Client // for addresses that strangers choose; nil: httpd.NewOutgoing
	// Certificates says that clients can show TLS certificates here, and Authorities who vouches for them; nil: nobody does.
	Certificates bool
	Authorities  *httpd.Authorities
	Issuer       string
	Clock        func() time.Time
	Log          *slog.Logger
	Metrics      prometheus.Registerer
}

// People are those who sign in.
type People interface {
	// Account returns an account, or identity.ErrNotFound.
	Account(ctx context.Context, id string) (identity.Account, error)
	// SignIn proves a password, with all that protects signing in.
	SignIn(ctx context.Context, in identity.SignIn) (identity.SignedIn, error)
}

// Service is the clients and the endpoints that they call. It is safe for concurrent use; several processes may work on one
// database.
type Service struct {
	cfg       Config
	deps      Deps
	store     store
	known     sync.Map     // id -> known
	changes   atomic.Int64 // of clients that this node has heard of
	verifiers sync.Map     // audience -> verifier
	caller    *http.Client // for addresses that operators have registered
	outside   *http.Client // for those that strangers have
	sources   *keySource
	grants    map[string]grant
	discovery document
	requests  *prometheus.CounterVec
}

// New returns the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, deps: deps, store: store{deps.DB}, caller: newCaller(), outside: deps.Outside,
	}
	if s.outside == nil {
		s.outside = httpd.NewOutgoing(cfg.PrivateAddresses)
	}
	s.sources = newKeySource(s.outside, deps.Clock)
	s.grants = s.newGrants()
	var err error
	if s.discovery, err = newDocument(s.describe()); err != nil {
		return nil, fmt.Errorf("describe the provider: %w", err)
	}
	s.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_oidc_requests_total",
		Help: "Requests of clients, by endpoint or grant, and by what came of them: ok, or the error of RFC 6749.",
	}, []string{"of", "result"})
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(s.requests); err != nil {
			return nil, fmt.Errorf("oidc metrics: %w", err)
		}
	}
	return s, nil
}

const (
	// knownFor is how long a client is not looked up again, unless this node changes one or the feed tells that one was changed. What a client
	// did in that time after it was disabled elsewhere comes to nothing: its tokens carry the old epoch, and are refused.
	knownFor = time.Second

	sweepEvery = 10 * time.Minute
	sweepBatch = 500
	// keepRemoved is how long the epoch of a removed client is remembered at least: its last access token is long dead. Its refresh tokens
	// may live as long as sessions do, which their grants are remembered for.
	keepRemoved = 7 * 24 * time.Hour
)

// known is a client, when it was looked up, and the changes that had been heard of before.
type known struct {
	client  Client
	at      time.Time
	changes int64
}

// client looks up a client that may be used: ErrClientUnknown when it is not there, or disabled.
func (s *Service) client(ctx context.Context, id string) (Client, error) {
	now, changes := s.deps.Clock(), s.changes.Load()
	if v, there := s.known.Load(id); there {
		if k := v.(known); now.Sub(k.at) < knownFor && !now.Before(k.at) && k.changes == changes {
			return k.client, nil
		}
	}
	c, err := s.store.find(ctx, id)
	if err == nil && !c.DisabledAt.IsZero() {
		err = ErrClientUnknown
	}
	if err != nil {
		s.known.Delete(id)
		return Client{}, err
	}
	s.known.Store(id, known{c, now, changes}) // one that was read before a change is never used after it
	return c, nil
}

// AddClient registers a client. With an empty id it gets a random one. The secret is returned once; it is empty for clients that
// prove themselves without one.
func (s *Service) AddClient(ctx context.Context, id string, m Metadata) (c Client, secret string, err error) {
	m.complete()
	if id == "" {
		id = strings.ToLower(rand.Text())
	}
	if err := errors.Join(checkID(id), m.check()); err != nil {
		return Client{}, "", err
	}
	if err := s.checkSector(ctx, m); err != nil {
		return Client{}, "", err
	}
	var hash []byte
	if m.hasSecret() {
		secret, hash = newSecret()
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		if c, err = s.store.add(ctx, tx, id, m, hash, s.deps.Clock()); err != nil {
			return err
		}
		return s.record(ctx, tx, id, "client.added")
	})
	if err != nil {
		return Client{}, "", fmt.Errorf("add client: %w", err)
	}
	return c, secret, nil
}

// Client returns a client, disabled or not: ErrClientUnknown when it is not there.
func (s *Service) Client(ctx context.Context, id string) (Client, error) {
	return s.store.find(ctx, id)
}

// Clients returns up to limit clients in the order of their ids, those after the given one.
func (s *Service) Clients(ctx context.Context, after string, limit int) ([]Client, error) {
	return sqldb.All(ctx, s.deps.DB.Reader(), scanClient, listClients, after, limit)
}

// RotateSecret gives a client a new secret. The old one works on for the overlap; one that was replaced before dies now.
func (s *Service) RotateSecret(ctx context.Context, id string, overlap time.Duration) (secret string, err error) {
	if overlap < 0 || overlap > maxOverlap {
		return "", ErrClientRefused.WithFields(fault.Field{Name: "overlap", Code: "refused", Message: "The old secret may work on for 30 days at most."})
	}
	secret, hash := newSecret()
	now := s.deps.Clock()
	err = s.change(ctx, id, "client.secret_rotated", func(tx sqldb.Tx) error {
		err := changed(ctx, tx, rotateSecret, hash, sqldb.Micros(now.Add(overlap)), sqldb.Micros(now), id)
		if err != nil {
			return err
		}
		return s.announce(ctx, tx, id)
	})
	if errors.Is(err, ErrClientUnknown) {
		if _, found := s.store.find(ctx, id); found == nil {
			err = ErrNoSecret
		}
	}
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Disable takes everything from a client that it has: it gets no more tokens, and those that it has die. Doing so twice is fine.
func (s *Service) Disable(ctx context.Context, id string) error {
	return s.change(ctx, id, "client.disabled", func(tx sqldb.Tx) error {
		err := s.withdraw(ctx, tx, disableClient, id)
		if errors.Is(err, ErrClientUnknown) {
			if _, found := sqldb.One(ctx, tx, scanClient, findClient, id); found == nil {
				return nil
			}
		}
		return err
	})
}

// Enable lets a disabled client ask for tokens again. Those that it had stay dead.
func (s *Service) Enable(ctx context.Context, id string) error {
	return s.change(ctx, id, "client.enabled", func(tx sqldb.Tx) error {
		return changed(ctx, tx, enableClient, sqldb.Micros(s.deps.Clock()), id)
	})
}

// Remove forgets a client. Its tokens and API keys die: the id may be somebody else's one day.
func (s *Service) Remove(ctx context.Context, id string) error {
	return s.remove(ctx, id, func(tx sqldb.Tx) error { return s.record(ctx, tx, id, "client.removed") })
}

func (s *Service) remove(ctx context.Context, id string, record func(sqldb.Tx) error) error {
	return s.removeHeld(ctx, id, record, func(tx sqldb.Tx) error { return changed(ctx, tx, holdClient, id) })
}

// removeHeld removes a client that hold locks; ErrClientUnknown from there, and it stays.
func (s *Service) removeHeld(ctx context.Context, id string, record, hold func(sqldb.Tx) error) error {
	return s.changeAs(ctx, id, record, func(tx sqldb.Tx) error {
		if err := hold(tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, revokeKeysOf, sqldb.Micros(s.deps.Clock()), id); err != nil {
			return err
		}
		return s.withdraw(ctx, tx, removeClient, id)
	})
}

// withdraw runs a statement that raises a client's epoch, and revokes what is below it.
func (s *Service) withdraw(ctx context.Context, tx sqldb.Tx, statement, id string) error {
	epoch, err := sqldb.One(ctx, tx, scanInt64, statement, sqldb.Micros(s.deps.Clock()), id)
	if errors.Is(err, sqldb.ErrNotFound) {
		return ErrClientUnknown
	}
	if err != nil {
		return err
	}
	return s.deps.Sessions.RevokeTx(ctx, tx, session.OfClient(id, epoch))
}

// announce has every node look a client up again. It says in the feed that the epoch is what it is, which revokes nothing.
func (s *Service) announce(ctx context.Context, tx sqldb.Tx, id string) error {
	epoch, err := sqldb.One(ctx, tx, scanInt64, epochOf, id)
	if err != nil {
		return err
	}
	return s.deps.Sessions.RevokeTx(ctx, tx, session.OfClient(id, epoch))
}

// change changes a client in a transaction, with its line in the trail, and makes this node know.
func (s *Service) change(ctx context.Context, id, action string, do func(tx sqldb.Tx) error) error {
	return s.changeAs(ctx, id, func(tx sqldb.Tx) error { return s.record(ctx, tx, id, action) }, do)
}

func (s *Service) changeAs(ctx context.Context, id string, record, do func(tx sqldb.Tx) error) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		// The trail first: what do may lock, the feed's counter, is held by nobody for long.
		if err := record(tx); err != nil {
			return err
		}
		return do(tx)
	})
	if err != nil {
		return fmt.Errorf("change client: %w", err)
	}
	s.changes.Add(1)
	if err := s.deps.Sessions.Apply(ctx); err != nil {
		s.deps.Log.WarnContext(ctx, "a change of a client is not applied here yet", "client", id, "error", err)
	}
	return nil
}

// record writes into the trail what an operator did to a client.
func (s *Service) record(ctx context.Context, tx sqldb.Tx, id, action string) error {
	return s.deps.Audit.Append(ctx, tx, audit.Event{Actor: audit.Operator, Action: action, Detail: map[string]string{"client": id}})
}

// Run tells clients of sessions that have ended, and removes what is over, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.deps.Sessions.Follow(ctx, s.noteEnded) })
	wg.Go(func() { s.notifyClients(ctx) })
	defer wg.Wait()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// sweep removes what is over, in small batches.
func (s *Service) sweep(ctx context.Context) {
	now := s.deps.Clock()
	if err := s.removeUnused(ctx, now); err != nil && ctx.Err() == nil {
		s.deps.Log.WarnContext(ctx, "programs that registered themselves and were never used are still there", "error", err)
	}
	for _, one := range []struct {
		statement string
		before    time.Time
	}{
		{sweepClients, now.Add(-max(keepRemoved, s.deps.Sessions.Lifetime()))}, {sweepCode, now.Add(-keepCode)}, {sweepGrants, now}, {sweepRequests, now}, {sweepDevices, now.Add(-keepCode)},
		{sweepConsents, now.Add(-keepConsent)}, {sweepKeys, now.Add(-keepKey)}, {sweepInitial, now},
	} {
		if _, err := sqldb.Sweep(ctx, s.deps.DB, one.statement, sqldb.Micros(one.before), sweepBatch); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "oauth housekeeping stopped early", "error", err)
		}
	}
}
