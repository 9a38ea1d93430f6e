package ratelimit_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// limiter is one under test, and a way to let time pass for it.
type limiter struct {
	ratelimit.Limiter
	advance func(time.Duration)
}

// each runs the suite against every limiter there is.
func each(t *testing.T, fn func(t *testing.T, l limiter)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		c := clocktest.Noon()
		fn(t, limiter{ratelimit.NewMemory(c.Now), c.Advance})
	})
	if redisdbtest.Listed() {
		t.Run("redis", func(t *testing.T) {
			t.Parallel()
			fn(t, openRedis(t))
		})
	}
}

// take asserts a verdict, and that its times are right but for what the test itself takes (Redis has its own clock).
func (l limiter) take(t testing.TB, p ratelimit.Policy, key string, want ratelimit.Verdict) {
	t.Helper()
	got, err := l.Take(t.Context(), p, key)
	if err != nil {
		t.Fatal(err)
	}
	near := func(got, want time.Duration) bool { return got <= want && got > want-time.Minute }
	if got.Allowed != want.Allowed || got.Remaining != want.Remaining || !near(got.RetryAfter, want.RetryAfter) ||
		!near(got.ResetAfter, want.ResetAfter) {
		t.Errorf("%s: %+v, want %+v", key, got, want)
	}
}

// hourly lets one in an hour, three at once.
var hourly = ratelimit.Policy{Name: "test.hourly", Rate: 1, Period: time.Hour, Burst: 3}

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		l.take(t, hourly, "a", ratelimit.Verdict{Allowed: true, Remaining: 2, ResetAfter: time.Hour})
		l.take(t, hourly, "a", ratelimit.Verdict{Allowed: true, Remaining: 1, ResetAfter: 2 * time.Hour})
		l.take(t, hourly, "a", ratelimit.Verdict{Allowed: true, Remaining: 0, ResetAfter: 3 * time.Hour})
		refused := ratelimit.Verdict{RetryAfter: time.Hour, ResetAfter: 3 * time.Hour}
		for range 5 { // knocking on does not make it worse
			l.take(t, hourly, "a", refused)
		}
		l.advance(30 * time.Minute)
		l.take(t, hourly, "a", ratelimit.Verdict{RetryAfter: 30 * time.Minute, ResetAfter: 150 * time.Minute})
		l.advance(30 * time.Minute)
		l.take(t, hourly, "a", ratelimit.Verdict{Allowed: true, Remaining: 0, ResetAfter: 3 * time.Hour})
		l.take(t, hourly, "a", refused)
		l.advance(100 * time.Hour)
		l.take(t, hourly, "a", ratelimit.Verdict{Allowed: true, Remaining: 2, ResetAfter: time.Hour})
	})
}

func TestKeysAndPoliciesAreApart(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		once := ratelimit.Policy{Name: "test.once", Rate: 1, Period: time.Hour, Burst: 1}
		other := once
		other.Name = "test.other"
		first := ratelimit.Verdict{Allowed: true, ResetAfter: time.Hour}
		l.take(t, once, "a", first)
		l.take(t, once, "b", first)
		l.take(t, other, "a", first)
		l.take(t, once, "", first)
		l.take(t, once, "a\x00 한글", first)
		l.take(t, once, "a", ratelimit.Verdict{RetryAfter: time.Hour, ResetAfter: time.Hour})
	})
}

// TestLimitIsExact: however many ask at once, the burst is what gets in.
func TestLimitIsExact(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		p := ratelimit.Policy{Name: "test.exact", Rate: 10, Period: 24 * time.Hour, Burst: 20}
		var allowed atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				v, err := l.Take(t.Context(), p, "a")
				if err != nil {
					t.Error(err)
				}
				if v.Allowed {
					allowed.Add(1)
				}
			})
		}
		wg.Wait()
		if allowed.Load() != 20 {
			t.Errorf("%d of 100 were allowed at once, want 20", allowed.Load())
		}
	})
}

// TestStricterPolicyHoldsAtOnce: who changes a limit does not wait for the old one to run out.
func TestStricterPolicyHoldsAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		lax := ratelimit.Policy{Name: "test.changed", Rate: 1, Period: time.Hour, Burst: 100}
		for range 100 {
			if v, err := l.Take(t.Context(), lax, "a"); err != nil || !v.Allowed {
				t.Fatalf("%+v, %v", v, err)
			}
		}
		strict := lax
		strict.Burst = 2
		l.take(t, strict, "a", ratelimit.Verdict{RetryAfter: time.Hour, ResetAfter: 2 * time.Hour})
	})
}

func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		for _, p := range []ratelimit.Policy{
			{},
			{Name: "x", Rate: 0, Period: time.Hour, Burst: 1},
			{Name: "x", Rate: 1, Period: 0, Burst: 1},
			{Name: "x", Rate: 1, Period: time.Hour, Burst: 0},
			{Name: "x", Rate: 1, Period: 100 * 365 * 24 * time.Hour, Burst: 1},
			{Name: "x", Rate: 1, Period: 24 * time.Hour, Burst: 1 << 40},
		} {
			if v, err := l.Take(t.Context(), p, "a"); err == nil {
				t.Errorf("%+v: %+v", p, v)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Take(ctx, hourly, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("whose caller has gone: %v", err)
		}
	})
}

// TestAgainstModel compares with the leaky bucket that GCRA is another way to write: a level that falls at the rate and
// rises by one with each event that fits. Times are multiples of 20 minutes and rates of an hour, so that the real
// milliseconds that Redis sees pass decide nothing.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, l limiter) {
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			p := ratelimit.Policy{
				Name: "test.model", Period: time.Hour, Rate: rapid.SampledFrom([]int{1, 3}).Draw(rt, "rate"),
				Burst: rapid.IntRange(1, 5).Draw(rt, "burst"),
			}
			perStep := p.Rate // the level is in thirds of an event, a step is 20 minutes
			level := 0
			for range rapid.IntRange(1, 15).Draw(rt, "events") {
				steps := rapid.IntRange(0, 4).Draw(rt, "steps")
				l.advance(time.Duration(steps) * 20 * time.Minute)
				level = max(0, level-steps*perStep)
				fits := level+3 <= p.Burst*3
				if fits {
					level += 3
				}
				v, err := l.Take(t.Context(), p, "run "+strconv.Itoa(run))
				if err != nil || v.Allowed != fits || v.Remaining != (p.Burst*3-level)/3 {
					rt.Fatalf("got %+v, %v at a level of %d/3 of %d, want allowed %t", v, err, level, p.Burst, fits)
				}
			}
		})
	})
}

func TestOffAllowsEverything(t *testing.T) {
	t.Parallel()
	for range 10 {
		v, err := ratelimit.Off{}.Take(t.Context(), hourly, "a")
		if err != nil || !v.Allowed || v.Remaining != 3 || v.RetryAfter != 0 {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// TestMemoryIsBounded: an attacker with a million addresses must not fill the memory, nor make room for itself by it.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	c := clocktest.Noon()
	m := ratelimit.NewMemory(c.Now)
	long := ratelimit.Policy{Name: "test.long", Rate: 1, Period: 1000 * time.Hour, Burst: 1}
	if _, err := m.Take(t.Context(), long, "victim"); err != nil {
		t.Fatal(err)
	}
	flood := func(n int) {
		for i := range n {
			if _, err := m.Take(t.Context(), hourly, strconv.Itoa(i)+c.Now().String()); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood(2 * ratelimit.MaxKeys)
	if n := m.Len(); n > ratelimit.MaxKeys || n < ratelimit.MaxKeys/2 {
		t.Errorf("%d keys are kept, want about %d", n, ratelimit.MaxKeys)
	}
	if v, err := m.Take(t.Context(), long, "victim"); err != nil || v.Allowed {
		t.Errorf("a flood made the limiter forget who is limited for long: %+v, %v", v, err)
	}
	c.Advance(2 * time.Hour)
	flood(ratelimit.MaxKeys)
	if n := m.Len(); n > ratelimit.MaxKeys*11/10 {
		t.Errorf("%d keys are kept, although half of them have expired", n)
	}
}

func BenchmarkMemory(b *testing.B) {
	bench(b, ratelimit.NewMemory(time.Now))
}

func bench(b *testing.B, l ratelimit.Limiter) {
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = "203.0.113." + strconv.Itoa(i)
	}
	p := ratelimit.Policy{Name: "bench", Rate: 1000, Period: time.Second, Burst: 1000}
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := l.Take(b.Context(), p, keys[i%len(keys)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
