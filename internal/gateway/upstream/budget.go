package upstream

import (
	"container/list"
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const oneToken = 1000 // a request deposits a fraction of one

// budget bounds retries and hedges to a fraction of all requests: when everything fails, repeating everything would multiply
// the load that made it fail.
type budget struct {
	each, most int64
	tokens     atomic.Int64
}

func (b *budget) init(cfg Retry) {
	b.each, b.most = int64(cfg.Budget*oneToken), int64(cfg.Burst)*oneToken
	b.tokens.Store(b.most)
}

// deposit is called once for a request.
func (b *budget) deposit() {
	if t := b.tokens.Load(); t < b.most {
		b.tokens.CompareAndSwap(t, min(b.most, t+b.each)) // one that loses a race was not needed
	}
}

// withdraw reports whether something may be sent again.
func (b *budget) withdraw() bool {
	for {
		t := b.tokens.Load()
		if t < oneToken {
			return false
		}
		if b.tokens.CompareAndSwap(t, t-oneToken) {
			return true
		}
	}
}

// quantile follows a quantile of durations without keeping them: each one moves the estimate a step towards itself, and the
// steps up and down are as unequal as the shares above and below (Ma, Muthukrishnan and Sandler, "Frugal Streaming").
type quantile struct {
	share    float64
	estimate atomic.Int64
}

func (q *quantile) init(cfg Hedge) { q.share = cfg.Quantile }

func (q *quantile) observe(d time.Duration) {
	if q.share == 0 {
		return
	}
	before := q.estimate.Load()
	step := float64(max(before, int64(100*time.Microsecond))) / 20
	after := before - int64(step*(1-q.share))
	if int64(d) > before {
		after = before + int64(step*q.share)
	}
	if before == 0 {
		after = 2 * int64(d)
	}
	q.estimate.CompareAndSwap(before, max(after, 1))
}

// bulkhead bounds requests in flight, with a short queue.
type bulkhead struct {
	cfg     Bulkhead
	mu      sync.Mutex
	inside  int
	waiting list.List // of chan struct{}, closed when it is their turn
}

func (b *bulkhead) init(cfg Bulkhead) { b.cfg = cfg }

// enter waits for its turn. It returns ErrFull when that does not come, or that the caller left. After nil, leave is due.
func (b *bulkhead) enter(ctx context.Context) error {
	if b.cfg.Max == 0 {
		return nil
	}
	b.mu.Lock()
	if b.inside < b.cfg.Max {
		b.inside++
		b.mu.Unlock()
		return nil
	}
	if b.waiting.Len() >= b.cfg.Queue || b.cfg.Wait == 0 {
		b.mu.Unlock()
		return ErrFull
	}
	turn := make(chan struct{})
	place := b.waiting.PushBack(turn)
	b.mu.Unlock()
	timer := time.NewTimer(b.cfg.Wait)
	defer timer.Stop()
	var err error
	select {
	case <-turn:
		return nil
	case <-timer.C:
		err = ErrFull
	case <-ctx.Done():
		err = (&failure{reason: canceledBy(ctx), err: ctx.Err()}).fault()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-turn: // in the very moment
		b.pass()
	default:
		b.waiting.Remove(place)
	}
	return err
}

func (b *bulkhead) leave() {
	if b.cfg.Max == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pass()
}

// pass gives the place to whoever waits longest. The lock is held.
func (b *bulkhead) pass() {
	if first := b.waiting.Front(); first != nil {
		close(b.waiting.Remove(first).(chan struct{}))
		return
	}
	b.inside--
}

// write writes the static answer.
func (s *Static) write(c *call) {
	h := c.w.Header()
	if s.ContentType != "" {
		h.Set("Content-Type", s.ContentType)
	}
	h.Set("Content-Length", strconv.Itoa(len(s.Body)))
	if c.o.OnAnswer != nil {
		c.o.OnAnswer(s.Status, h)
	}
	c.w.WriteHeader(s.Status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write([]byte(s.Body)) // a client that left misses nothing else
	}
}
