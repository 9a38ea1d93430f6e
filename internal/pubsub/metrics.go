package pubsub

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	published, failed, received, unreadable, panics prometheus.Counter

	gaps      *prometheus.CounterVec
	connected prometheus.Gauge
}

// Why there was a gap.
const (
	gapConnection = "connection"
	gapMissing    = "missing"
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "sumun_pubsub_" + name + "_total", Help: help})
	}
	m := &metrics{
		published:  counter("published", "Messages handed over by this node."),
		failed:     counter("publish_errors", "Messages that this node could not hand over, or whose hand-over nobody confirmed."),
		received:   counter("received", "Messages that reached this node, once each, however many subscribers they have."),
		unreadable: counter("unreadable", "Frames on our subjects that this version does not understand."),
		panics:     counter("handler_panics", "Panics of subscribers, which were survived."),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sumun_pubsub_gaps_total",
			Help: "How often a subscriber was told that it may have missed messages, by cause: connection, missing (lost on the " +
				"way, or dropped because the subscriber was too slow).",
		}, []string{"cause"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sumun_pubsub_connected",
			Help: "1 while this node can be reached by others, 0 while it polls only.",
		}),
	}
	m.gaps.WithLabelValues(gapConnection)
	m.gaps.WithLabelValues(gapMissing)
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.published, m.failed, m.received, m.unreadable, m.panics, m.gaps, m.connected} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("pubsub metrics: %w", err)
		}
	}
	return m, nil
}
