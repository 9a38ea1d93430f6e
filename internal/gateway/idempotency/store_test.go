package idempotency_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// each runs the suite against every store there is. later lets at least d pass for the store.
func each(t *testing.T, fn func(t *testing.T, s idempotency.Store, later func(d time.Duration))) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		var passed atomic.Int64
		begin := time.Now()
		clock := func() time.Time { return begin.Add(time.Duration(passed.Load())) }
		fn(t, idempotency.NewMemory(clock), func(d time.Duration) { passed.Add(int64(d)) })
	})
	if redisdbtest.Listed() {
		t.Run("redis", func(t *testing.T) {
			t.Parallel()
			db := redisdbtest.Open(t)
			fn(t, idempotency.NewRedis(db, redisdbtest.Prefix(t, db)), func(d time.Duration) { <-time.After(d) }) // its clock is Redis's
		})
	}
}

func newClaim(id, holder, print string) idempotency.Claim {
	return idempotency.Claim{ID: id, Holder: holder, Fingerprint: print, Lease: time.Minute, Keep: time.Hour}
}

func claim(t *testing.T, s idempotency.Store, c idempotency.Claim, want idempotency.Outcome) []byte {
	t.Helper()
	got, answer, err := s.Claim(t.Context(), c)
	if err != nil || got != want {
		t.Fatalf("claim by %s: outcome %d, %v; want %d", c.Holder, got, err, want)
	}
	return answer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A payment that is asked for twice is made once, and both askers learn how it went.
func TestAnswerIsKept(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, _ func(time.Duration)) {
		first, second := newClaim("pay", "a", "x"), newClaim("pay", "b", "x")
		claim(t, s, first, idempotency.Claimed)
		claim(t, s, second, idempotency.InUse)
		claim(t, s, newClaim("pay", "c", "other"), idempotency.Differs)
		must(t, s.Keep(t.Context(), second, []byte("of a stranger")))
		must(t, s.Release(t.Context(), second))
		claim(t, s, second, idempotency.InUse)
		must(t, s.Keep(t.Context(), first, []byte("done\x00\xff")))
		if got := claim(t, s, second, idempotency.Answered); string(got) != "done\x00\xff" {
			t.Errorf("kept %q", got)
		}
		must(t, s.Release(t.Context(), first)) // too late
		must(t, s.Renew(t.Context(), first, false))
		claim(t, s, second, idempotency.Answered)
		claim(t, s, newClaim("pay", "c", "other"), idempotency.Differs)
		claim(t, s, newClaim("other", "c", "other"), idempotency.Claimed)
	})
}

// What did not happen can be asked for again.
func TestReleasedClaimIsForgotten(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, _ func(time.Duration)) {
		first := newClaim("pay", "a", "x")
		claim(t, s, first, idempotency.Claimed)
		must(t, s.Release(t.Context(), first))
		claim(t, s, newClaim("pay", "b", "y"), idempotency.Claimed)
	})
}

// A holder that died neither blocks its key as if it were still at work, nor lets the request happen again unseen.
func TestClaimOfTheDead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, later func(time.Duration)) {
		dead, heir := newClaim("pay", "dead", "x"), newClaim("pay", "heir", "x")
		dead.Lease = 2 * time.Second // each step but the last comes most of a second before it is over
		claim(t, s, dead, idempotency.Claimed)
		later(1200 * time.Millisecond)
		must(t, s.Renew(t.Context(), dead, true))
		later(1200 * time.Millisecond)
		claim(t, s, heir, idempotency.InUse)
		later(2 * time.Second)
		claim(t, s, heir, idempotency.Unknown)
		claim(t, s, heir, idempotency.Unknown)
		heir.Repeat = true
		claim(t, s, heir, idempotency.Claimed)
		must(t, s.Keep(t.Context(), dead, []byte("of the dead")))
		must(t, s.Keep(t.Context(), heir, []byte("of the heir")))
		if got := claim(t, s, newClaim("pay", "c", "x"), idempotency.Answered); string(got) != "of the heir" {
			t.Errorf("kept %q", got)
		}
	})
}

// Who was only slow, and not dead, may still say how it ended.
func TestLateHolderIsHeard(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, _ func(time.Duration)) {
		slow := newClaim("pay", "slow", "x")
		claim(t, s, slow, idempotency.Claimed)
		must(t, s.Renew(t.Context(), slow, false))
		claim(t, s, newClaim("pay", "b", "x"), idempotency.Unknown)
		must(t, s.Keep(t.Context(), slow, []byte("done")))
		claim(t, s, newClaim("pay", "b", "x"), idempotency.Answered)
	})
}

// Nothing grows for ever.
func TestAnswersExpire(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, later func(time.Duration)) {
		c := newClaim("pay", "a", "x")
		c.Keep = 300 * time.Millisecond
		claim(t, s, c, idempotency.Claimed)
		must(t, s.Keep(t.Context(), c, []byte("done")))
		later(350 * time.Millisecond)
		claim(t, s, newClaim("pay", "b", "y"), idempotency.Claimed)
	})
}

// Of any number who ask at once, one may.
func TestOneOfManyClaims(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s idempotency.Store, _ func(time.Duration)) {
		var claimed atomic.Int64
		var group sync.WaitGroup
		for i := range 64 {
			group.Go(func() {
				got, _, err := s.Claim(t.Context(), newClaim("pay", string(rune('A'+i)), "x"))
				if err != nil {
					t.Error(err)
				}
				if got == idempotency.Claimed {
					claimed.Add(1)
				} else if got != idempotency.InUse {
					t.Errorf("outcome %d", got)
				}
			})
		}
		group.Wait()
		if claimed.Load() != 1 {
			t.Errorf("%d claimed it", claimed.Load())
		}
	})
}

// A caller who asks for very much must not take the process down, nor make it forget what others asked.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := idempotency.NewMemory(time.Now)
	first := newClaim("first", "a", "x")
	claim(t, s, first, idempotency.Claimed)
	must(t, s.Keep(t.Context(), first, []byte("done")))
	big := []byte(strings.Repeat("x", 1<<20))
	for i := 0; ; i++ {
		c := newClaim(string(rune('a'+i)), "a", "x")
		if _, _, err := s.Claim(t.Context(), c); err != nil {
			if i < idempotency.MaxMemory>>20-1 {
				t.Errorf("full after %d MiB: %v", i, err)
			}
			break
		}
		must(t, s.Keep(t.Context(), c, big))
		if i > 1_000_000 {
			t.Fatal("never full")
		}
	}
	claim(t, s, first, idempotency.Answered)
}
