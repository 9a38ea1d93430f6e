package gateway_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/httpd"
)

// Who is let in must be exactly who the route says, and who is not must learn why in the words of RFC 6750.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	scoped, admins := required("scoped", "/scoped"), required("admins", "/admins")
	scoped.Scopes, admins.Roles = []string{"write"}, []string{"operator", "admin"}
	optional, upstream := public("optional", "/optional"), public("upstream", "/upstream")
	optional.Authentication, upstream.Authentication = gateway.Optional, gateway.ByUpstream
	w := setup(t, routes(public("public", "/public"), required("required", "/required"), scoped, admins, optional, upstream))
	for _, tc := range []struct {
		request string
		lines   []string
		status  int
		code    string
	}{
		{"GET /public", nil, 200, ""},
		{"GET /public", []string{as("old")}, 200, ""},
		{"GET /required", nil, 401, "auth.missing"},
		{"GET /required", []string{as("old")}, 401, "auth.expired"},
		{"GET /required", []string{as("kim")}, 200, ""},
		{"GET /required", []string{as("kim"), as("kim")}, 400, "auth.request"},
		{"GET /required?access_token=kim", nil, 401, "auth.missing"},
		{"GET /optional", nil, 200, ""},
		{"GET /optional", []string{as("old")}, 401, "auth.expired"},
		{"GET /upstream", []string{as("old")}, 200, ""},
		{"GET /scoped", []string{as("kim")}, 200, ""},
		{"GET /scoped", []string{as("lee")}, 403, "auth.scope"},
		{"GET /admins", []string{as("kim")}, 200, ""},
		{"GET /admins", []string{as("lee")}, 403, "auth.role"},
		{"GET /nowhere", nil, 404, "request.not_found"},
		{"TRACE /public", nil, 405, "request.method_not_allowed"},
	} {
		a := w.send(t, tc.request, tc.lines...)
		if a.status != tc.status || a.code() != tc.code {
			t.Errorf("%s %v: %d %s, want %d %s", tc.request, tc.lines, a.status, a.code(), tc.status, tc.code)
		}
		if a.status == 401 && !strings.HasPrefix(a.header.Get("Www-Authenticate"), "Bearer ") {
			t.Errorf("%s: 401 without a challenge", tc.request)
		}
		if tc.code == "auth.scope" && !strings.Contains(a.header.Get("Www-Authenticate"), `scope="write"`) {
			t.Errorf("challenge %q", a.header.Get("Www-Authenticate"))
		}
	}
}

// A stolen token that was revoked during an outage of the feed must not move money; everything else goes on.
func TestCriticalRoutesRefuseWhenStale(t *testing.T) {
	t.Parallel()
	var stale atomic.Bool
	critical := required("critical", "/critical")
	critical.Critical = true
	w := setup(t, routes(required("ordinary", "/"), critical), func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		d.Verifier = ageing{callers, &stale}
	})
	for _, is := range []bool{false, true, false} {
		stale.Store(is)
		a := w.send(t, "GET /critical", as("kim"))
		if refused := a.status == 503 && a.code() == "auth.stale" && a.header.Get("Retry-After") != ""; refused != is || !is && a.status != 200 {
			t.Errorf("stale %v: critical %d %s", is, a.status, a.body)
		}
		if a := w.send(t, "GET /", as("kim")); a.status != 200 {
			t.Errorf("stale %v: ordinary %d", is, a.status)
		}
	}
}

// ageing is a verifier whose feed can be cut.
type ageing struct {
	tokens
	stale *atomic.Bool
}

// Fresh implements gateway.Verifier.
func (a ageing) Fresh() error {
	if a.stale.Load() {
		return auth.ErrStale
	}
	return nil
}

// /admin is for the office network, and nobody gets into it by claiming to.
func TestNetworks(t *testing.T) {
	t.Parallel()
	office := public("office", "/admin/")
	office.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	office.Deny = []netip.Prefix{netip.MustParsePrefix("10.66.0.0/16")}
	behind, direct := setup(t, routes(office), trusting), setup(t, routes(office))
	for from, want := range map[string]int{
		"10.1.2.3": 200, "2001:db8::7": 200, "::ffff:10.1.2.3": 200, "10.66.1.1": 403, "192.0.2.1": 403,
		"10.1.2.3, 192.0.2.1": 403, "192.0.2.1, 10.1.2.3": 200, "unknown": 403, "10.1.2.3, evil": 403,
	} {
		if a := behind.send(t, "GET /admin/", "X-Forwarded-For: "+from); a.status != want {
			t.Errorf("through a proxy that says %s: %d, want %d", from, a.status, want)
		}
		if a := direct.send(t, "GET /admin/", "X-Forwarded-For: "+from, "Forwarded: for=10.1.2.3", "X-Real-Ip: 10.1.2.3"); a.code() != "gateway.network" {
			t.Errorf("a stranger who says %s: %d", from, a.status)
		}
	}
}

// The bounds of a route hold for bodies whose length is known, and for those whose length is not.
func TestSizes(t *testing.T) {
	t.Parallel()
	small := public("small", "/")
	small.MaxBody, small.MaxHeaderBytes = 10, 300
	w := setup(t, routes(small))
	for _, tc := range []struct {
		text string
		code string
		want int
	}{
		{"Content-Length: 10\r\n\r\n0123456789", "", 200},
		{"Content-Length: 11\r\n\r\n0123456789a", "request.too_large", 413},
		{"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", "", 200},
		{"Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n", "request.too_large", 413},
		{"X-Long: " + strings.Repeat("x", 300) + "\r\n\r\n", "gateway.header_too_large", 431},
	} {
		answers := w.raw(t, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+tc.text)
		if len(answers) != 1 || answers[0].status != tc.want || answers[0].code() != tc.code {
			t.Errorf("%.40q: %+v, want %d", tc.text, answers, tc.want)
		}
	}
}

// A slow service takes the requests it was given and no more; the others are told at once.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	few := public("few", "/")
	few.Concurrency, few.Upstream = 2, gateway.Identity
	w := setup(t, routes(few), func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		d.Identity = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release })
	})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if a := w.send(t, "GET /"); a.status != 200 {
				t.Errorf("one of two: %d", a.status)
			}
		})
		<-entered
	}
	if a := w.send(t, "GET /"); a.code() != "gateway.busy" || a.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", a.status, a.body)
	}
	close(release)
	group.Wait()
	go func() { <-entered }()
	if a := w.send(t, "GET /"); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// A person is counted as a person wherever they come from, strangers by their address, and a carrier's thousands who are signed in
// do not count against each other.
func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	optional := public("open", "/")
	optional.Authentication = gateway.Optional
	w := setup(t, routes(optional), trusting, limited(func() time.Time { return now }), func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
		c.Rate = 3
	})
	send := func(from string, lines ...string) answer {
		return w.send(t, "GET /", append(lines, "X-Forwarded-For: "+from)...)
	}
	for i := range 3 {
		a := send("192.0.2.1")
		want := []string{`"requests";r=2;t=20`, `"requests";r=1;t=40`, `"requests";r=0;t=60`}[i]
		if a.status != 200 || a.header.Get("Ratelimit") != want || a.header.Get("Ratelimit-Policy") != `"requests";q=3;w=60` {
			t.Errorf("request %d: %d %v", i, a.status, a.header)
		}
	}
	a := send("192.0.2.1")
	if a.status != 429 || a.code() != "gateway.rate_limited" || a.header.Get("Retry-After") != "20" {
		t.Errorf("one too many: %d %v", a.status, a.header)
	}
	if a := send("192.0.2.2"); a.status != 200 {
		t.Errorf("another address: %d", a.status)
	}
	for range 3 {
		if a := send("192.0.2.1", as("kim")); a.status != 200 {
			t.Errorf("somebody who is signed in, at the address of strangers: %d", a.status)
		}
	}
	if a := send("192.0.2.9", as("kim")); a.status != 429 {
		t.Errorf("the same person from elsewhere: %d", a.status)
	}
	if a := send("192.0.2.1", as("lee")); a.status != 200 {
		t.Errorf("somebody else who is signed in: %d", a.status)
	}
	for i := range 4 {
		a := send([]string{"2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "2001:db8::4"}[i])
		if (a.status == 429) != (i == 3) {
			t.Errorf("address %d of one /64: %d", i, a.status)
		}
	}
}

// However many come at once, exactly the burst gets in.
func TestLimitUnderContention(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	few := public("few", "/")
	few.Limits = []gateway.Limit{{By: gateway.ByAddress, Rate: 60, Per: time.Minute, Burst: 7}}
	w := setup(t, routes(few), limited(func() time.Time { return now }))
	var passed, refused atomic.Int64
	var group sync.WaitGroup
	for range 40 {
		group.Go(func() {
			switch a := w.send(t, "GET /"); a.status {
			case 200:
				passed.Add(1)
			case 429:
				refused.Add(1)
			}
		})
	}
	group.Wait()
	if passed.Load() != 7 || refused.Load() != 33 || len(w.requests()) != 7 {
		t.Errorf("%d passed, %d refused, %d arrived", passed.Load(), refused.Load(), len(w.requests()))
	}
}

// A path belongs to its most specific route, and to no other one because of its method.
func TestMatching(t *testing.T) {
	t.Parallel()
	on := func(name, host, path string, methods ...string) gateway.Route {
		r := public(name, path)
		r.Methods, r.Strip = methods, ""
		if host != "" {
			r.Hosts = []string{host}
		}
		r.Limits, r.Unlimited = nil, true
		return r
	}
	w := setup(t, routes(
		on("all", "", "/"), on("items", "", "/items/"), on("item", "", "/items/{id}"), on("new", "", "/items/new", "POST"),
		on("price", "", "/items/{id}/price", "GET", "PUT"), on("root", "", "/items/{$}"),
		on("shop", "shop.example", "/shop/"), on("any-shop", "*.shop.example", "/"), on("deep", "*.b.shop.example", "/"),
	))
	for request, want := range map[string]string{
		"GET a /": "all", "GET a /x/y": "all", "GET a /items": "items", "GET a /items/": "root", "GET a /items/7": "item",
		"GET a /items/7/": "item", "GET a /items/7/price": "price", "HEAD a /items/7/price": "price", "POST a /items/7/price": "405 GET, HEAD, PUT",
		"PUT a /items/7/price/": "price", "GET a /items/7/x": "items", "POST a /items/new": "new", "GET a /items/new": "405 POST",
		"GET shop.example /shop/x": "shop", "GET SHOP.example.:8443 /shop": "shop", "GET shop.example /x": "all",
		"GET a.shop.example /shop/x": "any-shop", "GET a.b.shop.example /": "deep", "GET b.shop.example /": "any-shop", "GET xshop.example /shop/x": "all",
	} {
		part := strings.Fields(request)
		answers := w.raw(t, part[0]+" "+part[2]+" HTTP/1.1\r\nHost: "+part[1]+"\r\nConnection: close\r\n\r\n")
		if len(answers) != 1 {
			t.Fatalf("%s: %d answers", request, len(answers))
		}
		if a := answers[0]; strings.HasPrefix(want, "405") {
			if a.status != 405 || "405 "+a.header.Get("Allow") != want {
				t.Errorf("%s: %d, Allow %q, want %s", request, a.status, a.header.Get("Allow"), want)
			}
			continue
		}
		if !strings.Contains(lastLine(w.log.String()), "route="+want+" ") {
			t.Errorf("%s: want route %s: %s", request, want, lastLine(w.log.String()))
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// An operator learns of every mistake at once, with its place, before anything is served.
func TestValidateFindsEverything(t *testing.T) {
	t.Parallel()
	c := gateway.DefaultConfig()
	c.Rate, c.Staleness, c.IdentityURL, c.StripHeaders = 0, 0, "ftp://x", []string{"*"}
	c.Upstreams = []gateway.Upstream{newUpstream("a"), newUpstream("a", "http://x/path"), newUpstream("c", "http://x")}
	c.Upstreams[0].Fallback, c.Upstreams[1].HashBy, c.Upstreams[1].Fallback, c.Upstreams[2].Fallback = "b", "moon", "c", "c"
	c.Upstreams[2].Elsewhere, c.ForwardAuth.Listen = true, "nowhere"
	scoped, crossing := public("scoped", "/a/{x}/c"), public("crossing", "/a/b/{y}")
	scoped.Scopes, scoped.Upstream, crossing.Upstream = []string{"read"}, "a", "a"
	bad := public("Bad Name", "/x//y")
	bad.Hosts, bad.Methods, bad.MaxBody, bad.Strip = []string{"A.example:80"}, []string{"get", "TRACE"}, -1, "/y"
	bad.Limits, bad.Unlimited = []gateway.Limit{{Rate: 0}}, true
	twin := public("twin", "/a/{z}/c")
	twin.Upstream = "a"
	c.Routes = []gateway.Route{scoped, crossing, bad, twin, {Name: "empty", Authentication: gateway.Public, Upstream: "sumun"}}
	err := c.Validate()
	if err == nil {
		t.Fatal("it is valid")
	}
	text := err.Error()
	for _, want := range []string{
		"rate: 0", "staleness: 0s", `identity_url: "ftp://x"`, `strip_headers: "*"`, "upstreams[0].endpoints: empty", `upstreams[1].name: "a" is there twice`,
		`upstreams[2].elsewhere: is set beside endpoints`, `forward_auth.listen: "nowhere"`,
		`upstreams[1].endpoints[0].url: "http://x/path"`, `upstreams[0].fallback: there is no upstream "b"`, `upstreams[1].hash_by: "moon"`,
		`upstreams[2].fallback: "c" leads back to itself`, "routes[0].authentication: public", `routes[1].paths: /a/b/{y} of "crossing"`,
		`routes[2].name: "Bad Name"`, `routes[2].paths: "/x//y"`, `routes[2].hosts: "A.example:80"`, `routes[2].methods: "get"`, `routes[2].methods: "TRACE"`,
		"routes[2].max_body: is below 0", `routes[2].strip: "/y"`, "routes[2].limits[0].rate: 0", "routes[2].unlimited", `routes[2].upstream: there is no upstream ""`,
		`routes[3].paths: /a/{z}/c of "twin"`, "routes[4].paths: empty",
	} {
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("nothing says %q:\n%s", want, text)
		}
	}
}
