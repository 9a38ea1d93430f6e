package auth

import (
	"net/http"
	"strings"
	"time"
)

// RequireRecent returns nil when the person behind c proved who they are within maxAge before now, and otherwise an
// error that is [ErrStepUp] and whose challenge tells the client which maximum age to ask the issuer for (RFC 9470
// section 3). A token without auth_time is never recent. maxAge has a resolution of one second.
func RequireRecent(c *Claims, maxAge time.Duration, now time.Time) error {
	if c != nil && !c.AuthTime.IsZero() && now.Sub(c.AuthTime) <= maxAge {
		return nil
	}
	e := *ErrStepUp
	e.maxAge = maxAge
	return &e
}

// CheckScope returns nil when c has every one of the scopes, and otherwise an error that is [ErrScope] and whose challenge names
// them all (RFC 6750 section 3), or [ErrMissing] when c is nil.
func CheckScope(c *Claims, scopes ...string) error {
	if c == nil {
		return ErrMissing
	}
	for _, scope := range scopes {
		if !c.HasScope(scope) {
			e := *ErrScope
			e.scope = strings.Join(scopes, " ")
			return &e
		}
	}
	return nil
}

// CheckRole returns nil when c has one of the roles, and otherwise [ErrRole], or [ErrMissing] when c is nil.
func CheckRole(c *Claims, roles ...string) error {
	if c == nil {
		return ErrMissing
	}
	for _, role := range roles {
		if c.HasRole(role) {
			return nil
		}
	}
	return ErrRole
}

// RequireScope is a middleware behind [Verifier.Middleware] that lets only tokens with every one of the scopes through. It
// panics when there are none, or when one cannot be a scope (RFC 6749 section 3.3): that is a fault in the program.
func RequireScope(scopes ...string) func(http.Handler) http.Handler {
	if len(scopes) == 0 {
		panic("auth.RequireScope: no scope")
	}
	for _, s := range scopes {
		if !isScope(s) {
			panic("auth.RequireScope: not a scope: " + s)
		}
	}
	return require(func(r *http.Request) error { return CheckScope(FromContext(r.Context()), scopes...) })
}

// RequireRole is a middleware behind [Verifier.Middleware] that lets only tokens with one of the roles through. Roles are as old as
// the token, unless the issuer's feed is followed: then a token with roles that were taken away is revoked. It panics when there
// are none.
func RequireRole(roles ...string) func(http.Handler) http.Handler {
	if len(roles) == 0 {
		panic("auth.RequireRole: no role")
	}
	return require(func(r *http.Request) error { return CheckRole(FromContext(r.Context()), roles...) })
}

// RequireFresh is a middleware for critical routes: it refuses with [ErrStale] while the revocation feed is older than
// [Config.MaxStale], or has never been read.
func (v *Verifier) RequireFresh(next http.Handler) http.Handler {
	return require(func(*http.Request) error { return v.Fresh() })(next)
}

func require(check func(*http.Request) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := check(r); err != nil {
				refuse(w, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// isScope reports whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}
