package password_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity/password"
)

// TestGateHoldsUnderAStorm: with 500 people at once, never more hash than there are slots, everyone is either served or told
// to come again, and nothing is left taken.
func TestGateHoldsUnderAStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := password.NewGate(password.GateConfig{Concurrency: 3, Queue: 20, Wait: 2 * time.Second})
		var inside, most, served, refused atomic.Int64
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				leave, err := g.Enter(t.Context())
				if errors.Is(err, password.ErrBusy) {
					refused.Add(1)
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				defer leave()
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(50 * time.Millisecond) // on the fake clock: the hash
				inside.Add(-1)
				served.Add(1)
			})
		}
		wg.Wait()
		if most.Load() != 3 || served.Load() != 23 || refused.Load() != 477 {
			t.Errorf("at once %d, served %d, refused %d; want 3, 23, 477", most.Load(), served.Load(), refused.Load())
		}
		if g.Waiting() != 0 {
			t.Errorf("%d still wait", g.Waiting())
		}
		for range 3 {
			if _, err := g.Enter(t.Context()); err != nil {
				t.Errorf("a slot was lost: %v", err)
			}
		}
	})
}

func TestGateBoundsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := password.NewGate(password.GateConfig{Concurrency: 1, Wait: 2 * time.Second})
		leave, err := g.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = g.Enter(t.Context())
		if took := time.Since(began); !errors.Is(err, password.ErrBusy) || took != 2*time.Second {
			t.Errorf("waited %v, %v; want ErrBusy after 2s", took, err)
		}
		f := fault.From(err)
		if f.Status() != 503 || f.Code() != "identity.busy" || f.RetryAfter() < time.Second || f.RetryAfter() > 3*time.Second {
			t.Errorf("%d %s after %v", f.Status(), f.Code(), f.RetryAfter())
		}
		leave()
		if _, err := g.Enter(t.Context()); err != nil {
			t.Errorf("after it was left: %v", err)
		}
	})
}

func TestGateLetsGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := password.NewGate(password.GateConfig{Concurrency: 1, Wait: time.Hour})
		if _, err := g.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		go func() { _, err = g.Enter(ctx) }()
		synctest.Wait()
		if g.Waiting() != 1 {
			t.Fatalf("%d wait", g.Waiting())
		}
		cancel()
		synctest.Wait()
		if !errors.Is(err, context.Canceled) || g.Waiting() != 0 {
			t.Errorf("who gave up: %v, %d still wait", err, g.Waiting())
		}
		if _, err := g.Enter(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("who had given up before: %v", err)
		}
	})
}

func TestGateServesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := password.NewGate(password.GateConfig{Concurrency: 1, Wait: time.Hour})
		first, err := g.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 8 {
			go func() {
				leave, err := g.Enter(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				leave()
			}()
			synctest.Wait()
		}
		first()
		synctest.Wait()
		for i, who := range order {
			if who != i {
				t.Fatalf("served in the order %v", order)
			}
		}
		if len(order) != 8 {
			t.Errorf("served only %v", order)
		}
	})
}
