package sqldb_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

const addReturning = `UPDATE counters SET n = n + $1 WHERE name = $2 RETURNING n`

func gatherAdds(db *sqldb.DB) func(ctx context.Context, n int64, name string) (int64, error) {
	g := sqldb.NewGather(db, scanInt64, addReturning)
	return func(ctx context.Context, n int64, name string) (int64, error) { return g.One(ctx, name, n, name) }
}

// Two requests with one token must not both be told that they were the first, on one node or on two.
func TestGatheredStatementsSeeEachOther(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		nodes := []func(context.Context, int64, string) (int64, error){gatherAdds(db), gatherAdds(sqldbtest.Reopen(t, db))}
		const callers, each = 100, 10
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[string][]int64{}
		for i := range callers {
			name := []string{"a", "b"}[i/2%2]
			wg.Go(func() {
				for range each {
					n, err := nodes[i%2](t.Context(), 1, name)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					seen[name] = append(seen[name], n)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for name, ns := range seen {
			slices.Sort(ns)
			for i, n := range ns {
				if n != int64(i+1) {
					t.Fatalf("%s: %d callers, of whom the %d. was told %d", name, len(ns), i+1, n)
				}
			}
			if len(ns) != callers*each/2 {
				t.Errorf("%s: %d answers, want %d", name, len(ns), callers*each/2)
			}
		}
	})
}

// One row that is damaged must not sign out, or keep waiting, those whose rows are read in the same transaction.
func TestDamagedRowConcernsNobodyElse(t *testing.T) {
	t.Parallel()
	damaged := errors.New("damaged")
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		g := sqldb.NewGather(db, func(r sqldb.Row) (n int64, err error) {
			if n, err = scanInt64(r); err == nil && n%10 == 0 {
				err = damaged
			}
			return n, err
		}, addReturning)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 100 {
			wg.Go(func() {
				n, err := g.One(t.Context(), "a", 1, "a")
				if err != nil {
					failed.Add(1)
				}
				if err != nil && !errors.Is(err, damaged) || err == nil && n%10 == 0 {
					t.Errorf("%d, %v", n, err)
				}
			})
		}
		wg.Wait()
		if n := counter(t, db.Reader(), "a"); n != 100 || failed.Load() != 10 {
			t.Errorf("counter is %d and %d were refused, want 100 and 10", n, failed.Load())
		}
	})
}

// What is wrong with one request must not fail those of others that happen to come at the same moment.
func TestMistakeConcernsNobodyElse(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		add := gatherAdds(db)
		var wg sync.WaitGroup
		for i := range 120 {
			wg.Go(func() {
				switch i % 10 {
				case 3:
					if _, err := add(t.Context(), -1000, "a"); err == nil || errors.Is(err, sqldb.ErrNotFound) {
						t.Errorf("a negative counter: %v", err)
					}
				case 7:
					if _, err := add(t.Context(), 1, "nobody"); !errors.Is(err, sqldb.ErrNotFound) {
						t.Errorf("a row that is not there: %v", err)
					}
				default:
					if _, err := add(t.Context(), 1, "a"); err != nil {
						t.Errorf("a good one: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if n := counter(t, db.Reader(), "a"); n != 96 {
			t.Errorf("counter is %d, want 96", n)
		}
	})
}

// A row that somebody has locked, such as an operator in a transaction, must hold up those who need it, and not everybody.
func TestLockedRowHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return // it locks no rows
		}
		add := gatherAdds(db)
		var blocked sync.WaitGroup
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			if _, err := tx.ExecContext(t.Context(), `SELECT n FROM counters WHERE name = 'a' FOR UPDATE`); err != nil {
				return err
			}
			var others sync.WaitGroup
			for i := range 60 {
				if i == 30 {
					blocked.Go(func() {
						if _, err := add(t.Context(), 1, "a"); err != nil {
							t.Errorf("the one who had to wait: %v", err)
						}
					})
				}
				others.Go(func() {
					if _, err := add(t.Context(), 1, "b"); err != nil {
						t.Errorf("another one: %v", err)
					}
				})
			}
			others.Wait() // while the row is locked
			return nil
		})
		blocked.Wait()
		if a, b := counter(t, db.Reader(), "a"), counter(t, db.Reader(), "b"); err != nil || a != 1 || b != 60 {
			t.Errorf("counters are %d and %d, want 1 and 60; %v", a, b, err)
		}
	})
}

// Whoever goes away must neither wait for the database nor take others along.
func TestGatheredCallerGoesAway(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		add := gatherAdds(db)
		var staying sync.WaitGroup
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			if _, err := tx.ExecContext(t.Context(), `UPDATE counters SET n = 0 WHERE name = 'a'`); err != nil {
				return err
			}
			for range 20 {
				staying.Go(func() {
					if _, err := add(t.Context(), 1, "a"); err != nil {
						t.Errorf("who stayed: %v", err)
					}
				})
			}
			var leaving sync.WaitGroup
			for range 20 {
				leaving.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					if _, err := add(ctx, 1, "a"); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("who left: %v", err)
					}
				})
			}
			leaving.Wait()
			return nil
		})
		staying.Wait()
		// What they asked for may have happened all the same.
		if n := counter(t, db.Reader(), "a"); err != nil || n < 20 || n > 40 {
			t.Errorf("counter is %d, want 20 to 40; %v", n, err)
		}
	})
}

// A command that an operator runs beside a server that writes without a pause comes to its turn.
func TestAnotherProcessComesToItsTurn(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		busy, other := gatherAdds(db), sqldbtest.Reopen(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for range 64 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := busy(ctx, 1, "a"); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var longest time.Duration
		for range 100 {
			start := time.Now()
			if _, err := other.Writer().ExecContext(ctx, add, 1, "b"); err != nil {
				t.Error(err)
			}
			longest = max(longest, time.Since(start))
		}
		if longest > 3*time.Second {
			t.Errorf("a statement waited for %v", longest)
		}
	})
}
