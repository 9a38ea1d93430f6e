package http1_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

// Handlers derive contexts, wait for the end and have things done at the end, from several goroutines: all of them must hear of it, and
// whoever has stopped listening must not.
func TestContextsOfRequests(t *testing.T) {
	t.Parallel()
	var heard atomic.Int64
	entered, over := make(chan context.Context, 1), make(chan struct{})
	address := serve(t, http1.New(settings(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(over)
		ctx := r.Context()
		if ctx.Err() != nil || context.Cause(ctx) != nil {
			t.Error("ended before it began")
		}
		if ctx.Value(http.LocalAddrContextKey) == nil {
			t.Error("no address")
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				child, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				hooked := make(chan struct{})
				context.AfterFunc(child, func() { close(hooked) })
				own := make(chan struct{})
				ctx.(interface{ AfterFunc(func()) func() bool }).AfterFunc(func() { close(own) })
				if !context.AfterFunc(ctx, func() { t.Error("stopped, and called") })() {
					t.Error("not stopped")
				}
				for _, c := range []<-chan struct{}{ctx.Done(), child.Done(), hooked, own} {
					<-c
				}
				if !errors.Is(child.Err(), context.Canceled) || !errors.Is(context.Cause(child), context.Canceled) {
					t.Error(child.Err(), context.Cause(child))
				}
				heard.Add(1)
			})
		}
		entered <- ctx
		all.Wait()
	}))))
	c := dial(t, address)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	ctx := <-entered
	_ = c.Close()
	<-over
	if heard.Load() != 8 {
		t.Errorf("%d of 8 heard of the end", heard.Load())
	}
	late := make(chan struct{})
	if context.AfterFunc(ctx, func() { close(late) })() {
		t.Error("stopped what was due")
	}
	select {
	case <-late:
	case <-time.After(patience):
		t.Error("what is due after the end was not done")
	}
}
