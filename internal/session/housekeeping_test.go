package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestHousekeeping(t *testing.T) {
	t.Parallel()
	onSQL(t, []test{
		{"live", testSweepKeepsTheLiving},
		{"ended", testSweepKeepsTheEndedForAWhile},
		{"everything goes", testSweepRemovesEverything},
	})
}

// A session that is used must survive every sweep until its end.
func testSweepKeepsTheLiving(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	tokens := n.signIn(t, session.Start{}).Tokens
	_, cookie := n.openPage(t, newSubject())
	for range 4 {
		c.Advance(6 * 24 * time.Hour)
		must(t, n.Sweep(t.Context()))
		tokens = n.refresh(t, tokens.Refresh)
		if _, err := n.Authenticate(t.Context(), cookie); err != nil {
			t.Fatalf("a page in use: %v", err)
		}
	}
}

// Whoever presents a token of an ended session is told so for a week, and then that it is unknown.
func testSweepKeepsTheEndedForAWhile(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{})
	must(t, n.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	c.Advance(6 * 24 * time.Hour)
	must(t, n.Sweep(t.Context()))
	if _, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("after six days: %v, want %v", err, session.ErrEnded)
	}
	c.Advance(2 * 24 * time.Hour)
	must(t, n.Sweep(t.Context()))
	if _, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("after eight days: %v, want %v", err, session.ErrInvalidGrant)
	}
}

// Nothing that a sign-in leaves behind stays for ever, also where there is more of it than one batch; a person who comes back
// after that is served as ever.
func testSweepRemovesEverything(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	stolen := n.signIn(t, session.Start{Subject: subject})
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		for i := range 600 {
			for _, page := range []bool{false, true} {
				if _, err := n.Begin(t.Context(), tx, session.Start{Subject: fmt.Sprint("person ", i), Page: page}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.SetRolesTx(ctx, tx, "person 1", []string{"admin"})
	})
	must(t, n.EndOthers(t.Context(), "person 2", "", session.EndedByOwner))
	next := n.refresh(t, stolen.Tokens.Refresh)
	n.refresh(t, next.Refresh)
	_, err := n.Mark(t.Context(), stolen.Tokens.Refresh, laptop)
	must(t, err)

	c.Advance(200 * 24 * time.Hour)
	must(t, n.Sweep(t.Context()))
	if got := n.count(t, `SELECT count(*) FROM session_grants`); got != 1 {
		t.Errorf("%d grants are left, want the theft that is not settled yet", got)
	}
	must(t, n.SettleAll(t.Context()))
	n.wantTold(t, subject, 1)
	for range 2 { // the settlement has touched the person's record, and written to the feed
		c.Advance((90 + 31) * 24 * time.Hour)
		must(t, n.Sweep(t.Context()))
	}
	for _, table := range []string{"session_grants", "sessions", "session_subjects", "revocations"} {
		if got := n.count(t, `SELECT count(*) FROM `+table); got != 0 {
			t.Errorf("%d rows are left in %s", got, table)
		}
	}
	n.openPage(t, subject)
}

func TestPersonsOutliveTheirSessions(t *testing.T) {
	onEach(t, []test{{"lifetime lowered", testPersonOutlivesSessions}})
}

// Whoever lowers the lifetime of sessions does not end those that there are: a person who has one that is older must be known for as long,
// or nobody could end it any more.
func testPersonOutlivesSessions(t *testing.T, p *place) {
	before, c := alone(t, p, session.DefaultConfig())
	long := before.signIn(t, session.Start{})
	cfg := session.DefaultConfig()
	cfg.Idle, cfg.Lifetime = 24*time.Hour, 24*time.Hour
	var keys *token.Service
	n := newNode(t, p.again(t), cfg, c.Now, func(d *session.Deps) { keys = d.Tokens })
	n.signIn(t, session.Start{Subject: long.Session.Subject})
	tokens := long.Tokens
	for range 45 {
		c.Advance(20 * time.Hour)
		must(t, n.Sweep(t.Context()))
		must(t, keys.Load(t.Context())) // a month is longer than a key signs
		tokens = n.refresh(t, tokens.Refresh)
	}
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndAllTx(ctx, tx, long.Session.Subject, session.AccountDisabled)
	})
	if _, err := n.Refresh(t.Context(), tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("after the account was disabled: %v", err)
	}
	if _, err := n.verifier.Verify(t.Context(), tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("a token of a disabled account: %v", err)
	}
}
