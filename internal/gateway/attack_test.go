package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/httpd"
)

// What nobody may say in a header, nobody may say behind the body either: some services read both alike.
func TestTrailersSayNothing(t *testing.T) {
	t.Parallel()
	for _, protocol := range []upstream.Protocol{upstream.ProtocolHTTP1, upstream.ProtocolHTTP2} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			trailers := make(chan http.Header, 1)
			service := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				trailers <- r.Trailer
			}))
			service.Config.Protocols = new(http.Protocols)
			service.Config.Protocols.SetHTTP1(protocol == upstream.ProtocolHTTP1)
			service.Config.Protocols.SetUnencryptedHTTP2(protocol == upstream.ProtocolHTTP2)
			service.Start()
			t.Cleanup(service.Close)
			w := setup(t, routes(public("all", "/")), func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
				c.Upstreams = []gateway.Upstream{newUpstream("echo", service.URL)}
				c.Upstreams[0].Protocol = protocol
			})
			answers := w.raw(t, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"+
				"Trailer: X-Sum, X-Sumun-Roles, X-Sumun-Unsent\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Sumun-Roles: root\r\nX-Sumun-Subject: root\r\n"+
				"X_User_Id: root\r\nX-Forwarded-For: 10.0.0.1\r\nContent_Type: a/b\r\n\r\n")
			if len(answers) != 1 || answers[0].status != 200 {
				t.Fatalf("%v", answers)
			}
			if got := <-trailers; len(got) != 1 || got.Get("X-Sum") != "1" {
				t.Errorf("behind the body came %v", got)
			}
		})
	}
}

// On a connection that changes to HTTP/2 nobody would ask for tokens: a service that is willing to must not be asked.
func TestNoProtocolButWebSocket(t *testing.T) {
	t.Parallel()
	willing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wanted := r.Header.Get("Upgrade")
		if wanted == "" {
			fmt.Fprint(w, "no")
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", wanted)
		w.WriteHeader(http.StatusSwitchingProtocols)
	}))
	t.Cleanup(willing.Close)
	w := setup(t, routes(public("all", "/"), required("socket", "/socket")), func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
		c.Upstreams = []gateway.Upstream{newUpstream("echo", willing.URL)}
	})
	for _, lines := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
		"Connection: upgrade\r\nUpgrade: H2C", "Connection: Upgrade\r\nUpgrade: TLS/1.2", "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: h2c",
		"Upgrade: websocket", "Connection: keep-alive\r\nUpgrade: websocket",
	} {
		for _, a := range w.raw(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+lines+"\r\n\r\n") {
			if a.status != 200 || a.body != "no" {
				t.Errorf("%q: %d %q", lines, a.status, a.body)
			}
		}
	}
	both := "GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n"
	if a := w.raw(t, fmt.Sprintf(both, "/")); len(a) == 0 || a[0].status != 101 || a[0].header.Get("Upgrade") != "websocket" {
		t.Errorf("one of both: %v", a)
	}
	if a := w.raw(t, fmt.Sprintf(both, "/socket")); len(a) == 0 || a[0].code() != "auth.missing" {
		t.Errorf("a WebSocket without a token: %v", a)
	}
}

// Services that write methods in upper case, and those that let a header overrule them, must not be led to an action that the route asks
// more for.
func TestMethodsAreWhatTheyAre(t *testing.T) {
	t.Parallel()
	reads, writes := public("reads", "/things"), required("writes", "/things")
	writes.Methods = []string{"POST", "DELETE"}
	w := setup(t, routes(reads, writes))
	for _, method := range []string{"post", "Post", "dELETE", "get"} {
		if a := w.send(t, method+" /things"); a.code() != "request.method_not_allowed" {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
	for _, name := range []string{
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_METHOD_OVERRIDE", "X.HTTP.Method.Override", "X-Original-Method",
	} {
		w.send(t, "GET /things", name+": DELETE")
		if r := w.last(t); r.Method != "GET" || strings.Contains(fmt.Sprint(r.Header), "DELETE") {
			t.Errorf("%s reached the service: %v", name, r.Header)
		}
	}
	for _, request := range []string{"CONNECT /things", "CONNECT db.internal:5432", "TRACE /things"} {
		before := len(w.requests())
		for _, a := range w.raw(t, request+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
			if a.status < 400 || len(w.requests()) > before {
				t.Errorf("%s: %d", request, a.status)
			}
		}
	}
}

// A refused request takes its body with it: nothing of that is served as if somebody had asked for it. What follows is judged by
// itself.
func TestPipelineBehindARefusal(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(required("closed", "/closed"), public("open", "/open"), public("hidden", "/hidden")))
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
	large := strings.Repeat(hidden, 20_000)
	for name, text := range map[string]string{
		"a body":            fmt.Sprintf("POST /closed HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"chunks":            fmt.Sprintf("POST /closed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden),
		"a path":            fmt.Sprintf("POST /a/../hidden HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"a GET with a body": fmt.Sprintf("GET /open HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"HTTP/1.0":          fmt.Sprintf("POST /closed HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"chunks in HTTP/1.0": fmt.Sprintf("POST /closed HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s",
			hidden),
		"an Expect": fmt.Sprintf("POST /closed HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"an unknown Expect": fmt.Sprintf("POST /open HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\nContent-Length: %d\r\n\r\n%s",
			len(hidden), hidden),
		"too much": fmt.Sprintf("POST /closed HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(large), large[:1<<15]),
	} {
		before := len(w.requests())
		w.raw(t, text)
		for _, r := range w.requests()[before:] {
			if r.RequestURI != "/open" {
				t.Errorf("%s: %s reached the service", name, r.RequestURI)
			}
		}
	}
	answers := w.raw(t, "GET /closed HTTP/1.1\r\nHost: a\r\n\r\nGET /open HTTP/1.1\r\nHost: a\r\n\r\nGET /closed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	var got []int
	for _, a := range answers {
		got = append(got, a.status)
	}
	if fmt.Sprint(got) != "[401 200 401]" {
		t.Errorf("three in a row: %v", got)
	}
}

// The host that decides the route is the one that the service is told, however it is written.
func TestOneHost(t *testing.T) {
	t.Parallel()
	admin := required("admin", "/")
	admin.Hosts = []string{"admin.example"}
	w := setup(t, routes(admin, public("others", "/")))
	for _, tc := range []struct{ target, host string }{
		{"http://admin.example/x", "shop.example"}, {"HTTP://ADMIN.example:80/x", "shop.example"}, {"/x", "Admin.Example."}, {"/x", "admin.example:8080"},
		{"http://shop.example/x", "admin.example"}, {"/x", "shop.example"}, {"//admin.example/x", "shop.example"}, {"/x", "shop.example\r\nHost: admin.example"},
		{"/x", "shop.example\r\nX-Forwarded-Host: admin.example"}, {"/x", "shop.example,admin.example"}, {"/x", "shop.example@admin.example"},
		{"/x", "shop.example/admin.example"}, {"/x", "admin.example:"}, {"/x", "admin.example:80:80"}, {"/x", ""}, {"http://u@admin.example/x", "shop.example"},
	} {
		before := len(w.requests())
		w.raw(t, "GET "+tc.target+" HTTP/1.1\r\nHost: "+tc.host+"\r\nConnection: close\r\n\r\n")
		for _, r := range w.requests()[before:] {
			host, _, _ := strings.Cut(strings.ToLower(r.Host), ":")
			if strings.Trim(host, ".") == "admin.example" && r.Host != "admin.example:80:80" || r.Header.Get("X-Forwarded-Host") != r.Host {
				t.Errorf("%q for %q reached the service as %q, without a token", tc.target, tc.host, r.Host)
			}
		}
	}
}

// Who is counted by address cannot become somebody else by saying so, nor by moving within what one customer has.
func TestLimitsCannotBeWalkedAround(t *testing.T) {
	t.Parallel()
	few := public("few", "/few/")
	few.Limits = []gateway.Limit{{By: gateway.ByAddress, Rate: 3, Per: time.Hour}}
	now := time.Now()
	clock := limited(func() time.Time { return now })
	direct, behind := setup(t, routes(few), clock), setup(t, routes(few), clock, trusting)
	for i, lines := range [][]string{
		nil, {"X-Forwarded-For: 10.0.0.1"}, {"Forwarded: for=10.0.0.2"}, {"X-Real-Ip: 10.0.0.3"}, {"True-Client-Ip: 10.0.0.4"}, {as("kim")},
		{"X-Forwarded-For: 10.0.0.1, 10.0.0.5"},
	} {
		if a := direct.send(t, fmt.Sprintf("GET /few/%d?%d", i, i), lines...); (a.status == 429) != (i >= 3) {
			t.Errorf("%v: %d", lines, a.status)
		}
	}
	for _, same := range [][]string{
		{"2001:db8::1", "2001:db8::2", "[2001:db8::3]:4711", "2001:db8::ffff:ffff:ffff:ffff"},
		{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1:80", "203.0.113.9, 192.0.2.1"},
		{"198.51.100.1", "evil, 198.51.100.1", " 198.51.100.1\t", "2001:db8::1,198.51.100.1"},
	} {
		for i, from := range same {
			if a := behind.send(t, "GET /few/", "X-Forwarded-For: "+from); (a.status == 429) != (i >= 3) {
				t.Errorf("%s: %d", from, a.status)
			}
		}
	}
	if a := behind.send(t, "GET /few/", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.77"); a.status != 200 {
		t.Errorf("another address, in a second line: %d", a.status)
	}
}

// A service that has been taken over, or that repeats what it is told, must not write a second answer, nor keep the gateway with
// answers before the answer.
func TestAnswersAreOne(t *testing.T) {
	t.Parallel()
	early := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nSet-Cookie: a=b\r\n\r\n", 40)
	for name, text := range map[string]string{
		"a split header":        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"a header without name": "HTTP/1.1 200 OK\r\n: evil\r\nContent-Length: 0\r\n\r\n",
		"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"endless hints":         early + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"a change of protocol":  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"a second answer":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, routes(public("all", "/")), func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
				c.Upstreams = []gateway.Upstream{newUpstream("echo", says(t, text))}
			})
			for range 3 { // a second answer waits for the next request
				answers := w.raw(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				last := answers[len(answers)-1]
				if want := name == "a second answer"; (last.status == 200) != want || last.header.Get("X-Evil") != "" || strings.Contains(last.body, "evil") {
					t.Errorf("%d %v %q", last.status, last.header, last.body)
				}
				if last.header.Get("Set-Cookie") != "" || len(answers) > 17 {
					t.Errorf("%d answers, the last %v", len(answers), last.header)
				}
			}
		})
	}
}

// says is a service that always answers with the same bytes.
func says(t *testing.T, text string) string {
	t.Helper()
	var open sync.WaitGroup
	t.Cleanup(open.Wait)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		open.Go(func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, text)
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = io.Copy(io.Discard, conn)
		})
	}))
	t.Cleanup(s.Close)
	return s.URL
}
