package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

// Validate returns everything that is wrong with the configuration, each with its key, value and remedy. It does not say whether
// an identity module or an issuer is missing: that depends on what else is served.
func (c Config) Validate() error {
	errs := []error{c.checkSwitches(), c.checkUpstreams(), within("assertions", c.Assertions.Validate())}
	names := map[string]bool{}
	for i, r := range c.Routes {
		key := fmt.Sprintf("routes[%d]", i)
		errs = append(errs, checkName(key, r.Name, names), checkOwnName(key, r.Name), r.check(key), r.checkPolicies(key))
		if !r.Files.Enabled() && r.Upstream != Identity && !c.has(r.Upstream) {
			errs = append(errs, fmt.Errorf("%s.upstream: there is no upstream %q; add it to gateway.upstreams, use sumun, or give files", key, r.Upstream))
		}
		if r.Session == SessionCookie && c.isElsewhere(r.Upstream) {
			errs = append(errs, fmt.Errorf("%s.session: requests to %q do not pass here, so the service would get the cookie; leave it out", key, r.Upstream))
		}
		if r.handlesAnswers() && c.isElsewhere(r.Upstream) {
			errs = append(errs, fmt.Errorf("%s.upstream: bodies and answers of %q do not pass here, so waf, cache, compress and idempotency do nothing; leave them out", key, r.Upstream))
		}
	}
	errs = append(errs, c.checkAmbiguity())
	return errors.Join(errs...)
}

// isElsewhere reports whether a proxy that asks here passes requests to an upstream itself.
func (c Config) isElsewhere(name string) bool {
	return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == name && u.Elsewhere })
}

func (c Config) checkSwitches() error {
	var errs []error
	if c.ForwardAuth.Listen != "" {
		errs = append(errs, httpd.CheckListen("forward_auth.listen", c.ForwardAuth.Listen))
	}
	if c.IdentityURL != "" {
		errs = append(errs, checkURL("identity_url", c.IdentityURL))
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"sign_in_rate", c.SignInRate}, {"rate", c.Rate}} {
		if n.value < 1 || n.value > maxRate {
			errs = append(errs, fmt.Errorf("%s: %d is outside 1 to %d; to switch every limit off use limits: off", n.key, n.value, maxRate))
		}
	}
	if c.Staleness < time.Second || c.Staleness > time.Hour {
		errs = append(errs, fmt.Errorf("staleness: %s is outside 1s to 1h; use 30s", c.Staleness))
	}
	if c.CacheMemory < 1<<20 || c.CacheMemory > 1<<40 {
		errs = append(errs, fmt.Errorf("cache_memory: %d is outside 1048576 to %d; use 67108864", c.CacheMemory, int64(1)<<40))
	}
	if (c.Feed.ClientID == "") != (c.Feed.ClientSecret == "") {
		errs = append(errs, errors.New("feed.client_id: it and client_secret go together; set both or neither"))
	}
	if c.Feed.Snapshot != "" && c.Feed.ClientID == "" {
		errs = append(errs, fmt.Errorf("feed.snapshot: %q needs client_id and client_secret, under which it is sealed; set them, or leave it out", c.Feed.Snapshot))
	}
	for _, name := range c.StripHeaders {
		if bare := strings.TrimSuffix(name, "*"); bare == "" || strings.Trim(bare, nameCharacters) != "" {
			errs = append(errs, fmt.Errorf("strip_headers: %q is no name of a header; write it like X-User-*", name))
		}
	}
	return errors.Join(errs...)
}

// maxRate bounds limits, so that their arithmetic stays exact.
const maxRate = 1_000_000

func (c Config) checkUpstreams() error {
	var errs []error
	names := map[string]bool{}
	for i, u := range c.Upstreams {
		key := fmt.Sprintf("upstreams[%d]", i)
		errs = append(errs, checkName(key, u.Name, names), within(key, u.Config.Validate()))
		if u.Elsewhere && len(u.Endpoints) > 0 {
			errs = append(errs, fmt.Errorf("%s.elsewhere: is set beside endpoints; keep one of the two", key))
		}
		if len(u.Endpoints) == 0 && !u.Elsewhere {
			errs = append(errs, fmt.Errorf("%s.endpoints: empty; name where the service is, such as http://10.0.0.7:8000", key))
		}
		kind, name, named := strings.Cut(u.HashBy, ":")
		if u.HashBy != "" && (kind != "caller" || named) && (kind != "header" && kind != "cookie" || name == "") {
			errs = append(errs, fmt.Errorf("%s.hash_by: %q is not known; use caller, header:NAME or cookie:NAME", key, u.HashBy))
		}
		errs = append(errs, c.checkFallback(key, u))
	}
	return errors.Join(errs...)
}

// within puts the place of a part of the configuration in front of everything that is wrong with it. Names are checked by checkName.
func within(key string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok && strings.HasPrefix(err.Error(), "name: "):
		return nil
	case !ok:
		return fmt.Errorf("%s.%w", key, err)
	}
	var errs []error
	for _, one := range joined.Unwrap() {
		errs = append(errs, within(key, one))
	}
	return errors.Join(errs...)
}

// checkFallback follows fallbacks, which must end somewhere.
func (c Config) checkFallback(key string, u Upstream) error {
	seen := map[string]bool{u.Name: true}
	for next := u.Fallback; next != ""; {
		i := slices.IndexFunc(c.Upstreams, func(other Upstream) bool { return other.Name == next })
		if i < 0 {
			return fmt.Errorf("%s.fallback: there is no upstream %q; add it to gateway.upstreams", key, next)
		}
		if seen[next] {
			return fmt.Errorf("%s.fallback: %q leads back to itself; end the chain somewhere", key, u.Fallback)
		}
		if c.Upstreams[i].Elsewhere {
			return fmt.Errorf("%s.fallback: %q is elsewhere, so nothing can be sent there; name one with endpoints", key, next)
		}
		seen[next] = true
		next = c.Upstreams[i].Fallback
	}
	return nil
}

func checkURL(key, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return fmt.Errorf("%s: %q is no address of a service; write only http://host:port", key, text)
	}
	return nil
}

func checkName(key, name string, taken map[string]bool) error {
	switch {
	case name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return fmt.Errorf("%s.name: %q is no name; use a-z, 0-9, - and _", key, name)
	case taken[name]:
		return fmt.Errorf("%s.name: %q is there twice; choose another one", key, name)
	}
	taken[name] = true
	return nil
}

// checkOwnName keeps the names of Sumun's own routes for those.
func checkOwnName(key, name string) error {
	if name == Identity || strings.HasPrefix(name, Identity+"-") {
		return fmt.Errorf("%s.name: %q is one of Sumun's own; choose another one", key, name)
	}
	return nil
}

// check finds what is wrong with a route by itself.
func (r Route) check(key string) error {
	errs := []error{r.checkMatch(key)}
	fail := func(field, format string, values ...any) {
		errs = append(errs, fmt.Errorf(key+"."+field+": "+format, values...))
	}
	if r.Authentication != Required && (len(r.Scopes) > 0 || len(r.Roles) > 0 || r.Critical) {
		fail("authentication", "%s lets in who shows no token, so scopes, roles and critical ask for nothing; use required", r.Authentication)
	}
	if r.Introspect && !r.Critical {
		fail("introspect", "is set on a route that is not critical; set critical, or leave it out")
	}
	if r.Session == SessionCookie && r.Authentication == Public && r.Upstream != Identity {
		fail("session", "cookie gives tokens that nobody looks at where authentication is public; use required or optional")
	}
	if r.APIKeys && r.Authentication != Required && r.Authentication != Optional {
		fail("api_keys", "nobody looks at keys where authentication is %s; use required or optional, or leave it out", r.Authentication)
	}
	if r.APIKeys && (r.Forward == ForwardExchange || r.Session == SessionCookie) {
		fail("api_keys", "is set beside forward: exchange or session: cookie, which are about tokens that callers have; give keys a route of their own")
	}
	for _, scope := range r.Scopes {
		if scope == "" || strings.ContainsAny(scope, " \"\\") {
			fail("scopes", "%q is no scope; write one word an entry", scope)
		}
	}
	if slices.ContainsFunc(slices.Concat(r.Allow, r.Deny), invalidPrefix) {
		fail("allow", "an entry of it or of deny is no network; write it like 10.0.0.0/8")
	}
	for field, n := range map[string]int64{
		"max_body": r.MaxBody, "max_header_bytes": int64(r.MaxHeaderBytes), "concurrency": int64(r.Concurrency), "timeout": int64(r.Timeout),
	} {
		if n < 0 {
			fail(field, "is below 0; leave it out, or use 0, for the default")
		}
	}
	for i, l := range r.Limits {
		if l.Rate < 1 || l.Rate > maxRate || l.Burst < 0 || l.Burst > maxRate || l.Per < time.Second || l.Per > 24*time.Hour {
			fail(fmt.Sprintf("limits[%d].rate", i), "%d per %s with a burst of %d makes no sense; use 1 to %d, per 1s to 24h", l.Rate, l.Per, l.Burst, maxRate)
		}
	}
	if r.Unlimited && len(r.Limits) > 0 {
		fail("unlimited", "is set beside limits; keep one of the two")
	}
	return errors.Join(errs...)
}

// handlesAnswers reports whether a route does something with bodies of requests, or with what its upstream answers.
func (r Route) handlesAnswers() bool {
	return r.WAF.Enabled() || r.Cache.Enabled || r.Compress.Enabled || r.Idempotency.Enabled()
}

// checkPolicies finds what is wrong with what a route does beside passing on.
func (r Route) checkPolicies(key string) error {
	var errs []error
	fail := func(field, format string, values ...any) {
		errs = append(errs, fmt.Errorf(key+"."+field+": "+format, values...))
	}
	errs = append(errs, r.checkFiles(key), within(key+".waf", r.WAF.Validate()), within(key+".cache", r.Cache.Validate()))
	if r.Cache.Enabled && r.Upstream == Identity {
		fail("cache", "is enabled for %s, whose answers are each person's own; leave it out", Identity)
	}
	if r.Cache.Enabled && r.Cache.PerPerson && r.Authentication != Required && r.Authentication != Optional {
		fail("cache.per_person", "nobody is known where authentication is %s; use required or optional", r.Authentication)
	}
	errs = append(errs, within(key+".compress", r.Compress.Validate()))
	if r.Compress.Enabled && !r.Compress.WithSecrets && r.Authentication != Public {
		fail("compress", "is enabled where authentication is %s: the size of answers can betray the secrets in them; "+
			"leave it out, or set with_secrets after reading what it says", r.Authentication)
	}
	errs = append(errs, within(key+".idempotency", r.Idempotency.Validate()))
	if r.Idempotency.Enabled() && r.Authentication != Required {
		fail("idempotency", "keys belong to callers, and authentication %s lets in who has no name; use required", r.Authentication)
	}
	return errors.Join(errs...)
}

// checkFiles finds what is wrong with a route that files answer.
func (r Route) checkFiles(key string) error {
	if !r.Files.Enabled() {
		return nil
	}
	errs := []error{within(key+".files", r.Files.Validate())}
	fail := func(field, text string) { errs = append(errs, fmt.Errorf("%s.%s: %s", key, field, text)) }
	if r.Upstream != "" {
		fail("upstream", "is set beside files; keep one of the two")
	}
	if r.IdentityHeaders {
		fail("identity_headers", "there is no service to tell who calls; leave it out")
	}
	if r.Cache.Enabled || r.Idempotency.Enabled() {
		fail("files", "are at hand and change nothing, so cache and idempotency do nothing; leave them out")
	}
	return errors.Join(errs...)
}

// checkMatch finds what is wrong with hosts, paths and methods.
func (r Route) checkMatch(key string) error {
	var errs []error
	fail := func(field, format string, values ...any) {
		errs = append(errs, fmt.Errorf(key+"."+field+": "+format, values...))
	}
	for _, host := range r.Hosts {
		bare := strings.TrimPrefix(host, "*.")
		if bare == "" || bare != hostName(bare) || strings.ContainsAny(bare, "/*@ :") {
			fail("hosts", "%q is no host name; write it in lower case, without port, like shop.example.com or *.example.com", host)
		}
	}
	if len(r.Paths) == 0 {
		fail("paths", "empty; write / for every path")
	}
	for _, path := range r.Paths {
		if _, err := parsePattern(path); err != nil {
			fail("paths", "%q %w", path, err)
		}
		if r.Strip != "" && path != r.Strip && !strings.HasPrefix(path, r.Strip+"/") {
			fail("strip", "%q is not the beginning of %q; leave it out, or give the path a route of its own", r.Strip, path)
		}
	}
	if p, err := parsePattern(r.Strip); r.Strip != "" && (err != nil || p.subtree || slices.ContainsFunc(p.segments, isAny)) {
		fail("strip", "%q is no plain path; write it like /shop", r.Strip)
	}
	for _, method := range r.Methods {
		if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || method == "CONNECT" || method == "TRACE" {
			fail("methods", "%q is not passed on; write it in capitals, like GET", method)
		}
	}
	for i, version := range r.Versions {
		if !isVersion(version) || slices.Contains(r.Versions[:i], version) {
			fail("versions", "%q is no version, or there twice; write it like 2 or 2024-05-01, without a v", version)
		}
	}
	return errors.Join(errs...)
}

func isAny(s segment) bool { return s.any || s.text == "" }

// checkAmbiguity finds routes that could both take one request, without one of them being the more specific.
func (c Config) checkAmbiguity() error {
	var errs []error
	for i, a := range c.Routes {
		for j, b := range c.Routes[:i] {
			if path := crossingPath(a, b); path != "" {
				errs = append(errs, fmt.Errorf("routes[%d].paths: %s of %q and routes[%d], %q, can take the same request; "+
					"make one of them more specific, or name different methods or versions", i, path, a.Name, j, b.Name))
			}
		}
	}
	return errors.Join(errs...)
}

// crossingPath returns a path of a that b could take as well, and neither the more specifically.
func crossingPath(a, b Route) string {
	if !shareHost(a, b) {
		return ""
	}
	for _, path := range a.Paths {
		for _, other := range b.Paths {
			p, errP := parsePattern(path)
			q, errQ := parsePattern(other)
			if errP != nil || errQ != nil {
				continue
			}
			switch p.compare(q) {
			case crossing:
				return path
			case equal:
				if shareMethod(a, b) && shareVersion(a, b) {
					return path
				}
			}
		}
	}
	return ""
}

// shareHost reports whether two routes lie in the tree of one host.
func shareHost(a, b Route) bool {
	return slices.ContainsFunc(a.hosts(), func(host string) bool { return slices.Contains(b.hosts(), host) })
}

func shareMethod(a, b Route) bool {
	if len(a.Methods) == 0 || len(b.Methods) == 0 {
		return len(a.Methods) == len(b.Methods)
	}
	return slices.ContainsFunc(a.Methods, func(m string) bool { return slices.Contains(b.Methods, m) })
}

// shareVersion reports whether a request can name a version that both routes take.
func shareVersion(a, b Route) bool {
	return slices.ContainsFunc(a.versions(), func(v string) bool { return slices.Contains(b.versions(), v) })
}
