package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// proxied is a route whose service is behind somebody else's proxy.
func proxied(name, path string) gateway.Route {
	r := required(name, path)
	r.Upstream, r.IdentityHeaders = "elsewhere", true
	return r
}

// questions is a gateway as proxies see it.
func questions(t testing.TB, all ...gateway.Route) http.Handler {
	t.Helper()
	return questionsWith(t, nil, all...)
}

// questionsWith is questions of a gateway that holds the tokens of API keys.
func questionsWith(t testing.TB, keys *apikeys.Keys, all ...gateway.Route) http.Handler {
	t.Helper()
	cfg, server := gateway.DefaultConfig(), httpd.DefaultConfig()
	elsewhere := newUpstream("elsewhere")
	elsewhere.Elsewhere = true
	cfg.Upstreams, cfg.Routes = []gateway.Upstream{elsewhere}, all
	server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	log, metrics := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	g, err := gateway.New(cfg, gateway.Deps{
		Verifier: callers, MaxBody: 1 << 20, Log: log, Metrics: metrics, Identity: http.NotFoundHandler(), APIKeys: keys,
		Limiter: ratelimit.NewMemory(func() time.Time { return time.Unix(1e9, 0) }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return httpd.Edge(log, metrics, server)(g.Questions())
}

// ask asks at an address, in the name of nginx at 10.0.0.1.
func ask(t testing.TB, h http.Handler, address string, lines ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", "http://shop.example/", nil)
	r.RequestURI, r.RemoteAddr = address, "10.0.0.1:4711"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	if method := r.Header.Get("Method"); method != "" {
		r.Method = method
		r.Header.Del("Method")
	}
	if from := r.Header.Get("From"); from != "" {
		r.RemoteAddr = from
		r.Header.Del("From")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func original(method, uri string, more ...string) []string {
	return append([]string{"X-Original-Method: " + method, "X-Original-Uri: " + uri, "X-Original-Host: shop.example"}, more...)
}

// A service behind somebody else's proxy is as safe as one behind this gateway: the same route decides, whatever the client adds.
func TestQuestions(t *testing.T) {
	t.Parallel()
	admin, orders := proxied("admin", "/admin/"), proxied("orders", "/orders")
	admin.Roles, orders.Methods = []string{"admin"}, []string{"GET"}
	h := questions(t, proxied("shop", "/shop/"), admin, orders)
	for _, tc := range []struct {
		lines  []string
		status int
		told   string // X-Sumun-Status
	}{
		{original("GET", "/shop/cart?x=1", as("lee")), 200, ""},
		{original("GET", "/shop/cart"), 401, "401"},
		{original("GET", "/admin/users", as("kim")), 200, ""},
		{original("GET", "/admin/users", as("lee")), 403, "403"},
		{original("GET", "/adm%69n/users", as("lee")), 403, "403"},
		{original("POST", "/orders", as("lee")), 403, "405"},
		{original("TRACE", "/shop/", as("lee")), 403, "405"},
		// Sumun's own routes take every other path, and let everybody in: their upstream decides.
		{original("GET", "/", as("lee")), 403, "404"},
		{original("GET", "/v1/users/me"), 403, "404"},
		// A proxy reads these as /admin/.
		{original("GET", "/shop/../admin/", as("lee")), 403, "400"},
		{original("GET", "/shop/..%2fadmin/", as("lee")), 403, "400"},
		{original("GET", "//admin/", as("lee")), 403, "400"},
		{original("GET", "/shop/#/../admin/", as("lee")), 403, "400"},
		{original("GET", "/shop/;/../admin", as("lee")), 403, "400"},
		{original("GET", "http://shop.example/shop/", as("lee")), 403, "400"},
		{original("GET", "/shop/\\..\\admin", as("lee")), 403, "400"},
		// What another kind of proxy says is the client's word here.
		{original("GET", "/admin/", as("lee"), "X-Forwarded-Uri: /shop/", "X-Forwarded-Method: GET", "X-Forwarded-Host: shop.example"), 403, "403"},
		{[]string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /shop/", "X-Forwarded-Host: shop.example", as("lee")}, 403, "400"},
		{original("GET", "/shop/", as("lee"), "X-Original-Uri: /admin/"), 403, "400"},
		// The service would believe these.
		{original("GET", "/shop/", as("lee"), "X-Sumun-Subject: kim"), 403, "400"},
		{original("GET", "/shop/", as("lee"), "X_Sumun_Roles: admin"), 403, "400"},
		{original("GET", "/orders", as("lee"), "X-Http-Method-Override: DELETE"), 403, "400"},
		{original("GET", "/shop/", as("lee"), "X-Original-Url: /admin/"), 403, "400"},
		{original("GET", "/shop/", as("lee"), "X-Rewrite-Url: /admin/"), 403, "400"},
		// A stranger who got through to the listener learns nothing.
		{original("GET", "/shop/", as("lee"), "From: 192.0.2.1:99"), 403, ""},
	} {
		a := ask(t, h, "/nginx", tc.lines...)
		if a.StatusCode != tc.status || a.Header.Get("X-Sumun-Status") != tc.told {
			t.Errorf("%q: %d %q, want %d %q", tc.lines, a.StatusCode, a.Header.Get("X-Sumun-Status"), tc.status, tc.told)
		}
		if who := a.Header.Get("X-Sumun-Subject"); (tc.status == 200) != (who != "") {
			t.Errorf("%q: answered %d and for %q", tc.lines, tc.status, who)
		}
		if tc.status == 401 && a.Header.Get("Www-Authenticate") == "" {
			t.Errorf("%q: 401 without a challenge", tc.lines)
		}
	}
}

// Traefik and Caddy, and Envoy, tell in other ways, and hand the refusal itself to the client.
func TestQuestionsOfOthers(t *testing.T) {
	t.Parallel()
	admin := proxied("admin", "/admin/")
	admin.Roles = []string{"admin"}
	plain := proxied("plain", "/plain")
	plain.IdentityHeaders, plain.Forward = false, gateway.ForwardToken
	h := questions(t, proxied("shop", "/shop/"), admin, plain)
	forwarded := func(uri string, more ...string) []string {
		return append([]string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: " + uri, "X-Forwarded-Host: shop.example"}, more...)
	}
	for _, tc := range []struct {
		address string
		lines   []string
		status  int
	}{
		{"/forwarded", forwarded("/shop/", as("lee")), 200},
		{"/forwarded", forwarded("/shop/"), 401},
		{"/forwarded", forwarded("/admin/", as("lee")), 403},
		{"/forwarded", forwarded("/admin/", as("lee"), "X-Original-Uri: /shop/", "X-Original-Method: GET", "X-Original-Host: a"), 403},
		{"/forwarded", forwarded("/shop//admin/", as("lee")), 400},
		{"/envoy/shop/?x=1", []string{as("lee")}, 200},
		{"/envoy/shop/", []string{as("lee"), "Method: DELETE"}, 200},
		{"/envoy/admin/", []string{as("lee")}, 403},
		{"/envoy/admin/", []string{as("lee"), "X-Forwarded-Uri: /shop/"}, 403},
		{"/envoy/shop/../admin/", []string{as("lee")}, 400},
		{"/envoy//admin/", []string{as("lee")}, 400},
		{"/elsewhere", []string{as("lee")}, 404},
	} {
		if a := ask(t, h, tc.address, tc.lines...); a.StatusCode != tc.status {
			t.Errorf("%s %q: %d, want %d", tc.address, tc.lines, a.StatusCode, tc.status)
		}
	}
	remove := ask(t, h, "/envoy/shop/", as("lee")).Header.Get("X-Envoy-Auth-Headers-To-Remove")
	if remove != "authorization,x-sumun-roles" { // what is not set must not come from the client
		t.Errorf("Envoy is told to remove %q", remove)
	}
	if a := ask(t, h, "/envoy/plain", as("lee")); a.Header.Get("Authorization") != "Bearer lee" {
		t.Errorf("forward: token says %v", a.Header)
	}
}

// Who asks too often is told when to come again, also by nginx, which knows no 429.
func TestQuestionsAreLimited(t *testing.T) {
	t.Parallel()
	shop := proxied("shop", "/shop/")
	shop.Limits = []gateway.Limit{{By: gateway.ByPerson, Rate: 2, Per: time.Minute}}
	h := questions(t, shop)
	for i := range 3 {
		a := ask(t, h, "/nginx", original("GET", "/shop/", as("lee"))...)
		if refused := a.StatusCode == 403 && a.Header.Get("X-Sumun-Status") == "429" && a.Header.Get("Retry-After") != ""; refused != (i == 2) {
			t.Errorf("request %d: %d %v", i+1, a.StatusCode, a.Header)
		}
	}
}

// Whatever a client makes a proxy say, only who may use /shop/ gets a yes, and only for what lies below it.
func FuzzQuestion(f *testing.F) {
	shop := proxied("shop", "/shop/")
	shop.Unlimited = true
	h := questions(f, shop)
	f.Add("/nginx", "GET", "/shop/", "shop.example", "X-Forwarded-Uri", "/admin/")
	f.Add("/forwarded", "POST", "/shop/%2e%2e/admin", "[::1]:80", "X-Sumun-Subject", "kim")
	f.Add("/envoy/shop/..", "GET", "/shop/#", "a@b", "Connection", "Authorization")
	f.Fuzz(func(t *testing.T, address, method, uri, host, name, value string) {
		kind := "X-Original-"
		if address == "/forwarded" {
			kind = "X-Forwarded-"
		}
		a := ask(t, h, address, as("lee"), kind+"Method: "+method, kind+"Uri: "+uri, kind+"Host: "+host, name+": "+value)
		defer a.Body.Close()
		_, _ = io.Copy(io.Discard, a.Body)
		if a.StatusCode != 200 {
			return
		}
		if strings.HasPrefix(address, "/envoy/") {
			uri = strings.TrimPrefix(address, "/envoy")
		}
		path, _, _ := strings.Cut(uri, "?")
		if strings.Contains(path, "..") && strings.Contains(path, "/..") || strings.ContainsAny(uri, "#\\;") && !strings.Contains(uri, "?") || strings.Contains(path, "//") {
			t.Errorf("yes to %q", uri)
		}
		if a.Header.Get("X-Sumun-Subject") != "lee" {
			t.Errorf("yes to %q for %q", uri, a.Header.Get("X-Sumun-Subject"))
		}
	})
}
