package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/httpd"
)

// Routes and services change under load, and not one request fails for it.
func TestLoadUnderTraffic(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/")))
	second := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(second.Close)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	served := make(chan struct{})
	for range 4 {
		group.Go(func() {
			client := http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				answer, err := client.Get("http://" + w.address + "/x")
				if err != nil || answer.StatusCode != 200 {
					t.Errorf("while routes changed: %v %v", answer, err)
				} else {
					_, _ = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
				}
				select {
				case served <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	first := w.config.Upstreams[0].Endpoints
	for i := range 60 {
		next := w.config
		next.Upstreams = append([]gateway.Upstream(nil), w.config.Upstreams...)
		switch i % 3 {
		case 0: // another endpoint, the same pool
			next.Upstreams[0].Endpoints = newUpstream("echo", second.URL).Endpoints
		case 1: // another pool
			next.Upstreams[0].Endpoints, next.Upstreams[0].MaxHeader = first, 16<<10
		}
		if err := w.gateway.Load(next); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			<-served
		}
	}
	stop()
	group.Wait()
}

// A mistake must leave everything as it was.
func TestFaultyConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/")))
	bad := w.config
	bad.Routes = append([]gateway.Route(nil), bad.Routes...)
	bad.Routes[0].Upstream = "nowhere"
	if err := w.gateway.Load(bad); err == nil {
		t.Error("a route to nowhere is served")
	}
	if a := w.send(t, "GET /"); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// revocable is a verifier one of whose callers can be revoked.
type revocable struct {
	tokens
	revoked context.Context
}

// WithWatch implements gateway.Verifier.
func (v revocable) WithWatch(ctx context.Context, _ *auth.Claims) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(v.revoked, cancel)
	return ctx, func() { stop(); cancel() }
}

// A WebSocket works in both directions, outlives the listener's timeouts, and ends with the session that opened it.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	revoked, revoke := context.WithCancel(t.Context())
	w := setup(t, routes(required("socket", "/socket")), func(c *gateway.Config, d *gateway.Deps, h *httpd.Config) {
		c.Upstreams = []gateway.Upstream{newUpstream("echo", echoSocket(t))}
		d.Verifier = revocable{callers, revoked}
		h.ReadTimeout, h.WriteTimeout, h.RequestTimeout = 400*time.Millisecond, 400*time.Millisecond, 300*time.Millisecond
	})
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Forwarded-For\r\nUpgrade: websocket\r\n%s\r\n\r\n", as("kim"))
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v %v", answer, err)
	}
	for began := time.Now(); time.Since(began) < time.Second; { // longer than any timeout of the listener
		fmt.Fprintln(conn, "hello")
		if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
			t.Fatalf("%q %v", line, err)
		}
	}
	revoke()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := in.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("after the revocation: %v", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// echoSocket is a service that changes protocol and echoes.
func echoSocket(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-For") == "" {
			t.Error("a client has removed X-Forwarded-For")
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Server-sent events arrive one by one and outlive the listener's timeouts; whoever does not read them is cut.
func TestEvents(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}))
	t.Cleanup(service.Close)
	w := setup(t, routes(public("events", "/")), func(c *gateway.Config, _ *gateway.Deps, h *httpd.Config) {
		c.Upstreams = []gateway.Upstream{newUpstream("echo", service.URL)}
		h.WriteTimeout, h.RequestTimeout = 400*time.Millisecond, 300*time.Millisecond
	})
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewReader(answer.Body)
	for i := range 5 {
		line, err := events.ReadString('\n')
		if err != nil || strings.TrimSpace(line) != fmt.Sprintf("data: %d", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = events.ReadString('\n')
		pause := time.NewTimer(200 * time.Millisecond) // so that all together take longer than the listener allows
		<-pause.C
		next <- struct{}{}
	}
}
