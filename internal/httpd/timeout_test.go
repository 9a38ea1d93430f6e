package httpd_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

func impatient(c *httpd.Config) { c.RequestTimeout = time.Millisecond }

// Whoever waits for a database that hangs must get an answer, and the server its goroutine back.
func TestRequestsHaveADeadline(t *testing.T) {
	t.Parallel()
	unavailable := fault.New(fault.Unavailable, "session.unavailable", "Not now.").After(3 * time.Second)
	for name, tc := range map[string]struct {
		fail              func(ctx context.Context) error
		status            int
		code, retry, says string
	}{
		"says so":             {func(ctx context.Context) error { return fmt.Errorf("query: %w", ctx.Err()) }, 504, "timeout", "5", "query: "},
		"does not say so":     {func(context.Context) error { return errors.New("i/o timeout") }, 504, "timeout", "5", "i/o timeout"},
		"has its own answer":  {func(ctx context.Context) error { return unavailable.Wrap(ctx.Err()) }, 503, "session.unavailable", "3", "deadline"},
		"is broken otherwise": {func(context.Context) error { return fault.ErrInternal.Wrap(errors.New("bug")) }, 500, "internal", "", "bug"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := setup(impatient)
			wait := func(ctx context.Context) error { <-ctx.Done(); return tc.fail(ctx) }
			x.mux.Handle("GET /page", httpd.Handler(func(_ http.ResponseWriter, r *http.Request) error { return wait(r.Context()) }))
			huma.Register(httpd.NewAPI(x.mux, httpd.APIConfig{Title: "Test", Version: "1"}),
				huma.Operation{OperationID: "x", Method: http.MethodGet, Path: "/v1/things"},
				func(ctx context.Context, _ *struct{}) (*thingOut, error) { return nil, wait(ctx) })
			for _, path := range []string{"/page", "/v1/things"} {
				x.log.reset()
				w := x.do(httptest.NewRequest(http.MethodGet, path, nil))
				if p := problemOf(t, w); p.Status != tc.status || p.Code != tc.code || w.Header().Get("Retry-After") != tc.retry {
					t.Errorf("%s: %+v, Retry-After %q", path, p, w.Header().Get("Retry-After"))
				}
				if e := x.log.event(t); e["status"] != float64(tc.status) || e["fault"] != tc.code {
					t.Errorf("%s: event %v", path, e)
				}
			}
		})
	}
}

func TestLastingRequestsEndWithTheirClient(t *testing.T) {
	t.Parallel()
	x := setup(impatient)
	entered, done := make(chan context.Context, 1), make(chan struct{})
	x.mux.Handle("GET /stream", httpd.WithoutTimeout(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.Context()
		<-r.Context().Done()
	})))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		x.ServeHTTP(w, r)
	}))
	defer s.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/stream", nil)
		if resp, err := s.Client().Do(r); err == nil {
			resp.Body.Close()
		}
	}()
	stream := <-entered
	if at, bounded := stream.Deadline(); bounded {
		t.Errorf("a stream is cut at %v", at)
	}
	if httpd.RequestID(stream) == "" {
		t.Error("a stream has no request id")
	}
	leave()
	<-done
}

// A client that left is no outage, whatever its request was turned into on the way.
func TestWhoIsGoneCountsAsGone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fail   func() error
		level  string
		status float64
	}{
		"unavailable": {func() error { return fault.New(fault.Unavailable, "session.unavailable", "Not now.") }, "INFO", 499},
		"cancelled":   {func() error { return context.Canceled }, "INFO", 499},
		"refused":     {func() error { return errEnded }, "INFO", 401},
		"panic":       {func() error { panic("boom") }, "ERROR", 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := setup()
			ctx, leave := context.WithCancel(t.Context())
			x.mux.Handle("GET /", httpd.Handler(func(http.ResponseWriter, *http.Request) error { leave(); return tc.fail() }))
			x.do(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
			if e := x.log.event(t); e["level"] != tc.level || e["status"] != tc.status {
				t.Errorf("event %v", e)
			}
		})
	}
}

// A 401 without a challenge is not HTTP (RFC 9110, section 15.5.2), and some clients fail at it.
func TestEvery401OfTheAPIHasAChallenge(t *testing.T) {
	t.Parallel()
	x, _ := api(func() error { return errEnded })
	x.mux.Handle("GET /v1/other", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return errEnded }))
	x.mux.Handle("GET /v1/own", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return errEnded.Challenge("Basic") }))
	x.mux.Handle("GET /page", httpd.Handler(func(http.ResponseWriter, *http.Request) error { return errEnded }))
	for want, requests := range map[string][]*http.Request{
		`Bearer realm="sumun"`: {post("/v1/things", "application/json", goodThing), httptest.NewRequest(http.MethodGet, "/v1/other", nil)},
		"Basic":                {httptest.NewRequest(http.MethodGet, "/v1/own", nil)},
		"":                     {httptest.NewRequest(http.MethodGet, "/page", nil)},
	} {
		for _, r := range requests {
			if w := x.do(r); w.Code != 401 || w.Header().Get("WWW-Authenticate") != want {
				t.Errorf("%s: %d %q, want %q", r.URL, w.Code, w.Header().Get("WWW-Authenticate"), want)
			}
		}
	}
}
