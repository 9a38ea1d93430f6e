package sqldb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var counters = []sqldb.Migrations{{Name: "counters", FS: fstest.MapFS{
	"00001_counters.sql": {Data: []byte(`-- +goose Up
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    n    BIGINT NOT NULL CHECK (n >= 0),
    of   TEXT REFERENCES counters (name)
);
INSERT INTO counters (name, n) VALUES ('a', 0), ('b', 0);
`)},
}}}

// Where the engines differ: SQLite locks the whole database when a write transaction begins.
const (
	readToWriteSQLite     = `SELECT n FROM counters WHERE name = $1`
	readToWritePostgreSQL = `SELECT n FROM counters WHERE name = $1 FOR UPDATE`
)

func readToWrite(db *sqldb.DB) string {
	if db.Engine() == sqldb.PostgreSQL {
		return readToWritePostgreSQL
	}
	return readToWriteSQLite
}

func scanInt64(r sqldb.Row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

// A lost update is a ticket sold twice.
func TestConcurrentReadThenWriteLosesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		nodes := []*sqldb.DB{db, sqldbtest.Reopen(t, db)}
		const total = 800
		var wg sync.WaitGroup
		errs := make([]error, total)
		for i := range total {
			wg.Go(func() {
				node := nodes[i%len(nodes)]
				errs[i] = node.Write(t.Context(), func(tx sqldb.Tx) error {
					n, err := sqldb.One(t.Context(), tx, scanInt64, readToWrite(node), "a")
					if err != nil {
						return err
					}
					_, err = tx.ExecContext(t.Context(), `UPDATE counters SET n = $1 WHERE name = $2`, n+1, "a")
					return err
				})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		n, err := sqldb.One(t.Context(), db.Reader(), scanInt64, readToWriteSQLite, "a")
		if err != nil || n != total {
			t.Fatalf("counter is %d after %d increments, %v", n, total, err)
		}
	})
}

func counter(t *testing.T, q sqldb.Queryer, name string) int64 {
	t.Helper()
	n, err := sqldb.One(t.Context(), q, scanInt64, readToWriteSQLite, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const add = `UPDATE counters SET n = n + $1 WHERE name = $2`

func TestWriteRollsBackOnErrorAndPanic(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		sorry := errors.New("sorry")
		change := func(tx sqldb.Tx) {
			if _, err := tx.ExecContext(t.Context(), add, 5, "a"); err != nil {
				t.Error(err)
			}
		}
		err := db.Write(t.Context(), func(tx sqldb.Tx) error { change(tx); return sorry })
		if err != sorry {
			t.Errorf("got %v, want the error of the function", err)
		}
		func() {
			defer func() {
				if recover() != "oops" {
					t.Error("the panic did not arrive")
				}
			}()
			_ = db.Write(t.Context(), func(tx sqldb.Tx) error { change(tx); panic("oops") })
		}()
		if n := counter(t, db.Reader(), "a"); n != 0 {
			t.Errorf("counter is %d after two rollbacks", n)
		}
		// The writer must have been given back.
		if _, err := db.Writer().ExecContext(t.Context(), add, 1, "a"); err != nil {
			t.Error(err)
		}
	})
}

// Two transfers that lock the same two rows in opposite order block each other on PostgreSQL, which ends one of them.
func TestDeadlockIsRetried(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		var both, wg sync.WaitGroup
		both.Add(2)
		errs := make([]error, 2)
		for i, order := range [][]string{{"a", "b"}, {"b", "a"}} {
			wg.Go(func() {
				first := true
				errs[i] = db.Write(t.Context(), func(tx sqldb.Tx) error {
					if _, err := tx.ExecContext(t.Context(), add, 1, order[0]); err != nil {
						return err
					}
					if first && db.Engine() == sqldb.PostgreSQL { // SQLite never has both at this point
						first = false
						both.Done()
						both.Wait()
					}
					_, err := tx.ExecContext(t.Context(), add, 1, order[1])
					return err
				})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if a, b := counter(t, db.Reader(), "a"), counter(t, db.Reader(), "b"); a != 2 || b != 2 {
			t.Errorf("counters are %d and %d, want 2 and 2", a, b)
		}
	})
}

func TestWriteGivesUpAfterSomeAttempts(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return // it locks before the function runs; see TestWaitForALockEndsWithTheContext
		}
		attempts := 0
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			attempts++
			_, err := tx.ExecContext(t.Context(), `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`)
			return err
		})
		if !errors.Is(err, sqldb.ErrBusy) || attempts < 3 || attempts > 20 {
			t.Errorf("after %d attempts: %v", attempts, err)
		}
	})
}

// Who waits for a lock longer than the caller does holds up a connection for nobody.
func TestWaitForALockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		other := sqldbtest.Reopen(t, db)
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			if _, err := tx.ExecContext(t.Context(), add, 1, "a"); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := other.Write(ctx, func(tx sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, add, 1, "a")
				return err
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the deadline", err)
			}
			if waited := time.Since(start); waited > 4*time.Second {
				t.Errorf("waited %v", waited)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// The connection that was interrupted still works.
		if _, err := other.Writer().ExecContext(t.Context(), add, 1, "a"); err != nil {
			t.Error(err)
		}
		if n := counter(t, db.Reader(), "a"); n != 2 {
			t.Errorf("counter is %d, want 2", n)
		}
	})
}

// A caller who goes away between the last statement and the commit has not had an answer, and nothing may have changed.
func TestCancelledBeforeCommitChangesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Write(ctx, func(tx sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, add, 1, "a")
			cancel()
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want cancelled", err)
		}
		if n := counter(t, db.Writer(), "a"); n != 0 {
			t.Errorf("counter is %d, want 0", n)
		}
	})
}

// A commit whose answer got lost must not be repeated: the money might be moved twice.
func TestCommitWithoutAnswerIsNotRepeated(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return // there is no connection that could break
		}
		attempts := 0
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			attempts++
			pid, err := sqldb.One(t.Context(), tx, scanInt64, `SELECT pg_backend_pid()`)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(t.Context(), add, 1, "a"); err != nil {
				return err
			}
			_, err = db.Writer().ExecContext(t.Context(), `SELECT pg_terminate_backend($1, 5000)`, pid)
			return err
		})
		if !errors.Is(err, sqldb.ErrUnconfirmed) || attempts != 1 {
			t.Errorf("after %d attempts: %v", attempts, err)
		}
	})
}

// A list that is read page by page, or two tables read after each other, must fit together.
func TestReadSeesOneState(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		err := db.Read(t.Context(), func(tx sqldb.Tx) error {
			before := counter(t, tx, "a")
			if _, err := db.Writer().ExecContext(t.Context(), add, 1, "a"); err != nil {
				return err
			}
			if after := counter(t, tx, "a"); after != before {
				t.Errorf("read %d, then %d", before, after)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := counter(t, db.Reader(), "a"); n != 1 {
			t.Errorf("counter is %d, want 1", n)
		}
	})
}

func TestReadCannotWrite(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		err := db.Read(t.Context(), func(tx sqldb.Tx) error {
			_, err := tx.ExecContext(t.Context(), add, 1, "a")
			return err
		})
		if !errors.Is(err, sqldb.ErrReadOnly) {
			t.Errorf("got %v, want ErrReadOnly", err)
		}
	})
}
