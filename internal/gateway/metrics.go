package gateway

import "github.com/prometheus/client_golang/prometheus"

// metrics count what the edge does not.
type metrics struct {
	refusals *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_gateway_refusals_total",
		Help: "Requests that were not passed on, or got no answer from their upstream, by the code of the fault.",
	}, []string{"code"})}
	r.MustRegister(m.refusals)
	return m
}

func (m *metrics) refused(code string) { m.refusals.WithLabelValues(code).Inc() }
