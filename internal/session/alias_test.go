package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestAliases(t *testing.T) {
	onEach(t, []test{
		{"revoked", testAliasesAreRevoked},
		{"of a session of its own", testAliasOfOwnSession},
		{"race", testAliasesRaceTheEnd},
		{"outlive the session", testAliasesOutliveTheSession},
	})
}

// masked gives a person and a session other names, one per client.
func masked(g *token.Grant) error {
	g.Subject, g.SessionID = "person of "+g.ClientID+" "+g.Subject, "session of "+g.ClientID+" "+g.SessionID
	return nil
}

// grantMasked is grant under other names.
func (n *node) grantMasked(ctx context.Context, subject, sessionID, client string) (session.Tokens, error) {
	var g *session.Granting
	err := n.db.Write(ctx, func(tx sqldb.Tx) (err error) {
		g, err = n.BeginGrant(ctx, tx, session.GrantStart{
			Subject: subject, SessionID: sessionID, ClientID: client, Scope: "openid", Device: laptop, Narrow: masked,
		})
		return err
	})
	if err != nil {
		return session.Tokens{}, err
	}
	return g.Commit(ctx)
}

// A program that knows a person by another name loses its tokens with their session and their roles like any other, and at once.
func testAliasesAreRevoked(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	other, _ := n.openPage(t, one.Subject)
	first, err := n.grantMasked(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	claims := n.claims(t, first.Access)
	if claims.Subject != "person of shop "+one.Subject || claims.SessionID != "session of shop "+one.ID || first.Granted.Subject != claims.Subject {
		t.Errorf("claims %+v", claims)
	}
	stays, err := n.grantMasked(t.Context(), one.Subject, other.ID, "shop")
	must(t, err)
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.SetRolesTx(ctx, tx, one.Subject, []string{"chief"})
	})
	must(t, n.Apply(t.Context()))
	if _, err := n.verifier.Verify(t.Context(), first.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("with the old roles: %v", err)
	}
	with := session.Evidence{ClientID: "shop", Narrow: masked}
	next, err := n.RefreshWith(t.Context(), first.Refresh, with, laptop)
	must(t, err)
	stays, err = n.RefreshWith(t.Context(), stays.Refresh, with, laptop)
	must(t, err)
	if claims := n.claims(t, next.Access); claims.Subject != "person of shop "+one.Subject || claims.Roles[0] != "chief" {
		t.Errorf("after a refresh: %+v", claims)
	}
	must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut))
	if _, err := n.verifier.Verify(t.Context(), next.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after the session has ended: %v", err)
	}
	n.claims(t, stays.Access) // of the person's other session

	hash := auth.RevocationHash(auth.RevokeSubject, one.Subject)
	left := func() int64 {
		return n.count(t, `SELECT count(*) FROM session_aliases WHERE kind = 'subject' AND hash = $1`, hash[:])
	}
	must(t, n.Sweep(t.Context()))
	if left() != 1 {
		t.Error("an alias went before the tokens that carry it")
	}
	c.Advance(session.DefaultConfig().Lifetime + 3*time.Hour)
	must(t, n.Sweep(t.Context()))
	if left() != 0 {
		t.Error("aliases stay for ever")
	}
}

func testAliasOfOwnSession(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	own := n.signIn(t, session.Start{ClientID: "shop", Confined: true, Narrow: masked})
	if claims := n.claims(t, own.Tokens.Access); claims.SessionID != "session of shop "+own.Session.ID {
		t.Errorf("claims %+v", claims)
	}
	must(t, n.End(t.Context(), own.Session.Subject, own.Session.ID, session.GrantRevoked))
	if _, err := n.verifier.Verify(t.Context(), own.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after its end: %v", err)
	}
}

// Whichever comes first, a grant or the end of its session: no token under another name outlives the session.
func testAliasesRaceTheEnd(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	for range 10 {
		one, _ := n.openPage(t, newSubject())
		var wg sync.WaitGroup
		given := make([]session.Tokens, 4)
		errs := make([]error, len(given))
		for i := range given {
			wg.Go(func() { given[i], errs[i] = n.grantMasked(t.Context(), one.Subject, one.ID, "shop") })
		}
		wg.Go(func() { must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut)) })
		wg.Wait()
		must(t, n.Apply(t.Context()))
		for i, tokens := range given {
			if errs[i] != nil {
				continue // too late
			}
			if _, err := n.verifier.Verify(t.Context(), tokens.Access); !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("a token of an ended session: %v", err)
			}
		}
	}
}

// Whoever lowers the lifetime of sessions does not end those that there are. What a program got in such a session dies with it on the last of
// its days as on the first, under the names that the program knows.
func testAliasesOutliveTheSession(t *testing.T, p *place) {
	before, c := alone(t, p, session.DefaultConfig())
	one, _ := before.openPage(t, newSubject())
	cfg := session.DefaultConfig()
	cfg.Idle, cfg.Lifetime = 24*time.Hour, 24*time.Hour
	n := newNode(t, p.again(t), cfg, c.Now)
	got, err := n.grantMasked(t.Context(), one.Subject, one.ID, "shop")
	must(t, err)
	other, _ := n.openPage(t, one.Subject)
	_, err = n.grantMasked(t.Context(), one.Subject, other.ID, "shop") // one that ends earlier takes nothing back
	must(t, err)
	with := session.Evidence{ClientID: "shop", Narrow: masked}
	for range 10 { // days in which it is used
		c.Advance(20 * time.Hour)
		must(t, n.Sweep(t.Context()))
		got, err = n.RefreshWith(t.Context(), got.Refresh, with, laptop)
		must(t, err)
	}
	must(t, n.Sweep(t.Context()))
	must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut))
	if _, err := n.verifier.Verify(t.Context(), got.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after the session has ended: %v", err)
	}
	again, _ := before.openPage(t, one.Subject)
	got, err = before.grantMasked(t.Context(), again.Subject, again.ID, "shop")
	must(t, err)
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.SetRolesTx(ctx, tx, one.Subject, []string{"chief"})
	})
	must(t, n.Apply(t.Context()))
	if _, err := n.verifier.Verify(t.Context(), got.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("with the old roles: %v", err)
	}
}
