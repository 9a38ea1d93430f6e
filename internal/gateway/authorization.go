package gateway

import (
	"errors"
	"net/http"
	"slices"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// authorization returns what a route's upstream gets as Authorization; nil for nothing. What it returns may be shared.
type authorization func(r *http.Request, c *stage.Call) ([]string, error)

// authorization is the one place where it is decided what services learn of credentials.
func (b *builder) authorization(rc Route) (authorization, error) {
	switch {
	case rc.sendsToken():
		return func(r *http.Request, _ *stage.Call) ([]string, error) { return r.Header["Authorization"], nil }, nil
	case rc.Forward == ForwardExchange && !rc.Files.Enabled():
		return b.exchange(rc)
	case rc.Forward != ForwardAssertion || rc.Files.Enabled():
		return func(*http.Request, *stage.Call) ([]string, error) { return nil, nil }, nil
	case b.deps.Assertions == nil:
		return nil, errNoAssertions
	}
	audience := b.deps.Assertions.For(b.audience(rc))
	return func(_ *http.Request, c *stage.Call) ([]string, error) {
		if c.Claims == nil {
			return nil, nil
		}
		return audience.Authorization(c.Claims)
	}, nil
}

// exchange has the identity module give a token for the upstream alone.
func (b *builder) exchange(rc Route) (authorization, error) {
	if b.deps.OAuth == nil {
		return nil, errNoClient
	}
	audience := b.audience(rc)
	return func(r *http.Request, c *stage.Call) ([]string, error) {
		if c.Claims == nil {
			return nil, nil
		}
		token, err := auth.Token(r)
		if err != nil {
			return nil, Refusal(err)
		}
		return b.deps.OAuth.Authorization(r.Context(), token, audience)
	}, nil
}

// audience is what tokens call the upstream of a route, which is there.
func (b *builder) audience(rc Route) string {
	i := slices.IndexFunc(b.cfg.Upstreams, func(u Upstream) bool { return u.Name == rc.Upstream })
	return b.cfg.Upstreams[i].audience()
}

// errNoClient is for routes that ask the identity module where the gateway is no client of it.
var errNoClient = errors.New("gateway.feed.client_id: empty, but a route has forward: exchange or introspect, for which the gateway must be " +
	"a client of the identity module; make one (`sumun client add`, see docs/guides/gateway.md), and write its id and secret here")

// sendsToken reports whether the upstream gets the caller's credentials as they were sent.
func (r Route) sendsToken() bool { return r.Forward == ForwardToken || r.Upstream == Identity }

// errNoAssertions is for routes that ask for assertions where there is nothing to derive a key from.
var errNoAssertions = errors.New("gateway.assertions.keys: empty, and so is gateway.feed.client_secret, but a route has forward: assertion; " +
	"give a secret that all gateways share, or write forward: none")

// keysPath is where the keys of assertions are, below the issuer of assertions.
const keysPath = "/gateway/.well-known/jwks.json"

// addKeys serves the public keys of assertions, on every host that has no route of its own for their address.
func (b *builder) addKeys(t *table) {
	if b.deps.Assertions == nil {
		return
	}
	rc := Route{Name: Identity + "-gateway-keys", Paths: []string{keysPath}, Methods: []string{http.MethodGet}}
	t.add(rc, &route{name: rc.Name, isDefault: true, handle: func(w http.ResponseWriter, r *http.Request, _ *stage.Call) error {
		b.deps.Assertions.ServeHTTP(w, r)
		return nil
	}})
}
