package session_test

import (
	"errors"
	"testing"

	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestGrown(t *testing.T) {
	onEach(t, []test{
		{"live", testGrownFromLive},
		{"ended", testGrownFromEnded},
		{"ended and not carried out", testGrownFromEndedElsewhere},
	})
}

// grow starts a session of a client's out of another one.
func (n *node) grow(t *testing.T, subject, from string) (session.Started, error) {
	t.Helper()
	var st *session.Starting
	err := n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
		st, err = n.Begin(t.Context(), tx, session.Start{Subject: subject, From: from, ClientID: "shop", Confined: true, Scope: "a", Device: laptop})
		return err
	})
	if err != nil {
		return session.Started{}, err
	}
	return st.Commit(t.Context())
}

// What a program keeps after its person has left the browser is a session like any other.
func testGrownFromLive(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	grown, err := n.grow(t, one.Subject, one.ID)
	must(t, err)
	must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut))
	n.claims(t, grown.Tokens.Access)
	_, err = n.RefreshWith(t.Context(), grown.Tokens.Refresh, shop(0), laptop)
	must(t, err)
}

// Nobody gets a session of their own out of one that has ended, is another person's, or is none.
func testGrownFromEnded(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	other, _ := n.openPage(t, newSubject())
	must(t, n.End(t.Context(), one.Subject, one.ID, session.SignedOut))
	for _, from := range []string{one.ID, other.ID, "0198c0de-0000-7000-8000-000000000000", "x"} {
		if _, err := n.grow(t, one.Subject, from); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("out of %s: %v, want %v", from, err, session.ErrNotFound)
		}
	}
	n.nobody(t, one.Subject)
}

// The end of all sessions was decided, and the process that did so died before Redis heard of it.
func testGrownFromEndedElsewhere(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	one, _ := n.openPage(t, newSubject())
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return n.EndAllTx(t.Context(), tx, one.Subject, session.PasswordReset)
	}))
	if _, err := n.grow(t, one.Subject, one.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("out of a session that was ended: %v, want %v", err, session.ErrNotFound)
	}
	must(t, n.Apply(t.Context()))
	n.nobody(t, one.Subject)
}

func (n *node) nobody(t *testing.T, subject string) {
	t.Helper()
	live, _, err := n.List(t.Context(), subject, "", 100)
	must(t, err)
	if len(live) > 0 {
		t.Errorf("%d sessions live", len(live))
	}
}
