package session_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// essentials are the tests that an arrangement of servers could fail and a single one not.
var essentials = []test{
	{"rotates", testRefreshRotates},
	{"repeats within the window", testRefreshRepeatsWithinTheWindow},
	{"in parallel", testParallelRefreshesLeaveOneLineage},
	{"theft and crash", testTheftSurvivesACrash},
	{"limits in parallel", testLimitsHoldInParallel},
	{"end all", testEndAll},
	{"roles", testRoles},
	{"page", testPage},
	{"process dies after a reset", testIntentSurvivesACrash},
}

// newPlace has an SQLite of its own and the Redis that the URL names.
func newPlace(t *testing.T, url string) *place {
	t.Helper()
	p := newPlaceAt(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	p.redis, p.url, p.prefix = openRedis(t, url), url, "sumun:login:"
	return p
}

func TestSentinel(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	trio := redisdbtest.StartTrio(t)
	p := newPlace(t, trio.URL())
	runAll(t, p, essentials)
	t.Run("failover", func(t *testing.T) { testFailover(t, p, trio.FailOver) })
}

func TestCluster(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	cluster := redisdbtest.StartCluster(t)
	p := newPlace(t, cluster.URL())
	runAll(t, p, essentials)
	t.Run("failover", func(t *testing.T) { testFailover(t, p, cluster.FailOver) })
}

// The master is killed while people refresh on two nodes. Until another has taken its place they are asked to come back;
// afterwards one retry is enough. Nobody is signed out, and what was lost with the master is not taken for theft.
func testFailover(t *testing.T, p *place, failOver func()) {
	c := clocktest.Noon()
	nodes := []*node{newNode(t, p, session.DefaultConfig(), c.Now), newNode(t, p.again(t), session.DefaultConfig(), c.Now)}
	const people = 40
	chains := make([]session.Tokens, people)
	for i := range chains {
		chains[i] = nodes[0].signIn(t, session.Start{}).Tokens
	}
	reset := nodes[0].signIn(t, session.Start{})
	ctx, stop := context.WithCancel(t.Context())
	var outages atomic.Int64
	rotations := make([]atomic.Int64, people*len(nodes))
	var wg sync.WaitGroup
	for i := range chains {
		wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for n := i; ctx.Err() == nil; n++ {
				<-tick.C
				tokens, err := nodes[n%2].Refresh(t.Context(), chains[i].Refresh, laptop)
				if errors.Is(err, session.ErrUnavailable) {
					outages.Add(1)
					continue
				}
				if err != nil {
					t.Errorf("refresh during the failover: %v", err)
					return
				}
				rotations[i*2+n%2].Add(1)
				chains[i] = tokens
			}
		})
	}
	everybodyGoesOn(t, rotations)
	nodes[0].write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return nodes[0].EndAllTx(ctx, tx, reset.Session.Subject, session.PasswordReset)
	})
	failOver()
	everybodyGoesOn(t, rotations)
	stop()
	wg.Wait()
	for i := range chains {
		for _, n := range nodes {
			tokens, err := n.Refresh(t.Context(), chains[i].Refresh, laptop)
			if errors.Is(err, session.ErrUnavailable) {
				tokens, err = n.Refresh(t.Context(), chains[i].Refresh, laptop)
			}
			if err != nil {
				t.Fatalf("refresh after the failover, and its retry: %v", err)
			}
			chains[i] = tokens
		}
	}
	must(t, nodes[1].Chores(t.Context()))
	if _, err := nodes[1].Refresh(t.Context(), reset.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a session that was ended right before: %v, want %v", err, session.ErrEnded)
	}
	nodes[0].signIn(t, session.Start{})
	for _, outcome := range []string{"theft", "ended", "unknown"} {
		if got := nodes[0].outcomes(t, outcome); got != 0 {
			t.Errorf("%d refreshes came to %q", got, outcome)
		}
	}
	t.Logf("%d refreshes ahead of the new master, %d answered 503",
		nodes[0].outcomes(t, "ahead")+nodes[1].outcomes(t, "ahead"), outages.Load())
}

// everybodyGoesOn waits until every one of the counters has risen.
func everybodyGoesOn(t *testing.T, counters []atomic.Int64) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range counters {
		for was := counters[i].Load(); counters[i].Load() == was; {
			select {
			case <-deadline:
				t.Fatal("somebody cannot refresh for a minute")
			case <-tick.C:
			}
		}
	}
}

// While Redis is down, refresh and sign-in answer 503 with Retry-After, access tokens are verified as ever, and resets are
// decided; when it is back everything goes on without a restart, and what was decided is carried out.
func TestOutage(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	server := redisdbtest.Start(t)
	p := newPlace(t, server.URL())
	n, _ := alone(t, p, session.DefaultConfig())
	started, reset := n.signIn(t, session.Start{}), n.signIn(t, session.Start{})
	others := n.signIn(t, session.Start{Subject: started.Session.Subject})
	_, cookie := n.openPage(t, newSubject())
	must(t, n.Chores(t.Context()))
	server.Kill()

	wantUnavailable := func(what string, err error) {
		t.Helper()
		if f := fault.From(err); !errors.Is(err, session.ErrUnavailable) || f.Status() != 503 || f.RetryAfter() < time.Second {
			t.Errorf("%s = %v, want %v with Retry-After", what, err, session.ErrUnavailable)
		}
	}
	_, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
	wantUnavailable("refresh", err)
	_, err = n.start(t.Context(), session.Start{})
	wantUnavailable("sign-in", err)
	_, err = n.Authenticate(t.Context(), cookie)
	wantUnavailable("page", err)
	_, _, err = n.List(t.Context(), started.Session.Subject, "", 0)
	wantUnavailable("list", err)
	wantUnavailable("end", n.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	n.claims(t, started.Tokens.Access)
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return n.EndAllTx(t.Context(), tx, reset.Session.Subject, session.PasswordReset)
	}))
	if n.Apply(t.Context()) == nil {
		t.Error("a reset is carried out without a store")
	}
	if _, err := n.verifier.Verify(t.Context(), reset.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token after a reset during the outage: %v, want %v", err, auth.ErrRevoked)
	}

	changed := n.Keep(t.Context(), started.Session.Subject, started.Session.ID)
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return n.EndOthersTx(t.Context(), tx, changed, session.PasswordChanged)
	}))
	if n.Apply(t.Context()) == nil {
		t.Error("a new password is carried out without a store")
	}
	if _, err := n.verifier.Verify(t.Context(), others.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("another session's access token after a new password during the outage: %v, want %v", err, auth.ErrRevoked)
	}

	server.Restart()
	tokens, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
	if errors.Is(err, session.ErrUnavailable) {
		tokens, err = n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
	}
	must(t, err)
	n.refresh(t, tokens.Refresh)
	if _, err := n.Authenticate(t.Context(), cookie); err != nil {
		t.Errorf("page after the outage: %v", err)
	}
	must(t, n.Chores(t.Context()))
	for _, one := range []session.Started{reset, others} {
		if _, err := n.Refresh(t.Context(), one.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("refresh after a reset or a new password during the outage: %v, want %v", err, session.ErrEnded)
		}
	}
}
