package session_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestFeed(t *testing.T) {
	onEach(t, []test{
		{"other nodes", testFeedReachesOtherNodes},
		{"restart", testFeedSurvivesARestart},
		{"run", testRunFollowsTheFeed},
		{"no gaps", testFeedHasNoGaps},
		{"lost writes", testFeedAfterLostWrites},
	})
}

// What is ended on one node is refused by the others with their next poll.
func testFeedReachesOtherNodes(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	ended, stays := a.signIn(t, session.Start{}), a.signIn(t, session.Start{})
	b.claims(t, ended.Tokens.Access)
	must(t, a.End(t.Context(), ended.Session.Subject, ended.Session.ID, session.SignedOut))
	must(t, b.Apply(t.Context()))
	if _, err := b.verifier.Verify(t.Context(), ended.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("on the other node: %v, want %v", err, auth.ErrRevoked)
	}
	b.claims(t, stays.Tokens.Access)
	if _, err := b.Refresh(t.Context(), ended.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("refresh on the other node: %v, want %v", err, session.ErrEnded)
	}
}

// A node that starts must refuse what was ended before.
func testFeedSurvivesARestart(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	started := a.signIn(t, session.Start{})
	must(t, a.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	b := newNode(t, p, session.DefaultConfig(), c.Now)
	if _, err := b.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after a restart: %v, want %v", err, auth.ErrRevoked)
	}
}

// Run polls by itself, and ends with its context.
func testRunFollowsTheFeed(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	started := a.signIn(t, session.Start{})
	must(t, a.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for revoked := false; !revoked; {
		select {
		case <-deadline:
			t.Fatal("the other node never noticed")
		case <-tick.C:
			_, err := b.verifier.Verify(t.Context(), started.Tokens.Access)
			revoked = errors.Is(err, auth.ErrRevoked)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v, want nil", err)
	}
}

// A reader that has seen a number must have seen all before it, however the writers' transactions overlap.
func testFeedHasNoGaps(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	started := make([]session.Started, 24)
	for i := range started {
		started[i] = a.signIn(t, session.Start{})
	}
	rollback := errors.New("rolled back")
	var wg sync.WaitGroup
	for i, one := range started {
		wg.Go(func() {
			n := []*node{a, b}[i%2]
			err := n.db.Write(t.Context(), func(tx sqldb.Tx) error {
				if err := n.EndAllTx(t.Context(), tx, one.Session.Subject, session.AccountDisabled); err != nil {
					return err
				}
				if i%4 == 0 {
					return rollback
				}
				return nil
			})
			if err != nil && !errors.Is(err, rollback) {
				t.Errorf("end: %v", err)
			}
			// Polls in between must not skip what commits later.
			if err := b.Apply(t.Context()); err != nil {
				t.Errorf("apply: %v", err)
			}
		})
	}
	wg.Wait()
	must(t, b.Apply(t.Context()))
	for i, one := range started {
		_, err := b.verifier.Verify(t.Context(), one.Tokens.Access)
		if revoked := errors.Is(err, auth.ErrRevoked); revoked == (i%4 == 0) {
			t.Errorf("session %d: %v", i, err)
		}
	}
	seqs, err := sqldb.All(t.Context(), p.db.Reader(), func(r sqldb.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, `SELECT seq FROM revocations ORDER BY seq`)
	must(t, err)
	if n := len(seqs); n == 0 || seqs[n-1]-seqs[0] != int64(n-1) || !slices.IsSorted(seqs) {
		t.Errorf("the feed has gaps: %d", seqs)
	}
}

// After a failover that lost the end of the feed, its numbers are given out again. A node that has seen them before must notice,
// and go on refusing what it knew.
func testFeedAfterLostWrites(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	lost, later := a.signIn(t, session.Start{}), a.signIn(t, session.Start{})
	must(t, a.End(t.Context(), lost.Session.Subject, lost.Session.ID, session.SignedOut))
	must(t, b.Apply(t.Context()))
	a.exec(t, `DELETE FROM revocations WHERE seq = (SELECT seq FROM revocation_feed)`)
	a.exec(t, `UPDATE revocation_feed SET seq = seq - 1`)
	must(t, a.End(t.Context(), later.Session.Subject, later.Session.ID, session.SignedOut))
	must(t, b.Apply(t.Context()))
	for name, one := range map[string]session.Started{"lost": lost, "later": later} {
		if _, err := b.verifier.Verify(t.Context(), one.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("the %s one: %v, want %v", name, err, auth.ErrRevoked)
		}
	}
	// The same when the whole feed is gone, as after its sweep.
	a.exec(t, `DELETE FROM revocations`)
	must(t, b.Apply(t.Context()))
	third := a.signIn(t, session.Start{})
	must(t, a.End(t.Context(), third.Session.Subject, third.Session.ID, session.SignedOut))
	must(t, b.Apply(t.Context()))
	if _, err := b.verifier.Verify(t.Context(), third.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("after an empty feed: %v, want %v", err, auth.ErrRevoked)
	}
}
