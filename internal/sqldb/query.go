package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Queryer runs statements: a Tx, or one of the handles of a DB. Errors of ExecContext and QueryContext come classified
// (see ErrFull and its siblings); those of a *sql.Row do through One.
type Queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Row is one row of a result.
type Row interface {
	Scan(dest ...any) error
}

// ErrNotFound says that a query had no row. It is also sql.ErrNoRows.
var ErrNotFound = fmt.Errorf("not found: %w", sql.ErrNoRows)

// One runs a query and returns its first row, or ErrNotFound.
func One[T any](ctx context.Context, q Queryer, scan func(Row) (T, error), query string, args ...any) (T, error) {
	v, err := scan(q.QueryRowContext(ctx, query, args...))
	if err != nil {
		var zero T
		if errors.Is(err, sql.ErrNoRows) {
			return zero, ErrNotFound
		}
		return zero, explain(ctx, err)
	}
	return v, nil
}

// All runs a query and returns all its rows; nil when there are none.
func All[T any](ctx context.Context, q Queryer, scan func(Row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, explain(ctx, err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, explain(ctx, err)
	}
	return all, nil
}

// Sweep runs a DELETE again and again until it deletes nothing, and returns how many rows went. The statement bounds its own
// batch, so that nobody waits long for its locks:
//
//	DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE expires_at < $1 LIMIT 500)
//
// Every batch commits by itself and has half a minute. Sweep stops early, with the number so far, when ctx ends.
func Sweep(ctx context.Context, db *DB, query string, args ...any) (int64, error) {
	var total int64
	for {
		n, err := sweepBatch(ctx, db, query, args)
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		if n == 0 {
			return total, nil
		}
		total += n
		runtime.Gosched()
	}
}

// batchTimeout bounds a batch of Sweep: housekeeping has no deadline of its own, and must not hang with its database.
const batchTimeout = 30 * time.Second

func sweepBatch(ctx context.Context, db *DB, query string, args []any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	var n int64
	err := untilWon(ctx, func() error {
		res, err := db.Writer().ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// Micros returns a time as it is stored: microseconds since 1970 in UTC. The zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the way back from Micros. 0 is the zero time.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// pool is a *sql.DB whose errors are classified.
type pool struct{ db *sql.DB }

func (p pool) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	res, err := p.db.ExecContext(ctx, query, args...)
	return res, explain(ctx, err)
}

func (p pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := p.db.QueryContext(ctx, query, args...)
	return rows, explain(ctx, err)
}

func (p pool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return p.db.QueryRowContext(ctx, query, args...)
}
