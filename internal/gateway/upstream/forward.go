package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// call is one request on its way.
type call struct {
	pool         *Pool
	w            http.ResponseWriter
	r            *http.Request
	o            Options
	target, host string
	payload      payload
	began        time.Time
	deadline     time.Time // of the whole, zero for none
	upgrade      string    // the protocol to change to, "" for none
	hedged       bool      // several attempts run at once
}

// answer is what an endpoint sent, as far as the end of its header.
type answer interface {
	status() int
	// relay passes the answer on. It is called at most once, and ends the exchange.
	relay(c *call)
	// discard ends the exchange without passing anything on.
	discard()
}

// Forward sends r to an endpoint and passes its answer on to w. An error means that nothing was written to w: one of this
// package's faults, what is wrong with the client's body, or context.Canceled when the client has left. Once part of an answer
// has been written and the rest does not come, Forward panics with http.ErrAbortHandler, which cuts the client's connection.
//
// The header of r is final but for what belongs to a connection, which is left out; it is not changed. Fields that w already has
// stay, and the endpoint's of the same name are dropped, except Set-Cookie, Vary and Link, which add up. A request to change the
// protocol (RFC 9110, section 7.8) is passed on, and the changed connection lives until an end closes it or r's context ends.
func (p *Pool) Forward(w http.ResponseWriter, r *http.Request, o Options) error {
	c := &call{pool: p, w: w, r: r, o: o, target: o.Path, host: o.Host, began: time.Now()}
	if err := c.prepare(); err != nil {
		return err
	}
	err := p.serve(c)
	for next := p.fallback; err != nil && next != nil && c.mayFallBack(err); next = next.fallback {
		p.metrics.fallbacks.Inc()
		c.pool = next
		err = next.serve(c)
	}
	if err != nil && !o.NoStatic && p.cfg.Static.Status != 0 && c.mayFallBack(err) {
		p.metrics.fallbacks.Inc()
		p.cfg.Static.write(c)
		return nil
	}
	return err
}

// prepare checks the request and reads a small body.
func (c *call) prepare() (err error) {
	if c.target == "" {
		c.target = c.r.URL.RequestURI()
	}
	if c.host == "" {
		c.host = c.r.Host
	}
	if err := checkRequest(c.r, c.target, c.host); err != nil {
		return err
	}
	if total := c.pool.cfg.Timeouts.Total; total > 0 {
		c.deadline = c.began.Add(total)
	}
	if c.r.ProtoMajor == 1 {
		c.upgrade = upgradeOf(c.r.Header)
	}
	c.payload, err = payloadOf(c.r, c.pool.cfg.BufferBody)
	return err
}

// mayFallBack reports whether something else may answer instead: the service is at fault, and the body is still there.
func (c *call) mayFallBack(err error) bool {
	return c.payload.replayable() && (errors.Is(err, ErrNoEndpoint) || errors.Is(err, ErrOpen) || errors.Is(err, ErrFull) ||
		errors.Is(err, ErrUnreachable) || errors.Is(err, ErrBadAnswer) || errors.Is(err, ErrTimeout))
}

// serve lets the pool answer.
func (p *Pool) serve(c *call) error {
	ctx := c.r.Context()
	if err := p.bulkhead.enter(ctx); err != nil {
		return p.refuse(err)
	}
	defer p.bulkhead.leave()
	ticket, err := p.breaker.enter()
	if err != nil {
		return p.refuse(err)
	}
	a, fail := c.ask(ctx)
	switch {
	case fail != nil && (fail.reason == canceled || fail.reason == notSendable || fail.reason == noEndpoint):
		ticket.withdraw()
	default:
		ticket.settle(fail == nil && !p.cfg.failing(a.status()))
	}
	if fail != nil {
		p.metrics.failed(fail.reason)
		return fail.fault()
	}
	p.metrics.answered(a.status(), time.Since(c.began))
	a.relay(c)
	return nil
}

func (p *Pool) refuse(err error) error {
	if errors.Is(err, ErrOpen) {
		p.metrics.refusedOpen.Inc()
	} else if errors.Is(err, ErrFull) {
		p.metrics.refusedFull.Inc()
	}
	return err
}

// ask gets an answer, trying again where that is allowed.
func (c *call) ask(ctx context.Context) (answer, *failure) {
	p := c.pool
	p.budget.deposit()
	var tried visited
	var last *failure
	for attempt := 1; ; attempt++ {
		a, fail := c.attempt(ctx, &tried)
		if c.o.Sent != nil && (fail == nil || !fail.unsent && fail.reason != noEndpoint && fail.reason != notSendable) {
			*c.o.Sent = true
		}
		if fail == nil && !p.cfg.Retry.onStatus(a.status()) {
			return a, nil
		}
		if fail != nil && fail.reason == noEndpoint && last != nil {
			return nil, last
		}
		if attempt >= p.cfg.Retry.Attempts || !c.mayRepeat(ctx, a, fail) {
			return a, fail
		}
		if !p.budget.withdraw() {
			p.metrics.overBudget.Inc()
			return a, fail
		}
		if a != nil {
			a.discard()
		}
		if fail != nil {
			last = fail
		}
		p.metrics.retries.Inc()
		if err := sleep(ctx, p.cfg.Retry.backoff(attempt), c.deadline); err != nil {
			return nil, &failure{reason: canceledBy(ctx), err: err}
		}
	}
}

// attempt asks one endpoint, or two where the first one is slow and the request may be asked twice.
func (c *call) attempt(ctx context.Context, tried *visited) (answer, *failure) {
	if c.mayHedge() {
		return c.hedge(ctx, tried)
	}
	e, ok := c.pool.endpoints.pick(c.o.Key, tried, c.began)
	if !ok {
		return nil, &failure{reason: noEndpoint}
	}
	return c.try(ctx, e)
}

// try asks one endpoint, and notes how that went.
func (c *call) try(ctx context.Context, e *endpoint) (a answer, fail *failure) {
	e.inFlight.Add(1)
	if e.h2 != nil {
		a, fail = c.tryHTTP2(ctx, e)
	} else {
		a, fail = c.tryHTTP1(ctx, e)
	}
	if fail == nil {
		e.note(!c.pool.cfg.failing(a.status()))
		return a, nil // its end gives back what is in flight
	}
	e.inFlight.Add(-1)
	if fail.reason != canceled && fail.reason != notSendable {
		e.note(false)
	}
	return nil, fail
}

// mayRepeat reports whether the request may be sent again after what happened. Nothing has been written to the client yet.
func (c *call) mayRepeat(ctx context.Context, a answer, fail *failure) bool {
	if ctx.Err() != nil || !c.payload.replayable() || c.upgrade != "" || expired(c.deadline) {
		return false
	}
	if fail == nil {
		return a != nil && c.repeatable()
	}
	switch fail.reason {
	case unreachable, timedOut, broken:
		return fail.unsent || c.repeatable() && (fail.reason != timedOut || c.pool.cfg.Retry.OnTimeout)
	default:
		return false
	}
}

// repeatable reports whether sending the request twice has the effect of sending it once (RFC 9110, section 9.2.2).
func (c *call) repeatable() bool {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return c.o.Repeatable
}

// failure says why there is no answer.
type failure struct {
	reason reason
	unsent bool // the endpoint has not seen anything of the request
	err    error
}

type reason uint8

const (
	noEndpoint  reason = iota
	unreachable        // no connection
	broken             // the connection ended before the answer
	timedOut
	badAnswer
	canceled    // the client left, or this attempt lost against another
	notSendable // the request is at fault
)

var reasons = [...]string{"no_endpoint", "unreachable", "broken", "timeout", "bad_answer", "canceled", "request"}

// Error implements error, for logs.
func (f *failure) Error() string { return fmt.Sprintf("%s: %v", reasons[f.reason], f.err) }

// fault returns what the caller of Forward gets to know.
func (f *failure) fault() error {
	switch f.reason {
	case noEndpoint:
		return ErrNoEndpoint
	case unreachable, broken:
		return ErrUnreachable.Wrap(f.err)
	case timedOut:
		return ErrTimeout.Wrap(f.err)
	case badAnswer:
		return ErrBadAnswer.Wrap(f.err)
	case canceled:
		return fmt.Errorf("forward: %w", context.Canceled)
	default:
		return f.err
	}
}

// classify says what an error of a connection means.
func classify(ctx context.Context, err error) *failure {
	var bad malformed
	switch {
	case ctx.Err() != nil:
		return &failure{reason: canceledBy(ctx), err: ctx.Err()}
	case errors.As(err, &bad):
		return &failure{reason: badAnswer, err: err}
	case isTimeout(err) || errors.Is(err, context.DeadlineExceeded):
		return &failure{reason: timedOut, err: err}
	default:
		return &failure{reason: broken, err: err}
	}
}

// canceledBy tells a deadline of the caller from a client that left.
func canceledBy(ctx context.Context) reason {
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timedOut
	}
	return canceled
}

func expired(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// sleep waits for d, unless ctx or the deadline would end before.
func sleep(ctx context.Context, d time.Duration, deadline time.Time) error {
	if !deadline.IsZero() && time.Until(deadline) <= d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
