package session

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refreshes *prometheus.CounterVec
	feedAge   prometheus.GaugeFunc
	streams   prometheus.GaugeFunc
	cut       prometheus.Counter
}

func newMetrics(feedAge func() time.Duration, streams func() int) metrics {
	return metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sumun_session_refreshes_total",
			Help: "Refresh tokens presented, by outcome: rotated, repeated, reissued, ahead, ended, expired, theft, early, unpaired, unproved, wrong_key, unbound, invalid, unknown, unavailable, abandoned.",
		}, []string{"outcome"}),
		feedAge: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sumun_session_feed_age_seconds",
			Help: "Time since this node last read the revocation feed. Beyond a few seconds, sessions ended elsewhere go on here.",
		}, func() float64 { return feedAge().Seconds() }),
		streams: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sumun_session_feed_streams",
			Help: "Services that follow the revocation feed over HTTP at this node.",
		}, func() float64 { return float64(streams()) }),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sumun_session_feed_streams_cut_total",
			Help: "Streams of the revocation feed that were cut because their client had gone or read too slowly.",
		}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.refreshes, m.feedAge, m.streams, m.cut} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
