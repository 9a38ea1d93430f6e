package replay

import (
	"context"
	"embed"
	"log/slog"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package.
var Migrations = sqldb.Migrations{Name: "replay", FS: files}

// SQL keeps ids in a table. It goes by the clock of the node, so what is to be kept must allow for others.
type SQL struct {
	db    *sqldb.DB
	clock func() time.Time
	log   *slog.Logger
}

// NewSQL returns a store. Run removes what has expired.
func NewSQL(db *sqldb.DB, clock func() time.Time, log *slog.Logger) *SQL { return &SQL{db, clock, log} }

const (
	// An id that has expired and is still there counts for nothing.
	once = `INSERT INTO replays (id, keep_until) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET keep_until = excluded.keep_until WHERE replays.keep_until <= $3`
	sweepExpired = `DELETE FROM replays WHERE id IN (SELECT id FROM replays WHERE keep_until <= $1 LIMIT 1000)`
)

// Once implements Store.
func (s *SQL) Once(ctx context.Context, id string, keep time.Duration) (bool, error) {
	now := s.clock()
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done, err := s.db.Writer().ExecContext(bounded, once, digest(id), sqldb.Micros(now.Add(keep)), sqldb.Micros(now))
	if err != nil {
		return false, failed(ctx, err)
	}
	n, err := done.RowsAffected()
	if err != nil {
		return false, failed(ctx, err)
	}
	return n == 1, nil
}

// sweepEvery is about as long as ids are kept.
const sweepEvery = time.Minute

// Run removes expired ids until ctx ends.
func (s *SQL) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "expired ids are not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep removes expired ids now.
func (s *SQL) Sweep(ctx context.Context) error {
	_, err := sqldb.Sweep(ctx, s.db, sweepExpired, sqldb.Micros(s.clock()))
	return err
}
