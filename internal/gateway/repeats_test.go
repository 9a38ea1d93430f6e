package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// till is a service that takes money, and counts how often.
type till struct {
	*httptest.Server
	taken  atomic.Int64
	answer atomic.Pointer[func(w http.ResponseWriter, n int64)]
}

func newTill(t *testing.T) *till {
	t.Helper()
	s := &till{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := s.taken.Add(1)
		if answer := s.answer.Load(); answer != nil {
			(*answer)(w, n)
			return
		}
		w.Header().Set("Location", fmt.Sprintf("/payments/%d", n))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "payment %d", n)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *till) answers(answer func(w http.ResponseWriter, n int64)) { s.answer.Store(&answer) }

// payments is a route to it that knows keys.
func (s *till) payments(change func(*idempotency.Config)) setting {
	return func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) {
		c.Upstreams = append(c.Upstreams, newUpstream("till", s.URL))
		r := required("payments", "/pay/{$}")
		r.Paths = append(r.Paths, "/pay/{id}")
		r.Upstream, r.Idempotency = "till", idempotency.DefaultConfig()
		r.Idempotency.Mode = idempotency.Optional
		if change != nil {
			change(&r.Idempotency)
		}
		c.Routes = append(c.Routes, r)
	}
}

func remembering(s idempotency.Store) setting {
	return func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) { d.Repeats = s }
}

func (w *world) pay(t *testing.T, caller, path, key, body string) answer {
	t.Helper()
	text := "POST " + path + " HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n" + as(caller) + "\r\n"
	if key != "" {
		text += "Idempotency-Key: " + key + "\r\n"
	}
	all := w.raw(t, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", text, len(body), body))
	if len(all) != 1 {
		t.Fatalf("POST %s: %d answers", path, len(all))
	}
	return all[0]
}

// Without this a customer whose connection broke pays twice.
func TestRepeatGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	w := setup(t, s.payments(nil))
	first := w.pay(t, "kim", "/pay/1", `"k1"`, "10 euros")
	again := w.pay(t, "kim", "/pay/1", "k1", "10 euros")
	if first.status != http.StatusCreated || again.status != first.status || again.body != first.body ||
		again.header.Get("Location") != first.header.Get("Location") || s.taken.Load() != 1 {
		t.Fatalf("%+v, then %+v; taken %d times", first, again, s.taken.Load())
	}
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" ||
		again.header.Get("X-Request-Id") == first.header.Get("X-Request-Id") {
		t.Errorf("headers: %v, then %v", first.header, again.header)
	}
	for _, other := range []struct{ caller, path, key, body string }{
		{"lee", "/pay/1", "k1", "10 euros"}, {"kim", "/pay/1", "k2", "10 euros"}, {"kim", "/pay/1", "", "10 euros"},
	} {
		before := s.taken.Load()
		if a := w.pay(t, other.caller, other.path, other.key, other.body); a.status != http.StatusCreated || s.taken.Load() != before+1 {
			t.Errorf("%+v: %d %s", other, a.status, a.body)
		}
	}
	for _, changed := range []struct{ path, body string }{{"/pay/1", "11 euros"}, {"/pay/2", "10 euros"}, {"/pay/1?x", "10 euros"}} {
		if a := w.pay(t, "kim", changed.path, "k1", changed.body); a.status != http.StatusUnprocessableEntity || a.code() != "idempotency.reused" {
			t.Errorf("%+v: %d %s", changed, a.status, a.body)
		}
	}
	if a := w.pay(t, "kim", "/pay/1", `"k1`, ""); a.status != http.StatusBadRequest || a.code() != "idempotency.key" {
		t.Errorf("half a key: %d %s", a.status, a.body)
	}
}

// Two clicks at once take the money once, whichever node they reach.
func TestConcurrentRepeats(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T) idempotency.Store{
		"memory": func(*testing.T) idempotency.Store { return idempotency.NewMemory(time.Now) },
	}
	if redisdbtest.Listed() {
		stores["redis"] = func(t *testing.T) idempotency.Store {
			db := redisdbtest.Open(t)
			return idempotency.NewRedis(db, redisdbtest.Prefix(t, db))
		}
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, store := newTill(t), open(t)
			nodes := []*world{setup(t, s.payments(nil), remembering(store)), setup(t, s.payments(nil), remembering(store))}
			var group sync.WaitGroup
			for i := range 40 {
				group.Go(func() {
					a := nodes[i%2].pay(t, "kim", "/pay/1", "k1", "10 euros")
					if a.status != http.StatusCreated && (a.status != http.StatusConflict || a.header.Get("Retry-After") == "") {
						t.Errorf("%d %s", a.status, a.body)
					}
				})
			}
			group.Wait()
			if a := nodes[0].pay(t, "kim", "/pay/1", "k1", "10 euros"); a.status != http.StatusCreated || s.taken.Load() != 1 {
				t.Errorf("afterwards %d %s; taken %d times", a.status, a.body, s.taken.Load())
			}
		})
	}
}

// The usual reason to ask again is that the answer did not come. What was begun goes on, and its answer waits.
func TestClientThatLeavesFindsItsAnswer(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	s.answers(func(w http.ResponseWriter, _ int64) {
		close(arrived)
		<-goOn
		_, _ = w.Write([]byte("paid"))
	})
	w := setup(t, s.payments(nil))
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /pay/1 HTTP/1.1\r\nHost: shop.example\r\n%s\r\nIdempotency-Key: k1\r\nContent-Length: 0\r\n\r\n", as("kim"))
	<-arrived
	conn.Close()
	if a := w.pay(t, "kim", "/pay/1", "k1", ""); a.code() != "idempotency.in_use" {
		t.Errorf("meanwhile: %d %s", a.status, a.body)
	}
	close(goOn)
	w.eventually(t, func() (answer, bool) {
		a := w.pay(t, "kim", "/pay/1", "k1", "")
		return a, a.status == http.StatusOK && a.body == "paid"
	})
	if s.taken.Load() != 1 {
		t.Errorf("taken %d times", s.taken.Load())
	}
}

// eventually asks again until the answer is right, or the test fails.
func (w *world) eventually(t *testing.T, ask func() (answer, bool)) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		a, right := ask()
		if right {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %d %s", a.status, a.body)
		}
	}
}

// mortal is the store as a process sees it that dies: after its claim, nothing of it arrives any more.
type mortal struct {
	idempotency.Store
	dead atomic.Bool
}

func (m *mortal) Keep(ctx context.Context, c idempotency.Claim, answer []byte) error {
	if m.dead.Load() {
		return context.Canceled
	}
	return m.Store.Keep(ctx, c, answer)
}

func (m *mortal) Renew(ctx context.Context, c idempotency.Claim, alive bool) error {
	if m.dead.Load() {
		return context.Canceled
	}
	return m.Store.Renew(ctx, c, alive)
}

// hasty shortens leases, so that the test need not wait for ten seconds.
type hasty struct{ idempotency.Store }

func (h hasty) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Outcome, []byte, error) {
	c.Lease = 300 * time.Millisecond
	return h.Store.Claim(ctx, c)
}

// A node that dies after the service has answered and before the answer is kept leaves money taken and nobody who knows. The next
// request must neither take it again nor hang: it is told to look.
func TestNodeThatDiesBeforeItKeepsTheAnswer(t *testing.T) {
	t.Parallel()
	each := map[string]idempotency.Store{"memory": idempotency.NewMemory(time.Now)}
	if redisdbtest.Listed() {
		db := redisdbtest.Open(t)
		each["redis"] = idempotency.NewRedis(db, redisdbtest.Prefix(t, db))
	}
	for name, store := range each {
		t.Run(name, func(t *testing.T) {
			s := newTill(t)
			dying := &mortal{Store: hasty{store}}
			dying.dead.Store(true)
			setup(t, s.payments(nil), remembering(dying)).pay(t, "kim", "/pay/1", "k1", "")
			w := setup(t, s.payments(nil), remembering(store))
			w.eventually(t, func() (answer, bool) {
				a := w.pay(t, "kim", "/pay/1", "k1", "")
				if code := a.code(); code != "idempotency.in_use" && code != "idempotency.unknown_outcome" {
					t.Fatalf("%d %s", a.status, a.body)
				}
				return a, a.code() == "idempotency.unknown_outcome"
			})
			if s.taken.Load() != 1 {
				t.Errorf("taken %d times", s.taken.Load())
			}
			knowing := setup(t, s.payments(func(c *idempotency.Config) { c.Lost = idempotency.RepeatLost }), remembering(store))
			if a := knowing.pay(t, "kim", "/pay/1", "k1", ""); a.status != http.StatusCreated || s.taken.Load() != 2 {
				t.Errorf("for a service that knows keys: %d %s, taken %d times", a.status, a.body, s.taken.Load())
			}
		})
	}
}

// What did not reach the service may be asked again; what may have reached it may not.
func TestRepeatAfterAFailure(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	w := setup(t, s.payments(nil))
	s.answers(func(w http.ResponseWriter, n int64) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		panic(http.ErrAbortHandler) // taken, and then the connection breaks
	})
	if a := w.pay(t, "kim", "/pay/1", "busy", ""); a.status != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := w.pay(t, "kim", "/pay/1", "busy", ""); a.code() != "upstream.unreachable" || s.taken.Load() != 2 {
		t.Fatalf("after a 503: %d %s", a.status, a.body)
	}
	if a := w.pay(t, "kim", "/pay/1", "busy", ""); a.code() != "idempotency.unknown_outcome" || s.taken.Load() != 2 {
		t.Errorf("after a broken connection: %d %s", a.status, a.body)
	}
	s.Close()
	for range 2 {
		if a := w.pay(t, "kim", "/pay/1", "down", ""); a.code() != "upstream.unreachable" {
			t.Errorf("service down: %d %s", a.status, a.body)
		}
	}
}

// An answer that is too large to keep arrives whole, and is not asked for again.
func TestLargeAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	for _, chunked := range []bool{false, true} {
		large := strings.Repeat("x", 200_000)
		s.answers(func(w http.ResponseWriter, _ int64) {
			if !chunked {
				w.Header().Set("Content-Length", "200000")
			}
			_, _ = w.Write([]byte(large))
		})
		w := setup(t, s.payments(nil))
		if a := w.pay(t, "kim", "/pay/1", "k1", ""); a.body != large {
			t.Errorf("chunked %t: %d bytes", chunked, len(a.body))
		}
		if a := w.pay(t, "kim", "/pay/1", "k1", ""); a.code() != "idempotency.answer_not_kept" {
			t.Errorf("chunked %t: %d %s", chunked, a.status, a.body)
		}
	}
}

// Without the store nobody knows what was asked before: rather no payment than two.
func TestStoreIsDown(t *testing.T) {
	t.Parallel()
	if !redisdbtest.Listed() {
		return // needs the program redis-server
	}
	server := redisdbtest.Start(t)
	store := idempotency.NewRedis(redisdbtest.OpenURL(t, server.URL()), "")
	s := newTill(t)
	strict := setup(t, s.payments(nil), remembering(store))
	lax := setup(t, s.payments(func(c *idempotency.Config) { c.Outage = idempotency.Pass }), remembering(store))
	server.Kill()
	if a := strict.pay(t, "kim", "/pay/1", "k1", ""); a.status != http.StatusServiceUnavailable || a.code() != "idempotency.unavailable" || s.taken.Load() != 0 {
		t.Errorf("refuse: %d %s", a.status, a.body)
	}
	if a := strict.pay(t, "kim", "/pay/1", "", ""); a.status != http.StatusCreated {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}
	if a := lax.pay(t, "kim", "/pay/1", "k1", ""); a.status != http.StatusCreated {
		t.Errorf("pass: %d %s", a.status, a.body)
	}
	server.Restart()
	strict.eventually(t, func() (answer, bool) {
		a := strict.pay(t, "kim", "/pay/1", "k2", "")
		return a, a.status == http.StatusCreated
	})
}

// A double click of a form that knows no keys happens once, where the route says so, and an equal order later is another one.
func TestImplicitWindow(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	var passed atomic.Int64
	store := idempotency.NewMemory(func() time.Time { return time.Unix(passed.Load(), 0) })
	w := setup(t, remembering(store), s.payments(func(c *idempotency.Config) { c.Mode, c.Implicit = idempotency.Off, 10*time.Second }))
	for _, step := range []struct {
		caller, body string
		want         int64
	}{{"kim", "a", 1}, {"kim", "a", 1}, {"kim", "b", 2}, {"lee", "a", 3}, {"lee", "a", 3}} {
		if a := w.pay(t, step.caller, "/pay/1", "", step.body); a.status != http.StatusCreated || s.taken.Load() != step.want {
			t.Errorf("%+v: %d %s, taken %d times", step, a.status, a.body, s.taken.Load())
		}
	}
	passed.Store(10)
	if w.pay(t, "kim", "/pay/1", "", "a"); s.taken.Load() != 4 {
		t.Errorf("later: taken %d times", s.taken.Load())
	}
}

// A service that is not safe without keys must not be reached without one.
func TestKeyIsRequired(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	w := setup(t, s.payments(func(c *idempotency.Config) { c.Mode = idempotency.Required }))
	if a := w.pay(t, "kim", "/pay/1", "", ""); a.status != http.StatusBadRequest || a.code() != "idempotency.missing" || s.taken.Load() != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.send(t, "GET /pay/1", as("kim")); a.status != http.StatusCreated {
		t.Errorf("GET: %d %s", a.status, a.body)
	}
	open := public("open", "/open")
	open.Upstream, open.Idempotency = "echo", idempotency.DefaultConfig()
	open.Idempotency.Mode = idempotency.Optional
	cfg := w.config
	cfg.Routes = append(cfg.Routes, open)
	if err := w.gateway.Load(cfg); err == nil || !strings.Contains(err.Error(), "keys belong to callers") {
		t.Errorf("a public route with keys: %v", err)
	}
}
