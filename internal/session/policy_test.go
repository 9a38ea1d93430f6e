package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestPolicies(t *testing.T) { onEach(t, policyTests) }

var policyTests = []test{
	{"early refresh is rejected", testEarlyRefreshRejected},
	{"early refresh is theft", testEarlyRefreshRevokes},
	{"pairing", testPairing},
	{"pairing over HTTP", testHTTPPairing},
}

// halfLife is when a refresh is no longer early.
const halfLife = 15 * time.Minute / 2

// Who refreshes in the first half of the access token's life is told to wait, and loses nothing; a retry and a change of roles
// are no reason to wait.
func testEarlyRefreshRejected(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.EarlyRefresh = session.EarlyReject
	n, c := alone(t, p, cfg)
	started := n.signIn(t, session.Start{Roles: []string{"member"}})
	for _, wait := range []time.Duration{0, halfLife - time.Microsecond} {
		c.Advance(wait)
		_, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
		if f := fault.From(err); !errors.Is(err, session.ErrTooEarly) || f.Status() != 429 || f.RetryAfter() != halfLife {
			t.Errorf("after %v: %v, want %v with Retry-After", wait, err, session.ErrTooEarly)
		}
	}
	c.Advance(time.Microsecond)
	second := n.refresh(t, started.Tokens.Refresh)
	if again := n.refresh(t, started.Tokens.Refresh); again.Refresh != second.Refresh {
		t.Error("a retry got another successor")
	}
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.SetRolesTx(ctx, tx, started.Session.Subject, []string{"admin"})
	})
	third := n.refresh(t, second.Refresh)
	if _, err := n.Refresh(t.Context(), third.Refresh, laptop); !errors.Is(err, session.ErrTooEarly) {
		t.Errorf("right after that: %v, want %v", err, session.ErrTooEarly)
	}
	if got := n.outcomes(t, "early"); got != 3 {
		t.Errorf("%d early refreshes were counted, want 3", got)
	}
}

func testEarlyRefreshRevokes(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.EarlyRefresh = session.EarlyRevoke
	n, c := alone(t, p, cfg)
	started := n.signIn(t, session.Start{})
	c.Advance(halfLife)
	second := n.refresh(t, started.Tokens.Refresh)
	c.Advance(time.Minute)
	if _, err := n.Refresh(t.Context(), second.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("refresh after a minute: %v, want %v", err, session.ErrEnded)
	}
	if _, err := n.verifier.Verify(t.Context(), second.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token: %v, want %v", err, auth.ErrRevoked)
	}
	n.wantTold(t, started.Session.Subject, 1)
}

// A refresh token alone, or with anything but its own access token, is worth nothing; together they work, also when the access
// token has expired and when an answer is repeated.
func testPairing(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Pairing = session.PairingRequired
	n, c := alone(t, p, cfg)
	first, theirs := n.signIn(t, session.Start{}).Tokens, n.signIn(t, session.Start{}).Tokens
	c.Advance(time.Hour)
	before := n.dump(t)
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"` + first.Refresh + `"}`))
	for _, access := range []string{"", "x", "..", theirs.Access, first.Refresh, "e30." + forged + ".e30", strings.Repeat("a.", 1<<16)} {
		if _, err := n.RefreshWith(t.Context(), first.Refresh, session.Evidence{Access: access}, laptop); !errors.Is(err, session.ErrUnpaired) {
			t.Errorf("with %.20q: %v, want %v", access, err, session.ErrUnpaired)
		}
	}
	if n.dump(t) != before {
		t.Error("a refresh without its access token changed something")
	}
	second, err := n.RefreshWith(t.Context(), first.Refresh, session.Evidence{Access: first.Access}, laptop)
	must(t, err)
	again, err := n.RefreshWith(t.Context(), first.Refresh, session.Evidence{Access: first.Access}, laptop)
	must(t, err)
	if _, err := n.RefreshWith(t.Context(), second.Refresh, session.Evidence{Access: first.Access}, laptop); !errors.Is(err, session.ErrUnpaired) {
		t.Errorf("with the access token before: %v, want %v", err, session.ErrUnpaired)
	}
	n.claims(t, again.Access)
	_, err = n.RefreshWith(t.Context(), second.Refresh, session.Evidence{Access: again.Access}, laptop)
	must(t, err)
}

func testHTTPPairing(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Pairing = session.PairingRequired
	n, _ := alone(t, p, cfg)
	h := n.serve(t)
	tokens := n.signIn(t, session.Start{}).Tokens
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody(tokens.Refresh)), session.ErrUnpaired)
	byHeader := ask(t, h, "POST", "/v1/sessions/refresh", tokens.Access, cookies.RefreshCookie(tokens.Refresh, time.Hour), "")
	answer := decode[session.TokenAnswer](t, byHeader, 200)
	refresh := byHeader.Cookies()[0].Value
	body := `{"refresh_token":"` + refresh + `","access_token":"` + answer.AccessToken + `"}`
	decode[session.TokenAnswer](t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, body), 200)
}
