package password

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// gate lets so many in at once and so many wait, each for a bounded time, first come first served. It knows nothing of what
// is done inside, so a wait tells nothing about whose password is checked.
//
// A slot is held while the processor works, never while a failure is drawn out. One processor is left to everything else
// (see newGate), so that a storm of sign-ins does not slow down refreshes.
type gate struct {
	slots   chan struct{} // one element per holder; blocked senders are served in order
	queue   int64
	wait    time.Duration
	waiting atomic.Int64
	refused atomic.Int64
}

func newGate(cfg GateConfig) *gate {
	slots := cfg.Concurrency
	if slots == 0 {
		slots = max(1, runtime.GOMAXPROCS(0)-1)
	}
	queue := cfg.Queue
	if queue == 0 {
		queue = 8 * slots
	}
	return &gate{slots: make(chan struct{}, slots), queue: int64(queue), wait: cfg.Wait}
}

// enter returns once there is room. The caller calls leave exactly once. It returns ErrBusy when the queue is full or the
// wait was too long, and the context's error when that ends first.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait to hash a password: %w", err)
	}
	select {
	case g.slots <- struct{}{}:
		return g.leave, nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.queue {
		return nil, g.refuse()
	}
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
		return g.leave, nil
	case <-timer.C:
		return nil, g.refuse()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash a password: %w", ctx.Err())
	}
}

func (g *gate) leave() { <-g.slots }

// refuse spreads the next attempts over three seconds, so that those refused together do not come back together.
func (g *gate) refuse() error {
	g.refused.Add(1)
	return ErrBusy.After(time.Duration(1+rand.IntN(3)) * time.Second)
}
