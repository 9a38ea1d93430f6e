// Package ratelimit owns how often something may happen: a limiter that counts in memory or in Redis.
//
// It promises the generic cell rate algorithm (GCRA, ITU-T I.371): a burst at once, then an even rate, decided in one atomic
// step however many ask at the same time, with the same verdicts from memory and from Redis. What is refused costs nothing,
// so that who goes on knocking is let in as soon as who waits. Counting keeps one number a key, and keys that are back at
// their full burst take no space. A Redis that fails does not stop anybody: the node counts for itself meanwhile.
//
// It refuses to know what is counted or what happens to who is refused, and to hold what it counts by: keys, which are
// addresses of people or machines, are kept as hashes only.
package ratelimit

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Limiter decides whether something may happen now. *Memory, *Redis and Off are limiters.
type Limiter interface {
	// Take asks for one event of a key under a policy. Keys of policies with different names have nothing to do with each
	// other. It fails if the policy makes no sense or the context has ended.
	Take(ctx context.Context, policy Policy, key string) (Verdict, error)
}

// Policy is how often something may happen: Burst times at once, and Rate times per Period in the long run.
type Policy struct {
	// Name tells policies apart: "identity.mails.client".
	Name string
	// Rate events are allowed per Period. Events are let in one by one, each a Rate-th of the Period after the last, in
	// whole microseconds rounded up.
	Rate   int
	Period time.Duration
	// Burst is how many may come at once.
	Burst int
}

// Verdict is what a limiter decided.
type Verdict struct {
	Allowed bool
	// Remaining is how many more would be allowed at once.
	Remaining int
	// RetryAfter is how long to wait for the next to be allowed; zero if this one is.
	RetryAfter time.Duration
	// ResetAfter is how long until the full burst is allowed again.
	ResetAfter time.Duration
}

// Network is what requests of one network address are counted by: of IPv6 the whole /64, which is what one customer has.
func Network(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// Off allows everything. It is for load tests.
type Off struct{}

// Take allows it.
func (Off) Take(_ context.Context, p Policy, _ string) (Verdict, error) {
	return Verdict{Allowed: true, Remaining: p.Burst}, nil
}

// maxSpan bounds how far ahead a key can be, so that the arithmetic is exact in Redis, whose numbers are doubles.
const maxSpan = 10 * 365 * 24 * time.Hour

// pace is a policy in microseconds.
type pace struct {
	interval int64 // between two events in the long run
	limit    int64 // how far ahead of the clock a key may get: Burst intervals
}

func (p Policy) pace() (pace, error) {
	if p.Rate < 1 || p.Period < time.Microsecond || p.Burst < 1 || p.Period > maxSpan {
		return pace{}, fmt.Errorf("ratelimit: policy %q: %d per %v with a burst of %d makes no sense",
			p.Name, p.Rate, p.Period, p.Burst)
	}
	rate := int64(p.Rate)
	interval := (p.Period.Microseconds() + rate - 1) / rate
	if int64(p.Burst) > maxSpan.Microseconds()/interval {
		return pace{}, fmt.Errorf("ratelimit: policy %q: a burst of %d takes longer than %v to come back", p.Name, p.Burst, maxSpan)
	}
	return pace{interval: interval, limit: interval * int64(p.Burst)}, nil
}

// take is the algorithm. A key is the theoretical arrival time of its next event, in microseconds; zero for one that is not
// kept. It returns the time to keep and how far that is ahead of the clock. The script in redis.go does the same.
func (p pace) take(arrival, now int64) (next, ahead int64, allowed bool) {
	// Further ahead than the policy allows is from a clock that was set back, or from an earlier, laxer policy.
	arrival = min(max(arrival, now), now+p.limit)
	if ahead := arrival - now; ahead+p.interval > p.limit {
		return arrival, ahead, false
	}
	next = arrival + p.interval
	return next, next - now, true
}

// verdict puts the outcome into words.
func (p pace) verdict(ahead int64, allowed bool) Verdict {
	v := Verdict{
		Allowed:    allowed,
		Remaining:  int((p.limit - ahead) / p.interval),
		ResetAfter: time.Duration(ahead) * time.Microsecond,
	}
	if !allowed {
		v.RetryAfter = time.Duration(ahead+p.interval-p.limit) * time.Microsecond
	}
	return v
}
