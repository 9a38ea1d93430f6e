package httpd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

// patience bounds what a test waits for; it is never reached when things work.
const patience = 10 * time.Second

// start runs a server on a free port until the test ends, or stop is called, which returns what Run returned.
func start(t *testing.T, h http.Handler, adjust func(*httpd.Config)) (s *httpd.Server, stop func() error, log *logBook) {
	t.Helper()
	cfg := httpd.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	if adjust != nil {
		adjust(&cfg)
	}
	log = &logBook{}
	s, err := httpd.NewServer(cfg, h, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Run(ctx); close(result) }()
	stop = func() error { cancel(); return <-result }
	t.Cleanup(func() { _ = stop() })
	return s, stop, log
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// Slow clients, malicious or merely stuck, must not be able to hold connections for ever.
func TestSlowClientsAreCut(t *testing.T) {
	t.Parallel()
	x := setup()
	read := make(chan error, 1)
	x.mux.HandleFunc("POST /slow", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})
	big := strings.Repeat("x", 64<<10)
	written := make(chan error, 1)
	x.mux.HandleFunc("GET /big", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, big); err != nil {
				written <- err
				return
			}
		}
	})
	s, _, _ := start(t, x, func(c *httpd.Config) {
		c.ReadHeaderTimeout, c.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond
		c.RequestTimeout, c.WriteTimeout, c.IdleTimeout = 150*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond
	})

	for name, sent := range map[string]string{
		"says nothing":        "",
		"half a header":       "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"half a request line": "GE",
		"idle afterwards":     "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a body":         "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
	} {
		c := dial(t, s.Addr())
		_, _ = io.WriteString(c, sent)
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("%s: the connection stays open: %v", name, err)
		}
	}
	if err := <-read; err == nil {
		t.Error("half a body passed for a whole one")
	}

	c := dial(t, s.Addr()) // asks and does not read the answer
	_, _ = io.WriteString(c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-written:
	case <-time.After(patience):
		t.Error("an answer nobody reads occupies its handler for ever")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	s, _, _ := start(t, setup(), func(c *httpd.Config) { c.MaxHeaderBytes = 4096 })
	c := dial(t, s.Addr())
	go func() {
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", strings.Repeat("x", 16<<10))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v %v", resp, err)
	}
}

// Bytes that are no HTTP at all end the connection and nothing else.
func TestHostileBytes(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.HandleFunc("GET /v1/things", func(w http.ResponseWriter, _ *http.Request) {})
	s, _, log := start(t, x, nil)
	for _, sent := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\x00\x00\x00\x00\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		c := dial(t, s.Addr())
		_, _ = io.WriteString(c, sent)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.ReadAll(c)
	}
	resp, err := http.Get("http://" + s.Addr() + "/v1/things")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("the server no longer serves: %v %v", resp, err)
	}
	if strings.Contains(log.String(), "panic") || strings.Contains(x.log.String(), "panic") {
		t.Errorf("panics: %s%s", log, x.log)
	}
}

// What has been accepted is finished; nothing new is accepted.
func TestShutdownFinishesRequestsInFlight(t *testing.T) {
	t.Parallel()
	x := setup()
	entered, release := make(chan struct{}), make(chan struct{})
	x.mux.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	s, stop, _ := start(t, x, nil)
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + s.Addr() + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for deadline := time.Now().Add(patience); ; { // until the listener is closed
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			break
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("connections are accepted during shutdown")
		}
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the request was finished: %v", err)
	default:
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestShutdownCutsWhatDoesNotFinish(t *testing.T) {
	t.Parallel()
	x := setup()
	entered := make(chan struct{})
	x.mux.HandleFunc("GET /endless", func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	s, stop, log := start(t, x, func(c *httpd.Config) { c.ShutdownGrace = 50 * time.Millisecond })
	failed := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + s.Addr() + "/endless")
		failed <- err
	}()
	<-entered
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the endless request was answered")
	}
	if !strings.Contains(log.String(), "requests cut at shutdown") {
		t.Errorf("log: %s", log)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	s, _, log := start(t, setup(), nil)
	cfg := httpd.DefaultConfig()
	cfg.Listen = s.Addr()
	second, err := httpd.NewServer(cfg, setup(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	err = second.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), s.Addr()) || !strings.Contains(err.Error(), "another program uses this port") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if second.Addr() != "" {
		t.Errorf("it claims to listen on %s", second.Addr())
	}
	cfg.Listen = "192.0.2.1:80"
	foreign, _ := httpd.NewServer(cfg, setup(), log.logger())
	if err := foreign.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "does not have that address") {
		t.Errorf("got %v", err)
	}
}
