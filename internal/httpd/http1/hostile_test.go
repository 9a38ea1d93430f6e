package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

// ask sends a request and returns the body of its answer.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, request string) string {
	t.Helper()
	fmt.Fprint(c, request)
	a, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%.100q: %v", request, err)
	}
	return string(mustRead(t, a.Body))
}

// A client that sends requests early must not be given memory for ever, nor a longer head than others.
func TestEarlyRequestsGetNoLargerBuffer(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			http1.AwaitEarly(w)
		}
		_, theirs := w.(http.Hijacker)
		fmt.Fprintf(w, "%s %d %v", r.URL.Path, r.ContentLength, theirs)
	}))))
	c := dial(t, address)
	r := bufio.NewReader(c)
	const early = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nPOST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n"
	if got := ask(t, c, r, early+strings.Repeat("x", 20_000)); got != "/slow 0 false" {
		t.Error(got)
	}
	if got := ask(t, c, r, ""); got != "/early 20000 false" {
		t.Error(got)
	}
	if got := ask(t, c, r, "GET /long HTTP/1.1\r\nHost: a\r\nCookie: "+strings.Repeat("x", 12_000)+"\r\n\r\n"); got != "/long 0 true" {
		t.Error(got)
	}
}

// What a handler leaves behind must not reach into the answers of others, however it ended.
func TestNothingIsWrittenBehindTheEnd(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/panic", "/exit"} {
		var w http.ResponseWriter
		var body io.Reader
		s := http1.New(settings(http.HandlerFunc(func(own http.ResponseWriter, r *http.Request) {
			w, body = own, r.Body
			switch r.URL.Path {
			case "/panic":
				panic(http.ErrAbortHandler)
			case "/exit":
				runtime.Goexit()
			}
		})))
		c := dial(t, serve(t, s))
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", path)
		_ = mustRead(t, c)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if n, err := w.Write([]byte("late")); err == nil {
			t.Errorf("%s: wrote %d bytes", path, n)
		}
		if err := http.NewResponseController(w).Flush(); err == nil {
			t.Errorf("%s: flushed", path)
		}
		if n, err := body.Read(make([]byte, 9)); err == nil || err == io.EOF {
			t.Errorf("%s: read %d bytes", path, n)
		}
	}
}

// A deadline is one request's. The next on the connection, which may be another person's behind a proxy, must not inherit it.
func TestDeadlinesEndWithTheirRequest(t *testing.T) {
	t.Parallel()
	past := time.Unix(1, 0)
	left := make(chan *http.ResponseController, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch r.URL.Path {
		case "/first":
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "first")
			if err := errors.Join(control.Flush(), control.SetReadDeadline(past), control.SetWriteDeadline(past)); err != nil {
				t.Error(err)
			}
			left <- control
		case "/second":
			over := <-left
			if over.SetReadDeadline(past) == nil || over.SetWriteDeadline(past) == nil {
				t.Error("a request that is over sets deadlines")
			}
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v", body, err)
		}
	}))))
	c := dial(t, address)
	r := bufio.NewReader(c)
	for range 3 {
		if got := ask(t, c, r, "GET /first HTTP/1.1\r\nHost: a\r\n\r\n"); got != "first" {
			t.Error(got)
		}
		fmt.Fprint(c, "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
		if got := ask(t, c, r, "hi"); got != "hi <nil>" {
			t.Error(got)
		}
	}
}

// Work for a request whose body will never come keeps others waiting.
func TestContextEndsWithABrokenBody(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(patience):
			ended <- errors.New("nobody noticed")
		}
	}))))
	c := dial(t, address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
	_ = c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A goroutine that goes on reading the body must not hold the connection, which a client that sends nothing more would decide about.
func TestReadingEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	read := make(chan error, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		one := make([]byte, 1)
		if _, err := io.ReadFull(r.Body, one); err != nil {
			t.Error(err)
		}
		go func() {
			_, err := io.ReadAll(r.Body)
			read <- err
		}()
		http1.AwaitReader(w)
		fmt.Fprint(w, "enough")
	}))))
	c := dial(t, address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nh")
	if got := string(mustRead(t, c)); !strings.HasSuffix(got, "enough") {
		t.Errorf("%q", got)
	}
	if err := <-read; err == nil {
		t.Error("the whole body was read")
	}
}

// Were the connection reset while a client sends what nobody wants, it, or the proxy in between, could lose the answer that says so.
func TestRefusedUploadsAreAnswered(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))))
	c := dial(t, address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
	piece := make([]byte, 64<<10)
	for i := range 128 {
		if _, err := c.Write(piece); err != nil {
			t.Fatalf("after %d KiB: %v", 64*i, err)
		}
	}
	if got := string(mustRead(t, c)); !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("%q", got)
	}
}

// Settings that net/http has defaults for must not leave slow clients without a limit, nor a failure without a word.
func TestSettingsAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(&http.Server{Handler: pages(), ReadTimeout: 100 * time.Millisecond}))
	for _, text := range []string{"", "GET / HT", "GET /late HTTP/1.1\r\nHost: a\r\n\r\n", "GET /late HTTP/1.1\r\nHost: a\r\n\r\nGET"} {
		c := dial(t, address)
		fmt.Fprint(c, text)
		if got := string(mustRead(t, c)); strings.Contains(text, "late") != strings.HasPrefix(got, "HTTP/1.1 202 ") {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// Files that a handler let a form be stored in would fill the disk.
func TestFormsLeaveNoFiles(t *testing.T) {
	t.Parallel()
	stored := make(chan string, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
			return
		}
		f, err := r.MultipartForm.File["file"][0].Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		stored <- f.(*os.File).Name()
	}))))
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, err := m.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = part.Write(make([]byte, 11<<20)) // more than is kept in memory
	_ = m.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address, &form)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", m.FormDataContentType())
	r.Close = true
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = mustRead(t, a.Body)
	if _, err := os.Stat(<-stored); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// At the size of the buffer, where the head of one request ends and the rest of it begins must not become blurred.
func TestHeadsOfTheBuffersSize(t *testing.T) {
	t.Parallel()
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		_, theirs := w.(http.Hijacker)
		fmt.Fprintf(w, "%s %d %s %v %v", r.URL.Path, len(r.UserAgent()), body, err, theirs)
	}))))
	const first, head = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n", "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nUser-Agent: \r\n\r\n"
	for size := http1.InSize - 2; size <= http1.InSize+2; size++ {
		for _, before := range []string{"", first} {
			c := dial(t, address)
			r := bufio.NewReader(c)
			agent := strings.Repeat("x", size-len(head))
			fmt.Fprint(c, before, head[:len(head)-4], agent, "\r\n\r\nbody", first)
			if got := before; got != "" {
				if got = ask(t, c, r, ""); got != "/first 0  <nil> false" {
					t.Errorf("%d: %q", size, got)
				}
			}
			theirs := size > http1.InSize
			if got, want := ask(t, c, r, ""), fmt.Sprintf("/second %d body <nil> %v", len(agent), theirs); got != want {
				t.Errorf("%d: %q, want %q", size, got, want)
			}
			if got, want := ask(t, c, r, ""), fmt.Sprintf("/first 0  <nil> %v", theirs); got != want {
				t.Errorf("%d: %q, want %q", size, got, want)
			}
		}
	}
}

// flaky fails to accept, at first in a way that passes.
type flaky struct {
	net.Listener
	errs []error
}

func (l *flaky) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.Listener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}

// Running out of file descriptors must pass, and a listener that broke must not go unnoticed.
func TestErrorsOfTheListener(t *testing.T) {
	t.Parallel()
	for _, permanent := range []error{nil, syscall.EINVAL} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, served := http1.New(settings(pages())), make(chan error, 1)
		broken := &flaky{l, []error{syscall.EMFILE, syscall.ENFILE}}
		if permanent != nil {
			broken.errs = append(broken.errs, permanent)
		}
		go func() { served <- s.Serve(broken) }()
		want := permanent
		if permanent == nil {
			want = http.ErrServerClosed
			if got := exchange(t, l.Addr().String(), "GET /small HTTP/1.1\r\nHost: a\r\n\r\n"); !bytes.Contains(got, []byte("<html>")) {
				t.Errorf("%q", got)
			}
			_ = s.Close()
		}
		if err := <-served; !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		_ = l.Close()
	}
}
