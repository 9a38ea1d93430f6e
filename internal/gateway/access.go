package gateway

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// authenticate finds out who calls, and whether they may.
func (b *builder) authenticate(rc Route) stage.Stage {
	if rc.Authentication == Public {
		return nil
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			claims, err := b.deps.Verifier.VerifyRequest(r)
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
			return next(w, r, c)
		}
	}
}

// permit decides whether a caller who is known may do what the route is for.
func (b *builder) permit(rc Route, claims *auth.Claims) error {
	if rc.Authentication != Required {
		return nil
	}
	if rc.Critical && b.deps.Staleness() > b.cfg.Staleness {
		return ErrStale
	}
	for _, scope := range rc.Scopes {
		if !hasWord(claims.Scope, scope) {
			return ErrScope.Challenge(`Bearer realm="sumun", error="insufficient_scope", scope="` + strings.Join(rc.Scopes, " ") + `"`)
		}
	}
	if len(rc.Roles) > 0 && !slices.ContainsFunc(rc.Roles, func(role string) bool { return slices.Contains(claims.Roles, role) }) {
		return ErrRole
	}
	return nil
}

// What verification alone does not decide.
var (
	ErrScope = fault.New(fault.Forbidden, "gateway.scope", "The access token does not allow this.")
	ErrStale = fault.New(fault.Unavailable, "gateway.stale", "It is not certain at the moment which tokens have been revoked.").After(5 * time.Second)
)

// hasWord reports whether a list separated by spaces has a word.
func hasWord(list, word string) bool {
	for part := range strings.SplitSeq(list, " ") {
		if part == word {
			return true
		}
	}
	return false
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
