package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	// keepEnded is how long the record of an ended session answers for it; it goes earlier if it would have expired.
	keepEnded = 7 * 24 * time.Hour
	// keepSubject is how long the record of a person stays after the latest end of the last session. Tokens that carry its
	// epoch are long dead.
	keepSubject = 30 * 24 * time.Hour

	settleEvery = 5 * time.Second
	sweepEvery  = 10 * time.Minute
	settleRound = time.Minute
	pullTimeout = 5 * time.Second
	sweepBatch  = 500

	// A task that fails for longer than a hiccup needs somebody to look, who is told again every minute.
	hiccup    = 30 * time.Second
	tellEvery = time.Minute
)

// purgeAt returns the midnight (UTC) after an expiry, in microseconds: when the row may go. It is rounded because it is
// indexed: a refresh that changes no indexed value leaves PostgreSQL's indexes alone (a heap-only update).
func purgeAt(expiry time.Time) int64 {
	const day = 24 * time.Hour
	return sqldb.Micros(expiry.Truncate(day).Add(day))
}

// sweeps are run in this order. $1 is now, $2 the size of a batch. A row whose time has come but that still has something
// hanging on it is postponed instead of deleted, so that no sweep looks at it again and again.
var sweeps = [...]struct{ what, statement string }{
	{"grants", `DELETE FROM session_grants WHERE purge_at < $1 AND id IN (
		SELECT id FROM session_grants WHERE purge_at < $1 AND status <> 'theft' ORDER BY purge_at LIMIT $2)`},
	{"sessions with grants", `UPDATE sessions
		SET purge_at = (SELECT MAX(g.purge_at) FROM session_grants g WHERE g.session_id = sessions.id)
		WHERE id IN (
			SELECT s.id FROM sessions s
			WHERE s.purge_at < $1 AND EXISTS (SELECT 1 FROM session_grants g WHERE g.session_id = s.id AND g.purge_at >= $1)
			ORDER BY s.purge_at LIMIT $2)`},
	{"sessions", `DELETE FROM sessions WHERE purge_at < $1 AND id IN (
		SELECT s.id FROM sessions s
		WHERE s.purge_at < $1 AND NOT EXISTS (SELECT 1 FROM session_grants g WHERE g.session_id = s.id)
		ORDER BY s.purge_at LIMIT $2)`},
	{"subjects with sessions", `UPDATE session_subjects
		SET purge_at = (SELECT MAX(s.purge_at) FROM sessions s WHERE s.subject = session_subjects.subject)
		WHERE purge_at < $1 AND subject IN (
			SELECT u.subject FROM session_subjects u
			WHERE u.purge_at < $1 AND EXISTS (SELECT 1 FROM sessions s WHERE s.subject = u.subject AND s.purge_at >= $1)
			ORDER BY u.purge_at LIMIT $2)`},
	{"subjects", `DELETE FROM session_subjects WHERE purge_at < $1 AND subject IN (
		SELECT u.subject FROM session_subjects u
		WHERE u.purge_at < $1 AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.subject = u.subject)
		ORDER BY u.purge_at LIMIT $2)`},
	{"aliases", `DELETE FROM session_aliases WHERE (kind, hash, alias) IN (
		SELECT kind, hash, alias FROM session_aliases WHERE keep_until < $1 ORDER BY keep_until LIMIT $2)`},
	{"revocations", `DELETE FROM revocations WHERE seq IN (
		SELECT seq FROM revocations WHERE keep_until < $1 ORDER BY seq LIMIT $2)`},
}

// Run follows the feed, settles thefts that were interrupted and removes what has expired, until ctx ends. What fails is tried
// again; nothing is lost by it but time. It is logged as a warning at first, and as an error once it lasts.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range append(s.store.tasks(), task{"follow the revocation feed", pollEvery, s.follow}) {
		wg.Go(func() { s.repeatTask(ctx, t) })
	}
	wg.Go(func() { s.exchangeWakes(ctx) })
	wg.Wait()
	return nil
}

// repeatTask does a task now and at every tick.
func (s *Service) repeatTask(ctx context.Context, t task) {
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	var outage outage
	for {
		err := t.do(ctx)
		if ctx.Err() != nil {
			return
		}
		switch level, tell := outage.after(err != nil, s.deps.Clock()); {
		case tell && err != nil:
			s.deps.Log.Log(ctx, level, "session task fails; trying again", "task", t.name, "error", err)
		case tell:
			s.deps.Log.Log(ctx, level, "session task works again", "task", t.name)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// outage is what is known of a task that fails.
type outage struct{ since, told time.Time }

// after notes how an attempt ended, and returns whether to tell, and how loudly.
func (o *outage) after(failed bool, now time.Time) (level slog.Level, tell bool) {
	switch {
	case !failed && o.since.IsZero():
		return 0, false
	case !failed:
		*o = outage{}
		return slog.LevelInfo, true
	case o.since.IsZero():
		*o = outage{since: now}
		return slog.LevelWarn, true
	}
	tell = now.Sub(o.since) > hiccup && now.Sub(o.told) >= tellEvery
	if tell {
		o.told = now
	}
	return slog.LevelError, tell
}

// settleThefts is one round of settleAll.
func (s sqlStore) settleThefts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleRound)
	defer cancel()
	return s.settleAll(ctx)
}

// follow is one poll of the feed. A query that hangs must not keep the next one from trying.
func (s *Service) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	_, err := s.feed.pull(ctx)
	return err
}

// now asks the database for the time.
func (c common) now(ctx context.Context) (time.Time, error) {
	if c.deps.StoreClock != nil {
		return c.deps.StoreClock(), nil
	}
	return c.deps.DB.Clock(ctx)
}

// sweep removes what has expired, in small batches.
func (s sqlStore) sweep(ctx context.Context) error {
	s.feed.revoked.Prune()
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range sweeps {
		if _, err := sqldb.Sweep(ctx, s.deps.DB, one.statement, sqldb.Micros(now), sweepBatch); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one.what, err))
		}
	}
	return errors.Join(errs...)
}
