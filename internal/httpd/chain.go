package httpd

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/fault"
)

// Chain returns the middleware that every request passes: request id, client address, security headers, recovery from
// panics, the bounds on body and time, protection against cross-origin use, and at the end one log event and one count in the
// metrics. Several chains may share a registerer.
//
// The context of a request ends after cfg.RequestTimeout, or when its client has gone; WithoutTimeout is for what lasts.
//
// Exempt lists the http.ServeMux patterns that other origins may call with unsafe methods, such as "POST /oauth/token":
// endpoints that take their proof in the request and set or read no cookie. Everything else is protected, and cfg's
// TrustedOrigins may call all of it. Chain panics on a pattern or an origin that is malformed; Validate finds the latter.
func Chain(log *slog.Logger, reg prometheus.Registerer, cfg Config, exempt ...string) func(http.Handler) http.Handler {
	c := newChain(log, cfg)
	c.metrics = newMetrics(reg)
	for _, pattern := range exempt {
		c.origins.AddInsecureBypassPattern(pattern)
	}
	return c.wrap
}

// chain is the middleware behind Chain and the operators' listener.
type chain struct {
	log     *slog.Logger
	metrics *metrics
	origins *http.CrossOriginProtection
	cfg     Config
	quiet   bool // events that report no failure are logged at debug level
}

func newChain(log *slog.Logger, cfg Config) *chain {
	origins := http.NewCrossOriginProtection()
	for _, origin := range cfg.TrustedOrigins {
		if err := origins.AddTrustedOrigin(origin); err != nil {
			panic(fmt.Sprintf("httpd: %v", err))
		}
	}
	return &chain{log: log, origins: origins, cfg: cfg}
}

func (c *chain) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		c.metrics.begin()
		x := c.begin(w, r)
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), exchangeKey{}, x), c.cfg.RequestTimeout)
		defer cancel()
		// A copy: net/http looks at the body of its own request to see whether all of it was read. Were that ours, what is left
		// of a refused body would be taken for further requests.
		r = r.WithContext(ctx)
		// The server's own writer, which MaxBytesReader tells to close the connection after a body that is too large.
		r.Body = http.MaxBytesReader(w, r.Body, c.cfg.MaxBody)
		defer func() {
			if x.abort {
				panic(http.ErrAbortHandler) // net/http cuts the connection and stays silent
			}
		}()
		defer func() { c.finish(r, x, time.Since(start)) }()
		c.serve(next, r, x)
	})
}

func (c *chain) begin(w http.ResponseWriter, r *http.Request) *exchange {
	peer := peerAddr(r.RemoteAddr)
	trusted := isTrusted(peer, c.cfg.TrustedProxies)
	x := &exchange{
		id:       requestID(r.Header, trusted),
		client:   clientAddr(peer, r.Header, c.cfg.TrustedProxies),
		agent:    r.UserAgent(),
		api:      isAPI(r.URL.Path),
		conn:     r.Context(),
		response: &response{ResponseWriter: w},
	}
	w.Header().Set("X-Request-Id", x.id)
	securityHeaders(w.Header(), r.URL.Path, isHTTPS(r, trusted))
	return x
}

func (c *chain) serve(next http.Handler, r *http.Request, x *exchange) {
	defer func() {
		if v := recover(); v != nil {
			c.recovered(v, r, x)
		}
	}()
	if r.ContentLength > c.cfg.MaxBody {
		Error(x.response, r, fault.ErrTooLarge)
		return
	}
	if err := c.origins.Check(r); err != nil {
		Error(x.response, r, ErrCrossOrigin.Wrap(err))
		return
	}
	next.ServeHTTP(x.response, r)
	if x.route == "" {
		x.route = r.Pattern
	}
}

// recovered turns a panic into an internal fault, unless it is the handler's way of cutting the connection or the
// consequence of a client that has gone.
func (c *chain) recovered(v any, r *http.Request, x *exchange) {
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
		x.render(x.response, r, f)
	default:
		f.WriteProblem(x.response, x.id)
	}
}

// finish counts and logs the request. What it logs is bounded and none of it is a secret: the route's pattern instead of the
// path, the fault's code instead of its message. The whole error is there only when the failure is on our side. That nobody
// was left to be answered explains every failure but a panic.
func (c *chain) finish(r *http.Request, x *exchange, took time.Duration) {
	f := x.fault
	gone := x.response.err != nil || x.conn.Err() != nil
	status := x.response.status
	switch {
	case gone && x.stack == nil && (status == 0 || f != nil && f.Status() >= 500):
		status = statusClientGone
	case status == 0:
		status = http.StatusOK // what net/http sends for a handler that writes nothing
	}
	route, method := routeLabel(x.route), methodLabel(r.Method)
	c.metrics.end(route, method, status, took)

	level := c.level(f, status)
	if !c.log.Enabled(r.Context(), level) {
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
	c.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// level is error where a human must act: on an internal failure that a client was there to see.
func (c *chain) level(f *fault.Fault, status int) slog.Level {
	switch {
	case f != nil && f.Status() >= 500 && status != statusClientGone:
		if f.Kind() == fault.Internal {
			return slog.LevelError
		}
		return slog.LevelWarn
	case c.quiet:
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}
