// Package gateway decides which requests come in, and where they go.
//
// It owns the routes: which requests they take, what is asked of a caller before a request is passed on, and what of a request's
// header the upstream gets to see.
//
// It promises that a route's policy and its upstream see the same path, in the one spelling there is of it; that what a route asks
// for is asked of every request that it takes, in the one order of stages written down in compile.go; that nobody outside can set a
// header by which upstreams are told who calls; that it asks nobody about a token while verifying one, so that it stands when
// identity is down; and that a configuration with a mistake in it changes nothing.
//
// It refuses to know any domain: it verifies with package auth, as any other service. It does not repair requests: what two programs
// could read in different ways is answered with 400.
//
// What stands in a route's way is a stage.Stage. A package below this one that brings another has a Config with yaml and doc tags and
// a Validate, which becomes a field of Route, and a constructor that returns a stage, which gets its place in compile.go.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/gateway/cache"
	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/gateway/oauth"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/gateway/waf"
	"github.com/sumunio/sumun/internal/gateway/websession"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// Why a request is not passed on.
var (
	ErrPath           = fault.New(fault.Malformed, "gateway.path", "This address can be read in more than one way.")
	ErrNetwork        = fault.New(fault.Forbidden, "gateway.network", "This is not served to your network.")
	ErrRateLimited    = fault.New(fault.RateLimited, "gateway.rate_limited", "Too many requests. Please wait a moment.")
	ErrBusy           = fault.New(fault.Unavailable, "gateway.busy", "Too much is going on here at the moment. Please try again shortly.").After(time.Second)
	ErrHeader         = fault.New(fault.Malformed, "gateway.header", "The request has a header that is not let in from outside.")
	ErrNotProxy       = fault.New(fault.Forbidden, "gateway.not_proxy", "Only this installation's proxies may ask here.")
	ErrQuestion       = fault.New(fault.Malformed, "gateway.question", "The proxy does not say which request this is about.")
	ErrVersion        = fault.New(fault.NotAcceptable, "gateway.version", "None of the versions that the header Accept names is here.")
	ErrHeaderTooLarge = fault.New(fault.HeaderTooLarge, "gateway.header_too_large", "The header of the request is too large.")
)

// Verifier says whose a request's token is. *auth.Verifier is one.
type Verifier interface {
	// VerifyRequest returns the claims of the request's token, or an *auth.Error.
	VerifyRequest(r *http.Request) (*auth.Claims, error)
	// DPoPNonce returns what the answer must carry in the header DPoP-Nonce; "" for nothing.
	DPoPNonce(r *http.Request) string
	// Fresh returns nil while it is known what has been revoked, and otherwise an *auth.Error.
	Fresh() error
	// WithWatch returns a context that ends when the token of the claims does, or is revoked.
	WithWatch(ctx context.Context, c *auth.Claims) (context.Context, context.CancelFunc)
}

// Deps are what a gateway is given.
type Deps struct {
	// Verifier verifies the callers' tokens.
	Verifier Verifier
	// Limiter counts requests. Nil: nobody is counted.
	Limiter ratelimit.Limiter
	// Repeats remembers what was asked under which key. Nil: this process alone does.
	Repeats idempotency.Store
	// APIKeys are the tokens of callers who show a key. Nil: no route may have api_keys.
	APIKeys *apikeys.Keys
	// Assertions are what services are told of callers. Nil: no route may ask for them.
	Assertions *assertion.Signer
	// Opaque verifies opaque tokens by asking OAuth. It is there where OAuth is.
	Opaque Verifier
	// OAuth asks the identity module about tokens. Nil: no route may have that done.
	OAuth *oauth.Client
	// Sessions keeps the tokens of browsers. Nil: no route may have that done.
	Sessions *websession.Keeper
	// Identity is the identity module, where it is part of this process. Nil: it is at IdentityURL.
	Identity http.Handler
	// Render answers people with a page that says what went wrong. Nil: everybody gets a problem document.
	Render func(w http.ResponseWriter, r *http.Request, f *fault.Fault)
	// MaxBody bounds request bodies where the route does not, in bytes.
	MaxBody int64
	// Clock is what kept answers age by. Nil: time.Now.
	Clock func() time.Time
	// WriteTimeout is how long a client of a stream may take to read a piece of it. Zero: for ever.
	WriteTimeout time.Duration
	Log          *slog.Logger
	Metrics      prometheus.Registerer
}

// Gateway serves the routes. It is safe for concurrent use.
type Gateway struct {
	deps     Deps
	metrics  *metrics
	services services
	cache    *cache.Store
	engines  waf.Engines // for who holds loading
	table    atomic.Pointer[table]
	loading  sync.Mutex
}

// New returns a gateway that serves cfg, which must be valid.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Repeats == nil {
		deps.Repeats = idempotency.NewMemory(deps.Clock)
	}
	g := &Gateway{deps: deps, metrics: newMetrics(deps.Metrics)}
	counted, err := upstream.NewMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	if g.cache, err = cache.NewStore(cfg.CacheMemory); err != nil {
		return nil, err
	}
	g.services.deps = upstream.Deps{Log: deps.Log, Metrics: counted}
	return g, g.Load(cfg)
}

// Load makes cfg what is served. Requests that are under way finish as they began. When cfg is not valid, nothing changes.
func (g *Gateway) Load(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	g.loading.Lock()
	defer g.loading.Unlock()
	t, err := g.compile(cfg)
	if err != nil {
		return err
	}
	g.table.Store(t)
	return nil
}

// ServeHTTP implements http.Handler. It belongs inside of httpd.Edge.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := g.serve(w, r); err != nil {
		g.refuse(w, r, err)
	}
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) error {
	rt, c, err := g.locate(w, r, g.table.Load())
	if err != nil {
		return err
	}
	return rt.handle(w, r, c)
}

// locate returns the route of a request, whose path is canonical from here on.
func (g *Gateway) locate(w http.ResponseWriter, r *http.Request, t *table) (*route, *stage.Call, error) {
	path, escaped, err := canonical(r.URL)
	if err != nil {
		return nil, nil, err
	}
	found, allow := t.find(r.Host, r.Method, path)
	if found == nil || !passable(r.Method) {
		if allow == "" && found == nil {
			return nil, nil, httpd.ErrNotFound
		}
		w.Header().Set("Allow", allow)
		return nil, nil, httpd.ErrMethodNotAllowed
	}
	rt := found.plain
	if found.versions != nil {
		w.Header().Add("Vary", "Accept")
		var kept []string
		if rt, kept = found.pick(r.Header["Accept"]); rt == nil {
			return nil, nil, ErrVersion
		}
		if kept != nil {
			r.Header["Accept"] = kept
		}
	}
	ctx := r.Context()
	httpd.SetRoute(ctx, rt.name)
	r.URL.Path, r.URL.RawPath = path, ""
	if escaped != path {
		r.URL.RawPath = escaped
	}
	return rt, &stage.Call{Route: rt.name, Path: escaped, Client: httpd.ClientAddr(ctx)}, nil
}

// passable reports whether requests with a method are passed on. Methods are told apart letter by letter, and some services do not: a
// "post" must not find another route than a POST.
func passable(method string) bool {
	return method != http.MethodConnect && method != http.MethodTrace && strings.ToUpper(method) == method
}

// refuse answers with what went wrong: people with a page, programs with a problem document.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		g.metrics.refused(f.Code())
	}
	if g.deps.Render == nil || strings.HasPrefix(r.URL.Path, "/v1/") || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		httpd.Error(w, r, err)
		return
	}
	httpd.WithErrors(g.deps.Render, func(http.ResponseWriter, *http.Request) error { return err }).ServeHTTP(w, r)
}

// Run does what has to be done beside requests, such as checking the health of services, until ctx ends. It returns nil.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.cache.Wait()
	if g.deps.APIKeys != nil {
		defer g.deps.APIKeys.Wait()
	}
	g.services.run(ctx)
	return nil
}
