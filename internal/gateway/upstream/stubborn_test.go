package upstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// An endpoint that does not read an upload is given up, and so is the client that feeds it.
func TestEndpointThatDoesNotRead(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) { _ = c.SetReadBuffer(4096); <-c.gone.Done() })
	g := newGateway(t, impatientConfig(url), upstream.Options{})
	r := request(t, http.MethodPost, g.URL, endless{})
	r.ContentLength = 1 << 40
	if answer, err := g.Client().Do(r); err == nil {
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("got %d", answer.StatusCode)
		}
	}
	if err := <-g.errs; !errors.Is(err, upstream.ErrTimeout) && !errors.Is(err, upstream.ErrUnreachable) {
		t.Errorf("Forward returned %v", err)
	}
}

// endless is an upload without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An endpoint that answers drop by drop is slow, not broken, as long as the drops come in time.
func TestSlowDrip(t *testing.T) {
	t.Parallel()
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-A: b\r\n\r\ndrop by drop"
	url, _ := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			tick := time.NewTicker(2 * time.Millisecond)
			for i := range len(text) {
				<-tick.C
				c.send(text[i : i+1])
			}
			tick.Stop()
		}
	})
	g := newGateway(t, testConfig(url), upstream.Options{})
	for range 2 {
		if status, body, code, err := g.get(t); status != 200 || body != "drop by drop" {
			t.Errorf("got %d %q %q %v", status, body, code, err)
		}
	}
}

// The bound of the whole holds for an endpoint that keeps dripping, and for retries.
func TestTotalTimeout(t *testing.T) {
	t.Parallel()
	drip, _ := rawUpstream(t, func(c *rawConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
		for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
			if _, err := io.WriteString(c, "."); err != nil {
				tick.Stop()
				return
			}
		}
	})
	hang, _ := rawUpstream(t, func(c *rawConn) { c.hang() })
	for name, url := range map[string]string{"drip": drip, "hang": hang} {
		cfg := testConfig(url)
		cfg.Timeouts.FirstByte, cfg.Timeouts.Total = time.Second, 1200*time.Millisecond // all attempts would take 10 s
		cfg.Retry.Attempts, cfg.Retry.OnTimeout = 10, true
		g := newGateway(t, cfg, upstream.Options{})
		began := time.Now()
		status, _, code, err := g.get(t)
		if name == "hang" && (status != 504 || code != "upstream.timeout") || name == "drip" && err == nil {
			t.Errorf("%s: got %d %q %v", name, status, code, err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

// An endpoint that accepts connections and does not speak TLS must not hold a request for longer than a connection may take.
func TestTLSHandshakeHangs(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) { c.hang() })
	cfg := testConfig(strings.Replace(url, "http:", "https:", 1))
	cfg.Timeouts.Connect = 100 * time.Millisecond
	if status, _, code, err := newGateway(t, cfg, upstream.Options{}).get(t); status != 504 || code != "upstream.timeout" {
		t.Errorf("got %d %q %v", status, code, err)
	}
}

// Without a length, the end of a TLS connection is the end of the answer only when the endpoint says so: anybody on the way could
// have cut the connection.
func TestTLSTruncation(t *testing.T) {
	t.Parallel()
	for name, polite := range map[string]bool{"whole": true, "cut": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
				if polite {
					_ = c.Close()
					return
				}
				_ = c.(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}))
			s.StartTLS()
			t.Cleanup(s.Close)
			cfg := testConfig(s.URL)
			cfg.TLS.CAFile = caFile(t, s)
			status, text, _, err := newGateway(t, cfg, upstream.Options{}).get(t)
			if status != 200 || polite != (err == nil) || text != "hello" {
				t.Errorf("got %d %q %v", status, text, err)
			}
		})
	}
}

// A bound that the caller sets on bodies is the client's fault, and no endpoint's.
func TestBodyBound(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) { c.hang() })
	cfg := testConfig(url)
	cfg.Health.Passive.Failures = 1
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 1)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 10)
		errs <- p.Forward(w, r, upstream.Options{})
	}))
	t.Cleanup(front.Close)
	for _, length := range []int64{100, -1, 100_000} {
		r := request(t, http.MethodPost, front.URL, bytes.NewReader(make([]byte, max(length, 100))))
		r.ContentLength = length
		if answer, err := front.Client().Do(r); err == nil {
			_ = answer.Body.Close()
		}
		if err := <-errs; !errors.As(err, new(*http.MaxBytesError)) {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

// Whatever endpoints and clients do, nothing is left of it: no goroutine, no connection. Not parallel, since it counts goroutines.
func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	func() {
		url, _ := rawUpstream(t, func(c *rawConn) {
			for r := c.request(); r != nil; r = c.request() {
				switch r.URL.Path {
				case "/hang":
					c.hang()
				case "/reset":
					c.reset()
				case "/cut":
					c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
					return
				default:
					c.send(ok)
				}
			}
		})
		cfg := testConfig(url)
		cfg.Breaker = upstream.Breaker{}
		m, registry := newMetrics(t)
		p, err := upstream.New(cfg, upstream.Deps{Metrics: m})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Run(ctx) }()
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.Forward(w, r, upstream.Options{}) != nil {
				w.WriteHeader(http.StatusBadGateway)
			}
		}))
		g := &gateway{Server: front}
		var all sync.WaitGroup
		for i := range 80 {
			all.Go(func() {
				path := [...]string{"/", "/hang", "/reset", "/cut"}[i%4]
				ctx, leave := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer leave()
				body := strings.NewReader(strings.Repeat("a", i*1000))
				r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, body)
				if answer, err := g.Client().Do(r); err == nil {
					_, _ = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
				}
			})
		}
		all.Wait()
		front.Close()
		cancel()
		<-done
		until(t, "nothing is in flight and no connection open", func() bool {
			return metric(t, registry, "sumun_upstream_connections") == 0 && metric(t, registry, "sumun_upstream_in_flight") == 0
		})
	}()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	until(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before+2 }) // those of the listener
}
