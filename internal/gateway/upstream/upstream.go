// Package upstream forwards requests to the services behind the gateway.
//
// It owns the connections to them, and everything that is decided between "this request goes to that service" and "its answer
// has been passed on": which endpoint, how long to wait, whether to try again, when to stop asking.
//
// A Pool promises:
//
//   - Forward either passes on one whole answer, or returns an error before anything was written, or aborts the client's
//     connection: nobody takes a cut answer for a whole one.
//   - A request that may have had an effect is never sent twice, unless its method or its caller says that this is harmless.
//   - What an endpoint sends is parsed strictly (RFC 9112): what two parties could read differently is refused, and a connection
//     on which anything unexpected arrived is not used again.
//   - An endpoint that hangs, resets or misbehaves costs the requests that met it a bounded time and no more; a share of the
//     endpoints always remains in use, however bad all of them look.
//
// It refuses to know routes, tokens or people, to change headers other than those that belong to a connection (RFC 9110, section
// 7.6.1), and to keep answers.
package upstream

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// What becomes of a request that got no answer. Before any of them is returned nothing has been written to the client.
var (
	// ErrNoEndpoint means that every endpoint is down, or none is configured.
	ErrNoEndpoint = fault.New(fault.Unavailable, "upstream.unavailable", "The service is not available at the moment.").After(5 * time.Second)
	// ErrOpen means that the circuit breaker spares a service that keeps failing.
	ErrOpen = fault.New(fault.Unavailable, "upstream.open", "The service is having difficulties. Try again shortly.").After(5 * time.Second)
	// ErrFull means that as many requests as allowed are in flight, and the queue is full or was too slow.
	ErrFull = fault.New(fault.Unavailable, "upstream.full", "The service is busy at the moment. Try again shortly.").After(time.Second)
	// ErrUnreachable means that no connection could be made, or that it was closed before an answer.
	ErrUnreachable = fault.New(fault.BadGateway, "upstream.unreachable", "The service cannot be reached at the moment.")
	// ErrBadAnswer means that what came back is not an answer in HTTP.
	ErrBadAnswer = fault.New(fault.BadGateway, "upstream.bad_answer", "The service gave an answer that cannot be passed on.")
	// ErrTimeout means that the service took too long.
	ErrTimeout = fault.New(fault.Timeout, "upstream.timeout", "The service took too long to answer.")
	// ErrRequest means that the request cannot be written in HTTP/1.1, or asks for what is not passed on.
	ErrRequest = fault.New(fault.Malformed, "upstream.request", "This request cannot be passed on.")
)

// Options say what Forward cannot know from the request. The zero value is a plain request.
type Options struct {
	// Path is the exact request target, path and query, as it is sent. Empty: that of the request's URL.
	Path string
	// Host is the value of the Host header. Empty: the request's.
	Host string
	// Key decides the endpoint under consistent hashing: an address, a cookie, a header. Empty: any endpoint.
	Key string
	// Repeatable says that sending the request twice does no harm, whatever its method, for example because the service
	// knows its Idempotency-Key.
	Repeatable bool
	// NoStatic withholds the static fallback, from a caller who has something better.
	NoStatic bool
	// Sent, where set, becomes true as soon as an endpoint may have seen the request, whatever becomes of it.
	Sent *bool
	// OnAnswer, where set, is called with the status and header that will be written, just before that happens, and may change
	// the header. It is called once, and not for informational answers.
	OnAnswer func(status int, header http.Header)
	// Strips, where set, reports which fields of the request's trailer are left out. Their names are known only at its end.
	Strips func(name string) bool
}

// Deps are what a Pool is given.
type Deps struct {
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil. Pools share one.
	Metrics *Metrics
	// Fallback, where set, gets the requests that this pool could not have answered. It has no Fallback that leads back here.
	Fallback *Pool
}

// Pool is one service: a set of endpoints that are as good as each other. It is safe for concurrent use.
type Pool struct {
	cfg      Config
	log      *slog.Logger
	fallback *Pool
	metrics  *poolMetrics

	endpoints endpointSet
	ejecting  sync.Mutex
	dialer    *dialer
	bulkhead  bulkhead
	breaker   breaker
	budget    budget
	slow      quantile
}

// New returns a pool that forwards at once. Run is needed for health checks and for closing what is idle. It fails only when cfg
// is not valid.
func New(cfg Config, deps Deps) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: deps.Log, fallback: deps.Fallback}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("upstream", cfg.Name)
	p.metrics = deps.Metrics.of(p)
	var err error
	if p.dialer, err = newDialer(cfg); err != nil {
		return nil, err
	}
	p.bulkhead.init(cfg.Bulkhead)
	p.breaker.init(cfg.Breaker)
	p.budget.init(cfg.Retry)
	p.slow.init(cfg.Hedge)
	return p, p.SetEndpoints(cfg.Endpoints)
}

// Run checks the health of endpoints and closes idle connections until ctx ends. It returns nil. Requests in flight go on; no
// connection stays open after them.
func (p *Pool) Run(ctx context.Context) error {
	defer p.drain()
	p.metrics.show(p)
	defer p.metrics.forget(p)
	return p.run(ctx)
}
