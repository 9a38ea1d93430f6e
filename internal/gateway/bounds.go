package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// networks lets only those in whom the route is for. Who has no address, as over a Unix socket, is in no network.
func networks(rc Route) stage.Stage {
	if len(rc.Allow)+len(rc.Deny) == 0 {
		return nil
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			if contains(rc.Deny, c.Client) || len(rc.Allow) > 0 && !contains(rc.Allow, c.Client) {
				return ErrNetwork
			}
			return next(w, r, c)
		}
	}
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

func invalidPrefix(p netip.Prefix) bool { return !p.IsValid() }

// sizes bounds header and body. The body is bounded while it is read, where its length is not known before. The identity module in
// this process bounds its bodies itself.
func (b *builder) sizes(rc Route) stage.Stage {
	maxBody := rc.MaxBody
	if maxBody == 0 {
		maxBody = b.deps.MaxBody
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			if rc.MaxHeaderBytes > 0 && headerBytes(r) > rc.MaxHeaderBytes {
				return ErrHeaderTooLarge
			}
			switch {
			case r.ContentLength > maxBody:
				return fault.ErrTooLarge
			case r.ContentLength < 0:
				body := &boundedBody{ReadCloser: http.MaxBytesReader(serverWriter(w), r.Body, maxBody)}
				r.Body = body
				err := next(w, r, c)
				if err != nil && body.exceeded.Load() {
					return fault.ErrTooLarge.Wrap(err) // whatever the upstream made of it
				}
				return err
			}
			return next(w, r, c)
		}
	}
}

// boundedBody remembers that a body was larger than it may be.
type boundedBody struct {
	io.ReadCloser
	exceeded atomic.Bool
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		b.exceeded.Store(true)
	}
	return n, err
}

// serverWriter is net/http's own, which MaxBytesReader tells to close the connection after a body that is too large.
func serverWriter(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// headerBytes is the size of a request's header as HTTP/1.1 writes it, request line included.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host) + len(" HTTP/1.1\r\nHost: \r\n\r\n")
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}

// timeout gives the exchanges of a route more time than the listener does, or less.
func timeout(rc Route) stage.Stage {
	if rc.Timeout == 0 {
		return nil
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			control, end := http.NewResponseController(w), time.Now().Add(rc.Timeout)
			// They fail where the connection is none, as in tests.
			_ = control.SetReadDeadline(end)
			_ = control.SetWriteDeadline(end)
			return next(w, r, c)
		}
	}
}

// concurrency bounds how many requests of the route are in flight on this node.
func concurrency(rc Route) stage.Stage {
	if rc.Concurrency == 0 {
		return nil
	}
	var inFlight atomic.Int64
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			defer inFlight.Add(-1)
			if inFlight.Add(1) > int64(rc.Concurrency) {
				return ErrBusy
			}
			return next(w, r, c)
		}
	}
}
