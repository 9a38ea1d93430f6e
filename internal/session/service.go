package session

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package.
var Migrations = sqldb.Migrations{Name: "session", FS: files}

// Deps are what a Service works with. All are required, except Redis, Wakes, Proofs and Metrics.
type Deps struct {
	DB      *sqldb.DB
	Redis   *redisdb.DB // where sessions are kept there, or are to move there or from there
	Keyring *keyring.Keyring
	Tokens  *token.Service
	Audit   *audit.Log
	Mail    *mail.Queue
	Wakes   Wakes            // without it, other nodes are polled only
	Proofs  *auth.Proofs     // without it, nobody proves a key
	Clock   func() time.Time // for what is no decision about sessions: those go by the store's clock
	Log     *slog.Logger
	Metrics prometheus.Registerer

	RedisPrefix string // what keys begin with instead of "sumun:login:"

	StoreClock func() time.Time // for tests: what takes the place of the store's clock, in every store
}

// Service is the sessions. It is safe for concurrent use; several processes may work on one database.
type Service struct {
	cfg     Config
	deps    Deps
	store   *homes
	feed    *feed
	streams chan struct{} // as many as there may be; see followFeed
	metrics metrics
}

// New returns the service. It does no I/O: call Load before traffic is served, and Run to keep up with other nodes.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Store == InRedis && deps.Redis == nil {
		return nil, errors.New("store: sessions are to be kept in redis, and there is none; give its URL in redis, or use sql")
	}
	s := &Service{cfg: cfg, deps: deps, feed: newFeed(deps), streams: make(chan struct{}, cfg.FeedStreams)}
	s.store = newHomes(common{cfg: cfg, deps: deps, feed: s.feed})
	s.metrics = newMetrics(s.feed.age, func() int { return len(s.streams) })
	if deps.Metrics != nil {
		if err := s.metrics.register(deps.Metrics); err != nil {
			return nil, fmt.Errorf("session metrics: %w", err)
		}
	}
	return s, nil
}

// Load reads the whole feed and makes sure that there is a key for refresh tokens, and that no sessions are in a Redis that
// this node does not have. It must succeed before traffic is served.
func (s *Service) Load(ctx context.Context) error {
	if _, err := s.deps.Keyring.Current(ctx, MACPurpose); err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	if _, err := s.feed.pull(ctx); err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	if err := s.store.load(ctx); err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	return nil
}

// Apply makes this node's set current with everything that has been committed. Call it after the commit of a transaction that
// went through EndAllTx, SetRolesTx or Begin. It takes some seconds at most. Should it fail, Run catches up; the change itself
// stands.
func (s *Service) Apply(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if err := s.store.apply(ctx); err != nil {
		return fmt.Errorf("apply revocations: %w", err)
	}
	return nil
}

// Revocations returns the set that this node's verifiers must ask. It is kept current by Run and Apply.
func (s *Service) Revocations() *auth.RevocationSet { return s.feed.revoked }

// End ends one session of the subject, and its grants. Before it returns this node refuses the session's access tokens;
// other nodes follow when they are woken, or with their next poll of the feed. Another person's session is ErrNotFound like one
// that does not exist.
func (s *Service) End(ctx context.Context, subject, id string, reason Reason) error {
	if _, err := ParseID(id); err != nil {
		return err
	}
	action := "session.ended"
	if reason == SignedOut {
		action = "session.signed_out"
	}
	ended, err := s.store.end(ctx, ending{subject: subject, only: id, reason: reason, action: action})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	if ended == 0 {
		return ErrNotFound
	}
	return nil
}

// EndTx ends one session in the caller's transaction. The caller knows that it is the subject's: no store is asked about it, so it ends also
// while that cannot be reached, and it is fine when it has ended, or has not begun. Call
// Apply once it has committed. The feed's counter is locked from here to the commit, so this belongs at the transaction's end.
func (s *Service) EndTx(ctx context.Context, tx sqldb.Tx, subject, id string, reason Reason) error {
	if _, err := ParseID(id); err != nil {
		return err
	}
	e := ending{subject: subject, only: id, reason: reason, action: "session.ended"}
	if err := s.store.endTx(ctx, tx, e); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// EndOthers ends all sessions of the subject but one, as End does.
func (s *Service) EndOthers(ctx context.Context, subject, keepID string, reason Reason) error {
	e := ending{subject: subject, keep: keepID, reason: reason, action: "session.others_ended"}
	if _, err := s.store.end(ctx, e); err != nil {
		return fmt.Errorf("end other sessions: %w", err)
	}
	return nil
}

// EndAllTx ends all sessions of the subject in the caller's transaction. Call Apply once it has committed. The feed's counter is
// locked from here to the commit, so this belongs at the transaction's end. Why the sessions end is for the caller to write into
// the trail.
func (s *Service) EndAllTx(ctx context.Context, tx sqldb.Tx, subject string, reason Reason) error {
	if err := s.store.endTx(ctx, tx, ending{subject: subject, reason: reason}); err != nil {
		return fmt.Errorf("end all sessions: %w", err)
	}
	return nil
}

// Kept is a session that all others of its person end around.
type Kept struct {
	subject, id string
	others      []string
	known       bool // they are
}

// Keep prepares EndOthersTx, outside of a transaction: it asks which other sessions there are.
func (s *Service) Keep(ctx context.Context, subject, id string) Kept {
	kept := Kept{subject: subject, id: id}
	live, err := s.store.live(ctx, subject)
	if err != nil {
		s.deps.Log.WarnContext(ctx, "sessions that are about to end are not known", "error", err)
		return kept
	}
	for _, one := range live {
		if one.ID != id {
			kept.others = append(kept.others, one.ID)
		}
	}
	kept.known = true
	return kept
}

// EndOthersTx is EndAllTx for all sessions but one, which goes on with the tokens that it has. Only while sessions that are not in
// SQL cannot be reached do its access tokens die with the others', and its next refresh brings new ones.
func (s *Service) EndOthersTx(ctx context.Context, tx sqldb.Tx, kept Kept, reason Reason) error {
	e := ending{subject: kept.subject, keep: kept.id, reason: reason, others: kept.others, known: kept.known}
	if err := s.store.endTx(ctx, tx, e); err != nil {
		return fmt.Errorf("end other sessions: %w", err)
	}
	return nil
}

// SetRolesTx makes roles the subject's roles in the caller's transaction: access tokens that carry others die, the next
// refresh brings the new ones, and nobody is signed out. Roles that are the subject's already change nothing. Call Apply
// once it has committed; like EndAllTx it belongs at the transaction's end.
func (s *Service) SetRolesTx(ctx context.Context, tx sqldb.Tx, subject string, roles []string) error {
	if err := s.store.setRolesTx(ctx, tx, subject, encodeList(roles)); err != nil {
		return fmt.Errorf("set roles of sessions: %w", err)
	}
	return nil
}
