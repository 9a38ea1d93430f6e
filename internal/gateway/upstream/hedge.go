package upstream

import (
	"context"
	"net/http"
	"time"
)

// hedged is the answer of one of several attempts.
type hedged struct {
	answer
	end context.CancelFunc
}

func (h hedged) relay(c *call) {
	defer h.end()
	h.answer.relay(c)
}

func (h hedged) discard() {
	h.end()
	h.answer.discard()
}

// mayHedge reports whether a second endpoint may be asked while the first is silent.
func (c *call) mayHedge() bool {
	h := &c.pool.cfg.Hedge
	return (h.After > 0 || h.Quantile > 0) && (c.r.Method == http.MethodGet || c.r.Method == http.MethodHead) &&
		c.payload.stream == nil && c.upgrade == "" && len(c.pool.endpoints.all()) > 1
}

// hedgeDelay is how long the first endpoint may take.
func (c *call) hedgeDelay() time.Duration {
	h := &c.pool.cfg.Hedge
	if h.Quantile == 0 {
		return h.After
	}
	return max(h.After, time.Duration(c.pool.slow.estimate.Load()))
}

// attempted is what came of one attempt.
type attempted struct {
	which  int
	answer answer
	fail   *failure
}

// hedge asks one endpoint, and another when the first is slow and the budget allows it. The first good answer counts; the other
// attempt is ended, and has ended when hedge returns.
func (c *call) hedge(ctx context.Context, tried *visited) (answer, *failure) {
	c.hedged = true
	results := make(chan attempted, 2)
	var ends []context.CancelFunc
	ask := func() bool {
		e, ok := c.pool.endpoints.pick(c.o.Key, tried, c.began)
		if !ok {
			return false
		}
		ctx, end := context.WithCancel(ctx)
		which := len(ends)
		ends = append(ends, end)
		go func() {
			began := time.Now()
			a, fail := c.try(ctx, e)
			if fail == nil {
				c.pool.slow.observe(time.Since(began))
			}
			results <- attempted{which, a, fail}
		}()
		return true
	}
	if !ask() {
		return nil, &failure{reason: noEndpoint}
	}
	timer := time.NewTimer(c.hedgeDelay())
	defer timer.Stop()
	var best *attempted
	for pending := 1; pending > 0; {
		select {
		case <-timer.C:
			if c.good(best) || !c.pool.budget.withdraw() || !ask() {
				continue
			}
			c.pool.metrics.hedges.Inc()
			pending++
		case got := <-results:
			pending--
			best = c.better(best, &got)
			if c.good(best) {
				endOthers(ends, best.which)
			}
		}
	}
	endOthers(ends, best.which)
	if best.fail != nil {
		ends[best.which]()
		return nil, best.fail
	}
	return hedged{best.answer, ends[best.which]}, nil
}

func (c *call) good(a *attempted) bool {
	return a != nil && a.fail == nil && !c.pool.cfg.failing(a.answer.status())
}

// better returns the attempt that counts, and lets go of the other one.
func (c *call) better(before, now *attempted) *attempted {
	if before == nil {
		return now
	}
	if c.good(before) || before.fail == nil && now.fail != nil {
		before, now = now, before
	}
	if before.fail == nil {
		before.answer.discard()
	}
	return now
}

func endOthers(ends []context.CancelFunc, but int) {
	for i, end := range ends {
		if i != but {
			end()
		}
	}
}
