package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// commitTimeout bounds a commit or rollback, which the caller's context no longer does.
	commitTimeout = 10 * time.Second
	// A write transaction that lost to another one is tried maxAttempts times, as long as retryFor has not passed.
	maxAttempts = 10
	retryFor    = 15 * time.Second
	// The wait before a new attempt is random, below firstWait doubled each time and at most longestWait.
	firstWait   = 5 * time.Millisecond
	longestWait = 250 * time.Millisecond
)

// Tx is a transaction in progress. It is valid until the function it was given to returns, and for one goroutine.
type Tx struct{ tx *sql.Tx }

// ExecContext runs a statement.
func (t Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	res, err := t.tx.ExecContext(ctx, query, args...)
	return res, explain(ctx, err)
}

// QueryContext runs a query. The rows must be closed before the next statement of the transaction.
func (t Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	return rows, explain(ctx, err)
}

// QueryRowContext runs a query for one row; see One.
func (t Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

// Read runs fn in a transaction that cannot write and sees one state of the database throughout, whatever others commit
// meanwhile. It waits for no writer.
func (db *DB) Read(ctx context.Context, fn func(tx Tx) error) error {
	opts := &sql.TxOptions{ReadOnly: true}
	if db.Engine() == PostgreSQL {
		opts.Isolation = sql.LevelRepeatableRead
	}
	return run(ctx, db.reader, opts, fn)
}

// Write runs fn in a transaction and commits it when fn returns nil; an error or a panic of fn rolls it back. On SQLite it
// holds the write lock from the start; on PostgreSQL it is READ COMMITTED, so a row that is read in order to be changed
// needs FOR UPDATE, or better a single conditional UPDATE.
//
// A transaction that lost to another one (busy, deadlock, serialization failure) is rolled back and fn runs again, a
// bounded number of times, then ErrBusy is returned: fn must have no effect outside the transaction, and must return the
// errors of its statements. A commit that has begun is finished even when ctx ends; when its outcome cannot be known, as
// the connection broke, the answer is ErrUnconfirmed and nothing is repeated.
func (db *DB) Write(ctx context.Context, fn func(tx Tx) error) error {
	return untilWon(ctx, func() error { return run(ctx, db.writer, nil, fn) })
}

// untilWon repeats an attempt that lost to another transaction.
func untilWon(ctx context.Context, try func() error) error {
	start, wait := time.Now(), firstWait
	for attempt := 1; ; attempt++ {
		err := try()
		if !errors.Is(err, errLost) || attempt == maxAttempts || time.Since(start) > retryFor {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, after %w", ctx.Err(), err)
		case <-time.After(rand.N(wait)):
		}
		wait = min(2*wait, longestWait)
	}
}

// run is one attempt at a transaction.
func run(ctx context.Context, on *sql.DB, opts *sql.TxOptions, fn func(tx Tx) error) error {
	// The drivers commit and roll back under the context that the transaction began with. It follows ctx until the
	// transaction has begun; the statements of fn bring ctx along themselves.
	txCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	detach := context.AfterFunc(ctx, cancel)
	tx, err := on.BeginTx(txCtx, opts)
	if err != nil {
		detach()
		return fmt.Errorf("begin: %w", explain(ctx, err))
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		defer time.AfterFunc(commitTimeout, cancel).Stop()
		_ = tx.Rollback() // what went wrong is told already, and a connection that cannot roll back is dropped
	}()
	if !detach() {
		return ctx.Err()
	}
	if err := fn(Tx{tx}); err != nil {
		return explainAnswer(ctx, err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	defer time.AfterFunc(commitTimeout, cancel).Stop()
	if err := tx.Commit(); err != nil {
		return explainCommit(err)
	}
	committed = true
	return nil
}
