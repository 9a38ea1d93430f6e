package upstream

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what pools count, by upstream. Pools share one; the state of each is read when somebody asks.
type Metrics struct {
	answers, failures, refused                                     *prometheus.CounterVec
	retries, hedges, fallbacks, stale, cut, ejections, opened, bad *prometheus.CounterVec
	connections                                                    *prometheus.GaugeVec
	seconds                                                        *prometheus.HistogramVec

	mu    sync.Mutex
	pools map[string]*Pool
}

var (
	inFlightDesc = prometheus.NewDesc("sumun_upstream_in_flight", "Requests that endpoints are working on.", []string{"upstream"}, nil)
	stateDesc    = prometheus.NewDesc("sumun_upstream_endpoints", "Endpoints by state: used, down (by health checks), ejected (as outliers).",
		[]string{"upstream", "state"}, nil)
	breakerDesc = prometheus.NewDesc("sumun_upstream_breaker", "0: closed, 1: half-open, 2: open.", []string{"upstream"}, nil)
)

// NewMetrics registers the metrics; r may be nil.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sumun_upstream_" + name + "_total", Help: help},
			append([]string{"upstream"}, labels...))
	}
	m := &Metrics{
		pools:     map[string]*Pool{},
		answers:   counter("answers", "Answers by class of status.", "class"),
		failures:  counter("failures", "Requests without an answer, by reason.", "reason"),
		refused:   counter("refused", "Requests that were not sent: open (breaker), full (bulkhead), budget (retries that were not made).", "cause"),
		retries:   counter("retries", "Requests that were sent again."),
		hedges:    counter("hedges", "Second endpoints that were asked because the first was slow."),
		fallbacks: counter("fallbacks", "Requests that were handed to a fallback."),
		stale:     counter("stale_connections", "Idle connections that an endpoint had closed when they were used."),
		cut:       counter("cut_answers", "Answers that broke off, and connections of clients that were cut for it."),
		ejections: counter("ejections", "Endpoints taken out as outliers."),
		opened:    counter("connections_opened", "Connections made to endpoints."),
		bad:       counter("attempt_failures", "Attempts that failed, those included that were repeated."),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sumun_upstream_connections",
			Help: "Open connections to endpoints of HTTP/1.1."}, []string{"upstream"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sumun_upstream_first_byte_seconds",
			Help:    "Time until the header of an answer, retries included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"upstream"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m, m.answers, m.failures, m.refused, m.retries, m.hedges, m.fallbacks, m.stale, m.cut,
		m.ejections, m.opened, m.bad, m.connections, m.seconds} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("upstream metrics: %w", err)
		}
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- inFlightDesc
	to <- stateDesc
	to <- breakerDesc
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(desc *prometheus.Desc, v int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), labels...)
	}
	for name, p := range m.pools {
		var inFlight, used, down, ejected int64
		now := time.Now()
		for _, e := range p.endpoints.all() {
			inFlight += e.inFlight.Load()
			switch {
			case e.down.Load():
				down++
			case e.outlier.ejected(now):
				ejected++
			default:
				used++
			}
		}
		gauge(inFlightDesc, inFlight, name)
		gauge(stateDesc, used, name, "used")
		gauge(stateDesc, down, name, "down")
		gauge(stateDesc, ejected, name, "ejected")
		gauge(breakerDesc, int64(p.breaker.state()), name)
	}
}

// poolMetrics are the handles of one pool, found once.
type poolMetrics struct {
	all                      *Metrics
	classes                  [5]prometheus.Counter
	reasons                  [len(reasons)]prometheus.Counter
	refusedOpen, refusedFull prometheus.Counter
	overBudget               prometheus.Counter
	retries, hedges          prometheus.Counter
	fallbacks, stale, cut    prometheus.Counter
	ejections, opened        prometheus.Counter
	attemptFailures          prometheus.Counter
	connections              prometheus.Gauge
	seconds                  prometheus.Observer
}

// of returns the handles of p, whose state is shown from now on in place of an earlier pool of that name. m may be nil.
func (m *Metrics) of(p *Pool) *poolMetrics {
	if m == nil {
		m, _ = NewMetrics(nil) // fails only at registering
	}
	name := p.cfg.Name
	h := &poolMetrics{
		all:         m,
		refusedOpen: m.refused.WithLabelValues(name, "open"), refusedFull: m.refused.WithLabelValues(name, "full"),
		overBudget: m.refused.WithLabelValues(name, "budget"),
		retries:    m.retries.WithLabelValues(name), hedges: m.hedges.WithLabelValues(name),
		fallbacks: m.fallbacks.WithLabelValues(name), stale: m.stale.WithLabelValues(name), cut: m.cut.WithLabelValues(name),
		ejections: m.ejections.WithLabelValues(name), opened: m.opened.WithLabelValues(name),
		attemptFailures: m.bad.WithLabelValues(name),
		connections:     m.connections.WithLabelValues(name), seconds: m.seconds.WithLabelValues(name),
	}
	for i, class := range [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		h.classes[i] = m.answers.WithLabelValues(name, class)
	}
	for i := range reasons {
		h.reasons[i] = m.failures.WithLabelValues(name, reasons[i])
	}
	return h
}

// show makes the state of p visible.
func (h *poolMetrics) show(p *Pool) {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	h.all.pools[p.cfg.Name] = p
}

// forget no longer shows the state of p, unless another has taken its place.
func (h *poolMetrics) forget(p *Pool) {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	if h.all.pools[p.cfg.Name] == p {
		delete(h.all.pools, p.cfg.Name)
	}
}

func (h *poolMetrics) failed(r reason) { h.reasons[r].Inc() }

func (h *poolMetrics) answered(status int, after time.Duration) {
	h.classes[status/100-1].Inc()
	h.seconds.Observe(after.Seconds())
}
