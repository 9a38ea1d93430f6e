package httpd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

var errEnded = fault.New(fault.Unauthenticated, "session.ended", "The session has ended.")

func TestOneEventPerRequest(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.Handle("GET /v1/users/{id}", httpd.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "{\"name\":\"Kim\"}\n")
		return nil
	}))
	r := httptest.NewRequest(http.MethodGet, "/v1/users/7?token=SECRET", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("Cookie", "c=SECRET")
	r.Header.Set("Authorization", "Bearer SECRET")
	w := x.do(r)

	e := x.log.event(t)
	for key, want := range map[string]any{
		"level": "INFO", "msg": "request", "method": "GET", "route": "/v1/users/{id}", "status": 200.0, "bytes": 15.0,
		"request_id": w.Header().Get("X-Request-Id"), "client": "192.0.2.7", "fault": nil, "error": nil,
	} {
		if e[key] != want {
			t.Errorf("%s: %v, want %v", key, e[key], want)
		}
	}
	if strings.Contains(x.log.String(), "SECRET") || strings.Contains(x.log.String(), "/7") {
		t.Errorf("secrets in the log: %s", x.log)
	}
	want := `
# HELP http_requests_total Requests answered, by route pattern, method and status; 499 means that the client had gone.
# TYPE http_requests_total counter
http_requests_total{code="200",method="GET",route="/v1/users/{id}"} 1
`
	if err := testutil.GatherAndCompare(x.registry, strings.NewReader(want), "http_requests_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(x.registry, "http_request_duration_seconds"); n != 1 || err != nil {
		t.Errorf("%d durations, %v", n, err)
	}
}

// An expected failure tells the log its code and nothing else; an internal one tells the log all and the client nothing.
func TestFailuresAreLoggedByKind(t *testing.T) {
	t.Parallel()
	cause := errors.New("row 7 of secrets")
	for _, tc := range []struct {
		name, level, code string
		err               error
		status            int
		logsCause         bool
	}{
		{"expected", "INFO", "session.ended", errEnded.Wrap(cause), 401, false},
		{"overload", "WARN", "busy", fault.New(fault.Unavailable, "busy", "Busy.").Wrap(cause), 503, true},
		{"internal", "ERROR", "internal", cause, 500, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			x := setup()
			x.mux.Handle("/", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return tc.err }))
			w := x.do(httptest.NewRequest(http.MethodGet, "/", nil))
			if p := problemOf(t, w); p.Status != tc.status || p.Code != tc.code || p.RequestID != w.Header().Get("X-Request-Id") {
				t.Errorf("problem %+v", p)
			}
			if strings.Contains(w.Body.String(), "row 7") {
				t.Error("the client sees the cause")
			}
			e := x.log.event(t)
			if e["level"] != tc.level || e["fault"] != tc.code {
				t.Errorf("event %v", e)
			}
			if logged := strings.Contains(x.log.String(), "row 7"); logged != tc.logsCause {
				t.Errorf("cause logged: %v", logged)
			}
		})
	}
}

func TestPanicIsAnInternalFault(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) { panic("boom") })
	w := x.do(httptest.NewRequest(http.MethodGet, "/", nil))
	if p := problemOf(t, w); p.Code != "internal" || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("problem %+v", p)
	}
	e := x.log.event(t)
	stack, _ := e["stack"].(string)
	if e["level"] != "ERROR" || e["route"] != "/{$}" || !strings.Contains(e["error"].(string), "boom") || !strings.Contains(stack, "chain_test.go") {
		t.Errorf("event %v", e)
	}
}

// A client must never take the first half of an answer for the whole.
func TestFailureAfterWritingCutsTheConnection(t *testing.T) {
	t.Parallel()
	begin := func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, "half of the")
		_ = http.NewResponseController(w).Flush()
	}
	for name, tc := range map[string]struct {
		handler http.Handler
		level   string
	}{
		"panic": {httpd.Handler(func(w http.ResponseWriter, _ *http.Request) error { begin(w); panic("boom") }), "ERROR"},
		"error": {httpd.Handler(func(w http.ResponseWriter, _ *http.Request) error { begin(w); return errors.New("boom") }), "ERROR"},
		"page error": {httpd.WithErrors(func(w http.ResponseWriter, _ *http.Request, _ *fault.Fault) { _, _ = io.WriteString(w, " answer") },
			func(w http.ResponseWriter, _ *http.Request) error { begin(w); return errors.New("boom") }), "ERROR"},
		"abort": {httpd.Handler(func(w http.ResponseWriter, _ *http.Request) error { begin(w); panic(http.ErrAbortHandler) }), "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := setup()
			x.mux.Handle("GET /", tc.handler)
			s := httptest.NewServer(x)
			defer s.Close()
			resp, err := s.Client().Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the client believes that %q is everything", body)
			}
			if e := x.log.event(t); e["aborted"] != true || e["level"] != tc.level {
				t.Errorf("event %v", e)
			}
		})
	}
}

// Clients go away all the time; nobody must be woken for it.
func TestClientThatDisconnectsIsNoError(t *testing.T) {
	t.Parallel()
	x := setup()
	entered, done := make(chan struct{}), make(chan struct{})
	x.mux.Handle("GET /slow", httpd.Handler(func(_ http.ResponseWriter, r *http.Request) error {
		close(entered)
		<-r.Context().Done()
		return r.Context().Err()
	}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		x.ServeHTTP(w, r)
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/slow", nil)
	if _, err := s.Client().Do(r); err == nil {
		t.Fatal("answered after all")
	}
	<-done
	if e := x.log.event(t); e["level"] != "INFO" || e["status"] != 499.0 {
		t.Errorf("event %v", e)
	}
}

// Whatever clients send, the number of time series stays what the routes make it.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	x := setup()
	for _, method := range []string{"BREW", "PROPFIND", strings.Repeat("X", 500), "get"} {
		r := httptest.NewRequest(http.MethodGet, "/nothing/"+method[:3], nil)
		r.Method = method
		x.do(r)
	}
	want := `
# HELP http_requests_total Requests answered, by route pattern, method and status; 499 means that the client had gone.
# TYPE http_requests_total counter
http_requests_total{code="404",method="other",route="unmatched"} 4
`
	if err := testutil.GatherAndCompare(x.registry, strings.NewReader(want), "http_requests_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(mustGauge(t, x)); n != 0 {
		t.Errorf("%v requests in flight after all have ended", n)
	}
}

func TestChainsShareARegistry(t *testing.T) {
	t.Parallel()
	x := setup()
	second := httpd.Chain(x.log.logger(), x.registry, httpd.DefaultConfig())(http.NotFoundHandler())
	second.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if n, err := testutil.GatherAndCount(x.registry, "http_requests_total"); n != 1 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
}

func TestRoutesAnswerWhatNothingMatches(t *testing.T) {
	t.Parallel()
	page := func(w http.ResponseWriter, _ *http.Request, f *fault.Fault) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(f.Status())
	}
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	mux.HandleFunc("GET /v1/users/me", ok)
	mux.HandleFunc("PATCH /v1/users/me", ok)
	mux.HandleFunc("GET /account", ok)
	log := &logBook{}
	h := httpd.Chain(log.logger(), setup().registry, httpd.DefaultConfig())(httpd.Routes(mux, page))
	for _, tc := range []struct {
		method, path, contentType, code, allow string
		status                                 int
	}{
		{"GET", "/v1/users/me", "", "", "", 200},
		{"HEAD", "/v1/users/me", "", "", "", 200},
		{"GET", "/v1/nothing", fault.ContentType, "request.not_found", "", 404},
		{"GET", "/v1", fault.ContentType, "request.not_found", "", 404},
		{"DELETE", "/v1/users/me", fault.ContentType, "request.method_not_allowed", "GET, HEAD, PATCH", 405},
		{"GET", "/nothing", "text/html", "", "", 404},
		{"POST", "/account", "text/html", "", "GET, HEAD", 405},
		{"GET", "//evil.example/..", "text/html", "", "", 404},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != tc.status || w.Header().Get("Content-Type") != tc.contentType || w.Header().Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d %v", tc.method, tc.path, w.Code, w.Header())
		}
		if tc.code != "" && problemOf(t, w).Code != tc.code {
			t.Errorf("%s %s: %s", tc.method, tc.path, w.Body)
		}
	}
}

func TestPagesRenderTheirFailures(t *testing.T) {
	t.Parallel()
	render := func(w http.ResponseWriter, r *http.Request, f *fault.Fault) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(f.Status())
		_, _ = io.WriteString(w, "<p>"+f.Code()+" "+httpd.RequestID(r.Context()))
	}
	for name, h := range map[string]httpd.Handler{
		"error": func(http.ResponseWriter, *http.Request) error { return errEnded },
		"panic": func(http.ResponseWriter, *http.Request) error { panic(errEnded) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := setup()
			x.mux.Handle("GET /page", httpd.WithErrors(render, h))
			w := x.do(httptest.NewRequest(http.MethodGet, "/page", nil))
			if w.Header().Get("Content-Type") != "text/html" || w.Header().Get("Cache-Control") != "no-store" ||
				!strings.HasSuffix(w.Body.String(), w.Header().Get("X-Request-Id")) {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			if name == "panic" && w.Code != http.StatusInternalServerError {
				t.Errorf("a panic is answered with %d", w.Code)
			}
			if e := x.log.event(t); e["fault"] == nil {
				t.Errorf("event %v", e)
			}
		})
	}
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.HandleFunc("GET /v1/things", func(w http.ResponseWriter, _ *http.Request) {})
	for path, csp := range map[string]string{
		"/v1/things": "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		"/nothing":   "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	} {
		h := x.do(httptest.NewRequest(http.MethodGet, path, nil)).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": csp, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s: %q, want %q", path, name, h.Get(name), want)
			}
		}
		if h.Get("Permissions-Policy") == "" {
			t.Errorf("%s: no Permissions-Policy", path)
		}
		if path == "/v1/things" && h.Get("Cache-Control") != "no-store" {
			t.Errorf("API answers may be cached: %q", h.Get("Cache-Control"))
		}
	}
}

func TestStrictTransportSecurityOnlyOverHTTPS(t *testing.T) {
	t.Parallel()
	x := setup()
	for _, tc := range []struct {
		remote, proto string
		want          bool
	}{
		{"10.1.2.3:5", "https", true},
		{"10.1.2.3:5", "http, https", true},
		{"10.1.2.3:5", "https, http", false},
		{"192.0.2.1:5", "https", false}, // a stranger's word
		{"10.1.2.3:5", "", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tc.remote
		r.Header.Set("X-Forwarded-Proto", tc.proto)
		if got := x.do(r).Header().Get("Strict-Transport-Security") != ""; got != tc.want {
			t.Errorf("%s %q: %v", tc.remote, tc.proto, got)
		}
	}
}

// Another site must not be able to act for a person whose browser holds our cookies.
func TestCrossOriginProtection(t *testing.T) {
	t.Parallel()
	x := setup(func(c *httpd.Config) { c.TrustedOrigins = []string{"https://shop.example"} })
	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	x.mux.HandleFunc("/v1/things", ok)
	x.mux.HandleFunc("POST /exempt", ok)
	for _, tc := range []struct {
		name, method, path, site, origin string
		want                             int
	}{
		{"no browser", "POST", "/v1/things", "", "", 204},
		{"our page", "POST", "/v1/things", "same-origin", "http://example.com", 204},
		{"address bar", "POST", "/v1/things", "none", "", 204},
		{"another site", "POST", "/v1/things", "cross-site", "https://evil.example", 403},
		{"a sibling", "POST", "/v1/things", "same-site", "https://evil.example.com", 403},
		{"an old browser elsewhere", "DELETE", "/v1/things", "", "https://evil.example", 403},
		{"a sandboxed frame", "POST", "/v1/things", "", "null", 403},
		{"reading", "GET", "/v1/things", "cross-site", "", 204},
		{"an unknown method", "BREW", "/v1/things", "cross-site", "", 403},
		{"a trusted origin", "POST", "/v1/things", "cross-site", "https://shop.example", 204},
		{"an exempt endpoint", "POST", "/exempt", "cross-site", "https://evil.example", 204},
	} {
		r := httptest.NewRequest(tc.method, tc.path, nil)
		if tc.site != "" {
			r.Header.Set("Sec-Fetch-Site", tc.site)
		}
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		w := x.do(r)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, w.Code, tc.want)
		}
		if tc.want == 403 && problemOf(t, w).Code != "request.cross_origin" {
			t.Errorf("%s: %s", tc.name, w.Body)
		}
	}
}

// A writer that loses its connection in the middle.
type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Err: errors.New("broken pipe")}
}

func TestPanicCausedByABrokenConnectionIsNoError(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.WriteString(w, "x"); err != nil {
			panic(err) // as huma does
		}
	})
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("recovered %v", v)
			}
		}()
		x.ServeHTTP(broken{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	if e := x.log.event(t); e["level"] != "INFO" || e["status"] != 499.0 || e["stack"] != nil {
		t.Errorf("event %v", e)
	}
}

// Whoever thins out the log of a busy gateway still sees every failure.
func TestLogEvery(t *testing.T) {
	t.Parallel()
	for every, want := range map[int]int{0: 0, 1: 6, 3: 2} {
		x := setup(func(c *httpd.Config) { c.LogEvery = every })
		x.mux.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) {})
		x.mux.Handle("GET /bad", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return errEnded }))
		for range 6 {
			x.do(httptest.NewRequest(http.MethodGet, "/", nil))
		}
		for range 2 {
			x.do(httptest.NewRequest(http.MethodGet, "/bad", nil))
		}
		if got := strings.Count(x.log.String(), "\n"); got != want+2 {
			t.Errorf("log_every %d: %d events, want %d and 2 failures", every, got, want)
		}
	}
}
