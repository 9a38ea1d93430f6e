package main

import (
	"context"
	"errors"
	"time"
)

const (
	starts = 10
	// A server is idle when it had nothing to do for so long.
	idle = 10 * time.Second
	// After load, its memory has settled when it has not fallen for settled; after settleWithin at the latest.
	settled      = 45 * time.Second // longer than Sumun waits for calm before it gives memory back
	settleWithin = 2 * time.Minute
)

// start measures the time from starting the process until /readyz answers 200.
func (b *bench) start(ctx context.Context) ([]result, error) {
	var first, again []time.Duration
	for range starts {
		if err := b.startTwice(ctx, &first, &again); err != nil {
			return nil, err
		}
	}
	return []result{
		{"start to ready", "nothing there yet, median", milliseconds(median(first)), "ms", "below 500"},
		{"start to ready", "again, median", milliseconds(median(again)), "ms", "below 500"},
	}, nil
}

func (b *bench) startTwice(ctx context.Context, took ...*[]time.Duration) (err error) {
	in, err := b.install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	for _, into := range took {
		s, err := in.serve(ctx)
		if err != nil {
			return err
		}
		s.stop()
		*into = append(*into, s.readyAfter)
	}
	return nil
}

// memory measures the resident set of a server that has nothing to do, before it had anything to do and after.
func (b *bench) memory(ctx context.Context) (results []result, err error) {
	in, err := b.install(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	note := func(what, aim string, bytes float64) {
		results = append(results, result{"resident memory", what, bytes / (1 << 20), "MiB", aim})
	}
	if err := pause(ctx, idle); err != nil {
		return nil, err
	}
	bytes, err := s.resident(ctx)
	if err != nil {
		return nil, err
	}
	note("idle after start", "below 60", bytes)

	users, err := b.users(ctx, in, s, b.clients)
	if err != nil {
		return nil, err
	}
	if _, err := drive(ctx, load{workers: b.clients, duration: b.duration}, func(w int) error { return users[w].refresh() }); err != nil {
		return nil, err
	}
	if bytes, err = s.resident(ctx); err != nil {
		return nil, err
	}
	note("after sign-ins and refreshes", "", bytes)
	if bytes, err = s.settledMemory(ctx); err != nil {
		return nil, err
	}
	note("idle again", "below 60", bytes)
	return results, nil
}

func (s *server) resident(ctx context.Context) (float64, error) {
	return s.metric(ctx, "process_resident_memory_bytes")
}

// settledMemory waits until memory falls no further.
func (s *server) settledMemory(ctx context.Context) (float64, error) {
	least, err := s.resident(ctx)
	for began, fell := time.Now(), time.Now(); err == nil && time.Since(fell) < settled && time.Since(began) < settleWithin; {
		if err = pause(ctx, time.Second); err != nil {
			break
		}
		var now float64
		if now, err = s.resident(ctx); err == nil && now < 0.99*least {
			least, fell = now, time.Now()
		}
	}
	return least, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
