package identity

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package.
var Migrations = sqldb.Migrations{Name: "identity", FS: files}

// Deps is what the service works with. Frames may be nil.
type Deps struct {
	DB       *sqldb.DB
	Hasher   *password.Hasher
	Policy   *password.Policy
	Sessions *session.Service
	Audit    *audit.Log
	Mail     *mail.Queue
	Limiter  ratelimit.Limiter
	// Directories keep the passwords of people in their mail domains.
	Directories []Directory
	Issuer      string // public address, without a trailing slash; links in mails begin with it
	Limits      bool   // false: no attempt is refused (load tests)
	// Frames returns what a browser is to load when its session ends, for the programs that it is signed in to.
	Frames func(ctx context.Context, session string) ([]string, error)
	Clock  func() time.Time
	Log    *slog.Logger
}

// Service is the use cases of accounts. It is safe for concurrent use.
type Service struct {
	cfg      Config
	deps     Deps
	attempts *attempts
}

// New checks the configuration; it does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Frames == nil {
		deps.Frames = func(context.Context, string) ([]string, error) { return nil, nil }
	}
	return &Service{
		cfg: cfg, deps: deps,
		attempts: &attempts{db: deps.DB, clock: deps.Clock, off: !deps.Limits},
	}, nil
}

const sweepEvery = time.Minute

// Run removes what has expired until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "identity housekeeping stopped early", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep removes expired links, attempts and devices in small batches.
func (s *Service) Sweep(ctx context.Context) error {
	now := sqldb.Micros(s.deps.Clock())
	for _, query := range []string{sweepConfirmations, sweepAttempts, sweepDevices} {
		if _, err := sqldb.Sweep(ctx, s.deps.DB, query, now); err != nil {
			return err
		}
	}
	return nil
}

func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id.String(), nil
}

// record appends to the trail inside the transaction that changes the account.
func (s *Service) record(ctx context.Context, q sqldb.Queryer, account, action string, from audit.Origin, detail map[string]string) error {
	return s.deps.Audit.Append(ctx, q, audit.Event{
		At: s.deps.Clock(), Account: account, Actor: account, Action: action, Origin: from, Detail: detail,
	})
}

// tell writes a letter to the account's owner inside the caller's transaction.
func (s *Service) tell(ctx context.Context, q sqldb.Queryer, kind string, a Account, from audit.Origin, data map[string]string) error {
	facts := map[string]string{"device": session.DeviceLabel(from.UserAgent), "from": audit.AddressText(from.Address)}
	for k, v := range data {
		facts[k] = v
	}
	return s.deps.Mail.Enqueue(ctx, q, mail.Letter{
		Kind: kind, Account: a.ID, Address: a.Email, Locale: a.Locale, Data: facts, CreatedAt: s.deps.Clock(),
	})
}

// applied makes this node refuse what a committed transaction revoked. The change stands whatever comes of it, so a failure is
// not the caller's: the next poll of the feed makes it good.
func (s *Service) applied(ctx context.Context) {
	if err := s.deps.Sessions.Apply(context.WithoutCancel(ctx)); err != nil {
		s.deps.Log.WarnContext(ctx, "revocations are applied late", "error", err)
	}
}

// allowance bounds what strangers may cause per hour.
type allowance struct {
	kind, key string
	perHour   int
}

// allow answers ErrTooManyRequests once the hour's allowance is used up.
func (s *Service) allow(ctx context.Context, a allowance) error {
	v, err := s.deps.Limiter.Take(ctx, ratelimit.Policy{
		Name: "identity." + a.kind, Rate: a.perHour, Period: time.Hour, Burst: a.perHour,
	}, a.key)
	if err != nil {
		return err
	}
	if !v.Allowed {
		return ErrTooManyRequests.After(v.RetryAfter)
	}
	return nil
}

// missed bounds the trying of links that do not exist, from one network address. Links that do exist are never held up: nobody
// guesses 256 bits, and a neighbour must not be able to block them.
func (s *Service) missed(ctx context.Context, err error, from audit.Origin) error {
	if !errors.Is(err, ErrConfirmation) {
		return err
	}
	return cmp.Or(s.allow(ctx, allowance{"links", string(networkKey(from.Address)), s.cfg.Requests.ConfirmsPerClient}), err)
}

// admitMail bounds mails of one kind to addresses that anybody may name, and answers the kind of letter to write. When the
// address had its share that is letterNone, which is written and dropped: neither words nor time tell strangers who asked
// before them.
func (s *Service) admitMail(ctx context.Context, kind, addressKey string, from audit.Origin) (letter string, err error) {
	if err := s.allow(ctx, allowance{"mails.client", string(networkKey(from.Address)), s.cfg.Requests.MailsPerClient}); err != nil {
		return "", err
	}
	err = s.allow(ctx, allowance{"mails." + kind, addressKey, s.cfg.Requests.MailsPerAddress})
	if errors.Is(err, ErrTooManyRequests) {
		return letterNone, nil
	}
	return kind, err
}

// checkPassword applies the policy to a new password, which came in the named field.
func (s *Service) checkPassword(field, pw string, who password.Person) error {
	violations := s.deps.Policy.Check(pw, who)
	if len(violations) == 0 {
		return nil
	}
	fields := make([]fault.Field, len(violations))
	for i, v := range violations {
		fields[i] = v.Field(field)
	}
	return ErrPasswordPolicy.WithFields(fields...)
}

// CheckPassword tells which rules a password breaks, for a form that is still being filled in. Nothing is kept.
func (s *Service) CheckPassword(ctx context.Context, pw string, who password.Person, from audit.Origin) ([]password.Violation, error) {
	err := s.allow(ctx, allowance{"password_checks", string(networkKey(from.Address)), s.cfg.Requests.ConfirmsPerClient})
	if err != nil {
		return nil, err
	}
	return s.deps.Policy.Check(pw, who), nil
}
