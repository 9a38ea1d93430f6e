package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// load is how often something is done at once.
type load struct {
	workers  int
	rate     float64 // a second, of all workers together; 0: as often as it goes
	duration time.Duration
}

// outcome is what came of a load.
type outcome struct {
	latencies []time.Duration // ascending
	elapsed   time.Duration
}

// drive calls do from every worker, again and again, until the duration has passed, and waits for the calls in flight. The
// first error ends it.
//
// With a rate, calls are due at fixed times, and one that has to wait for a busy worker is counted from when it was due:
// otherwise a slow server would be asked less often just when it is slow (coordinated omission).
func drive(ctx context.Context, l load, do func(worker int) error) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	end := began.Add(l.duration)
	parts := make([][]time.Duration, l.workers)
	var all sync.WaitGroup
	for w := range l.workers {
		all.Go(func() {
			for turn := 0; ctx.Err() == nil; turn++ {
				from := l.wait(ctx, began, turn*l.workers+w)
				if !from.Before(end) {
					return
				}
				if err := do(w); err != nil {
					cancel(err)
					return
				}
				parts[w] = append(parts[w], time.Since(from))
			}
		})
	}
	all.Wait()
	out := outcome{latencies: slices.Concat(parts...), elapsed: time.Since(began)}
	slices.Sort(out.latencies)
	return out, context.Cause(ctx)
}

// wait returns when the nth call is due, and the time from which it counts.
func (l load) wait(ctx context.Context, began time.Time, n int) time.Time {
	if l.rate == 0 {
		return time.Now()
	}
	due := began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	ahead := time.Until(due)
	if ahead <= 0 {
		return due
	}
	select {
	case <-time.After(ahead):
	case <-ctx.Done():
	}
	return time.Now() // the timer's lateness is ours
}

func (o outcome) perSecond() float64 { return float64(len(o.latencies)) / o.elapsed.Seconds() }

// quantile returns the latency that the given part of the calls did not exceed.
func (o outcome) quantile(q float64) time.Duration { return quantile(o.latencies, q) }

// quantile expects ascending values; without any it is 0.
func quantile[T cmp.Ordered](ascending []T, q float64) (value T) {
	if len(ascending) == 0 {
		return value
	}
	return ascending[min(int(q*float64(len(ascending))), len(ascending)-1)]
}

func median[T cmp.Ordered](values []T) T {
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}
