package httpd

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/fault"
)

// Chain returns what every request to our own handlers passes: Edge and, inside of it, Guard.
func Chain(log *slog.Logger, reg prometheus.Registerer, cfg Config, exempt ...string) func(http.Handler) http.Handler {
	edge, guard := Edge(log, reg, cfg), Guard(cfg, exempt...)
	return func(next http.Handler) http.Handler { return edge(guard(next)) }
}

// Edge returns the middleware that every request passes, whoever answers it: request id, client address, recovery from panics,
// and at the end one log event and one count in the metrics. Several edges may share a registerer. What is behind it bounds
// time and body, and sets the headers of its answers.
func Edge(log *slog.Logger, reg prometheus.Registerer, cfg Config) func(http.Handler) http.Handler {
	e := &edge{log: log, metrics: newMetrics(reg), cfg: cfg}
	return e.wrap
}

// edge is the middleware behind Edge and the operators' listener.
type edge struct {
	log     *slog.Logger
	metrics *metrics
	cfg     Config
	quiet   bool // events that report no failure are logged at debug level
	passed  atomic.Uint64
}

func (e *edge) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		e.metrics.begin()
		x := e.begin(w, r)
		// A copy: net/http looks at the body of its own request to see whether all of it was read. Were that ours, what is left
		// of a refused body would be taken for further requests. Package http1 looks at its own, and takes what its context is to carry.
		if own, ok := r.Context().(interface{ Carry(key, value any) bool }); !ok || !own.Carry(exchangeKey{}, x) {
			r = r.WithContext(x)
		}
		defer func() {
			if x.abort {
				panic(http.ErrAbortHandler) // net/http cuts the connection and stays silent
			}
		}()
		defer func() { e.finish(r, x, time.Since(start)) }()
		e.serve(next, r, x)
	})
}

func (e *edge) begin(w http.ResponseWriter, r *http.Request) *exchange {
	peer := peerAddr(r.RemoteAddr)
	trusted := isTrusted(peer, e.cfg.TrustedProxies)
	x := &exchange{
		Context: r.Context(),
		id:      requestID(r.Header, trusted),
		client:  clientAddr(peer, r.Header, e.cfg.TrustedProxies),
		agent:   r.UserAgent(),
		secure:  isHTTPS(r, trusted),
		trusted: trusted,
		api:     isAPI(r.URL.Path),

		evidence: evidenceOf(r, trusted, e.cfg.TLS.ClientCertificates.Header),
	}
	x.response.ResponseWriter = w
	x.idValue[0] = x.id
	w.Header()["X-Request-Id"] = x.idValue[:]
	return x
}

func (e *edge) serve(next http.Handler, r *http.Request, x *exchange) {
	defer func() {
		if v := recover(); v != nil {
			e.recovered(v, r, x)
		}
	}()
	next.ServeHTTP(&x.response, r)
	if x.route == "" {
		x.route = r.Pattern
	}
}

// recovered turns a panic into an internal fault, unless it is the handler's way of cutting the connection or the
// consequence of a client that has gone.
func (e *edge) recovered(v any, r *http.Request, x *exchange) {
	if x.route == "" {
		x.route = r.Pattern
	}
	if v == http.ErrAbortHandler {
		x.abort = true
		return
	}
	err, ok := v.(error)
	if !ok {
		err = fmt.Errorf("%v", v)
	}
	if x.response.err == nil {
		x.stack = debug.Stack()
	}
	f, ok := record(r.Context(), fault.ErrInternal.Wrap(fmt.Errorf("panic: %w", err)))
	switch {
	case !ok: // the answer had begun
	case x.render != nil:
		x.render(&x.response, r, f)
	default:
		f.WriteProblem(&x.response, x.id)
	}
}

// finish counts and logs the request. What it logs is bounded and none of it is a secret: the route's pattern instead of the
// path, the fault's code instead of its message. The whole error is there only when the failure is on our side. That nobody
// was left to be answered explains every failure but a panic.
func (e *edge) finish(r *http.Request, x *exchange, took time.Duration) {
	f := x.fault
	gone := x.response.err != nil || x.Err() != nil
	status := x.response.status
	switch {
	case gone && x.stack == nil && (status == 0 || f != nil && f.Status() >= 500):
		status = statusClientGone
	case status == 0:
		status = http.StatusOK // what net/http sends for a handler that writes nothing
	}
	route, method := routeLabel(x.route), methodLabel(r.Method)
	e.metrics.end(route, method, status, took)

	level := e.level(f, status)
	if !e.log.Enabled(x, level) || f == nil && !e.sampled() {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("route", route),
		slog.Int("status", status),
		slog.Float64("duration_seconds", took.Seconds()),
		slog.Int64("bytes", x.response.bytes),
		slog.String("request_id", x.id),
		slog.String("client", x.client.String()),
	}
	if f != nil {
		attrs = append(attrs, slog.String("fault", f.Code()))
		if f.Status() >= 500 {
			attrs = append(attrs, slog.String("error", x.err.Error()))
		}
	}
	if x.abort {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if x.stack != nil {
		attrs = append(attrs, slog.String("stack", string(x.stack)))
	}
	e.log.LogAttrs(x, level, "request", attrs...)
}

// level is error where a human must act: on an internal failure that a client was there to see.
func (e *edge) level(f *fault.Fault, status int) slog.Level {
	switch {
	case f != nil && f.Status() >= 500 && status != statusClientGone:
		if f.Kind() == fault.Internal {
			return slog.LevelError
		}
		return slog.LevelWarn
	case e.quiet:
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}

// sampled reports whether a request without failure is one of those that are logged.
func (e *edge) sampled() bool {
	every := uint64(e.cfg.LogEvery)
	return every == 1 || every > 1 && e.passed.Add(1)%every == 1
}
