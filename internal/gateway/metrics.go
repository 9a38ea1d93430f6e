package gateway

import "github.com/prometheus/client_golang/prometheus"

// metrics count what the edge does not.
type metrics struct {
	refusals *prometheus.CounterVec
	cached   *prometheus.CounterVec
	attacks  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_gateway_refusals_total",
		Help: "Requests that were not passed on, or got no answer from their upstream, by the code of the fault.",
	}, []string{"code"}), cached: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_gateway_cache_requests_total",
		Help: "Requests of routes with a cache: hit, stale (given although no longer fresh), miss (asked the service), pass (not for the cache).",
	}, []string{"outcome"}), attacks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_gateway_attacks_total",
		Help: "Requests that look like attacks to the firewall of their route: refused, or passed (detection).",
	}, []string{"outcome"})}
	r.MustRegister(m.refusals, m.cached, m.attacks)
	return m
}

func (m *metrics) refused(code string) { m.refusals.WithLabelValues(code).Inc() }

func (m *metrics) lookedUp(outcome string) { m.cached.WithLabelValues(outcome).Inc() }

func (m *metrics) attacked(refused bool) {
	outcome := "passed"
	if refused {
		outcome = "refused"
	}
	m.attacks.WithLabelValues(outcome).Inc()
}
