package upstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// rawUpstream accepts connections and lets behave do with each what it likes. The number of a connection counts from 1.
func rawUpstream(t *testing.T, behave func(c *rawConn)) (url string, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int64)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := accepted.Add(1)
			all.Go(func() {
				defer func() { _ = c.Close() }()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				behave(&rawConn{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), number: n, t: t, gone: ctx})
			})
		}
	})
	return "http://" + l.Addr().String(), accepted
}

type rawConn struct {
	*net.TCPConn
	r      *bufio.Reader
	number int64
	t      *testing.T
	gone   context.Context
}

// request reads a whole request; nil when there is none.
func (c *rawConn) request() *http.Request {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	return r
}

func (c *rawConn) send(text string) { _, _ = io.WriteString(c, text) }

// hang does nothing until the other side closes.
func (c *rawConn) hang() { _, _ = io.Copy(io.Discard, c.r) }

// reset closes with RST.
func (c *rawConn) reset() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// testConfig tries once.
func testConfig(urls ...string) upstream.Config {
	cfg := upstream.DefaultConfig()
	cfg.Name = "test"
	for _, u := range urls {
		cfg.Endpoints = append(cfg.Endpoints, upstream.Endpoint{URL: u})
	}
	cfg.Retry.Attempts = 1
	return cfg
}

// impatientConfig is for endpoints that hang.
func impatientConfig(urls ...string) upstream.Config {
	cfg := testConfig(urls...)
	cfg.Timeouts.FirstByte, cfg.Timeouts.Idle = 300*time.Millisecond, 300*time.Millisecond
	return cfg
}

// gateway is a server that forwards everything to a pool.
type gateway struct {
	*httptest.Server
	pool *upstream.Pool
	errs chan error // of Forward, nil included
}

func newGateway(t *testing.T, cfg upstream.Config, o upstream.Options) *gateway {
	t.Helper()
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, p, o)
}

func serve(t *testing.T, p *upstream.Pool, o upstream.Options) *gateway {
	t.Helper()
	g := &gateway{pool: p, errs: make(chan error, 1000)}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := p.Forward(w, r, o)
		g.errs <- err
		if err != nil {
			w.Header().Set("X-Fault", fault.From(err).Code())
			w.WriteHeader(fault.From(err).Status())
		}
	}))
	t.Cleanup(g.Close)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return g
}

// get returns status, body and the code of a fault. The error is of an answer that was cut.
func (g *gateway) do(t *testing.T, method, path, body string) (status int, text, code string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := g.Client().Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = answer.Body.Close() }()
	all, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(all), answer.Header.Get("X-Fault"), err
}

func (g *gateway) get(t *testing.T) (status int, text, code string, err error) {
	t.Helper()
	return g.do(t, http.MethodGet, "/", "")
}

// until polls for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
