package httpd

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statusClientGone stands in logs and metrics for an answer that nobody waited for; it is never sent.
const statusClientGone = 499

// metrics counts requests. A nil *metrics counts nothing.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	found    sync.Map // a *series for each labels, which are few
}

// labels are what a request is counted under.
type labels struct {
	route, method string
	status        int
}

// series are the counts for labels, looked up once.
type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

// newMetrics registers the metrics with r, or shares those that another chain has registered there.
func newMetrics(r prometheus.Registerer) *metrics {
	return &metrics{
		requests: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total",
			Help: "Requests answered, by route pattern, method and status; 499 means that the client had gone.",
		}, []string{"route", "method", "code"})),
		duration: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "Time from the request's header to the end of its handler.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"})),
		inFlight: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_requests_in_flight",
			Help: "Requests being served.",
		})),
	}
}

// register returns c, or the collector of the same description that r already has. Anything else that prevents registration
// is a programming error.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	var already prometheus.AlreadyRegisteredError
	switch {
	case err == nil:
		return c
	case errors.As(err, &already):
		return already.ExistingCollector.(C)
	default:
		panic(err)
	}
}

func (m *metrics) begin() {
	if m != nil {
		m.inFlight.Inc()
	}
}

func (m *metrics) end(route, method string, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.inFlight.Dec()
	one := m.of(labels{route, method, status})
	one.requests.Inc()
	one.duration.Observe(took.Seconds())
}

func (m *metrics) of(l labels) *series {
	if one, ok := m.found.Load(l); ok {
		return one.(*series)
	}
	one := &series{m.requests.WithLabelValues(l.route, l.method, strconv.Itoa(l.status)), m.duration.WithLabelValues(l.route, l.method)}
	m.found.Store(l, one)
	return one
}

// routeLabel turns a pattern of http.ServeMux into a label: "GET /v1/users/{id}" becomes "/v1/users/{id}".
func routeLabel(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = strings.TrimLeft(path, " \t")
	}
	if pattern == "" {
		return "unmatched"
	}
	return pattern
}

// methodLabel returns the method if it is a known one, so that a client cannot invent labels.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	default:
		return "other"
	}
}
