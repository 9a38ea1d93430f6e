package httpd

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sumunio/sumun/internal/fault"
)

// Guard returns the middleware that stands before our own handlers, within Edge: security headers, the bounds on body and time,
// protection against cross-origin use.
//
// The context of a request ends after cfg.RequestTimeout, or when its client has gone; WithoutTimeout is for what lasts.
//
// Exempt lists the http.ServeMux patterns that other origins may call with unsafe methods, such as "POST /oauth/token":
// endpoints that take their proof in the request and set or read no cookie. Everything else is protected, and cfg's
// TrustedOrigins may call all of it. Guard panics on a pattern or an origin that is malformed; Validate finds the latter.
func Guard(cfg Config, exempt ...string) func(http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	for _, origin := range cfg.TrustedOrigins {
		if err := origins.AddTrustedOrigin(origin); err != nil {
			panic(fmt.Sprintf("httpd: %v", err))
		}
	}
	for _, pattern := range exempt {
		origins.AddInsecureBypassPattern(pattern)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := exchangeOf(r.Context())
			securityHeaders(w.Header(), r.URL.Path, x != nil && x.secure)
			ctx, cancel := context.WithTimeout(r.Context(), cfg.RequestTimeout)
			defer cancel()
			r = r.WithContext(ctx)
			// The server's own writer: net/http's is told by MaxBytesReader to close the connection after a body that is too large.
			own := w
			if x != nil {
				own = x.response.ResponseWriter
			}
			r.Body = http.MaxBytesReader(own, r.Body, cfg.MaxBody)
			if r.ContentLength > cfg.MaxBody {
				Error(w, r, fault.ErrTooLarge)
				return
			}
			if err := origins.Check(r); err != nil {
				Error(w, r, ErrCrossOrigin.Wrap(err))
				return
			}
			next.ServeHTTP(w, r)
			if x != nil && x.route == "" {
				x.route = r.Pattern
			}
		})
	}
}
