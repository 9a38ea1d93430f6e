package gateway_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/httpd"
)

// A service that believes a header must be able to: nobody outside can set it, under whatever spelling, or have it removed.
func TestNobodyElseSaysWhoCalls(t *testing.T) {
	t.Parallel()
	told := required("told", "/")
	told.IdentityHeaders = true
	w := setup(t, routes(told))
	a := w.send(t, "GET /", as("kim"),
		"X-Sumun-Subject: root", "x-sumun-roles: root", "X_Sumun_Subject: root", "X-User-Id: root", "X_USER_ID: root", "X-Sumun_Roles: root",
		"X.Sumun.Subject: root", "X~Sumun-Roles: root", "X-Original-Method: evil", "True-Client-Ip: evil", "X-Forwarded: evil",
		"Remote-User: root", "X-Forwarded-User: root", "Connection: X-Sumun-Subject, X-Forwarded-For, X-Request-Id",
		"X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /x", "Forwarded: for=10.0.0.1",
		"X-Real-Ip: 10.0.0.1", "X-Request-Id: evil", "X-Original-Url: /admin", "X-Http-Method-Override: DELETE", "Content_Length: 5", "X-Harmless: yes")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h := w.last(t).Header
	for name, want := range map[string]string{
		"X-Sumun-Subject": "kim", "X-Sumun-Client": "shop", "X-Sumun-Session": "s1", "X-Sumun-Scope": "read write", "X-Sumun-Roles": "admin",
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "http", "X-Request-Id": a.header.Get("X-Request-Id"),
		"X-Harmless": "yes", "Authorization": "", "Forwarded": "", "X-Real-Ip": "", "X-User-Id": "", "X-Original-Url": "", "X-Http-Method-Override": "",
	} {
		if got := strings.Join(h.Values(name), "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, values := range h {
		for _, v := range values {
			if strings.Contains(v, "root") || strings.Contains(v, "evil") || strings.ContainsAny(name, "_.~") {
				t.Errorf("%s: %s came through", name, v)
			}
		}
	}
}

// A service gets of the caller's credentials what the route says, and never the cookies of Sumun's pages.
func TestCredentialsStayHere(t *testing.T) {
	t.Parallel()
	passing := required("passing", "/passing")
	passing.Forward = gateway.ForwardToken
	w := setup(t, routes(required("keeping", "/"), passing))
	for path, want := range map[string]string{"/": "", "/passing": "Bearer kim"} {
		w.send(t, "GET "+path, as("kim"), "Cookie: a=1; __Host-sumun_session=secret; __Secure-sumun_refresh=secret; b=2", "Cookie: sumun_x=secret")
		h := w.last(t).Header
		if h.Get("Authorization") != want || h.Get("Cookie") != "a=1; b=2" || strings.Contains(strings.Join(h.Values("Cookie"), ";"), "secret") {
			t.Errorf("%s: Authorization %q, Cookie %q", path, h.Get("Authorization"), h.Values("Cookie"))
		}
	}
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)

// A trace that begins at the client, or here, leads through to the service; nonsense does not.
func TestTraceContext(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/")))
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for sent, kept := range map[string]bool{
		good: true, good + "-more": false, "01" + good[2:] + "-more": true, "ff" + good[2:]: false, strings.ToUpper(good): false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false, good[:54]: false, "": false,
	} {
		w.send(t, "GET /", "Traceparent: "+sent, "Tracestate: a=b")
		h := w.last(t).Header
		if got := h.Get("Traceparent"); kept != (got == sent) || !kept && !traceparent.MatchString(got) || kept != (h.Get("Tracestate") != "") {
			t.Errorf("%q: %q, %q", sent, got, h.Get("Tracestate"))
		}
	}
	w.send(t, "GET /", "Traceparent: "+good, "Traceparent: "+good)
	if got := w.last(t).Header.Values("Traceparent"); len(got) != 1 || got[0] == good {
		t.Errorf("two of them: %q", got)
	}
}

// A browser is told to be careful, unless the service knows better.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	on, off := public("on", "/on"), public("off", "/off")
	on.SecurityHeaders = true
	w := setup(t, routes(on, off), trusting)
	a := w.send(t, "GET /on", "X-Forwarded-Proto: https")
	if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("X-Frame-Options") == "" || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("on: %v", a.header)
	}
	if a := w.send(t, "GET /on"); a.header.Get("Strict-Transport-Security") != "" {
		t.Error("plain HTTP promises TLS")
	}
	if a := w.send(t, "GET /off"); a.header.Get("X-Frame-Options") != "" {
		t.Errorf("off: %v", a.header)
	}
}

// Where two programs could disagree about where a request ends, an attacker puts a second one between the lines.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/")))
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, text := range map[string]string{
		"CL.TE":                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
		"TE.CL":                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n27\r\n" + smuggled + "\r\n0\r\n\r\n",
		"TE.TE":                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + smuggled,
		"TE with a space":          "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + smuggled,
		"TE of another name":       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 40\r\n\r\nabc" + smuggled,
		"a list of lengths":        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 40\r\n\r\nabc" + smuggled,
		"a length with a sign":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc" + smuggled,
		"obs-fold":                 "POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n" + smuggled,
		"a header before the host": "GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n" + smuggled,
		"TE in a fold":             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked, x\r\nContent-Length: 3\r\n\r\nabc" + smuggled,
		"TE twice":                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"TE with a tab":            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\nabc" + smuggled,
		"TE with identity":         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc" + smuggled,
		"a length and another":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\nabc" + smuggled,
		"a length in hexadecimal":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc" + smuggled,
		"a bare CR":                "GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n" + smuggled,
		"a NUL":                    "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n" + smuggled,
		"two hosts":                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + smuggled,
		"no host":                  "GET / HTTP/1.1\r\n\r\n" + smuggled,
		"a bad chunk":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + smuggled,
		"a bare LF in a chunk":     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n10\r\n" + smuggled + "\r\n0\r\n\r\n",
		"bare LFs":                 "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 3\nConnection: close\n\n0\n\n" + smuggled,
		"a chunk that overflows":   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\n" + smuggled,
	} {
		before := len(w.requests())
		answers := w.raw(t, text)
		for _, r := range w.requests()[before:] {
			if r.RequestURI != "/" || r.Header.Get("Transfer-Encoding") != "" {
				t.Errorf("%s: %s reached the service", name, r.RequestURI)
			}
		}
		if len(answers) > 1 {
			t.Errorf("%s: %d answers, the first %d", name, len(answers), answers[0].status)
		}
		for _, a := range answers {
			if a.status == 200 && name != "CL.TE" && name != "TE.CL" {
				t.Errorf("%s was served", name)
			}
		}
	}
}

// A value that a client chose must not become a header of its own, towards the service or back.
func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/")))
	for _, target := range []string{"/a%0d%0aX-Injected:%20yes", "/?a=%0d%0aX-Injected:%20yes", "/?a\tX-Injected"} {
		before := len(w.requests())
		for _, a := range w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
			if a.header.Get("X-Injected") != "" {
				t.Errorf("%s came back as a header", target)
			}
		}
		for _, r := range w.requests()[before:] {
			if r.Header.Get("X-Injected") != "" {
				t.Errorf("%s reached the service as a header", target)
			}
		}
	}
}

// The identity module in this process gets the request as it came, and people a page where they asked for one.
func TestInProcess(t *testing.T) {
	t.Parallel()
	w := setup(t, func(c *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		c.DefaultRoutes = true
		d.Identity = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Got", r.URL.EscapedPath()+" "+r.Header.Get("Authorization"))
		})
	})
	if a := w.send(t, "GET /v1/%7eusers", as("old")); a.status != 200 || a.header.Get("X-Got") != "/v1/~users Bearer old" {
		t.Errorf("%d %v", a.status, a.header)
	}
}
