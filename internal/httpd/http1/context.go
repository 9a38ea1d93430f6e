package http1

import (
	"context"
	"slices"
	"sync"
)

// requestContext is the context of a request. It ends when the client has gone, or when the request has been answered. Hardly any request
// is left by its client: what waiting for the end needs is made when somebody wants to wait.
type requestContext struct {
	context.Context // the connection's, which does not end
	key, value      any

	mu    sync.Mutex
	err   error
	done  chan struct{}
	hooks []*hook
	room  [2]*hook // for hooks, which few requests have more of
}

type hook struct{ f func() }

// Carry makes value that of key, for who serves the request before anybody else does, and would otherwise copy the request only to say so. It
// reports false where there is one already.
func (c *requestContext) Carry(key, value any) bool {
	if c.key != nil {
		return false
	}
	c.key, c.value = key, value
	return true
}

// Value implements context.Context.
func (c *requestContext) Value(key any) any {
	if key == c.key {
		return c.value
	}
	return c.Context.Value(key)
}

// Done implements context.Context.
func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc is what context.AfterFunc would do with this context, and what package context looks for in one that is not its own.
func (c *requestContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.hooks == nil {
		c.hooks = c.room[:0]
	}
	h := &hook{f}
	c.hooks = append(c.hooks, h)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.hooks, h)
		if i >= 0 {
			c.hooks = slices.Delete(c.hooks, i, i+1)
		}
		return i >= 0
	}
}

// cancel ends the context. Only the first time counts.
func (c *requestContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	for _, h := range c.hooks {
		go h.f()
	}
	c.hooks = nil
}
