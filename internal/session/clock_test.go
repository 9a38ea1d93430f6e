package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// skew is how wrong a clock may be, either way, without any verdict changing.
const skew = 30 * time.Second

// A node whose clock is half a minute ahead, next to one whose clock is half a minute behind, decides all that the tests of this
// package ask as if both were right: else people would be signed out by a time server.
func TestVerdictsUnderSkew(t *testing.T) {
	var tests []test
	for _, by := range []time.Duration{skew, -skew} {
		for _, suite := range [][]test{sessionTests, refreshTests, policyTests, limitTests} {
			for _, one := range suite {
				tests = append(tests, test{by.String() + " " + one.name, func(t *testing.T, p *place) {
					wrong := *p
					wrong.skew = by
					one.run(t, &wrong)
				}})
			}
		}
	}
	onEach(t, tests)
}

func TestClocks(t *testing.T) {
	onEach(t, []test{
		{"the store's own", testTheStoresOwnClock},
		{"rotation", testRotationUnderSkew},
		{"failover to another clock", testFailoverToAnotherClock},
		{"access tokens", testAccessTokensUnderSkew},
		{"revocations", testRevocationsUnderSkew},
	})
}

// aheadAndBehind are two nodes with wrong clocks on one store.
func aheadAndBehind(t *testing.T, p *place, cfg session.Config, now func() time.Time, with ...func(*session.Deps)) (ahead, behind *node) {
	fast, slow := *p, *p
	fast.skew, slow.skew = skew, -skew
	return newNode(t, &fast, cfg, now, with...), newNode(t, &slow, cfg, now, with...)
}

// In production nobody tells the store the time: it must look at its own clock. Here the nodes' clocks are a minute apart and the
// window is ten seconds, so each of these would come out wrong by the clock of either.
func testTheStoresOwnClock(t *testing.T, p *place) {
	ahead, behind := aheadAndBehind(t, p, session.DefaultConfig(), time.Now, storeAt(nil))
	for _, nodes := range [][2]*node{{ahead, behind}, {behind, ahead}} {
		one, other := nodes[0], nodes[1]
		before, err := one.db.Clock(t.Context())
		must(t, err)
		started := one.signIn(t, session.Start{})
		if got := started.Session.CreatedAt.Sub(before); got < -time.Second || got > 10*time.Second {
			t.Errorf("a session started %v after the store was asked for the time", got)
		}
		next := one.refresh(t, started.Tokens.Refresh)
		if again := other.refresh(t, started.Tokens.Refresh); again.Refresh != next.Refresh {
			t.Error("a retry on the other node got another successor")
		}
		if got := next.RefreshExpiresIn; got < 7*24*time.Hour-time.Second || got > 7*24*time.Hour {
			t.Errorf("the next refresh token expires in %v, want a week", got)
		}
		third := other.refresh(t, next.Refresh)
		if live, _, err := other.List(t.Context(), started.Session.Subject, "", 0); err != nil || len(live) != 1 {
			t.Errorf("list = %v, %v", live, err)
		}
		if _, err := one.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("a token two generations old: %v, want %v", err, session.ErrEnded)
		}
		if _, err := other.Refresh(t.Context(), third.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("the newest token afterwards: %v, want %v", err, session.ErrEnded)
		}
		_, cookie := one.openPage(t, newSubject())
		_, err = other.Authenticate(t.Context(), cookie)
		must(t, err)
	}
	for _, outcome := range []string{"reissued", "ahead", "expired"} {
		if got := ahead.outcomes(t, outcome) + behind.outcomes(t, outcome); got != 0 {
			t.Errorf("%d refreshes came to %q", got, outcome)
		}
	}
}

// What a token is worth when it comes after some time, to a node with another clock than the one that issued it.
func testRotationUnderSkew(t *testing.T, p *place) {
	for _, row := range []struct {
		name    string
		policy  session.LostAnswer
		back    int // which token: 0 the current, 1 the previous, 2 the one before
		after   time.Duration
		want    string
		refused error
	}{
		{"current at once", session.Reissue, 0, 0, "rotated", nil},
		{"current much later", session.Reissue, 0, 6 * 24 * time.Hour, "rotated", nil},
		{"current, a moment before it expires", session.Reissue, 0, 7*24*time.Hour - time.Microsecond, "rotated", nil},
		{"current, expired this moment", session.Reissue, 0, 7 * 24 * time.Hour, "expired", session.ErrInvalidGrant},
		{"previous at once", session.Reissue, 1, 0, "repeated", nil},
		{"previous as the window closes", session.Revoke, 1, window - time.Microsecond, "repeated", nil},
		{"previous after the window", session.Reissue, 1, window, "reissued", nil},
		{"previous after the window, lost answers are theft", session.Revoke, 1, window, "theft", session.ErrEnded},
		{"older at once", session.Reissue, 2, 0, "theft", session.ErrEnded},
		{"older much later", session.Reissue, 2, time.Hour, "theft", session.ErrEnded},
	} {
		cfg := session.DefaultConfig()
		cfg.LostAnswer = row.policy
		for i := range 2 {
			c := clocktest.Noon()
			ahead, behind := aheadAndBehind(t, p, cfg, c.Now)
			one, other := []*node{ahead, behind}[i], []*node{behind, ahead}[i]
			tokens := []string{one.signIn(t, session.Start{}).Tokens.Refresh}
			for range 2 {
				tokens = append(tokens, one.refresh(t, tokens[len(tokens)-1]).Refresh)
			}
			c.Advance(row.after)
			_, err := other.Refresh(t.Context(), tokens[len(tokens)-1-row.back], laptop)
			if !errors.Is(err, row.refused) || other.outcomes(t, row.want) != 1 {
				t.Errorf("%s, on node %d: %v, want %q", row.name, i, err, row.want)
			}
		}
	}
}

// A store that fails over to a copy with another clock goes on accepting what it accepted and refusing what it refused. Only whether
// a retry gets the same successor or a new one, and when exactly a session expires, follows the clock.
func testFailoverToAnotherClock(t *testing.T, p *place) {
	for _, jump := range []time.Duration{skew, -skew} {
		for _, row := range []struct {
			name    string
			present int // 0 the oldest, 2 the current
			refused error
		}{{"current", 2, nil}, {"previous", 1, nil}, {"older", 0, session.ErrEnded}} {
			n, c := alone(t, p, session.DefaultConfig())
			tokens := []string{n.signIn(t, session.Start{}).Tokens.Refresh}
			for range 2 {
				tokens = append(tokens, n.refresh(t, tokens[len(tokens)-1]).Refresh)
			}
			c.Advance(jump + time.Second)
			got, err := n.Refresh(t.Context(), tokens[row.present], laptop)
			if !errors.Is(err, row.refused) {
				t.Errorf("%s after a jump of %v: %v, want %v", row.name, jump, err, row.refused)
			}
			if err == nil {
				n.refresh(t, got.Refresh)
			}
			if told := n.outcomes(t, "ahead") + n.outcomes(t, "expired"); told != 0 {
				t.Errorf("%s after a jump of %v came to something else", row.name, jump)
			}
		}
	}
}

// An access token says by the clock of its issuer when it was issued and expires. Every node accepts every other's at once, and for
// as long as it should live.
func testAccessTokensUnderSkew(t *testing.T, p *place) {
	c := clocktest.Noon()
	ahead, behind := aheadAndBehind(t, p, session.DefaultConfig(), c.Now)
	right := newNode(t, p, session.DefaultConfig(), c.Now)
	nodes := map[string]*node{"ahead": ahead, "behind": behind, "right": right}
	for issuer, from := range nodes {
		c.Set(clocktest.Noon().Now())
		started := from.signIn(t, session.Start{})
		access := []string{started.Tokens.Access, from.refresh(t, started.Tokens.Refresh).Access}
		for _, wait := range []time.Duration{0, 14 * time.Minute} { // it lives for 14:15 to 15:00
			c.Advance(wait)
			for verifier, to := range nodes {
				for _, one := range access {
					if _, err := to.verifier.Verify(t.Context(), one); err != nil {
						t.Errorf("issued by the node that is %s, after %v at the one that is %s: %v", issuer, wait, verifier, err)
					}
				}
			}
		}
	}
}

// A revocation holds on every node until the token it concerns is dead there, whoever issued it, whoever revoked it, and also on a
// node that starts in between.
func testRevocationsUnderSkew(t *testing.T, p *place) {
	c := clocktest.Noon()
	ahead, behind := aheadAndBehind(t, p, session.DefaultConfig(), c.Now)
	for i := range 4 {
		c.Set(clocktest.Noon().Now())
		issuer, revoker := []*node{ahead, behind}[i%2], []*node{ahead, behind}[i/2]
		tokens := issuer.signIn(t, session.Start{})
		must(t, revoker.End(t.Context(), tokens.Session.Subject, tokens.Session.ID, session.SignedOut))
		reset := issuer.signIn(t, session.Start{})
		revoker.write(t, func(ctx context.Context, tx sqldb.Tx) error {
			return revoker.EndAllTx(ctx, tx, reset.Session.Subject, session.PasswordReset)
		})
		for range 40 {
			restarted := *p
			restarted.skew = -skew
			for _, n := range []*node{ahead, behind, newNode(t, &restarted, session.DefaultConfig(), c.Now)} {
				must(t, n.Apply(t.Context()))
				for _, one := range []string{tokens.Tokens.Access, reset.Tokens.Access} {
					_, err := n.verifier.Verify(t.Context(), one)
					if !errors.Is(err, auth.ErrRevoked) && !errors.Is(err, auth.ErrExpired) {
						t.Fatalf("after %v a revoked token is answered %v", c.Now().Sub(tokens.Session.CreatedAt), err)
					}
				}
			}
			c.Advance(30 * time.Second)
			must(t, ahead.Chores(t.Context())) // which forget what is over
		}
	}
}
