package gateway

import (
	"errors"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/cache"
	"github.com/sumunio/sumun/internal/gateway/compress"
	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/waf"
)

// compile makes the table of a valid configuration, and its upstreams the ones that run. Sumun's own routes come first: a route of the configuration with the same
// host and path takes their place.
func (g *Gateway) compile(cfg Config) (*table, error) {
	t := &table{hosts: map[string]*node{}, anywhere: &node{}, outside: newOutside(cfg.StripHeaders)}
	b := &builder{Gateway: g, cfg: cfg}
	g.engines.Begin()
	var err error
	if b.services, err = g.services.plan(b.upstreams()); err != nil {
		return nil, err
	}
	for _, rc := range b.defaultRoutes() {
		if err := b.addTo(t, rc, true); err != nil {
			return nil, err
		}
	}
	b.addKeys(t)
	for _, rc := range cfg.Routes {
		if err := b.addTo(t, rc, false); err != nil {
			return nil, err
		}
	}
	g.engines.Commit()
	return t, g.services.commit(b.services)
}

// builder compiles one configuration.
type builder struct {
	*Gateway
	cfg      Config
	services map[string]*service
}

func (b *builder) addTo(t *table, rc Route, isDefault bool) error {
	if rc.APIKeys && b.deps.APIKeys == nil {
		return errNoKeys
	}
	told, err := b.authorization(rc)
	if err != nil {
		return err
	}
	if rc.Introspect && b.deps.OAuth == nil {
		return errNoClient
	}
	if rc.Session == SessionCookie && b.deps.Sessions == nil {
		return errNoSessions
	}
	forward, err := b.forward(rc, told)
	if err != nil {
		return err
	}
	stages, err := b.stages(rc)
	if err != nil {
		return err
	}
	rt := &route{name: rc.Name, handle: stage.Chain(forward, stages...), isDefault: isDefault}
	if !isDefault { // Sumun's own decide by themselves, and one of them takes every path that nobody else does
		rt.judge = stage.Chain(verdict(rc, told), b.questions(rc)...)
	}
	t.add(rc, rt)
	return nil
}

// stages is the order in which a request passes what its route asks for. That the path is canonical comes before all of it, or
// the route would not be known. What is cheap to refuse is refused first, and what is dear to inspect is inspected last; who is counted must be known before anybody is; and what
// remembers answers comes last, so that nobody gets an answer whom the stages before would have refused.
func (b *builder) stages(rc Route) ([]stage.Stage, error) {
	firewall, err := waf.New(rc.WAF, waf.Deps{Engines: &b.engines, Count: b.metrics.attacked, Log: b.deps.Log})
	return []stage.Stage{
		networks(rc),
		b.sizes(rc),
		timeout(rc),
		b.session(rc),
		b.authenticate(rc, true),
		b.lasting(rc),
		b.limit(rc),
		concurrency(rc),
		firewall,
		idempotency.New(rc.Idempotency, idempotency.Deps{Store: b.deps.Repeats, Log: b.deps.Log}),
		b.keep(rc),
		compress.New(rc.Compress),
	}, err
}

// session turns a browser's cookie into the token that the next stage verifies.
func (b *builder) session(rc Route) stage.Stage {
	if rc.Session != SessionCookie {
		return nil
	}
	return b.deps.Sessions.Stage(rc.Upstream == Identity, string(escape([]byte(rc.Strip))))
}

// errNoSessions is for routes that need what only a whole installation has.
var errNoSessions = errors.New("gateway.routes: a route has session: cookie, and there is nothing to keep sessions in")

// keep is the cache of a route. Where any route has one, the others take note of changes.
func (b *builder) keep(rc Route) stage.Stage {
	if rc.Upstream == Identity || !slices.ContainsFunc(b.cfg.Routes, func(r Route) bool { return r.Cache.Enabled }) {
		return nil
	}
	clean := newCleaner(b.cfg.StripHeaders)
	return cache.New(rc.Cache, cache.Deps{
		Store: b.cache, Clock: b.deps.Clock, Count: b.metrics.lookedUp,
		Internal: func(name string) bool {
			return clean.strips(name) || strings.HasPrefix(name, "X-Sumun-") || name == "Traceparent" || name == "Tracestate"
		},
	})
}

// questions are the stages that can be answered to a proxy, which keeps body and answer to itself. They are in the order of stages. An API
// key in a header of its own is not read: the proxy would pass it on.
func (b *builder) questions(rc Route) []stage.Stage {
	return []stage.Stage{networks(rc), b.authenticate(rc, false), b.limit(rc)}
}

// defaultRoutes serve Sumun's own pages and API. The upstream verifies tokens by itself; here they only say who is counted.
func (b *builder) defaultRoutes() []Route {
	if !b.cfg.DefaultRoutes {
		return nil
	}
	own := func(name string, paths ...string) Route {
		return Route{Name: Identity + name, Paths: paths, Upstream: Identity, Authentication: ByUpstream, Forward: ForwardToken}
	}
	all := own("", "/")
	signIn := own("-sign-in", "/v1/sessions", "/sign-in")
	signIn.Methods = []string{"POST"}
	signIn.Limits = []Limit{{By: ByAddress, Rate: b.cfg.SignInRate, Per: defaultPer}}
	beside := own("-sessions", signIn.Paths...)
	// A refresh proves itself, and a whole carrier may refresh from one address: nobody may be signed out by a limit on strangers.
	refresh := own("-refresh", "/v1/sessions/refresh")
	refresh.Unlimited = true
	// What is the same for everybody, and in memory.
	assets := own("-assets", "/assets/", "/.well-known/", "/favicon.ico")
	assets.Unlimited = true
	return []Route{all, signIn, beside, refresh, assets}
}
