package auth_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
)

func watched(i int) *auth.Claims {
	c := &auth.Claims{
		Subject: "p" + strconv.Itoa(i%10), SessionID: "s" + strconv.Itoa(i), ClientID: "app", ID: "t" + strconv.Itoa(i), KeyID: "k",
		ExpiresAt: now.Add(15 * time.Minute),
	}
	if i < 5 {
		c.Through = []auth.Party{{ClientID: "first"}, {ClientID: "second"}}
	}
	return c
}

// A WebSocket of an ended session stays open unless whoever holds it is told, once, and nobody else is.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		entry auth.Revocation
		want  func(i int) bool
	}{
		"session": {revocation(auth.RevokeSession, "s7", 0, now.Add(time.Hour)), func(i int) bool { return i == 7 }},
		"grant":   {revocation(auth.RevokeGrant, auth.GrantID("s7", "app"), 0, now.Add(time.Hour)), func(i int) bool { return i == 7 }},
		"person":  {revocation(auth.RevokeSubject, "p7", 1, now.Add(time.Hour)), func(i int) bool { return i%10 == 7 }},
		"client":  {revocation(auth.RevokeClient, "app", 1, now.Add(time.Hour)), func(int) bool { return true }},
		"through": {revocation(auth.RevokeClient, "second", 1, now.Add(time.Hour)), func(i int) bool { return i < 5 }},
		"key":     {revocation(auth.RevokeKey, "k", 0, now.Add(time.Hour)), func(int) bool { return true }},
		"no one":  {revocation(auth.RevokeClient, "app", 0, now.Add(time.Hour)), func(int) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				set := auth.NewRevocationSet(func() time.Time { return now })
				var calls [100]atomic.Int32
				for i := range calls {
					set.Watch(watched(i), func() { calls[i].Add(1) })
				}
				set.Add(row.entry)
				set.Add(row.entry)
				synctest.Wait()
				for i := range calls {
					if got := calls[i].Load(); (got == 1) != row.want(i) || got > 1 {
						t.Errorf("watch %d was told %d times", i, got)
					}
				}
			})
		})
	}
}

// A session that ended between the check and the watch is ended all the same.
func TestWatchOfWhatIsRevokedAlready(t *testing.T) {
	t.Parallel()
	set := auth.NewRevocationSet(func() time.Time { return now })
	set.Add(revocation(auth.RevokeSession, "s1", 0, now.Add(time.Hour)))
	told := make(chan struct{})
	stop := set.Watch(watched(1), func() { close(told) })
	<-told
	if stop() {
		t.Error("stop says that it came in time")
	}
}

// Who stops a watch in time is not called any more; who is called cannot have stopped it. Nothing is left behind.
func TestWatchUnderContention(t *testing.T) {
	t.Parallel()
	set := auth.NewRevocationSet(func() time.Time { return now })
	var wg sync.WaitGroup
	var called, stopped atomic.Int64
	const n = 2000
	all := sync.WaitGroup{}
	all.Add(n)
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				var one atomic.Int32
				stop := set.Watch(watched(i), func() { one.Add(1); called.Add(1); all.Done() })
				if i%3 == 0 {
					go set.Add(revocation(auth.RevokeSession, "s"+strconv.Itoa(i), 0, now.Add(time.Hour)))
				}
				if stop() {
					stopped.Add(1)
					all.Done()
				}
			}
		})
	}
	wg.Wait()
	all.Wait()
	if called.Load()+stopped.Load() != n {
		t.Errorf("%d called, %d stopped, of %d", called.Load(), stopped.Load(), n)
	}
	if left := auth.Watching(set); left != 0 {
		t.Errorf("%d lists are left", left)
	}
}

// What a token opened ends with it, and says why.
func TestVerifierWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set := auth.NewRevocationSet(nil)
		v := newVerifier(t, func(c *auth.Config) { c.Revocations, c.Clock = set, time.Now })
		claims := func(sid string) *auth.Claims {
			return &auth.Claims{SessionID: sid, ExpiresAt: time.Now().Add(10 * time.Minute)}
		}
		expiring, cancel := v.WithWatch(t.Context(), claims("a"))
		defer cancel()
		revoked, cancel := v.WithWatch(t.Context(), claims("b"))
		defer cancel()
		stopped, cancel := v.WithWatch(t.Context(), claims("c"))
		cancel()
		set.Add(revocation(auth.RevokeSession, "b", 0, time.Now().Add(time.Hour)),
			revocation(auth.RevokeSession, "c", 0, time.Now().Add(time.Hour)))
		synctest.Wait()
		if err := context.Cause(revoked); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("revoked: %v", err)
		}
		if err := context.Cause(stopped); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if expiring.Err() != nil {
			t.Error("expired within the leeway")
		}
		time.Sleep(61 * time.Second)
		if err := context.Cause(expiring); !errors.Is(err, auth.ErrExpired) {
			t.Errorf("expired: %v", err)
		}
	})
}
