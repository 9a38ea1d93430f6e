package identity

import (
	"context"
	"errors"
	"math"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// Why an account is not released from a directory.
var (
	ErrNoDirectory         = fault.New(fault.Conflict, "identity.no_directory", "The account belongs to no directory.")
	ErrDirectoryConfigured = fault.New(fault.Conflict, "identity.directory_configured",
		"The account's directory is configured, and alone decides who signs in to it. Take it out of the configuration first.")
	ErrLeftDirectory = fault.New(fault.Conflict, "identity.left_directory",
		"The directory did not list this person any more when it was last asked. Delete the account, or configure the directory again.")
)

// Load tells the log of accounts that nobody can sign in to, because their directory has been taken out of the configuration.
func (s *Service) Load(ctx context.Context) error {
	type entries struct {
		directory string
		accounts  int64
	}
	all, err := sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (e entries, err error) {
		return e, r.Scan(&e.directory, &e.accounts)
	}, countEntries)
	if err != nil {
		return err
	}
	for _, e := range all {
		if s.directoryNamed(e.directory) == nil {
			s.deps.Log.WarnContext(ctx, "accounts of a directory that is not configured: nobody can sign in to them, and nobody is asked "+
				"whether those who are signed in may stay; configure it again, or use `sumun user release` and `sumun user disable`",
				"directory", e.directory, "accounts", e.accounts)
		}
	}
	return nil
}

// Release takes an account, on an operator's word, from a directory that is not configured any more. Its sessions end, its devices are
// unknown and its address gets a link to choose a password, unless another directory answers for that address (mailed is false). Faults:
// ErrNoDirectory, ErrDirectoryConfigured, ErrLeftDirectory.
func (s *Service) Release(ctx context.Context, a Account) (mailed bool, err error) {
	switch {
	case a.Directory == "":
		return false, ErrNoDirectory
	case s.directoryNamed(a.Directory) != nil:
		return false, ErrDirectoryConfigured
	}
	mailed = s.directoryOf(a.Email) == nil
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error { return s.release(ctx, tx, a, mailed) })
	if err != nil {
		return false, err
	}
	s.deps.Mail.Wake()
	s.applied(ctx)
	return mailed, nil
}

func (s *Service) release(ctx context.Context, tx sqldb.Tx, a Account, mailed bool) error {
	now := max(sqldb.Micros(s.deps.Clock()), sqldb.Micros(a.PasswordChangedAt)+1)
	res, err := tx.ExecContext(ctx, releaseEntry, now, a.ID, a.Directory, int64(math.MaxInt64))
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrLeftDirectory)
	}
	if err := dropPrepared(ctx, tx, a.ID); err != nil {
		return err
	}
	if err := s.deps.Audit.Append(ctx, tx, audit.Event{At: s.deps.Clock(), Account: a.ID, Actor: audit.Operator, Action: "account.released",
		Detail: map[string]string{"way": a.Directory}}); err != nil {
		return err
	}
	if mailed {
		if err := s.deps.Mail.Enqueue(ctx, tx, mail.Letter{
			Kind: letterRecovery, Address: a.Email, Locale: a.Locale, CreatedAt: sqldb.Time(now),
		}); err != nil {
			return err
		}
	}
	return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, session.EndedByOperator)
}
