package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/gateway/cache"
	"github.com/sumunio/sumun/internal/gateway/compress"
	"github.com/sumunio/sumun/internal/gateway/files"
	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/gateway/waf"
	"github.com/sumunio/sumun/internal/keyring"
)

// Config is which requests go where, and what is asked of them on the way. Routes, upstreams, rates and
// strip_headers take effect as soon as the file has changed, the rest at the next start.
type Config struct {
	DefaultRoutes bool             `yaml:"default_routes" doc:"Whether Sumun's own pages and API are served at every path that no other route takes."`
	IdentityURL   string           `yaml:"identity_url" doc:"Where the identity module serves, such as http://10.0.0.5:8080, where it is not part of this process. Several addresses are an upstream called sumun."`
	Audience      string           `yaml:"audience" doc:"The name that access tokens carry for what is behind this gateway. Empty: the issuer."`
	SignInRate    int              `yaml:"sign_in_rate" doc:"Sign-ins per minute from one network address (IPv6: one /64), on Sumun's own routes."`
	Rate          int              `yaml:"rate" doc:"Requests per minute of a person or service that shows a token, and of a network address without one, on all routes together that say nothing about limits."`
	Staleness     time.Duration    `yaml:"staleness" doc:"How old the knowledge of what has been revoked may be. Beyond it an alarm is raised, and critical routes refuse."`
	Feed          Feed             `yaml:"feed" doc:"How a gateway that is a process of its own learns what has been revoked."`
	ForwardAuth   ForwardAuth      `yaml:"forward_auth" doc:"Where a proxy that stays in front of the services asks about each request: nginx, Traefik, Caddy, Envoy."`
	Assertions    assertion.Config `yaml:"assertions" doc:"What services are told of callers with forward: assertion."`
	StripHeaders  []string         `yaml:"strip_headers" doc:"Headers by which services are told who calls, and which nobody may send from outside. A star at the end stands for any ending."`
	CacheMemory   int64            `yaml:"cache_memory" doc:"How much memory kept answers may take, of all routes with cache together, in bytes."`
	Upstreams     []Upstream       `yaml:"upstreams" doc:"The services that routes lead to."`
	Routes        []Route          `yaml:"routes" doc:"Which requests go where. The most specific route takes a request: by host, then by path; two that could both be it are a mistake."`
}

// Feed is how the revocation feed of an identity module elsewhere is read.
type Feed struct {
	ClientID     string         `yaml:"client_id" doc:"The client that this gateway is, with the scope revocations:read; it also asks for introspect and forward: exchange. Empty: the feed is not followed, and tokens live until they expire."`
	ClientSecret keyring.Secret `yaml:"client_secret" doc:"Its secret."`
	Snapshot     string         `yaml:"snapshot" doc:"A file in which keys and revocations are kept, so that the gateway starts while the identity module is down. Empty: none."`
}

// ForwardAuth is where proxies ask.
type ForwardAuth struct {
	Listen string `yaml:"listen" doc:"Address and port, for the proxies in http.trusted_proxies alone: /nginx, /forwarded (Traefik, Caddy), /envoy. Keep it away from the public. Empty: nobody asks."`
}

// Route is what happens to the requests that it takes.
type Route struct {
	Name     string   `yaml:"name" doc:"What logs and metrics call it: a-z, 0-9, - and _."`
	Hosts    []string `yaml:"hosts" doc:"Host names, such as shop.example.com or *.example.com. Empty: any."`
	Paths    []string `yaml:"paths" doc:"Paths: /a is that path; /a/ is everything below, and /a; {id} stands for any one segment. They are written decoded, and letter by letter."`
	Methods  []string `yaml:"methods" doc:"Methods, GET meaning HEAD too. Empty: any that no other route of the same path names."`
	Versions []string `yaml:"versions" doc:"Versions of an API, as the header Accept names them: 2 for application/vnd.example.v2+json and for application/json; version=2. none: requests that name none. Empty: those too."`

	Upstream        string        `yaml:"upstream" doc:"The name of the upstream that answers; sumun is the identity module. Empty: files."`
	Files           files.Config  `yaml:"files" doc:"Files that answer instead of an upstream."`
	Strip           string        `yaml:"strip" doc:"The beginning of the path that the upstream does not get to see, such as /shop."`
	Forward         Forward       `yaml:"forward" doc:"What the upstream gets of the caller's credentials: assertion (who calls, signed by the gateway for this upstream alone), exchange (a token that the identity module gives for this upstream alone, RFC 8693; feed.client_id needs that grant), token (as it was sent) or none. sumun gets the token."`
	IdentityHeaders bool          `yaml:"identity_headers" doc:"Whether the upstream is told in headers who calls: X-Sumun-Subject, -Client, -Session, -Scope, -Roles."`
	SecurityHeaders bool          `yaml:"security_headers" doc:"Whether answers get the security headers that the upstream did not set."`
	Timeout         time.Duration `yaml:"timeout" doc:"How long the whole exchange may take, beyond what http.read_timeout and http.write_timeout allow. 0s: what they allow."`

	Authentication Authentication `yaml:"authentication" doc:"public: nobody looks at tokens; optional: a token that is sent must be valid; required; upstream: the upstream decides, a valid token only says who is counted."`
	Session        Session        `yaml:"session" doc:"cookie: the gateway keeps tokens for browser applications, which get a cookie for a sign-in at a route to sumun. Empty: callers bring tokens."`
	APIKeys        bool           `yaml:"api_keys" doc:"Whether callers may show an API key instead of a token, as Authorization: Bearer or X-API-Key. What is asked of tokens is asked of keys."`
	Scopes         []string       `yaml:"scopes" doc:"Scopes that the token must have, all of them."`
	Roles          []string       `yaml:"roles" doc:"Roles, one of which the caller must have."`
	Critical       bool           `yaml:"critical" doc:"Whether requests are refused while it is not known for certain what has been revoked (staleness)."`
	Introspect     bool           `yaml:"introspect" doc:"Whether the identity module is asked about the token of every request (RFC 7662; feed.client_id needs the scope introspect); without its answer requests are refused. For critical routes only."`

	Allow          []netip.Prefix `yaml:"allow" doc:"Networks that may come in. Empty: all."`
	Deny           []netip.Prefix `yaml:"deny" doc:"Networks that may not, whatever allow says."`
	MaxBody        int64          `yaml:"max_body" doc:"The largest request body, in bytes. 0: http.max_body."`
	MaxHeaderBytes int            `yaml:"max_header_bytes" doc:"The largest request header, in bytes, below http.max_header_bytes. 0: that."`
	Concurrency    int            `yaml:"concurrency" doc:"Requests in flight at once, on this node. 0: any number."`
	Limits         []Limit        `yaml:"limits" doc:"How often one caller may come. Empty: gateway.rate."`
	Unlimited      bool           `yaml:"unlimited" doc:"Whether there is no limit, not even gateway.rate."`

	WAF         waf.Config         `yaml:"waf" doc:"Requests that look like attacks (Coraza, OWASP core rule set). One takes some milliseconds of a processor."`
	Cache       cache.Config       `yaml:"cache" doc:"Answers that are kept and given again."`
	Compress    compress.Config    `yaml:"compress" doc:"Answers that are made smaller."`
	Idempotency idempotency.Config `yaml:"idempotency" doc:"Requests that a caller may repeat without them happening twice."`
}

// SetDefaults prepares a route to be read.
func (r *Route) SetDefaults() {
	r.Authentication, r.Forward, r.SecurityHeaders = Required, ForwardAssertion, true
	r.Files, r.WAF = files.DefaultConfig(), waf.DefaultConfig()
	r.Cache, r.Compress, r.Idempotency = cache.DefaultConfig(), compress.DefaultConfig(), idempotency.DefaultConfig()
}

// hosts are the names of the route, "" for any.
func (r Route) hosts() []string {
	if len(r.Hosts) == 0 {
		return []string{""}
	}
	return r.Hosts
}

// versions are those of the route.
func (r Route) versions() []string {
	if len(r.Versions) == 0 {
		return []string{unversioned}
	}
	return r.Versions
}

// Limit bounds how often one caller may come.
type Limit struct {
	By    LimitBy       `yaml:"by" doc:"Who is counted: caller (whoever the token says, the address where there is none), address (IPv6: one /64), person, client. Who is not known, is not counted."`
	Rate  int           `yaml:"rate" doc:"How many requests."`
	Per   time.Duration `yaml:"per" doc:"In what time."`
	Burst int           `yaml:"burst" doc:"How many of them at once. 0: all."`
}

// SetDefaults prepares a limit to be read.
func (l *Limit) SetDefaults() { l.By, l.Per = ByCaller, time.Minute }

// Upstream is a service.
type Upstream struct {
	upstream.Config `yaml:",inline"`

	Audience  string `yaml:"audience" doc:"What assertions call this service. Empty: its name."`
	Fallback  string `yaml:"fallback" doc:"The upstream that gets the requests that this one could not answer."`
	Elsewhere bool   `yaml:"elsewhere" doc:"Whether requests do not pass through this gateway but through a proxy, which asks here about them (forward_auth). There are no endpoints then."`

	HashBy string `yaml:"hash_by" doc:"What is hashed where balance is hash: caller, header:NAME or cookie:NAME."`
}

// audience is the upstream's name in assertions.
func (u Upstream) audience() string {
	if u.Audience != "" {
		return u.Audience
	}
	return u.Name
}

// SetDefaults prepares an upstream to be read.
func (u *Upstream) SetDefaults() { u.Config, u.HashBy = upstream.DefaultConfig(), "caller" }

// DefaultConfig serves Sumun alone.
func DefaultConfig() Config {
	return Config{
		DefaultRoutes: true, SignInRate: 10, Rate: 100, Staleness: 30 * time.Second, CacheMemory: 64 << 20,
		StripHeaders: []string{
			"X-Sumun-*", "X-User-*", "X-Auth-Request-*", "X-Authenticated-*", "X-Remote-*", "Remote-User", "X-Forwarded-User",
			"X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
		},
	}
}

// UsesIdentity reports whether a route leads to the identity module.
func (c Config) UsesIdentity() bool {
	return c.DefaultRoutes || slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Upstream == Identity })
}

// KnowsIdentity reports whether it says where the identity module is.
func (c Config) KnowsIdentity() bool { return c.IdentityURL != "" || c.has(Identity) }

// has reports whether there is an upstream of that name.
func (c Config) has(name string) bool {
	return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == name })
}

// Identity is the name of the upstream that is the identity module.
const Identity = "sumun"

// Authentication is what is asked of a caller's token.
type Authentication string

// What can be asked.
const (
	Public     Authentication = "public"
	Optional   Authentication = "optional"
	Required   Authentication = "required"
	ByUpstream Authentication = "upstream"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Authentication) UnmarshalText(text []byte) error {
	return stage.OneOf(a, text, Public, Optional, Required, ByUpstream)
}

// Forward is what an upstream gets of the caller's credentials.
type Forward string

// What it can get.
const (
	ForwardNone      Forward = "none"
	ForwardToken     Forward = "token"
	ForwardAssertion Forward = "assertion"
	ForwardExchange  Forward = "exchange"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Forward) UnmarshalText(text []byte) error {
	return stage.OneOf(f, text, ForwardAssertion, ForwardExchange, ForwardToken, ForwardNone)
}

// Session is where a route's callers have their tokens.
type Session string

// Where they can be.
const (
	SessionNone   Session = ""
	SessionCookie Session = "cookie"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Session) UnmarshalText(text []byte) error {
	switch v := Session(text); v {
	case SessionNone, SessionCookie:
		*s = v
		return nil
	}
	return errors.New("write cookie, or leave it out")
}

// LimitBy is who is counted.
type LimitBy string

// Who can be counted.
const (
	ByCaller  LimitBy = "caller"
	ByAddress LimitBy = "address"
	ByPerson  LimitBy = "person"
	ByClient  LimitBy = "client"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *LimitBy) UnmarshalText(text []byte) error {
	return stage.OneOf(b, text, ByCaller, ByAddress, ByPerson, ByClient)
}
