package identity

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// WatchDirectories ends, until ctx ends, the sessions of people whom their directory no longer keeps: a refresh asks nobody but the
// store of sessions, so somebody has to.
func (s *Service) WatchDirectories(ctx context.Context) error {
	if len(s.deps.Directories) == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.CheckDirectories(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "people of directories are checked late", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// CheckDirectories asks about every account whose directory was not asked for DirectoryCheck. Several nodes share the work. A
// directory that does not answer leaves its people as they are, until the next time.
func (s *Service) CheckDirectories(ctx context.Context) error {
	var errs []error
	due := sqldb.Micros(s.deps.Clock().Add(-s.cfg.DirectoryCheck))
	for _, d := range s.deps.Directories {
		for asked := true; asked; {
			var err error
			if asked, err = s.checkOne(ctx, d, due); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// checkOne asks about one account that is due, if there is one.
func (s *Service) checkOne(ctx context.Context, d Directory, due int64) (asked bool, err error) {
	name, _, _ := d.Describe()
	now := sqldb.Micros(s.deps.Clock())
	a, err := sqldb.One(ctx, s.deps.DB.Writer(), scanAccount, claimCheck, now, due, name)
	if errors.Is(err, sqldb.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	kept, err := d.Keeps(ctx, a.directoryLogin, a.directorySubject)
	switch {
	case err != nil:
		_, giveBack := s.deps.DB.Writer().ExecContext(context.WithoutCancel(ctx), setChecked, due, a.ID, now)
		return true, errors.Join(err, giveBack)
	case !kept:
		return true, s.shutOut(ctx, a, now)
	}
	return true, nil
}

// shutOut ends the sessions of somebody whom the directory no longer keeps. They are not asked about again before they sign in.
func (s *Service) shutOut(ctx context.Context, a Account, checked int64) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		res, err := tx.ExecContext(ctx, setChecked, int64(math.MaxInt64), a.ID, checked)
		if err != nil {
			return err
		}
		if done, err := changed(res); err != nil || !done {
			return err // signed in meanwhile: the directory keeps them after all
		}
		if err := dropPrepared(ctx, tx, a.ID); err != nil {
			return err
		}
		if err := s.deps.Audit.Append(ctx, tx, audit.Event{At: s.deps.Clock(), Account: a.ID, Action: "account.left_directory",
			Detail: map[string]string{"way": a.Directory}}); err != nil {
			return err
		}
		return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, session.AccountDisabled)
	})
	if err == nil {
		s.applied(ctx)
	}
	return err
}
