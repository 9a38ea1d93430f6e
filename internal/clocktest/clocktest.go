// Package clocktest has a clock that tests move by hand.
package clocktest

import (
	"sync/atomic"
	"time"
)

// Clock stands still until it is moved. Any number of goroutines may read and move it.
type Clock struct{ nanos atomic.Int64 }

// At returns a clock that shows a time.
func At(t time.Time) *Clock {
	c := &Clock{}
	c.Set(t)
	return c
}

// Noon returns a clock that shows the same noon in every run, which is what most tests want to know of the time.
func Noon() *Clock { return At(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) }

// Now returns the time that the clock shows, in UTC.
func (c *Clock) Now() time.Time { return time.Unix(0, c.nanos.Load()).UTC() }

// Set makes the clock show a time.
func (c *Clock) Set(t time.Time) { c.nanos.Store(t.UnixNano()) }

// Advance moves the clock, backwards if d is negative.
func (c *Clock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }
