package sqldb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// People who sign in must not wait for ever, nor the server's goroutines, when the database has gone without a word.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, direct *sqldb.DB) {
		if direct.Engine() == sqldb.SQLite {
			return // there is no connection that could freeze
		}
		p := sqldbtest.NewProxy(t, direct.Config().URL)
		db, err := openURL(t, p.URL)
		if err != nil {
			t.Fatal(err)
		}
		thaw := p.Freeze()
		defer thaw()
		for name, work := range map[string]func(context.Context) error{
			"query": func(ctx context.Context) error {
				_, err := sqldb.One(ctx, db.Reader(), scanInt64, `SELECT n FROM counters WHERE name = $1`, "a")
				return err
			},
			"statement": func(ctx context.Context) error {
				_, err := db.Writer().ExecContext(ctx, add, 1, "a")
				return err
			},
			"transaction": func(ctx context.Context) error {
				return db.Write(ctx, func(tx sqldb.Tx) error {
					_, err := tx.ExecContext(ctx, add, 1, "a")
					return err
				})
			},
			"gathered statements": func(ctx context.Context) error {
				add := gatherAdds(db)
				errs := make([]error, 40)
				var wg sync.WaitGroup
				for i := range errs {
					wg.Go(func() { _, errs[i] = add(ctx, 1, "a") })
				}
				wg.Wait()
				return errors.Join(errs...)
			},
			"ping": db.Ping,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			start := time.Now()
			if err := work(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want the deadline", name, err)
			}
			if waited := time.Since(start); waited > 5*time.Second {
				t.Errorf("%s: waited %v", name, waited)
			}
			cancel()
		}
		thaw()
		if _, err := db.Writer().ExecContext(t.Context(), add, 1, "b"); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		if n := counter(t, direct.Reader(), "b"); n != 1 {
			t.Errorf("counter is %d, want 1", n)
		}
	})
}

func TestServerFreezesWithinATransaction(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, direct *sqldb.DB) {
		if direct.Engine() == sqldb.SQLite {
			return
		}
		p := sqldbtest.NewProxy(t, direct.Config().URL)
		db, err := openURL(t, p.URL)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		thaw := func() {}
		err = db.Write(ctx, func(tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, add, 1, "a"); err != nil {
				return err
			}
			thaw = p.Freeze()
			_, err := tx.ExecContext(ctx, add, 1, "a")
			return err
		})
		thaw()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if waited := time.Since(start); waited > 6*time.Second {
			t.Errorf("waited %v", waited)
		}
		if n := counter(t, direct.Reader(), "a"); n != 0 {
			t.Errorf("counter is %d, want 0", n)
		}
	})
}
