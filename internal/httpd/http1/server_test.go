package http1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// Work for somebody who has gone keeps others waiting.
func TestContextEndsWithItsClient(t *testing.T) {
	t.Parallel()
	entered, ended := make(chan struct{}), make(chan error, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		entered <- struct{}{}
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(patience):
			ended <- errors.New("nobody noticed")
		}
	}))))
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"} {
		c := dial(t, address)
		fmt.Fprint(c, request)
		<-entered
		_ = c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %v", request, err)
		}
	}
}

// A request that comes while the one before is worked on must be neither lost nor taken for a client that leaves.
func TestRequestsThatComeEarly(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-more
			http1.AwaitEarly(w)
		}
		fmt.Fprint(w, r.URL.Path, r.Context().Err())
	}))))
	c := dial(t, address)
	r := bufio.NewReader(c)
	for range 3 {
		fmt.Fprint(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		more <- struct{}{}
		fmt.Fprint(c, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		for _, want := range []string{"/slow<nil>", "/next<nil>"} {
			a, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(a.Body); string(body) != want {
				t.Errorf("got %q, want %q", body, want)
			}
		}
	}
}

// Clients that send slowly, or nothing, must not hold connections for ever.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	s := settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	s.ReadHeaderTimeout, s.ReadTimeout, s.IdleTimeout = 200*time.Millisecond, 300*time.Millisecond, 400*time.Millisecond
	address := serve(t, http1.New(s))
	const whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for text, answers := range map[string]int{
		"":                     0,
		whole[:20]:             0,
		whole:                  1,
		whole + whole[:20]:     1,
		whole + whole + "\r\n": 2,
		"GET / HTTP/1.1\nHost": 0,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf": 1,
	} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			t.Parallel()
			c := dial(t, address)
			began := time.Now()
			fmt.Fprint(c, text)
			got, err := io.ReadAll(c)
			if err != nil || strings.Count(string(got), "HTTP/1.1 ") < answers {
				t.Errorf("%q %v", got, err)
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("cut after %s", took)
			}
		})
	}
}

// One byte after the other is slow, not odd.
func TestRequestsInPieces(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(settings(pages())))
	c := dial(t, address)
	for _, b := range []byte("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	got := answers(mustRead(t, c), nil)
	if len(got) != 3 || !strings.Contains(got[0], `\"hi\"`) || !strings.Contains(got[1], "<html>") {
		t.Errorf("%q", got)
	}
}

func mustRead(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A deployment must not cut anybody's request, nor wait for those who ask for nothing.
func TestShutdown(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	s := http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-leave
		}
		fmt.Fprint(w, "done")
	})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	address := l.Addr().String()
	silent, idle := dial(t, address), dial(t, address)
	const get = "GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n"
	fmt.Fprintf(idle, get, "/", "")
	if a, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || a.StatusCode != 200 {
		t.Fatal(a, err)
	}
	plain, odd := dial(t, address), dial(t, address)
	fmt.Fprintf(plain, get, "/slow", "")
	fmt.Fprintf(odd, get, "/slow", "Transfer-Encoding: chunked\r\n")
	fmt.Fprint(odd, "0\r\n\r\n")
	<-entered
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	for _, c := range []net.Conn{silent, idle} {
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the requests were answered: %v", err)
	default:
	}
	close(leave)
	for _, c := range []net.Conn{plain, odd} {
		if got := string(mustRead(t, c)); !strings.HasSuffix(got, "done") || !strings.Contains(got, "Connection: close") {
			t.Errorf("%q", got)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Error("connections are accepted still")
	}
}

// A request that does not end must not keep a server from stopping longer than it is allowed to.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s := http1.New(settings(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})))
	address := serve(t, s)
	fmt.Fprint(dial(t, address), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// What many clients ask at once, plain and odd in turns, must each get its own answer.
func TestManyClients(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, r.Header.Get("X-Who"))
		_, _ = io.Copy(w, r.Body)
	}))))
	transport := &http.Transport{MaxIdleConnsPerHost: 50}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			for j := range 40 {
				who := fmt.Sprintf("%d-%d-", i, j)
				body := strings.Repeat(who, j*j*10)
				var from io.Reader = strings.NewReader(body)
				if j%10 == 9 {
					from = io.MultiReader(from) // its length is not known: chunks
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address, from)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-Who", who)
				a, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(a.Body)
				_ = a.Body.Close()
				if err != nil || string(got) != who+body {
					t.Errorf("%s got %d bytes, %v", who, len(got), err)
				}
			}
		})
	}
	all.Wait()
}
