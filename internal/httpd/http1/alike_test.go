package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

const patience = 20 * time.Second

// pages do what handlers may do.
func pages() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	m.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	m.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			_, _ = io.WriteString(w, strings.Repeat("b", 100))
		}
	})
	m.HandleFunc("/piece", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("b"), 100_000)) })
	m.HandleFunc("/known", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "20000")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(http.StatusCreated)
		for range 2 {
			_, _ = io.WriteString(w, strings.Repeat("k", 10_000))
		}
		_, err := w.Write([]byte("more"))
		if !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
	})
	m.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "short")
	})
	m.HandleFunc("/flushed", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "data: 1\n\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(err)
		}
		fmt.Fprint(w, "data: 2\n\n")
	})
	m.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-After", "1")
		fmt.Fprint(w, "hinted")
	})
	m.HandleFunc("/trailer", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "summed")
		w.Header().Set("X-Sum", "6")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
	})
	m.HandleFunc("/forbidden", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "WWW-Authenticate, Transfer-Encoding, X-Sum")
		w.Header().Set("WWW-Authenticate", "Basic")
		w.Header().Set("X-Sum", "5")
		fmt.Fprint(w, "summed")
		w.Header().Set("X-Sum", "6")
	})
	m.HandleFunc("/pieces", func(w http.ResponseWriter, _ *http.Request) {
		for _, piece := range []string{"\n", "<!DOC", "TYPE html>", strings.Repeat("p", 1000)} {
			_, _ = io.WriteString(w, piece)
		}
	})
	m.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.Header().Set("X-Late", "dropped")
		w.WriteHeader(http.StatusTeapot)
	})
	m.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNoContent)
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
	})
	m.HandleFunc("/unchanged", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("ETag", `"1"`)
		w.WriteHeader(http.StatusNotModified)
	})
	m.HandleFunc("/split", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Split"] = []string{"a\r\nX-Injected: 1", " b "}
		w.Header()["Bad Name"] = []string{"x"}
		w.Header()["X-Bad:\r\nX-Injected"] = []string{"x"}
		w.WriteHeader(599)
	})
	m.HandleFunc("/values", func(w http.ResponseWriter, _ *http.Request) { // of all lengths, as eight bytes are looked at at once
		for i := range 18 {
			for _, end := range []string{"\r", "\n", "\r\nX-Injected: 1", "\x00", "\x7f", "\t", " ", "\u00a0", "\x85", "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"} {
				w.Header().Add("X-Value", strings.Repeat("v", i)+end)
				w.Header().Add("X-Value", end+strings.Repeat("v", i)+end+"v")
			}
		}
	})
	m.HandleFunc("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "bye")
	})
	m.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	m.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("a bug") })
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %d %v %v %q %v", r.Method, r.RequestURI, r.Host, r.ContentLength, r.Close, err, body, len(r.Header))
	})
	m.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	m.HandleFunc("/part", func(w http.ResponseWriter, r *http.Request) {
		one := make([]byte, 1)
		n, _ := io.ReadFull(r.Body, one)
		_ = r.Body.Close()
		_, err := r.Body.Read(one)
		fmt.Fprint(w, n, err)
	})
	m.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_ = rw.Flush()
		_ = c.Close()
	})
	return m
}

type server interface {
	Serve(l net.Listener) error
	Close() error
}

// serve starts s, and returns its address.
func serve(t testing.TB, s server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func settings(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: patience, IdleTimeout: patience}
}

// exchange sends text and returns what comes until the end of the connection.
func exchange(t testing.TB, address, text string) []byte {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() {
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	answer, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q: %v", text, err)
	}
	return answer
}

// methodsOf are the methods of the requests in text, as far as one can tell.
func methodsOf(text string) (methods []string) {
	for request := range strings.SplitSeq(text, "\r\n\r\n") {
		method, _, _ := strings.Cut(request, " ")
		methods = append(methods, method)
	}
	return methods
}

// answers are what a connection brought, in a form that can be compared.
func answers(text []byte, methods []string) (all []string) {
	r := bufio.NewReader(bytes.NewReader(text))
	for i := 0; ; i++ {
		q := &http.Request{Method: http.MethodGet}
		if i < len(methods) {
			q.Method = methods[i]
		}
		a, err := http.ReadResponse(r, q)
		if err != nil {
			return append(all, err.Error())
		}
		body, err := io.ReadAll(a.Body)
		if a.StatusCode < 200 {
			i--
		}
		if len(a.Header["Date"]) == 1 {
			a.Header.Set("Date", "now")
		}
		all = append(all, fmt.Sprintf("%s %v %v %d %v %q %v %v", a.Status, a.Header, a.TransferEncoding, a.ContentLength, a.Close, body, err, a.Trailer))
	}
}

// Whatever a client sends, and whatever a handler does, the answer must not tell who serves it.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	ours, theirs := serve(t, http1.New(settings(pages()))), serve(t, settings(pages()))
	get := func(lines string) string { return "GET " + lines + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" }
	var tests []string
	for _, path := range []string{"/small", "/empty", "/big", "/piece", "/known", "/short", "/flushed", "/hints", "/trailer", "/forbidden", "/pieces", "/late", "/none",
		"/unchanged", "/split", "/values", "/close", "/abort", "/panic", "/echo", "/nowhere", "//small", "/a/../small", "/%73mall", "/small;a?b#c"} {
		tests = append(tests, get(path), "HEAD"+get(path)[3:], "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"+get("/empty"))
	}
	post := func(path string, length int, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, length, body)
	}
	long := strings.Repeat("x", 300_000)
	tests = append(tests,
		post("/echo", 5, "hello")+get("/small"), post("/echo", 100_000, long[:100_000])+get("/small"), post("/empty", 5, "hello")+get("/small"),
		post("/empty", 100_000, long[:100_000])+get("/small"), post("/part", 5, "hello")+get("/small"), post("/duplex", 70_000, long[:70_000])+get("/small"),
		post("/small", 300_000, long), post("/echo", 0, "")+get("/small"),
		post("/echo", 5, "hello")+"\r\n"+get("/small"), post("/echo", 5, "hello")+"\r\n\r\n"+get("/small"), get("/small")+"\r\n"+get("/small"),
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"+get("/small"),
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"+get("/small"),
		"GET /hijack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", get("/small")+get("/small"),
		"GET /small HTTP/1.0\r\n\r\n", "GET /small HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"+get("/small"), "GET http://b/small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "\r\n"+get("/small"), "GET /small HTTP/1.1\r\n\r\n", "GET /small HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /small HTTP/1.1\r\nHost: a b\r\n\r\n", "GET /small HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "GET /small HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
		"GET /echo HTTP/1.1\nHost: a\nConnection: close\n\n", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "nonsense\r\n\r\n",
		"GET /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\nX-Folded: a\r\n b\r\nConnection: close\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\nCookie: "+long[:20_000]+"\r\nConnection: close\r\n\r\n",
		"GET /echo?"+strings.Repeat("y", 8100)+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\nX-Value: seventh\x7f\r\nConnection: close\r\n\r\n", "GET /echo HTTP/1.1\r\nHost: a\r\nX-Value: seventh\x00and\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a\r\nX-Value: seventh\rX-Other: 1\r\n\r\n", "GET /echo HTTP/1.1\r\nHost: a\r\nX-Value: \x85\u00a0seventh\xff\r\nConnection: close\r\n\r\n",
		post("/part", 5, "hello")+post("/echo", 5, "world")+get("/big")+get("/small"), post("/abort", 5, "hello")+get("/small"), post("/big", 5, "hel"),
		strings.Repeat("GET /echo?"+strings.Repeat("y", 1500)+" HTTP/1.1\r\nHost: a\r\n\r\n", 20)+get("/empty"),
	)
	for _, text := range tests {
		methods := methodsOf(text)
		want, got := answers(exchange(t, theirs, text), methods), answers(exchange(t, ours, text), methods)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%.200q is answered with\n%.2000q\nby net/http\n%.2000q", text, got, want)
		}
	}
}
