package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// authenticate finds out who calls, and whether they may. readHeader says that an API key may be in a header of its own, which nobody
// behind gets to see.
func (b *builder) authenticate(rc Route, readHeader bool) stage.Stage {
	if rc.Authentication == Public {
		return nil
	}
	ofToken := b.deps.Verifier.VerifyRequest
	if rc.Introspect {
		ofToken = b.verifyAsking
	}
	verify := func(r *http.Request, _ *stage.Call) (*auth.Claims, error) { return ofToken(r) }
	if rc.APIKeys {
		verify = func(r *http.Request, c *stage.Call) (*auth.Claims, error) { return b.verify(r, c, readHeader, ofToken) }
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			if rc.Authentication != ByUpstream { // which has nonces of its own
				if nonce := b.deps.Verifier.DPoPNonce(r); nonce != "" {
					w.Header().Set("DPoP-Nonce", nonce)
				}
			}
			claims, err := verify(r, c)
			switch {
			case err == nil:
				c.Claims = claims
			case rc.Authentication == ByUpstream:
			case rc.Authentication == Optional && errors.Is(err, auth.ErrMissing):
			default:
				return Refusal(err)
			}
			if err := b.permit(rc, c.Claims); err != nil {
				return err
			}
			if err := b.introspect(rc, r); err != nil {
				return err
			}
			return next(w, r, c)
		}
	}
}

// verifyAsking verifies the token of a request to a route on which the identity module is asked about each one: there, and only there,
// it may be one that nobody else can read.
func (b *builder) verifyAsking(r *http.Request) (*auth.Claims, error) {
	if b.isOpaque(r) {
		return b.deps.Opaque.VerifyRequest(r)
	}
	return b.deps.Verifier.VerifyRequest(r)
}

// isOpaque reports whether the token of a request is one that says nothing by itself, for which somebody can be asked.
func (b *builder) isOpaque(r *http.Request) bool {
	token, err := auth.Presented(r)
	return err == nil && b.deps.Opaque != nil && !strings.Contains(token, ".")
}

// introspect asks the identity module itself, where the route wants that: last, when there is no other reason to refuse. About an opaque
// token it has been asked.
func (b *builder) introspect(rc Route, r *http.Request) error {
	if !rc.Introspect || b.isOpaque(r) {
		return nil
	}
	token, err := auth.Presented(r)
	if err == nil {
		err = b.deps.OAuth.Introspect(r.Context(), token)
	}
	return Refusal(err)
}

// permit decides whether a caller who is known may do what the route is for.
func (b *builder) permit(rc Route, claims *auth.Claims) error {
	if rc.Authentication != Required {
		return nil
	}
	if rc.Critical {
		if err := b.deps.Verifier.Fresh(); err != nil {
			return Refusal(err)
		}
	}
	if len(rc.Scopes) > 0 {
		if err := auth.CheckScope(claims, rc.Scopes...); err != nil {
			return Refusal(err)
		}
	}
	if len(rc.Roles) > 0 {
		if err := auth.CheckRole(claims, rc.Roles...); err != nil {
			return Refusal(err)
		}
	}
	return nil
}

// Refusal is the answer to a token that does not let through (RFC 6750 section 3). What is not about the token, such as a
// database that does not answer, stays what it is.
func Refusal(err error) error {
	var e *auth.Error
	if !errors.As(err, &e) {
		return err
	}
	status, challenge, code := auth.Challenge(e)
	f := fault.New(fault.KindOf(status), code, e.Description()).Wrap(err)
	if challenge != "" {
		f = f.Challenge(challenge)
	}
	if status == http.StatusServiceUnavailable {
		f = f.After(time.Second)
	}
	return f
}
