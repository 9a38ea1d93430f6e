package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// tokens knows some callers by their tokens.
type tokens map[string]*auth.Claims

// VerifyRequest implements gateway.Verifier.
func (tokens) DPoPNonce(*http.Request) string { return "" }

func (ts tokens) VerifyRequest(r *http.Request) (*auth.Claims, error) {
	token, err := auth.Token(r)
	if err != nil {
		return nil, err
	}
	if c := ts[token]; c != nil {
		return c, nil
	}
	return nil, auth.ErrExpired
}

// Fresh implements gateway.Verifier.
func (ts tokens) Fresh() error { return nil }

// WithWatch implements gateway.Verifier. Nothing is revoked.
func (ts tokens) WithWatch(ctx context.Context, _ *auth.Claims) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

var callers = tokens{
	"kim":   {Subject: "kim", ClientID: "shop", SessionID: "s1", Scope: "read write", Roles: []string{"admin"}},
	"lee":   {Subject: "lee", ClientID: "shop", SessionID: "s2", Scope: "read"},
	"robot": {Subject: "robot", ClientID: "robot", Scope: "read"},
}

// world is a running gateway in front of a service that answers what it got.
type world struct {
	address string // host:port of the gateway
	gateway *gateway.Gateway
	log     *syncBuffer
	config  gateway.Config
	metrics *prometheus.Registry

	mu   sync.Mutex
	seen []*http.Request
}

// setting changes what a world is made of.
type setting func(*gateway.Config, *gateway.Deps, *httpd.Config)

func routes(all ...gateway.Route) setting {
	return func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
		for _, r := range all {
			if r.Upstream == "" {
				r.Upstream = "echo"
			}
			c.Routes = append(c.Routes, r)
		}
	}
}

func limited(clock func() time.Time) setting {
	return func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) { d.Limiter = ratelimit.NewMemory(clock) }
}

// trusting makes loopback a trusted proxy, so that tests come from any address they like.
func trusting(_ *gateway.Config, _ *gateway.Deps, h *httpd.Config) {
	h.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// setup runs a gateway without Sumun's own routes on a real listener.
func setup(t *testing.T, settings ...setting) *world {
	t.Helper()
	w := &world{log: &syncBuffer{}, metrics: prometheus.NewRegistry()}
	service := httptest.NewServer(http.HandlerFunc(w.echo))
	t.Cleanup(service.Close)
	cfg, server := gateway.DefaultConfig(), httpd.DefaultConfig()
	cfg.DefaultRoutes = false
	cfg.Upstreams = []gateway.Upstream{newUpstream("echo", service.URL)}
	server.Listen, server.ReadHeaderTimeout, server.IdleTimeout = "127.0.0.1:0", time.Second, time.Second
	deps := gateway.Deps{
		Verifier: callers, MaxBody: 1 << 20, WriteTimeout: time.Second,
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Metrics: w.metrics,
	}
	for _, s := range settings {
		s(&cfg, &deps, &server)
	}
	var err error
	if w.gateway, err = gateway.New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	w.config = cfg
	w.serve(t, server, deps)
	return w
}

func newUpstream(name string, urls ...string) gateway.Upstream {
	var u gateway.Upstream
	u.SetDefaults()
	u.Name = name
	for _, url := range urls {
		u.Endpoints = append(u.Endpoints, upstream.Endpoint{URL: url})
	}
	return u
}

func (w *world) serve(t *testing.T, cfg httpd.Config, deps gateway.Deps) {
	t.Helper()
	s, err := httpd.NewServer(cfg, httpd.Edge(deps.Log, deps.Metrics, cfg)(w.gateway), deps.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.address = s.Addr()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{s.Run, w.gateway.Run} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { stop(); group.Wait() })
}

// echo answers with the route's request as it arrived.
func (w *world) echo(out http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.seen = append(w.seen, r)
	w.mu.Unlock()
	out.Header().Set("X-Got", r.RequestURI)
	_, _ = out.Write(body)
}

// requests are what has arrived at the service.
func (w *world) requests() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*http.Request(nil), w.seen...)
}

// last is the latest of them.
func (w *world) last(t *testing.T) *http.Request {
	t.Helper()
	all := w.requests()
	if len(all) == 0 {
		t.Fatal("nothing arrived at the service")
	}
	return all[len(all)-1]
}

// answer is what the gateway said.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is that of the problem document.
func (a answer) code() string {
	_, rest, _ := strings.Cut(a.body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

// send sends "GET /path" with header lines to the gateway.
func (w *world) send(t *testing.T, request string, lines ...string) answer {
	t.Helper()
	text := request + " HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"
	for _, line := range lines {
		text += line + "\r\n"
	}
	answers := w.raw(t, text+"\r\n")
	if len(answers) != 1 {
		t.Fatalf("%s: %d answers", request, len(answers))
	}
	return answers[0]
}

func as(caller string) string { return "Authorization: Bearer " + caller }

// raw sends bytes as they are, and returns the answers until the connection ends or is silent.
func (w *world) raw(t *testing.T, text string) []answer {
	t.Helper()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	var all []answer
	for in := bufio.NewReader(conn); ; {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, answer{response.StatusCode, response.Header, string(body)})
		if response.Close {
			return all
		}
	}
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func public(name, path string) gateway.Route {
	return gateway.Route{Name: name, Paths: []string{path}, Authentication: gateway.Public}
}

func required(name, path string) gateway.Route {
	return gateway.Route{Name: name, Paths: []string{path}, Authentication: gateway.Required}
}
