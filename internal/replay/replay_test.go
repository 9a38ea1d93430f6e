package replay_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var log = slog.New(slog.DiscardHandler)

// memory is one store, as two nodes have it, and a way to let the time given to Once pass.
type memory struct {
	nodes [2]replay.Store
	pass  func(t *testing.T, d time.Duration)
	cut   func() // for the first node
}

// each runs a test on every store.
func each(t *testing.T, fn func(t *testing.T, m memory)) {
	t.Parallel()
	t.Run("sql", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Each(t, []sqldb.Migrations{replay.Migrations}, func(t *testing.T, db *sqldb.DB) {
			var offset atomic.Int64
			clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
			other := sqldbtest.Reopen(t, db)
			fn(t, memory{
				nodes: [2]replay.Store{replay.NewSQL(db, clock, log), replay.NewSQL(other, clock, log)},
				pass:  func(_ *testing.T, d time.Duration) { offset.Add(int64(d)) },
				cut:   func() { _ = db.Close() },
			})
		})
	})
	if !redisdbtest.Listed() {
		return
	}
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		one, two := redisdbtest.Open(t), redisdbtest.Open(t)
		prefix := redisdbtest.Prefix(t, two)
		fn(t, memory{
			nodes: [2]replay.Store{replay.NewRedis(one, prefix), replay.NewRedis(two, prefix)},
			pass:  func(t *testing.T, d time.Duration) { shorten(t, two, prefix, d) },
			cut:   one.Close,
		})
	})
}

// shorten brings the end of every key nearer, as Redis goes by its own clock.
func shorten(t *testing.T, db *redisdb.DB, prefix string, d time.Duration) {
	t.Helper()
	for _, node := range db.Client().Nodes() {
		keys, err := node.Do(t.Context(), node.B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
		must(t, err)
		for _, key := range keys {
			left, err := node.Do(t.Context(), node.B().Pttl().Key(key).Build()).AsInt64()
			must(t, err)
			must(t, node.Do(t.Context(), node.B().Pexpire().Key(key).Milliseconds(left-d.Milliseconds()).Build()).Error())
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, s replay.Store, id string, first bool) {
	t.Helper()
	got, err := s.Once(t.Context(), id, 2*time.Minute)
	if err != nil || got != first {
		t.Errorf("%.20q: first %v, %v, want %v", id, got, err, first)
	}
}

// What was used on one node cannot be used on another, until it is too old to be accepted anywhere.
func TestOnce(t *testing.T) {
	each(t, func(t *testing.T, m memory) {
		one, two := m.nodes[0], m.nodes[1]
		long := string(make([]byte, 1<<16))
		for _, id := range []string{"a", "b", "", long, long + "x"} {
			want(t, one, id, true)
			want(t, two, id, false)
			want(t, one, id, false)
		}
		want(t, replay.Scoped(two, "mine"), "a", true)
		want(t, replay.Scoped(one, "mine"), "a", false)
		want(t, replay.Scoped(one, "theirs"), "a", true)
		m.pass(t, time.Minute)
		want(t, two, "a", false)
		m.pass(t, time.Minute)
		want(t, two, "a", true)
		want(t, one, "a", false)
	})
}

// A thousand who present the same thing at once, on two nodes: one gets in.
func TestOnceUnderContention(t *testing.T) {
	each(t, func(t *testing.T, m memory) {
		for round := range 5 {
			var won atomic.Int64
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					first, err := m.nodes[i%2].Once(t.Context(), strconv.Itoa(round), time.Minute)
					if err != nil {
						t.Error(err)
					}
					if first {
						won.Add(1)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("round %d: %d were first", round, won.Load())
			}
		}
	})
}

// When nobody can tell, nobody is let in; and who has gone is not told of an outage.
func TestOutage(t *testing.T) {
	each(t, func(t *testing.T, m memory) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if first, err := m.nodes[1].Once(gone, "a", time.Minute); first || !errors.Is(err, context.Canceled) {
			t.Errorf("for who has gone: first %v, %v", first, err)
		}
		m.cut()
		if first, err := m.nodes[0].Once(t.Context(), "b", time.Minute); first || !errors.Is(err, replay.ErrUnavailable) {
			t.Errorf("without the store: first %v, %v, want %v", first, err, replay.ErrUnavailable)
		}
		want(t, m.nodes[1], "b", true)
	})
}

// The table does not grow for ever.
func TestSweep(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, []sqldb.Migrations{replay.Migrations}, func(t *testing.T, db *sqldb.DB) {
		now := time.Now()
		s := replay.NewSQL(db, func() time.Time { return now }, log)
		for i := range 10 {
			_, err := s.Once(t.Context(), strconv.Itoa(i), time.Duration(1+i%2)*time.Minute)
			must(t, err)
		}
		now = now.Add(time.Minute)
		must(t, s.Sweep(t.Context()))
		left, err := sqldb.One(t.Context(), db.Reader(), func(r sqldb.Row) (n int, err error) {
			err = r.Scan(&n)
			return n, err
		}, `SELECT COUNT(*) FROM replays`)
		if err != nil || left != 5 {
			t.Errorf("%d ids are left, %v, want 5", left, err)
		}
		want(t, s, "1", false)
	})
}
