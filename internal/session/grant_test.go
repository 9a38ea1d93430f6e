package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestGrants(t *testing.T) {
	onEach(t, []test{
		{"life", testGrantLife},
		{"confined", testGrantIsConfined},
		{"narrowed", testGrantIsNarrowed},
		{"ended alone", testGrantEndsAlone},
		{"ended with the session", testGrantEndsWithItsSession},
		{"race", testGrantsRaceTheEnd},
	})
}

// grant gives a client a grant in a session, as the exchange of a code does.
func (n *node) grant(ctx context.Context, subject, sessionID, client string) (*session.Granting, session.Tokens, error) {
	var g *session.Granting
	err := n.db.Write(ctx, func(tx sqldb.Tx) (err error) {
		g, err = n.BeginGrant(ctx, tx, session.GrantStart{
			Subject: subject, SessionID: sessionID, ClientID: client, ClientEpoch: 3, Scope: "openid a", Audience: []string{issuer, "urn:b"}, Device: laptop,
		})
		return err
	})
	if err != nil {
		return nil, session.Tokens{}, err
	}
	tokens, err := g.Commit(ctx)
	return g, tokens, err
}

func shop(epoch int64) session.Evidence {
	return session.Evidence{ClientID: "shop", ClientEpoch: epoch}
}

// A program that a person signs in to gets tokens of their session, of which it can tell when and how they signed in.
func testGrantLife(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	g, first, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	claims := n.claims(t, first.Access)
	if claims.SessionID != one.ID || claims.GrantID != g.ID || claims.ClientID != "shop" || claims.ClientEpoch != 3 || claims.Scope != "openid a" ||
		len(claims.Audience) != 2 || !claims.AuthTime.Equal(one.AuthTime.Truncate(1e9)) || len(claims.Roles) != 1 {
		t.Errorf("claims %+v of %+v", claims, one)
	}
	c.Advance(600e9)
	next, err := n.RefreshWith(t.Context(), first.Refresh, shop(4), laptop)
	must(t, err)
	again := n.claims(t, next.Access)
	if again.GrantID != g.ID || again.SessionID != one.ID || again.ClientEpoch != 4 || next.Granted.Scope != "openid a" {
		t.Errorf("after a refresh: %+v", again)
	}
	if _, _, err := n.grant(t.Context(), newSubject(), one.ID, "shop"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("in another person's session: %v", err)
	}
	if _, _, err := n.grant(t.Context(), one.Subject, newSubject(), "shop"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("in no session: %v", err)
	}
}

// A refresh token that one program lost is worth nothing to another, nor at the endpoint that asks for no client, and trying it
// changes nothing.
func testGrantIsConfined(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	_, first, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	for name, with := range map[string]session.Evidence{"none": {}, "another": {ClientID: "other"}, "a part": {ClientID: "sho"}} {
		if _, err := n.RefreshWith(t.Context(), first.Refresh, with, laptop); !errors.Is(err, session.ErrInvalidGrant) {
			t.Errorf("with %s: %v", name, err)
		}
	}
	own := n.signIn(t, session.Start{})
	if _, err := n.RefreshWith(t.Context(), own.Tokens.Refresh, shop(0), laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("a token of Sumun's own: %v", err)
	}
	n.refresh(t, own.Tokens.Refresh)
	must(t, n.End(t.Context(), own.Session.Subject, own.Session.ID, session.SignedOut))
	next, err := n.RefreshWith(t.Context(), first.Refresh, shop(0), laptop)
	must(t, err)
	if _, err = n.RefreshWith(t.Context(), next.Refresh, shop(0), laptop); err != nil {
		t.Errorf("its own: %v", err)
	}
	if _, err := n.RefreshWith(t.Context(), first.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a replaced token: %v", err)
	}
	if _, err := n.RefreshWith(t.Context(), next.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("after a theft: %v", err)
	}
}

func testGrantIsNarrowed(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	_, first, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	with := shop(0)
	refused := errors.New("more than was granted")
	with.Narrow = func(g *token.Grant) error { return refused }
	if _, err := n.RefreshWith(t.Context(), first.Refresh, with, laptop); !errors.Is(err, refused) {
		t.Errorf("more: %v", err)
	}
	with.Narrow = func(g *token.Grant) error { g.Scope = "a"; return nil }
	next, err := n.RefreshWith(t.Context(), first.Refresh, with, laptop)
	must(t, err)
	if claims := n.claims(t, next.Access); claims.Scope != "a" {
		t.Errorf("scope %q", claims.Scope)
	}
	whole, err := n.RefreshWith(t.Context(), next.Refresh, shop(0), laptop)
	must(t, err)
	if claims := n.claims(t, whole.Access); claims.Scope != "openid a" {
		t.Errorf("the next: %q", claims.Scope)
	}
}

// Who takes back what a program was allowed stays signed in, and may allow it again a moment later.
func testGrantEndsAlone(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, cookie := n.openPage(t, newSubject())
	g, ends, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	_, stays, err := n.grant(t.Context(), one.Subject, one.ID, "other")
	must(t, err)
	for range 2 {
		must(t, n.endGrant(t, one.Subject, one.ID, g.ID, session.GrantRevoked))
	}
	if _, err := n.verifier.Verify(t.Context(), ends.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("its access token: %v", err)
	}
	if _, err := n.RefreshWith(t.Context(), ends.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("its refresh token: %v", err)
	}
	n.claims(t, stays.Access)
	_, err = n.Authenticate(t.Context(), cookie)
	must(t, err)
	_, again, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	n.claims(t, again.Access)
	_, err = n.RefreshWith(t.Context(), again.Refresh, shop(0), laptop)
	must(t, err)
	if err := n.endGrant(t, newSubject(), one.ID, g.ID, session.GrantRevoked); err != nil {
		t.Errorf("another person's: %v", err)
	}
}

// endGrant ends a grant in a transaction of its own.
func (n *node) endGrant(t testing.TB, subject, sessionID, id string, reason session.Reason) error {
	t.Helper()
	err := n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return n.EndGrantTx(t.Context(), tx, subject, sessionID, id, reason)
	})
	return errors.Join(err, n.Apply(t.Context()))
}

func testGrantEndsWithItsSession(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	_, tokens, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut))
	if _, err := n.verifier.Verify(t.Context(), tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("its access token: %v", err)
	}
	if _, err := n.RefreshWith(t.Context(), tokens.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("its refresh token: %v", err)
	}
	if _, _, err := n.grant(t.Context(), one.Subject, one.ID, "shop"); err == nil {
		t.Error("a grant in a session that has ended")
	}
}

// A program must not keep what it gets in the moment in which its person signs out.
func testGrantsRaceTheEnd(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	var mu sync.Mutex
	var given []session.Tokens
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if i == 6 {
				if err := n.End(t.Context(), one.Subject, one.ID, session.SignedOut); err != nil {
					t.Errorf("end: %v", err)
				}
				return
			}
			_, tokens, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
			switch {
			case err == nil:
				mu.Lock()
				given = append(given, tokens)
				mu.Unlock()
			case !errors.Is(err, session.ErrNotFound) && !errors.Is(err, session.ErrEnded) && !errors.Is(err, session.ErrOvertaken):
				t.Errorf("grant: %v", err)
			}
		})
	}
	wg.Wait()
	must(t, n.Apply(t.Context()))
	for _, tokens := range given {
		if _, err := n.verifier.Verify(t.Context(), tokens.Access); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("an access token outlives the sign-out: %v", err)
		}
		if _, err := n.RefreshWith(t.Context(), tokens.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("a refresh token outlives the sign-out: %v", err)
		}
	}
}

// Programs notice no more of a move than people do: their grants go on, can be ended, and may be given while it is under way.
func TestGrantsMove(t *testing.T) {
	t.Parallel()
	onRedis(t, []test{{"both ways", bothWays(testGrantsMove)}})
}

func testGrantsMove(t *testing.T, p *place, m session.Move) {
	c := clocktest.Noon()
	n := newNode(t, p.again(t), in(m.From), c.Now)
	one, cookie := n.openPage(t, newSubject())
	_, stays, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	ends, ending, err := n.grant(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	var late *session.Granting // decided before the move, and brought to life after it
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
		late, err = n.BeginGrant(t.Context(), tx, session.GrantStart{Subject: one.Subject, SessionID: one.ID, ClientID: "shop", Device: laptop})
		return err
	}))
	n.moveAll(t, m)
	stays, err = n.RefreshWith(t.Context(), stays.Refresh, shop(0), laptop)
	must(t, err)
	tokens, err := late.Commit(t.Context())
	must(t, err)
	_, err = n.RefreshWith(t.Context(), tokens.Refresh, shop(0), laptop)
	must(t, err)
	must(t, n.endGrant(t, one.Subject, one.ID, ends.ID, session.GrantRevoked))
	if _, err := n.RefreshWith(t.Context(), ending.Refresh, shop(0), laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a grant that was ended after the move: %v", err)
	}
	if _, err := n.RefreshWith(t.Context(), stays.Refresh, session.Evidence{}, laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("without its client: %v", err)
	}
	_, _, err = n.grant(t.Context(), one.Subject, one.ID, "other")
	must(t, err)
	_, err = n.Authenticate(t.Context(), cookie)
	must(t, err)
}
