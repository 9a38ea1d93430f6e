package upstream

import (
	"context"
	"sync/atomic"
	"time"
)

// outlier watches how an endpoint does, and knows until when it is out.
type outlier struct {
	cfg    Passive
	row    atomic.Int64
	recent window
	until  atomic.Int64 // in nanoseconds since 1970; 0 when it was never out
	times  int          // it was taken out in a row; of whoever holds the pool's lock
	stay   time.Duration
}

func (o *outlier) init(cfg Passive) {
	o.cfg = cfg
	o.recent.slot = cfg.Window / windowSlots
}

func (o *outlier) ejected(now time.Time) bool {
	until := o.until.Load()
	return until != 0 && now.UnixNano() < until
}

func (o *outlier) succeed() {
	if o.row.Load() != 0 {
		o.row.Store(0)
	}
	if o.cfg.Ratio > 0 {
		o.recent.add(time.Now(), true)
	}
}

// fail reports whether the endpoint should be taken out.
func (o *outlier) fail(now time.Time) bool {
	row := o.row.Add(1)
	o.recent.add(now, false)
	if o.ejected(now) {
		return false
	}
	return o.cfg.Failures > 0 && row >= int64(o.cfg.Failures) || o.recent.above(now, o.cfg.Ratio, o.cfg.Volume)
}

// eject takes e out, unless too many are out already or nobody would be left.
func (p *Pool) eject(e *endpoint) {
	p.ejecting.Lock()
	defer p.ejecting.Unlock()
	now := time.Now()
	o := &e.outlier
	if o.ejected(now) {
		return
	}
	all := p.endpoints.all()
	out, usable := 0, 0
	for _, other := range all {
		if other.outlier.ejected(now) {
			out++
		}
		if other != e && other.usable(now) {
			usable++
		}
	}
	if usable == 0 || out >= max(1, int(o.cfg.Share*float64(len(all)))) || o.cfg.Share == 0 {
		return
	}
	if now.UnixNano()-o.until.Load() > int64(o.stay) {
		o.times = 0 // it did well for as long as it had been out
	}
	o.times++
	o.stay = min(o.cfg.Base*time.Duration(o.times), o.cfg.Max)
	o.row.Store(0)
	o.recent.reset()
	o.until.Store(now.Add(o.stay).UnixNano())
	p.metrics.ejections.Inc()
	p.log.LogAttrs(context.Background(), warn, "endpoint taken out", attr("endpoint", e.address.text), attr("for", o.stay.String()))
}
