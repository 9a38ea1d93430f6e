// Package httpd owns everything between a TCP connection and a handler: servers and their TLS, the one chain every request
// passes, error-returning handlers, the huma API, cookies, and the operators' listener.
//
// It promises that every request has an id and a client address that cannot be forged from outside, leaves exactly one log
// event and one count in the metrics, carries the security headers, is bounded in size and time, and cannot be made by
// another origin on behalf of a person; that a returned error, a panic, an unknown path and a wrong method are all answered
// as problem documents; and that no value a client sent is echoed or logged.
//
// It refuses to know any domain, and to decide a status: that is the fault's business.
package httpd

import (
	"context"
	"errors"
	"net/http"
	"net/netip"

	"github.com/sumunio/sumun/internal/fault"
)

// Faults that concern the request itself rather than what it asks for.
var (
	ErrMalformed        = fault.New(fault.Malformed, "request.malformed", "The request cannot be read.")
	ErrBodyUnread       = fault.New(fault.Malformed, "request.body_unread", "The request body did not arrive completely.")
	ErrInvalid          = fault.New(fault.Invalid, "request.invalid", "Some values are missing or not valid.")
	ErrNotFound         = fault.New(fault.NotFound, "request.not_found", "There is nothing at this address.")
	ErrMethodNotAllowed = fault.New(fault.MethodNotAllowed, "request.method_not_allowed", "This address does not support that method.")
	ErrNotAcceptable    = fault.New(fault.NotAcceptable, "request.not_acceptable", "Answers are application/json only.")
	ErrUnsupportedMedia = fault.New(fault.UnsupportedMedia, "request.unsupported_media", "The body must be application/json.")
	ErrCrossOrigin      = fault.New(fault.Forbidden, "request.cross_origin", "Requests from other sites are not allowed here.")
	ErrHost             = fault.New(fault.Forbidden, "request.host", "This listener does not answer to that host name.")
)

// Handler is an http.Handler that may fail. A returned error is answered as the problem document of its fault and recorded
// for the request's log event. An error returned after the answer has begun cuts the connection, so that the client cannot
// take a part for the whole.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP implements http.Handler.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		Error(w, r, err)
	}
}

// Error does for a middleware what returning err does for a Handler.
func Error(w http.ResponseWriter, r *http.Request, err error) {
	if f, ok := record(r.Context(), err); ok {
		f.WriteProblem(w, RequestID(r.Context()))
	}
}

// WithErrors returns h as an http.Handler whose failures, and panics, are answered by render instead of as problem
// documents. Render writes the status of the fault; the fault's headers and Cache-Control: no-store have been set.
func WithErrors(render func(w http.ResponseWriter, r *http.Request, f *fault.Fault), h Handler) http.Handler {
	answer := func(w http.ResponseWriter, r *http.Request, f *fault.Fault) {
		f.SetHeaders(w.Header())
		w.Header().Set("Cache-Control", "no-store")
		render(w, r, f)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x := exchangeOf(r.Context()); x != nil {
			x.render = answer
		}
		if err := h(w, r); err != nil {
			if f, ok := record(r.Context(), err); ok {
				answer(w, r, f)
			}
		}
	})
}

// record notes err for the log event. It returns the fault to answer with, and false when the answer has already begun: then
// nothing more may be written, and Chain cuts the connection.
func record(ctx context.Context, err error) (*fault.Fault, bool) {
	f := answerTo(ctx, err)
	return f, note(ctx, err, f)
}

// note is record for an error whose fault is known.
func note(ctx context.Context, err error, f *fault.Fault) bool {
	x := exchangeOf(ctx)
	if x == nil {
		return true
	}
	x.err, x.fault = err, f
	if x.response.started() {
		x.abort = true
		return false
	}
	return true
}

// answerTo returns the fault that err is answered with.
func answerTo(ctx context.Context, err error) *fault.Fault {
	f := fault.From(err)
	var declared *fault.Fault
	if !errors.As(err, &declared) && f.Kind() == fault.Internal && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.ErrTimeout.Wrap(err) // not everything that ran out of time says so
	}
	if x := exchangeOf(ctx); x != nil && x.api && f.Kind() == fault.Unauthenticated && f.WWWAuthenticate() == "" {
		return f.Challenge(challenge)
	}
	return f
}

// challenge goes with every 401 of the API that has none of its own, as it must (RFC 9110, section 15.5.2).
const challenge = `Bearer realm="sumun"`

// WithoutTimeout lets the requests that h serves last: streams, recordings. They still end with their client, and with
// Config.WriteTimeout, which h can move through http.ResponseController.
func WithoutTimeout(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		if x := exchangeOf(ctx); x != nil {
			defer context.AfterFunc(x.Context, cancel)()
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// exchange is what is known of one request and its answer, and the context that carries it. It belongs to the goroutine that
// serves the request.
type exchange struct {
	context.Context // the server's, which ends when the client has gone
	id              string
	idValue         [1]string // id, as a header has it
	client          netip.Addr
	agent           string // User-Agent, as it was sent
	secure          bool   // the client's connection is encrypted
	trusted         bool   // the peer is one of our proxies
	evidence        evidence
	api             bool   // answers are JSON
	route           string // the pattern that matched, "" when none did
	response        response
	err             error        // what the handler returned or panicked with
	fault           *fault.Fault // what it is answered with
	stack           []byte
	abort           bool // cut the connection after logging
	render          func(http.ResponseWriter, *http.Request, *fault.Fault)
}

type exchangeKey struct{}

// Value implements context.Context.
func (x *exchange) Value(key any) any {
	if _, ours := key.(exchangeKey); ours {
		return x
	}
	return x.Context.Value(key)
}

// afterFuncer is a context that knows by itself what to do when it ends. Package context looks for it too.
type afterFuncer interface {
	AfterFunc(f func()) (stop func() bool)
}

// AfterFunc leaves context.AfterFunc to the server's context, which does it for less than a context around it.
func (x *exchange) AfterFunc(f func()) (stop func() bool) {
	if own, ok := x.Context.(afterFuncer); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(x.Context, f)
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// SetRoute names the route that answers the request, for its log event and its metrics. Names are bounded in number: patterns,
// or what operators wrote. The last one counts.
func SetRoute(ctx context.Context, name string) {
	if x := exchangeOf(ctx); x != nil {
		x.route = name
	}
}

// Secure reports whether the client's connection is encrypted: ours is, or a trusted proxy says that its own was.
func Secure(ctx context.Context) bool {
	x := exchangeOf(ctx)
	return x != nil && x.secure
}

// FromTrustedProxy reports whether the peer itself is one of the trusted proxies, so that what it says of a request is believed.
func FromTrustedProxy(ctx context.Context) bool {
	x := exchangeOf(ctx)
	return x != nil && x.trusted
}

// RequestID returns the id of the request being served, "" outside of Chain.
func RequestID(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.id
	}
	return ""
}

// UserAgent returns the User-Agent header of the request being served, "" outside of Chain. It is a stranger's text of any
// length.
func UserAgent(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.agent
	}
	return ""
}

// ClientAddr returns the address of the client, as far as the trusted proxies vouch for it; IPv4 in its own form, without
// zone. Outside of Chain, and for clients that have no IP address, it is the zero Addr.
func ClientAddr(ctx context.Context) netip.Addr {
	if x := exchangeOf(ctx); x != nil {
		return x.client
	}
	return netip.Addr{}
}
