package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/gateway/stage"
)

// lasting lets exchanges last that are made to: WebSockets, server-sent events, gRPC. They, and those of a route with a timeout of its
// own, end when the token that opened them does, or is revoked. Time is bounded by silence: of the upstream by its configuration, of a client that does not read by the listener's.
func (b *builder) lasting(rc Route) stage.Stage {
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			streams := isStream(r.Header)
			if !streams && r.Header["Upgrade"] == nil && rc.Timeout == 0 {
				return next(w, r, c)
			}
			ctx := r.Context()
			if c.Claims != nil {
				var cancel context.CancelFunc
				ctx, cancel = b.deps.Verifier.WithWatch(ctx, c.Claims)
				defer cancel()
			}
			if streams && rc.Timeout == 0 {
				control := http.NewResponseController(w)
				_ = control.SetReadDeadline(time.Time{}) // fails where the connection is none, as in tests
				w = &patient{ResponseWriter: w, control: control, patience: b.deps.WriteTimeout}
			}
			err := next(w, r.WithContext(ctx), c)
			if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
				return Refusal(context.Cause(ctx)) // the token ended before the answer began
			}
			return err
		}
	}
}

// isStream reports whether the answer to a request may go on for long.
func isStream(h http.Header) bool {
	for _, v := range h["Content-Type"] {
		if strings.HasPrefix(v, "application/grpc") {
			return true
		}
	}
	for _, v := range h["Accept"] {
		if strings.Contains(v, "text/event-stream") {
			return true
		}
	}
	return false
}

// patient gives the client time for each piece of an answer, instead of for the whole.
type patient struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

// WriteHeader implements http.ResponseWriter.
func (p *patient) WriteHeader(status int) {
	p.wait()
	p.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	p.wait()
	return p.ResponseWriter.Write(b)
}

func (p *patient) wait() {
	if p.patience > 0 {
		_ = p.control.SetWriteDeadline(time.Now().Add(p.patience))
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
