// Package stage is the contract between the gateway and what can stand in a route's way: authentication, limits, a cache.
//
// It owns the types Call, Handler and Stage. It promises that the stages of a route run in one order, written down in package
// gateway, for every request of the route, and that only those exist that the route's configuration asks for. It refuses to
// know any stage.
package stage

import (
	"net/http"
	"net/netip"

	"github.com/sumunio/sumun/auth"
)

// Call is what the gateway knows of one request. It belongs to the goroutine that serves the request, and may be kept by nobody.
type Call struct {
	// Route is the name of the route that matched.
	Route string
	// Path is the canonical path as it was matched, escaped. The upstream gets this one, or the part of it that the route says.
	Path string
	// Client is the client's address, as far as trusted proxies vouch for it. It is the zero Addr over Unix sockets.
	Client netip.Addr
	// Claims are those of the verified token; nil where there is none. They are shared: read-only.
	Claims *auth.Claims
	// APIKey is the id of the key that the caller showed instead of a token; "" where there is none.
	APIKey string
	// Sent says that the upstream may have seen the request. Who forwards sets it.
	Sent bool
	// NoStatic withholds the upstream's static answer: a stage wants to know that there is none.
	NoStatic bool
}

// Handler answers a request. An error means that nothing has been written; it is answered as its fault (package fault).
// The request's header is final once it reaches the upstream; a stage may change it, and w's header, in place.
type Handler func(w http.ResponseWriter, r *http.Request, c *Call) error

// Stage puts something in front of a handler. It is called once for each route, when the routes are compiled; what it returns
// is called by many goroutines at once. A stage that has nothing to do is nil.
type Stage func(next Handler) Handler

// Chain returns last behind the stages, the first of which sees a request first.
func Chain(last Handler, stages ...Stage) Handler {
	for i := len(stages) - 1; i >= 0; i-- {
		if stages[i] != nil {
			last = stages[i](last)
		}
	}
	return last
}
