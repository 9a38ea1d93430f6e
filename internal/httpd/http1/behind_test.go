package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

// What somebody is writing when the handler returns belongs to its own answer: the room that it is written from must not be given to the
// answer of somebody else, nor the end of the answer stand in the middle.
func TestWritersThatOutliveTheirHandler(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("b"), 16<<20)
	left := make(chan struct{})
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/leave" {
			fmt.Fprint(w, r.URL.Path)
			return
		}
		go func() {
			defer close(left)
			if _, err := w.Write(big); err != nil {
				t.Error(err)
			}
			for range 3 { // the client has read all, so the answer is over, or is about to be
				_, _ = io.WriteString(w, "late")
			}
		}()
		http1.AwaitWriter(w)
	}))))
	c := dial(t, address)
	r := bufio.NewReader(c)
	got := strings.TrimRight(ask(t, c, r, "GET /leave HTTP/1.1\r\nHost: a\r\n\r\n"), "late")
	if got != string(big) {
		t.Errorf("got %d bytes", len(got))
	}
	<-left
	if got := ask(t, c, r, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"); got != "/next" {
		t.Errorf("the next request got %.100q", got)
	}
}

// A handler that fails while somebody writes for it cuts the answer at once, however slow its client is.
func TestFailingWhileSomebodyWrites(t *testing.T) {
	t.Parallel()
	wrote := make(chan error, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		go func() {
			_, err := w.Write(bytes.Repeat([]byte("b"), 64<<20))
			wrote <- err
		}()
		http1.AwaitWriter(w)
		panic(http.ErrAbortHandler)
	}))))
	fmt.Fprint(dial(t, address), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case err := <-wrote:
		if err == nil {
			t.Error("all of it was sent to a client that does not read")
		}
	case <-time.After(patience):
		t.Error("the answer was not cut")
	}
}

// Goroutines that write, flush and read whenever they like must neither break the server nor reach into anybody else's answer.
func TestUnrulyHandlers(t *testing.T) {
	t.Parallel()
	var left sync.WaitGroup
	s := http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.URL.Path[1:]
		control := http.NewResponseController(w)
		w.Header().Set("X-Who", who)
		w.WriteHeader(http.StatusOK)
		for i := range 4 {
			left.Go(func() {
				for range 30 {
					_, _ = io.WriteString(w, strings.Repeat(who, 100*i))
					_ = control.Flush()
					_ = control.EnableFullDuplex()
					_, _ = r.Body.Read(make([]byte, 10))
					_ = control.SetReadDeadline(time.Now().Add(patience))
				}
			})
		}
	})))
	address := serve(t, s)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			c := dial(t, address)
			r := bufio.NewReader(c)
			for j := range 20 {
				who := string([]byte{byte('a' + i), byte('a' + j)})
				fmt.Fprintf(c, "POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", who)
				a, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("%s: %v", who, err)
					return
				}
				body, err := io.ReadAll(a.Body)
				if got := a.Header.Get("X-Who"); err != nil || got != who || strings.ReplaceAll(string(body), who, "") != "" {
					t.Errorf("%s got that of %s, %d bytes, %v", who, got, len(body), err)
					return
				}
				if a.Close {
					_ = c.Close()
					c = dial(t, address)
					r.Reset(c)
				}
			}
		})
	}
	all.Wait()
	if err := s.Shutdown(t.Context()); err != nil { // so that nobody is left behind any more
		t.Error(err)
	}
	left.Wait()
}

// A deadline for reading is about the body. Behind it, work for a client that leaves must end as it does without.
func TestLeavingIsNoticedBehindADeadline(t *testing.T) {
	t.Parallel()
	waiting, ended := make(chan struct{}), make(chan error, 1)
	address := serve(t, http1.New(settings(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http1.AwaitWatch(w)
		if err := http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
		close(waiting)
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(patience):
			ended <- errors.New("nobody noticed")
		}
	}))))
	c := dial(t, address)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-waiting
	_ = c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
