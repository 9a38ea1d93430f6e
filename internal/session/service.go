package session

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package.
var Migrations = sqldb.Migrations{Name: "session", FS: files}

// Deps are what a Service works with. All are required, except Metrics.
type Deps struct {
	DB      *sqldb.DB
	Keyring *keyring.Keyring
	Tokens  *token.Service
	Audit   *audit.Log
	Mail    *mail.Queue
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service is the sessions. It is safe for concurrent use; several processes may work on one database.
type Service struct {
	cfg     Config
	deps    Deps
	revoked *auth.RevocationSet
	metrics metrics

	feed struct { // what this node has seen of the feed
		turn    chan struct{} // of size 1: full while somebody reads it
		last    entry         // whose turn it is may touch it
		freshAt atomic.Int64  // microseconds
	}
}

// New returns the service. It does no I/O: call Load before traffic is served, and Run to keep up with other nodes.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, deps: deps, revoked: auth.NewRevocationSet(deps.Clock)}
	s.feed.turn = make(chan struct{}, 1)
	s.metrics = newMetrics(s.feedAge)
	if deps.Metrics != nil {
		if err := s.metrics.register(deps.Metrics); err != nil {
			return nil, fmt.Errorf("session metrics: %w", err)
		}
	}
	return s, nil
}

// Revocations returns the set that this node's verifiers must ask. It is kept current by Run and Apply.
func (s *Service) Revocations() *auth.RevocationSet { return s.revoked }

// End ends one session of the subject, and its grants. Before it returns this node refuses the session's access tokens;
// other nodes follow within one poll of the feed. Another person's session is ErrNotFound like one that does not exist.
func (s *Service) End(ctx context.Context, subject, id string, reason Reason) error {
	if _, err := ParseID(id); err != nil {
		return err
	}
	action := "session.ended"
	if reason == SignedOut {
		action = "session.signed_out"
	}
	ended, err := s.end(ctx, ending{subject: subject, only: id, reason: reason, action: action})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	if ended == 0 {
		return ErrNotFound
	}
	return nil
}

// EndOthers ends all sessions of the subject but one, as End does.
func (s *Service) EndOthers(ctx context.Context, subject, keepID string, reason Reason) error {
	e := ending{subject: subject, keep: keepID, reason: reason, action: "session.others_ended"}
	if _, err := s.end(ctx, e); err != nil {
		return fmt.Errorf("end other sessions: %w", err)
	}
	return nil
}

// EndAllTx ends all sessions of the subject, but keepID if it is not empty, in the caller's transaction. Call Apply once it
// has committed. The feed's counter is locked from here to the commit, so this belongs at the transaction's end. Why the
// sessions end is for the caller to write into the trail.
func (s *Service) EndAllTx(ctx context.Context, tx sqldb.Tx, subject, keepID string, reason Reason) error {
	if _, _, err := s.endTx(ctx, tx, ending{subject: subject, keep: keepID, reason: reason}); err != nil {
		return fmt.Errorf("end all sessions: %w", err)
	}
	return nil
}

// SetRolesTx makes roles the subject's roles in the caller's transaction: access tokens that carry others die, the next
// refresh brings the new ones, and nobody is signed out. Roles that are the subject's already change nothing. Call Apply
// once it has committed; like EndAllTx it belongs at the transaction's end.
func (s *Service) SetRolesTx(ctx context.Context, tx sqldb.Tx, subject string, roles []string) error {
	if err := s.setRolesTx(ctx, tx, subject, encodeList(roles)); err != nil {
		return fmt.Errorf("set roles of sessions: %w", err)
	}
	return nil
}

func (s *Service) setRolesTx(ctx context.Context, tx sqldb.Tx, subject, roles string) error {
	person, err := s.lockSubject(ctx, tx, subject, nil)
	if err != nil {
		return err
	}
	if person.roles != nil && *person.roles == roles {
		return nil
	}
	epoch := person.epoch + 1
	if _, err := tx.ExecContext(ctx, setSubjectRoles, roles, epoch, subject); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, setGrantRoles, roles, epoch, subject); err != nil {
		return err
	}
	_, err = s.revokeTx(ctx, tx, auth.Revocation{
		Kind: auth.RevokeSubject, ID: auth.RevocationHash(auth.RevokeSubject, subject), Epoch: epoch,
	})
	return err
}

// ending says which sessions of a person end, and why.
type ending struct {
	subject string
	only    string // this one; "" for all
	keep    string // but not this one; "" for none
	reason  Reason

	action string // for the trail; "" when that tells of it anyway
}

// end runs endTx in a transaction of its own and returns how many sessions ended.
func (s *Service) end(ctx context.Context, e ending) (ended int, err error) {
	var revocations []auth.Revocation
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		ended, revocations, err = s.endTx(ctx, tx, e)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.revoked.Add(revocations...)
	return ended, nil
}

// endTx ends sessions and their grants, and writes the revocations that the caller adds to the set once tx has committed.
func (s *Service) endTx(ctx context.Context, tx sqldb.Tx, e ending) (int, []auth.Revocation, error) {
	if _, err := s.lockSubject(ctx, tx, e.subject, nil); err != nil {
		return 0, nil, err
	}
	now := s.deps.Clock()
	args := []any{sqldb.Micros(now), string(e.reason), sqldb.Micros(now.Add(keepEnded)), e.subject, e.only, e.keep}
	ids, err := sqldb.All(ctx, tx, scanString, endSessions, args...)
	if err != nil || len(ids) == 0 {
		return 0, nil, err
	}
	if _, err := tx.ExecContext(ctx, endGrants, args...); err != nil {
		return 0, nil, err
	}
	if err := s.record(ctx, tx, e, ids); err != nil {
		return 0, nil, err
	}
	revocations := make([]auth.Revocation, len(ids))
	for i, id := range ids {
		revocations[i] = auth.Revocation{Kind: auth.RevokeSession, ID: auth.RevocationHash(auth.RevokeSession, id)}
	}
	revocations, err = s.revokeTx(ctx, tx, revocations...)
	return len(ids), revocations, err
}

// record writes into the owner's trail that sessions were ended.
func (s *Service) record(ctx context.Context, tx sqldb.Tx, e ending, ids []string) error {
	if e.action == "" {
		return nil
	}
	event := audit.Event{
		Account: e.subject, Action: e.action,
		Origin: audit.Origin{Address: httpd.ClientAddr(ctx), UserAgent: httpd.UserAgent(ctx), RequestID: httpd.RequestID(ctx)},
		Detail: map[string]string{"reason": string(e.reason), "sessions": strconv.Itoa(len(ids))},
	}
	if e.only != "" {
		event.Detail = map[string]string{"reason": string(e.reason), "session": e.only}
	}
	switch e.reason {
	case SignedOut, EndedByOwner:
		event.Actor = e.subject
	case EndedByOperator:
		event.Actor = audit.Operator
	}
	return s.deps.Audit.Append(ctx, tx, event)
}
