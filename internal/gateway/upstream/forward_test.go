package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// handler runs an upstream of net/http.
func handler(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// send sends a request and reads its answer.
func (g *gateway) send(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	answer, err := g.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What belongs to one connection stays on it; everything else arrives as it was sent, in both directions.
func TestHeaders(t *testing.T) {
	t.Parallel()
	var seen http.Header
	var host, target string
	url, _ := rawUpstream(t, func(c *rawConn) {
		for r := c.request(); r != nil; r = c.request() {
			seen, host, target = r.Header, r.Host, r.RequestURI
			c.send("HTTP/1.1 200 OK\r\nServer: raw\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nX-Hop: secret\r\n" +
				"Connection: keep-alive, X-Hop, Set-Cookie\r\nX-Empty:\r\nX-Kept: theirs\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p, err := upstream.New(testConfig(url), upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upstream.StripHopByHop(r.Header)
		r.Header.Set("X-Identity", "u1")
		w.Header().Set("X-Kept", "ours")
		w.Header().Set("Set-Cookie", "c=3")
		_ = p.Forward(w, r, upstream.Options{Path: "/a%2Fb?c=%20", Host: "app.example",
			OnAnswer: func(_ int, h http.Header) { h.Del("Server") }})
	}))
	t.Cleanup(front.Close)
	g := &gateway{Server: front}
	r := request(t, http.MethodGet, front.URL+"/else", nil)
	r.Header.Set("Connection", "X-Identity, Authorization, X-Mine")
	r.Header.Set("X-Mine", "1")
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Proxy-Authorization", "Basic x")
	r.Header.Set("Te", "trailers, deflate")
	r.Header["X-Many"] = []string{"1", "2"}
	answer, body := g.send(t, r)
	if body != "ok" || host != "app.example" || target != "/a%2Fb?c=%20" {
		t.Errorf("body %q, host %q, target %q", body, host, target)
	}
	for name, want := range map[string][]string{"X-Identity": {"u1"}, "Authorization": {"Bearer x"}, "X-Mine": nil,
		"Proxy-Authorization": nil, "Te": {"trailers"}, "X-Many": {"1", "2"}} {
		if !slices.Equal(seen[name], want) {
			t.Errorf("the endpoint saw %s %q, want %q", name, seen[name], want)
		}
	}
	for name, want := range map[string][]string{"Set-Cookie": {"c=3", "a=1", "b=2"}, "Keep-Alive": nil, "X-Hop": nil, "X-Empty": {""},
		"X-Kept": {"ours"}, "X-Two": {"1", "2"}, "Server": nil, "Content-Type": nil} {
		if !slices.Equal(answer.Header[name], want) {
			t.Errorf("the client saw %s %q, want %q", name, answer.Header[name], want)
		}
	}
}

// A header or a path that would end its line must never reach an endpoint, whoever made it.
func TestRequestThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	url, accepted := rawUpstream(t, func(c *rawConn) { c.request(); c.send(ok) })
	p, err := upstream.New(testConfig(url), upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *http.Request, o *upstream.Options){
		"value":       func(r *http.Request, _ *upstream.Options) { r.Header.Set("A", "b\r\nC: d") },
		"name":        func(r *http.Request, _ *upstream.Options) { r.Header["A: b\r\nC"] = []string{"d"} },
		"method":      func(r *http.Request, _ *upstream.Options) { r.Method = "GET / HTTP/1.1\r\n" },
		"CONNECT":     func(r *http.Request, _ *upstream.Options) { r.Method = http.MethodConnect },
		"path":        func(_ *http.Request, o *upstream.Options) { o.Path = "/ HTTP/1.1\r\nA: b\r\n\r\n" },
		"host":        func(_ *http.Request, o *upstream.Options) { o.Host = "a\r\nb: c" },
		"expectation": func(r *http.Request, _ *upstream.Options) { r.Header.Set("Expect", "miracle") },
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			var o upstream.Options
			change(r, &o)
			w := httptest.NewRecorder()
			if err := p.Forward(w, r, o); !errors.Is(err, upstream.ErrRequest) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if n := accepted.Load(); n > 2 { // the header is written when a connection is there
			t.Errorf("%d connections", n)
		}
	})
}

// Bodies of every length and framing arrive as they were sent, through small buffers, chunks, and the kernel.
func TestBodies(t *testing.T) {
	t.Parallel()
	echo := handler(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		for part := range slices.Chunk(body, 1<<15) {
			_, _ = w.Write(part)
		}
	})
	cfg := testConfig(echo.URL)
	g := newGateway(t, cfg, upstream.Options{})
	for _, size := range []int{1, 100, 5000, 16 << 10, 16<<10 + 1, 100_000, 3_000_000} {
		body := make([]byte, size)
		_, _ = rand.Read(body)
		for _, answer := range []string{"", "?length"} {
			for _, known := range []bool{true, false} {
				r := request(t, http.MethodPost, g.URL+"/"+answer, bytes.NewReader(body))
				if !known {
					r.ContentLength = -1
				}
				a, text := g.send(t, r)
				if want := fmt.Sprint(r.ContentLength); text != string(body) || a.Header.Get("X-Length") != want {
					t.Errorf("%d bytes, answer %q, length known %v: got %d bytes, length %q, want %q", size, answer, known, len(text),
						a.Header.Get("X-Length"), want)
				}
			}
		}
	}
}

// One connection serves request after request; what ends it ends only itself.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		method string
		made   int64
	}{
		"length":            {ok, "GET", 1},
		"chunks":            {chunked + "2;ext=1\r\nok\r\n0\r\n\r\n", "GET", 1},
		"HEAD":              {"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", "HEAD", 1},
		"HEAD with chunks":  {chunked, "HEAD", 1},
		"204":               {"HTTP/1.1 204 No Content\r\n\r\n", "GET", 1},
		"304":               {"HTTP/1.1 304 Not Modified\r\nContent-Length: 2000\r\n\r\n", "GET", 1},
		"103 first":         {"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + ok, "GET", 1},
		"no reason":         {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "GET", 1},
		"HTTP/1.0 kept":     {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "GET", 1},
		"HTTP/1.0":          {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 3},
		"kept for 60 s":     {"HTTP/1.1 200 OK\r\nKeep-Alive: max=100, timeout=60\r\nContent-Length: 2\r\n\r\nok", "GET", 1},
		"Connection: close": {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", "GET", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, accepted := rawUpstream(t, func(c *rawConn) {
				for c.request() != nil {
					c.send(test.answer)
				}
			})
			g := newGateway(t, testConfig(url), upstream.Options{})
			for range 3 {
				status, text, code, err := g.do(t, test.method, "/", "")
				if err != nil || code != "" || status == 200 && test.method == "GET" && text != "ok" {
					t.Errorf("got %d %q %q %v", status, text, code, err)
				}
			}
			if accepted.Load() != test.made {
				t.Errorf("%d connections were made, want %d", accepted.Load(), test.made)
			}
		})
	}
}

// An endpoint says for how long it keeps a connection. What is sent on one that it is about to close is lost, so it is not used for
// longer than that.
func TestKeepAliveTimeout(t *testing.T) {
	t.Parallel()
	url, accepted := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			c.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	g := newGateway(t, testConfig(url), upstream.Options{})
	if _, text, _, err := g.get(t); text != "ok" {
		t.Fatalf("got %q %v", text, err)
	}
	kept := time.Now()
	until(t, "the time is nearly over", func() bool { return time.Since(kept) > 600*time.Millisecond })
	if _, text, _, err := g.get(t); text != "ok" || accepted.Load() != 2 {
		t.Errorf("got %q %v, and %d connections were made, want 2", text, err, accepted.Load())
	}
}

// Uploads that are answered after their end leave both connections in use.
func TestUploadsKeepConnections(t *testing.T) {
	t.Parallel()
	url, accepted := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			c.send(ok)
		}
	})
	cfg := testConfig(url)
	g := newGateway(t, cfg, upstream.Options{})
	for _, length := range []int64{100, 100_000, -1, 100_000, -1} {
		r := request(t, http.MethodPost, g.URL, bytes.NewReader(make([]byte, 100_000)))
		if length > 0 {
			r.Body = io.NopCloser(io.LimitReader(r.Body, length))
		}
		r.ContentLength = length
		if answer, text := g.send(t, r); text != "ok" || answer.Close {
			t.Errorf("length %d: got %d %q, close %v", length, answer.StatusCode, text, answer.Close)
		}
	}
	if accepted.Load() != 1 {
		t.Errorf("%d connections were made, want 1", accepted.Load())
	}
}

// An answer without length is over when the connection is.
func TestAnswerUntilClose(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) { c.request(); c.send("HTTP/1.1 200 OK\r\n\r\nok") })
	g := newGateway(t, testConfig(url), upstream.Options{})
	for range 2 {
		if status, text, _, err := g.get(t); status != 200 || text != "ok" || err != nil {
			t.Errorf("got %d %q %v", status, text, err)
		}
	}
}

// Events reach a client when they happen, not when a buffer is full.
func TestEventsAreFlushed(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{
		"chunks": "Transfer-Encoding: chunked\r\n", "close": "", "length": "Content-Length: 26\r\nContent-Type: text/event-stream; charset=utf-8\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			url, _ := rawUpstream(t, func(c *rawConn) {
				c.request()
				c.send("HTTP/1.1 200 OK\r\n" + header + "\r\n")
				for range 2 {
					<-next
					if name == "chunks" {
						c.send("d\r\ndata: hello\n\n\r\n")
					} else {
						c.send("data: hello\n\n")
					}
				}
				if name == "chunks" {
					c.send("0\r\n\r\n")
				}
			})
			g := newGateway(t, testConfig(url), upstream.Options{})
			answer, err := g.Client().Do(request(t, http.MethodGet, g.URL, nil)) // the header comes before any event
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			for range 2 {
				next <- struct{}{}
				event := make([]byte, 13)
				if _, err := io.ReadFull(answer.Body, event); err != nil || string(event) != "data: hello\n\n" {
					t.Fatalf("got %q %v", event, err)
				}
			}
		})
	}
}

// Early hints and trailers are passed on.
func TestInformationAndTrailers(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			c.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n" +
				"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\nX-More: 1\r\nContent-Length: 7\r\n\r\n")
		}
	})
	g := newGateway(t, testConfig(url), upstream.Options{})
	var hints []string
	r := request(t, http.MethodGet, g.URL, nil)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		},
	}))
	answer, body := g.send(t, r)
	if !slices.Equal(hints, []string{"103 </a.css>; rel=preload"}) || body != "ok" || answer.Header.Get("Link") != "" {
		t.Errorf("hints %q, body %q, header %q", hints, body, answer.Header)
	}
	if got := answer.Trailer; got.Get("X-Sum") != "42" || got.Get("X-More") != "1" || len(got) != 2 {
		t.Errorf("trailer %q", got)
	}
}

// Whoever asks before sending gets the endpoint's answer: "go on", or a refusal without having sent anything.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) {
		for {
			r, err := http.ReadRequest(c.r)
			if err != nil {
				return
			}
			if r.Header.Get("Expect") != "100-continue" {
				c.t.Errorf("Expect: %q", r.Header["Expect"])
			}
			switch r.URL.Path {
			case "/no":
				c.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
				return
			case "/yes":
				c.send("HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, _ := io.ReadAll(r.Body)
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
	})
	cfg := testConfig(url)
	g := newGateway(t, cfg, upstream.Options{})
	for path, want := range map[string]string{"/yes": "hello", "/no": "no", "/silent": "hello"} {
		body := &countingReader{Reader: strings.NewReader("hello")}
		r := request(t, http.MethodPost, g.URL+path, body)
		r.ContentLength = 5
		r.Header.Set("Expect", "100-continue")
		client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: 10 * time.Second}}
		answer, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if string(text) != want || path == "/no" && (body.n != 0 || answer.StatusCode != 413) {
			t.Errorf("%s: %d %q, %d bytes were sent", path, answer.StatusCode, text, body.n)
		}
		client.CloseIdleConnections()
	}
}

type countingReader struct {
	io.Reader
	n int
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += n
	return n, err
}

// An endpoint may answer before it has read the request. The client gets that answer, what it still sends is taken for no
// request, and the endpoint's connection is not used again.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, stay := range map[string]bool{"and closes": false, "and stays": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, accepted := rawUpstream(t, func(c *rawConn) {
				if _, err := http.ReadRequest(c.r); err != nil {
					return
				}
				c.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
				if stay {
					<-c.gone.Done()
				}
			})
			g := newGateway(t, testConfig(url), upstream.Options{})
			client, err := net.Dial("tcp", g.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			_ = client.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello")
			r := bufio.NewReader(client)
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != 413 || string(body) != "no" || !answer.Close {
				t.Errorf("got %d %q, close %v", answer.StatusCode, body, answer.Close)
			}
			_, _ = io.WriteString(client, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			if _, err := r.ReadByte(); err == nil {
				t.Error("the rest of the body was answered like a request")
			}
			if accepted.Load() != 1 {
				t.Errorf("%d connections", accepted.Load())
			}
			if err := <-g.errs; err != nil {
				t.Errorf("Forward returned %v", err)
			}
		})
	}
}

// A client that leaves lets its endpoint go at once, whether it waits for an answer or reads one.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{"before the answer": "", "within it": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, released := make(chan struct{}), make(chan struct{})
			url, _ := rawUpstream(t, func(c *rawConn) {
				c.request()
				c.send(begin)
				close(arrived)
				c.hang()
				close(released)
			})
			cfg := testConfig(url)
			cfg.Timeouts.FirstByte, cfg.Timeouts.Idle = time.Hour, time.Hour
			g := newGateway(t, cfg, upstream.Options{})
			ctx, leave := context.WithCancel(t.Context())
			go func() { <-arrived; leave() }()
			if answer, err := g.Client().Do(request(t, http.MethodGet, g.URL, nil).WithContext(ctx)); err == nil {
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
			<-released
			if begin == "" {
				if err := <-g.errs; !errors.Is(err, context.Canceled) {
					t.Errorf("Forward returned %v", err)
				}
			}
		})
	}
}

// A client that breaks off its upload must not have it taken for whole.
func TestCutUpload(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{"length": "Content-Length: 100000", "chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan error, 1)
			url, _ := rawUpstream(t, func(c *rawConn) {
				r, err := http.ReadRequest(c.r)
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
				}
				got <- err
			})
			g := newGateway(t, testConfig(url), upstream.Options{})
			client, err := net.Dial("tcp", g.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\n"+head+"\r\n\r\n5\r\nhello\r\n")
			_ = client.Close()
			if err := <-got; err == nil {
				t.Error("the endpoint took the upload for whole")
			}
			if err := <-g.errs; !errors.Is(err, upstream.ErrRequest) && !errors.Is(err, context.Canceled) {
				t.Errorf("Forward returned %v", err)
			}
		})
	}
}

// Endpoints on the same machine need no port.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	})}}
	s.Start()
	t.Cleanup(s.Close)
	g := newGateway(t, testConfig("unix:"+path), upstream.Options{})
	for range 2 {
		if status, text, _, err := g.get(t); status != 200 || text != "ok" || err != nil {
			t.Errorf("got %d %q %v", status, text, err)
		}
	}
}
