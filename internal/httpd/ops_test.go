package httpd_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd"
)

func ops(ready func(context.Context) error) (http.Handler, *logBook) {
	log := &logBook{}
	return httpd.OpsHandler(httpd.OpsConfig{
		Ready:    ready,
		Registry: httpd.NewRegistry(),
		Listen:   "ops.internal:9090",
		Log:      log.logger(),
		Extra: func(mux *http.ServeMux) {
			mux.HandleFunc("POST /mailbox/clear", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
			mux.Handle("GET /broken", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return errors.New("boom") }))
		},
	}), log
}

func ask(h http.Handler, method, host, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestOperatorsEndpoints(t *testing.T) {
	t.Parallel()
	h, log := ops(func(context.Context) error { return nil })
	for path, want := range map[string]string{
		"/livez": "ok", "/readyz": "ok", "/metrics": "go_goroutines", "/debug/pprof/": "goroutine",
		"/debug/pprof/cmdline": "", "/debug/pprof/heap?debug=1": "heap profile",
	} {
		if w := ask(h, "GET", "127.0.0.1:9090", path); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.100s", path, w.Code, w.Body)
		}
	}
	if p := problemOf(t, ask(h, "GET", "127.0.0.1:9090", "/nothing")); p.Status != 404 {
		t.Errorf("%+v", p)
	}
	if log.String() != "" {
		t.Errorf("probes fill the log: %s", log)
	}
	ask(h, "GET", "127.0.0.1:9090", "/broken")
	if e := log.event(t); e["level"] != "ERROR" {
		t.Errorf("event %v", e)
	}
}

func TestReadyNamesWhatIsNotReady(t *testing.T) {
	t.Parallel()
	h, _ := ops(func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the check may hang for ever")
		}
		return errors.Join(errors.New("database: connection refused"), errors.New("identity: starting"))
	})
	w := ask(h, "GET", "127.0.0.1:9090", "/readyz")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "database: connection refused") || !strings.Contains(w.Body.String(), "identity: starting") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "127.0.0.1:9090", "/livez"); w.Code != 200 {
		t.Errorf("not ready is taken for dead: %d", w.Code)
	}
}

// A page on the Internet whose name resolves to this machine must not read the operators' pages.
func TestDNSRebindingIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := ops(func(context.Context) error { return nil })
	for host, want := range map[string]int{
		"127.0.0.1:9090": 200, "127.0.0.1": 200, "[::1]:9090": 200, "[::1]": 200, "localhost:9090": 200, "LOCALHOST": 200,
		"10.1.2.3:9090": 200, "ops.internal:9090": 200, "OPS.internal": 200,
		"evil.example:9090": 403, "evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "": 403,
		"notlocalhost": 403, "[evil.example]:80": 403, "ops.internal.evil.example": 403,
	} {
		if w := ask(h, "GET", host, "/livez"); w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
	if w := ask(h, "POST", "127.0.0.1:9090", "/mailbox/clear", "Sec-Fetch-Site", "cross-site"); w.Code != 403 {
		t.Errorf("another site acts on the operators' listener: %d", w.Code)
	}
	if w := ask(h, "POST", "127.0.0.1:9090", "/mailbox/clear", "Sec-Fetch-Site", "same-origin"); w.Code != 204 {
		t.Errorf("our own page cannot act: %d", w.Code)
	}
}

func FuzzOpsHost(f *testing.F) {
	f.Add("localhost:1")
	f.Add("[::1%25lo]:1")
	f.Add("[[evil.example]]")
	h, _ := ops(func(context.Context) error { return nil })
	f.Fuzz(func(t *testing.T, host string) {
		w := ask(h, "GET", host, "/livez")
		if w.Code != 200 && w.Code != 403 {
			t.Fatalf("%q: %d", host, w.Code)
		}
		if w.Code == 200 && strings.Contains(strings.ToLower(host), "evil.example") && !strings.Contains(host, "%") {
			t.Fatalf("%q accepted", host)
		}
	})
}

// A page that somebody has open must not be able to start profiles on this machine.
func TestOpsIgnorePagesElsewhere(t *testing.T) {
	t.Parallel()
	h := httpd.OpsHandler(httpd.OpsConfig{Ready: func(context.Context) error { return nil }, Registry: httpd.NewRegistry()})
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200, "": 200} {
		for _, path := range []string{"/metrics", "/debug/pprof/cmdline"} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1"+path, nil)
			r.Header.Set("Sec-Fetch-Site", site)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s from %q: status %d, want %d", path, site, w.Code, want)
			}
			if want == 200 && w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s may be stored", path)
			}
		}
	}
}
