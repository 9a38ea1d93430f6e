package websession_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/gateway/websession"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// each runs the suite against every store there is. later lets at least d pass for the store.
func each(t *testing.T, fn func(t *testing.T, s websession.Store, later func(d time.Duration))) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		c := clocktest.At(time.Now())
		fn(t, websession.NewMemory(c.Now), c.Advance)
	})
	if redisdbtest.Listed() {
		t.Run("redis", func(t *testing.T) {
			t.Parallel()
			db := redisdbtest.Open(t)
			fn(t, websession.NewRedis(db, redisdbtest.Prefix(t, db)), func(d time.Duration) { <-time.After(d) }) // its clock is Redis's
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKept(t *testing.T, s websession.Store, id, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), id)
	if want == "" && !errors.Is(err, websession.ErrNotKept) || want != "" && (err != nil || string(got) != want) {
		t.Errorf("%s: %q, %v; want %q", id, got, err, want)
	}
}

// A pair is replaced by later ones only: an older one would have its refresh token used twice, which ends the session. And who signed out
// stays signed out, whatever renewal was under way.
func TestLaterReplacesEarlier(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s websession.Store, _ func(time.Duration)) {
		ctx := t.Context()
		wantKept(t, s, "kim", "")
		must(t, s.Create(ctx, "kim", []byte("0\x00\xff"), time.Hour))
		wantKept(t, s, "kim", "0\x00\xff")
		must(t, s.Replace(ctx, "kim", 2, []byte("2"), time.Hour))
		must(t, s.Replace(ctx, "kim", 1, []byte("1"), time.Hour))
		must(t, s.Replace(ctx, "kim", 2, []byte("other"), time.Hour))
		wantKept(t, s, "kim", "2")
		wantKept(t, s, "lee", "")
		must(t, s.Delete(ctx, "kim"))
		must(t, s.Replace(ctx, "kim", 3, []byte("3"), time.Hour))
		wantKept(t, s, "kim", "")
		must(t, s.Delete(ctx, "kim"))
	})
}

// Nothing grows for ever, and what is used stays.
func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s websession.Store, later func(time.Duration)) {
		must(t, s.Create(t.Context(), "idle", []byte("x"), time.Second))
		must(t, s.Create(t.Context(), "used", []byte("x"), time.Second))
		must(t, s.Replace(t.Context(), "used", 1, []byte("y"), time.Hour))
		later(1100 * time.Millisecond)
		wantKept(t, s, "idle", "")
		wantKept(t, s, "used", "y")
	})
}

// However renewals of several nodes arrive, the latest stays.
func TestLatestOfMany(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s websession.Store, _ func(time.Duration)) {
		must(t, s.Create(t.Context(), "kim", []byte("0"), time.Hour))
		var group sync.WaitGroup
		for i := range 64 {
			group.Go(func() {
				if err := s.Replace(t.Context(), "kim", int64(i), fmt.Appendf(nil, "%d", i), time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		wantKept(t, s, "kim", "63")
	})
}
