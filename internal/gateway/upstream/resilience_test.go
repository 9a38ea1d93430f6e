package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// named answers with its name.
func named(t *testing.T, name string, seen *atomic.Int64) string {
	t.Helper()
	return handler(t, func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		_, _ = io.WriteString(w, name)
	}).URL
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return "http://" + l.Addr().String()
}

// Every endpoint gets its share of the work.
func TestRoundRobinByWeight(t *testing.T) {
	t.Parallel()
	var a, b atomic.Int64
	cfg := testConfig()
	cfg.Endpoints = []upstream.Endpoint{{URL: named(t, "a", &a), Weight: 3}, {URL: named(t, "b", &b)}}
	g := newGateway(t, cfg, upstream.Options{})
	for range 40 {
		_, _, _, _ = g.get(t)
	}
	if a.Load() != 30 || b.Load() != 10 {
		t.Errorf("%d and %d, want 30 and 10", a.Load(), b.Load())
	}
}

// An endpoint that is slow gets less.
func TestLeastConnections(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var arrived, quick atomic.Int64
	slow, _ := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			arrived.Add(1)
			<-release
			c.send(ok)
		}
	})
	cfg := testConfig(slow, named(t, "quick", &quick))
	cfg.Balance = upstream.BalanceLeastConnections
	g := newGateway(t, cfg, upstream.Options{})
	var all sync.WaitGroup
	all.Go(func() { _, _, _, _ = g.get(t) })
	all.Go(func() { _, _, _, _ = g.get(t) })
	until(t, "one is answered and one is not", func() bool { return quick.Load() == 1 && arrived.Load() == 1 })
	for range 20 {
		if _, text, _, _ := g.get(t); text != "quick" {
			t.Errorf("got %q", text)
		}
	}
	close(release)
	all.Wait()
}

// The same key meets the same endpoint, a change moves few keys, and a popular key does not drown its endpoint.
func TestConsistentHashing(t *testing.T) {
	t.Parallel()
	var ignored atomic.Int64
	cfg := testConfig()
	for i := range 4 {
		cfg.Endpoints = append(cfg.Endpoints, upstream.Endpoint{URL: named(t, fmt.Sprint(i), &ignored)})
	}
	cfg.Balance = upstream.BalanceHash
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	where := func(key string) string {
		w := httptest.NewRecorder()
		if err := p.Forward(w, httptest.NewRequest(http.MethodGet, "/", nil), upstream.Options{Key: key}); err != nil {
			t.Fatal(err)
		}
		return w.Body.String()
	}
	const keys = 200
	before, count := map[string]string{}, map[string]int{}
	for i := range keys {
		key := fmt.Sprint("person ", i)
		before[key] = where(key)
		count[before[key]]++
		if again := where(key); again != before[key] {
			t.Errorf("%s went to %s and to %s", key, before[key], again)
		}
	}
	for name, n := range count {
		if n < keys/10 || n > keys/2 {
			t.Errorf("endpoint %s got %d of %d keys", name, n, keys)
		}
	}
	if err := p.SetEndpoints(cfg.Endpoints[:3]); err != nil {
		t.Fatal(err)
	}
	for key, name := range before {
		if now := where(key); now != name && name != "3" {
			t.Errorf("%s moved from %s to %s, though %s is still there", key, name, now, name)
		}
	}
}

// Requests find the endpoints that work, and the ones that do not work are left alone for a while.
func TestRetriesAndEjection(t *testing.T) {
	t.Parallel()
	var good, bad atomic.Int64
	failing := handler(t, func(w http.ResponseWriter, _ *http.Request) { bad.Add(1); w.WriteHeader(http.StatusServiceUnavailable) })
	cfg := testConfig(refusing(t), failing.URL, named(t, "good", &good))
	cfg.Retry.Attempts, cfg.Retry.Base, cfg.Retry.Burst = 3, 0, 100
	cfg.Health.Passive.Failures, cfg.Health.Passive.Share, cfg.Health.Passive.Base = 3, 0.7, time.Minute
	m, r := newMetrics(t)
	p, err := upstream.New(cfg, upstream.Deps{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	g := serve(t, p, upstream.Options{})
	for i := range 50 {
		if status, text, _, err := g.get(t); status != 200 || text != "good" || err != nil {
			t.Fatalf("request %d got %d %q %v", i, status, text, err)
		}
	}
	if bad.Load() != 3 {
		t.Errorf("the failing endpoint was asked %d times, want 3", bad.Load())
	}
	if n := metric(t, r, "sumun_upstream_ejections_total"); n != 2 {
		t.Errorf("%v ejections, want 2", n)
	}
}

// However bad they look, not all endpoints are taken out; what they answer is passed on.
func TestNeverAllAreEjected(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	bad := func() string {
		return handler(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(http.StatusBadGateway) }).URL
	}
	cfg := testConfig(bad(), bad(), bad())
	cfg.Health.Passive.Failures, cfg.Health.Passive.Share = 1, 1
	cfg.Breaker = upstream.Breaker{}
	g := newGateway(t, cfg, upstream.Options{})
	for range 30 {
		if status, _, code, _ := g.get(t); status != 502 || code != "" {
			t.Errorf("got %d %q", status, code)
		}
	}
	if asked.Load() != 30 {
		t.Errorf("%d requests were asked of an endpoint, want 30", asked.Load())
	}
}

// When everything fails, repeating everything would make it worse: retries stay within their budget.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	bad := handler(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	cfg := testConfig(bad.URL)
	cfg.Retry.Attempts, cfg.Retry.Base, cfg.Retry.Budget, cfg.Retry.Burst = 5, 0, 0.1, 5
	cfg.Breaker = upstream.Breaker{}
	g := newGateway(t, cfg, upstream.Options{})
	for range 100 {
		_, _, _, _ = g.get(t)
	}
	if n := asked.Load(); n < 110 || n > 116 {
		t.Errorf("100 requests became %d, want at most 5 and a tenth more", n)
	}
}

// A service that keeps failing is left alone, tried again by a few, and back when those succeed.
func TestBreaker(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var asked atomic.Int64
	broken.Store(true)
	s := handler(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	cfg := testConfig(s.URL)
	cfg.Breaker = upstream.Breaker{Failures: 5, Window: time.Second, Open: 50 * time.Millisecond, Probes: 2}
	g := newGateway(t, cfg, upstream.Options{})
	for range 5 {
		if status, _, code, _ := g.get(t); status != 503 || code != "" {
			t.Fatalf("got %d %q, want the endpoint's own answer", status, code)
		}
	}
	answer, _ := g.send(t, request(t, http.MethodGet, g.URL, nil))
	if answer.StatusCode != 503 || answer.Header.Get("X-Fault") != "upstream.open" {
		t.Fatalf("got %d %q", answer.StatusCode, answer.Header.Get("X-Fault"))
	}
	if asked.Load() != 5 {
		t.Errorf("the endpoint was asked %d times", asked.Load())
	}
	until(t, "a probe fails", func() bool { _, _, _, _ = g.get(t); return asked.Load() == 6 })
	if _, _, code, _ := g.get(t); code != "upstream.open" {
		t.Errorf("after a failed probe: %q", code)
	}
	broken.Store(false)
	until(t, "it is closed", func() bool { status, _, _, _ := g.get(t); return status == 200 })
	for range 20 {
		if status, _, code, _ := g.get(t); status != 200 {
			t.Errorf("closed, it refused: %d %q", status, code)
		}
	}
}

// While half-open, no more than the allowed number of requests try, however many come at once.
func TestBreakerLetsFewTry(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var trying, asked atomic.Int64
	s := handler(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		trying.Add(1)
		<-release
	})
	cfg := testConfig(s.URL)
	cfg.Breaker = upstream.Breaker{Failures: 1, Window: time.Second, Open: time.Millisecond, Probes: 2}
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	forward := func() error {
		return p.Forward(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), upstream.Options{})
	}
	if err := forward(); err != nil {
		t.Fatal(err)
	}
	until(t, "two try", func() bool {
		if trying.Load() < 2 {
			go func() { _ = forward() }()
		}
		return trying.Load() == 2
	})
	for range 20 {
		if err := forward(); !errors.Is(err, upstream.ErrOpen) {
			t.Errorf("got %v", err)
		}
	}
	close(release)
	until(t, "it is closed", func() bool { return forward() == nil })
	if trying.Load() < 2 {
		t.Errorf("%d tried", trying.Load())
	}
}

// When the first endpoint is slow, a second is asked, and the first is let go.
func TestHedging(t *testing.T) {
	t.Parallel()
	released := make(chan struct{}, 1)
	slow, _ := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			c.hang()
			released <- struct{}{}
		}
	})
	var quick atomic.Int64
	cfg := testConfig(slow, named(t, "quick", &quick))
	cfg.Hedge.After = 300 * time.Millisecond
	cfg.Health.Passive = upstream.Passive{}
	m, r := newMetrics(t)
	p, err := upstream.New(cfg, upstream.Deps{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	g := serve(t, p, upstream.Options{})
	for range 2 { // at least one of them begins with the slow endpoint
		if status, text, code, err := g.get(t); text != "quick" {
			t.Fatalf("got %d %q %q %v", status, text, code, err)
		}
	}
	<-released
	if n := metric(t, r, "sumun_upstream_hedges_total"); n < 1 {
		t.Errorf("%v hedges, want some", n)
	}
	if n := metric(t, r, "sumun_upstream_in_flight"); n != 0 {
		t.Errorf("%v in flight", n)
	}
}

// The time after which a second endpoint is asked follows what is usual, and follows it when that changes.
func TestHedgeDelayFollows(t *testing.T) {
	t.Parallel()
	uniform := func(n int, most time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, rand.N(most))
		}
		return all
	}
	if got := upstream.Estimate(0.95, uniform(5000, 100*time.Millisecond)); got < 75*time.Millisecond || got > 115*time.Millisecond {
		t.Errorf("95 of 100 are below 95ms, estimated are %s", got)
	}
	changed := append(uniform(5000, 100*time.Millisecond), uniform(5000, 10*time.Millisecond)...)
	if got := upstream.Estimate(0.95, changed); got < 7*time.Millisecond || got > 12*time.Millisecond {
		t.Errorf("95 of 100 are now below 9.5ms, estimated are %s", got)
	}
}

// One service must not take the whole gateway: so many in flight, so many waiting, the rest hears so at once.
func TestBulkhead(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var inside, most atomic.Int64
	s := handler(t, func(http.ResponseWriter, *http.Request) {
		n := inside.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		inside.Add(-1)
	})
	cfg := testConfig(s.URL)
	cfg.Bulkhead = upstream.Bulkhead{Max: 3, Queue: 5, Wait: time.Minute}
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	const clients = 50
	results := make(chan error, clients)
	for range clients {
		go func() {
			results <- p.Forward(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), upstream.Options{})
		}()
	}
	for range clients - 8 {
		if err := <-results; !errors.Is(err, upstream.ErrFull) {
			t.Errorf("got %v", err)
		}
	}
	until(t, "those inside have arrived", func() bool { return inside.Load() == 3 })
	close(release)
	for range 8 {
		if err := <-results; err != nil {
			t.Errorf("got %v", err)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d were in flight at once", most.Load())
	}
}

// Whoever leaves the queue leaves no hole in it.
func TestBulkheadForgetsThoseWhoLeave(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := handler(t, func(http.ResponseWriter, *http.Request) { <-release })
	cfg := testConfig(s.URL)
	cfg.Bulkhead = upstream.Bulkhead{Max: 1, Queue: 100, Wait: time.Minute}
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if i%2 == 0 {
				r = r.WithContext(ctx)
			}
			err := p.Forward(httptest.NewRecorder(), r, upstream.Options{})
			if err != nil && (i%2 == 1 || !errors.Is(err, context.Canceled)) {
				t.Errorf("got %v", err)
			}
		})
	}
	go func() { leave(); close(release) }()
	all.Wait()
	if err := p.Forward(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), upstream.Options{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// When a service cannot answer, another may; when none can, the prepared answer is given, unless the caller has a better one.
func TestFallback(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	second, err := upstream.New(testConfig(named(t, "second", &asked)), upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(refusing(t))
	cfg.Static = upstream.Static{Status: 503, ContentType: "text/plain", Body: "later"}
	for name, test := range map[string]struct {
		fallback *upstream.Pool
		o        upstream.Options
		status   int
		text     string
		code     string
	}{
		"another":    {second, upstream.Options{}, 200, "second", ""},
		"static":     {nil, upstream.Options{}, 503, "later", ""},
		"not static": {nil, upstream.Options{NoStatic: true}, 502, "", "upstream.unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := upstream.New(cfg, upstream.Deps{Fallback: test.fallback})
			if err != nil {
				t.Fatal(err)
			}
			g := serve(t, p, test.o)
			if status, text, code, err := g.do(t, http.MethodPost, "/", "hello"); status != test.status || text != test.text || code != test.code || err != nil {
				t.Errorf("got %d %q %q %v", status, text, code, err)
			}
		})
	}
}

// An endpoint that says it is unwell gets no requests until it says it is well.
func TestActiveHealth(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	s := handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	cfg := testConfig(s.URL)
	cfg.Health.Active = upstream.Active{Path: "/healthz", Interval: 10 * time.Millisecond, Timeout: time.Second, Healthy: 2, Unhealthy: 2}
	g := newGateway(t, cfg, upstream.Options{})
	code := func() string { _, _, code, _ := g.get(t); return code }
	if c := code(); c != "" {
		t.Errorf("before it was asked: %q", c)
	}
	ill.Store(true)
	until(t, "it is down", func() bool { return code() == "upstream.unavailable" })
	ill.Store(false)
	until(t, "it is back", func() bool { return code() == "" })
}

// A new configuration costs nobody a request: what is in flight finishes where it is, and connections that nobody uses close.
func TestDraining(t *testing.T) {
	t.Parallel()
	arrived, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	old, _ := rawUpstream(t, func(c *rawConn) {
		if c.request() != nil {
			close(arrived)
			<-release
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
			c.hang()
			close(closed)
		}
	})
	cfg := testConfig(old)
	g := newGateway(t, cfg, upstream.Options{})
	result := make(chan string, 1)
	go func() { _, text, _, _ := g.get(t); result <- text }()
	<-arrived
	var asked atomic.Int64
	if err := g.pool.SetEndpoints([]upstream.Endpoint{{URL: named(t, "new", &asked)}}); err != nil {
		t.Fatal(err)
	}
	if _, text, _, _ := g.get(t); text != "new" {
		t.Errorf("got %q", text)
	}
	close(release)
	if text := <-result; text != "old" {
		t.Errorf("what was in flight got %q", text)
	}
	<-closed
	if err := g.pool.SetEndpoints([]upstream.Endpoint{{URL: "ftp://x"}}); err == nil {
		t.Error("a faulty list was taken")
	}
	if _, text, _, _ := g.get(t); text != "new" {
		t.Errorf("after a faulty list: %q", text)
	}
}

// Reloads under load lose no request.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	urls := []string{named(t, "a", &asked), named(t, "b", &asked), named(t, "c", &asked)}
	cfg := testConfig(urls...)
	g := newGateway(t, cfg, upstream.Options{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if status, text, code, err := g.get(t); status != 200 {
					t.Errorf("got %d %q %q %v", status, text, code, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		if err := g.pool.SetEndpoints([]upstream.Endpoint{{URL: urls[i%3]}, {URL: urls[(i+1)%3], Weight: i%5 + 1}}); err != nil {
			t.Fatal(err)
		}
	}
}

// Everything that is wrong with a configuration is said at once.
func TestValidate(t *testing.T) {
	t.Parallel()
	cfg := upstream.Config{Name: "a b", Protocol: "spdy", Balance: "luck", Endpoints: []upstream.Endpoint{
		{URL: "ftp://x"}, {URL: "http://x/path"}, {URL: "http://a", Weight: -1}, {URL: "http://a"}, {URL: "unix:relative"}}}
	cfg.Retry.Statuses = []int{200}
	cfg.Breaker.Failures = 1
	cfg.Health.Active.Path = "healthz"
	cfg.Health.Passive.Ratio = 2
	cfg.Hedge.Quantile = 1
	cfg.Bulkhead.Max = -1
	cfg.Static.Status = 42
	cfg.TLS.CAFile = "/nowhere"
	_, err := upstream.New(cfg, upstream.Deps{})
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, key := range []string{"name", "protocol", "balance", "endpoints[0].url", "endpoints[1].url", "endpoints[2].weight", "endpoints[3].url",
		"endpoints[4].url", "connections.idle_timeout", "timeouts.connect", "retry.attempts", "retry.statuses", "breaker", "hedge",
		"health.active.path", "health.passive", "bulkhead", "static.status", "tls.ca_file", "max_header"} {
		if !strings.Contains(err.Error(), key+":") {
			t.Errorf("nothing is said about %s", key)
		}
	}
	if err := upstream.DefaultConfig().Validate(); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("the defaults lack more than a name: %v", err)
	}
}

func newMetrics(t *testing.T) (*upstream.Metrics, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	m, err := upstream.NewMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

// metric is the sum over all labels.
func metric(t *testing.T, r *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// The metrics are what the dashboards expect.
func TestMetrics(t *testing.T) {
	t.Parallel()
	_, r := newMetrics(t)
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
