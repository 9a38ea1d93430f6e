package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker leaves an upstream alone that keeps failing. Closed, which is how it mostly is, it costs some atomic operations; only
// a breaker that is not closed takes a lock.
type breaker struct {
	cfg    Breaker
	shut   atomic.Bool // open or half-open
	row    atomic.Int64
	recent window

	mu         sync.Mutex
	until      time.Time // open; half-open after that
	probes     int       // in flight while half-open
	good       int       // of them, in a row
	generation int       // tickets of an earlier one no longer count
}

// state of a breaker, as metrics show it.
type state int

const (
	closed state = iota
	halfOpen
	open
)

// ticket is the right to send one request. It is given back once.
type ticket struct {
	b          *breaker
	generation int // 0 while closed
}

func (b *breaker) init(cfg Breaker) {
	b.cfg = cfg
	b.recent.slot = cfg.Window / windowSlots
}

func (b *breaker) enabled() bool { return b.cfg.Failures > 0 || b.cfg.Ratio > 0 }

// enter returns ErrOpen, with how long to wait, when no request may be sent.
func (b *breaker) enter() (ticket, error) {
	if !b.shut.Load() {
		return ticket{b: b}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch left := time.Until(b.until); {
	case !b.shut.Load():
		return ticket{b: b}, nil
	case left > 0:
		return ticket{}, ErrOpen.After(left)
	case b.probes >= b.cfg.Probes:
		return ticket{}, ErrOpen.After(time.Second)
	}
	b.probes++
	return ticket{b, b.generation}, nil
}

// withdraw gives the ticket back of a request that says nothing about the upstream.
func (t ticket) withdraw() {
	if t.generation == 0 {
		return
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if t.generation == t.b.generation {
		t.b.probes--
	}
}

// settle says how the request went.
func (t ticket) settle(good bool) {
	if t.generation != 0 {
		t.b.settleProbe(t.generation, good)
		return
	}
	b := t.b
	if !b.enabled() || b.shut.Load() {
		return
	}
	now := time.Now()
	b.recent.add(now, good)
	if good {
		if b.row.Load() != 0 {
			b.row.Store(0)
		}
		return
	}
	row := b.row.Add(1)
	if b.cfg.Failures > 0 && row >= int64(b.cfg.Failures) || b.recent.above(now, b.cfg.Ratio, b.cfg.Volume) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.shut.Load() {
			b.open(now)
		}
	}
}

func (b *breaker) settleProbe(generation int, good bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation != b.generation {
		return
	}
	b.probes--
	if !good {
		b.open(time.Now())
		return
	}
	if b.good++; b.good >= b.cfg.Probes {
		b.generation++
		b.row.Store(0)
		b.recent.reset()
		b.shut.Store(false)
	}
}

// open is called with the lock held.
func (b *breaker) open(now time.Time) {
	b.until = now.Add(b.cfg.Open)
	b.probes, b.good = 0, 0
	b.generation++
	b.shut.Store(true)
}

func (b *breaker) state() state {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.shut.Load():
		return closed
	case time.Now().Before(b.until):
		return open
	default:
		return halfOpen
	}
}

const windowSlots = 10

// window counts what went well and what did not over the recent past. Counts made in the very moment a slot is used anew may
// be lost.
type window struct {
	slot  time.Duration
	slots [windowSlots]struct {
		epoch     atomic.Int64
		good, bad atomic.Int64
	}
}

func (w *window) add(now time.Time, good bool) {
	if w.slot <= 0 {
		return
	}
	epoch := now.UnixNano() / int64(w.slot)
	s := &w.slots[epoch%windowSlots]
	if before := s.epoch.Load(); before != epoch && s.epoch.CompareAndSwap(before, epoch) {
		s.good.Store(0)
		s.bad.Store(0)
	}
	if good {
		s.good.Add(1)
	} else {
		s.bad.Add(1)
	}
}

// above reports whether at least volume were counted and so much of them went wrong.
func (w *window) above(now time.Time, ratio float64, volume int) bool {
	if ratio <= 0 || w.slot <= 0 {
		return false
	}
	epoch := now.UnixNano() / int64(w.slot)
	var good, bad int64
	for i := range w.slots {
		if s := &w.slots[i]; epoch-s.epoch.Load() < windowSlots {
			good += s.good.Load()
			bad += s.bad.Load()
		}
	}
	return good+bad >= int64(volume) && float64(bad) >= ratio*float64(good+bad)
}

func (w *window) reset() {
	for i := range w.slots {
		w.slots[i].epoch.Store(0)
	}
}
