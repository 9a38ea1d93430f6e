package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/pubsub"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestWakes(t *testing.T) {
	t.Parallel()
	tests := []test{
		{"unpolled", testRevocationsArriveUnpolled},
		{"polled first", testPolledBeforeApplied},
		{"unreachable", testWakesThatFail},
	}
	onSQL(t, tests)
	onRedis(t, tests)
}

// cluster opens two nodes' ends of pub/sub.
func cluster(t *testing.T) [2]*pubsub.NATS {
	t.Helper()
	var ends [2]*pubsub.NATS
	var routes []string
	for i := range ends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		cfg := pubsub.DefaultConfig()
		cfg.Cluster.Listen, cfg.Cluster.Routes = l.Addr().String(), routes
		routes = []string{cfg.Cluster.Listen}
		must(t, l.Close())
		ends[i], err = pubsub.OpenNATS(t.Context(), cfg, pubsub.Deps{Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		t.Cleanup(ends[i].Close)
	}
	return ends
}

// run runs a node until the test ends.
func (n *node) run(t *testing.T) {
	t.Helper()
	n.inBackground(t, n.Run)
}

// inBackground runs what is part of a node until the test ends.
func (n *node) inBackground(t *testing.T, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// revokedWithin demands that a node refuses a token before long.
func (n *node) revokedWithin(t *testing.T, access string, limit time.Duration) {
	t.Helper()
	if !n.isRevoked(t, access, limit) {
		t.Fatal("the other node never noticed")
	}
}

// isRevoked waits for a node to refuse a token.
func (n *node) isRevoked(t *testing.T, access string, limit time.Duration) bool {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		if _, err := n.verifier.Verify(t.Context(), access); errors.Is(err, auth.ErrRevoked) {
			return true
		}
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
}

// A stolen device goes on for as long as a revocation is on its way. Nodes poll four times a second, which would take 125 ms
// at the median; woken, they know at once. Here one never polls, so that it knows nothing that it was not woken for. (How soon
// exactly is a benchmark's to say, on a machine that does nothing else.)
func testRevocationsArriveUnpolled(t *testing.T, p *place) {
	const ends = 40
	c := clocktest.Noon()
	news := cluster(t)
	a := newNode(t, p, session.DefaultConfig(), c.Now, func(d *session.Deps) { d.Wakes = news[0] })
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now, func(d *session.Deps) { d.Wakes = news[1] })
	a.run(t)
	b.inBackground(t, func(ctx context.Context) error { b.Listen(ctx); return nil })
	a.meets(t, b)
	took := make([]time.Duration, ends)
	for i := range took {
		started := a.signIn(t, session.Start{})
		b.claims(t, started.Tokens.Access)
		began := time.Now()
		if i%2 == 0 {
			must(t, a.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
		} else {
			a.write(t, func(ctx context.Context, tx sqldb.Tx) error {
				return a.EndAllTx(ctx, tx, started.Session.Subject, session.AccountDisabled)
			})
		}
		b.revokedWithin(t, started.Tokens.Access, 20*time.Second)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	t.Logf("from the request to the other node: p50 %v, longest %v", took[ends/2], took[ends-1])
}

// meets ends sessions until another node gets to know: what is sent before the two have found each other is lost.
func (n *node) meets(t *testing.T, other *node) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		started := n.signIn(t, session.Start{})
		must(t, n.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
		if other.isRevoked(t, started.Tokens.Access, 100*time.Millisecond) {
			return
		}
	}
	t.Fatal("the nodes have not found each other")
}

// recorder is a bus that nobody else is on.
type recorder chan struct{}

func (r recorder) Publish(context.Context, string, []byte) error {
	r <- struct{}{}
	return nil
}

func (recorder) Subscribe(context.Context, string, func([]byte), func()) (func(), error) {
	return func() {}, nil
}

// A poll may see what a transaction revoked before its caller applies it. The other nodes must be told all the same.
func testPolledBeforeApplied(t *testing.T, p *place) {
	told := make(recorder, 100)
	n := newNode(t, p, session.DefaultConfig(), clocktest.Noon().Now, func(d *session.Deps) { d.Wakes = told })
	n.run(t)
	started := n.signIn(t, session.Start{})
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return n.EndAllTx(t.Context(), tx, started.Session.Subject, session.AccountDisabled)
	}))
	must(t, n.Load(t.Context())) // reads the feed as a poll does
	must(t, n.Apply(t.Context()))
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Error("the other nodes were never told")
	}
}

// broken is a bus without a connection.
type broken struct{}

func (broken) Publish(context.Context, string, []byte) error { return pubsub.ErrUnavailable }
func (broken) Subscribe(context.Context, string, func([]byte), func()) (func(), error) {
	return nil, pubsub.ErrUnavailable
}

// Wakes are an accelerator: while nobody carries them, revocations arrive with the next poll, and nobody who revokes waits.
func testWakesThatFail(t *testing.T, p *place) {
	c := clocktest.Noon()
	with := func(d *session.Deps) { d.Wakes = broken{} }
	a := newNode(t, p, session.DefaultConfig(), c.Now, with)
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now, with)
	a.run(t)
	b.run(t)
	started := a.signIn(t, session.Start{})
	must(t, a.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	b.revokedWithin(t, started.Tokens.Access, 20*time.Second)
}
