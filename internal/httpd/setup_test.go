package httpd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

// logBook collects log events as JSON lines.
type logBook struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.String()
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(b, nil)) }

func (b *logBook) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines.Reset()
}

// event returns the only event logged so far.
func (b *logBook) event(t *testing.T) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 1 {
		t.Fatalf("%d log events instead of one:\n%s", len(lines), b)
	}
	var event map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &event); err != nil {
		t.Fatal(err)
	}
	return event
}

// fixture is a chain around a mux, with its log and metrics.
type fixture struct {
	http.Handler
	mux      *http.ServeMux
	log      *logBook
	registry *prometheus.Registry
}

func setup(adjust ...func(*httpd.Config)) *fixture {
	cfg := httpd.DefaultConfig()
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, f := range adjust {
		f(&cfg)
	}
	x := &fixture{mux: http.NewServeMux(), log: &logBook{}, registry: prometheus.NewRegistry()}
	x.Handler = httpd.Chain(x.log.logger(), x.registry, cfg, "POST /exempt")(httpd.Routes(x.mux, nil))
	return x
}

func (x *fixture) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	x.ServeHTTP(w, r)
	return w
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) fault.Problem {
	t.Helper()
	if ct := w.Header().Get("Content-Type"); ct != fault.ContentType {
		t.Fatalf("Content-Type %q instead of a problem document; status %d, body %s", ct, w.Code, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("a problem may be cached: %q", w.Header().Get("Cache-Control"))
	}
	var p fault.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if p.Status != w.Code {
		t.Errorf("document says %d, header %d", p.Status, w.Code)
	}
	return p
}

func post(path, contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

// mustGauge returns the gauge of requests in flight, which a second registration finds again.
func mustGauge(t *testing.T, x *fixture) prometheus.Gauge {
	t.Helper()
	var already prometheus.AlreadyRegisteredError
	err := x.registry.Register(prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "http_requests_in_flight", Help: "Requests being served.",
	}))
	if !errors.As(err, &already) {
		t.Fatal(err)
	}
	return already.ExistingCollector.(prometheus.Gauge)
}
