package session_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
)

func TestLimits(t *testing.T) { onEach(t, limitTests) }

var limitTests = []test{
	{"refuse", testLimitRefuses},
	{"by role", testLimitByRole},
	{"by client", testLimitByClient},
	{"one per device", testOnePerDevice},
	{"in parallel", testLimitsHoldInParallel},
}

func limited(limit int, full session.WhenFull, rules ...string) session.Config {
	cfg := session.DefaultConfig()
	cfg.Limit, cfg.WhenFull = limit, full
	for _, text := range rules {
		var r session.LimitRule
		if err := r.UnmarshalText([]byte(text)); err != nil {
			panic(err)
		}
		cfg.Limits = append(cfg.Limits, r)
	}
	return cfg
}

// wantLimited demands that a session was ended by a limit, its device is told, and its access token is dead.
func (n *node) wantLimited(t *testing.T, one session.Started) {
	t.Helper()
	_, err := n.Refresh(t.Context(), one.Tokens.Refresh, laptop)
	if f := fault.From(err); !errors.Is(err, session.ErrEnded) || len(f.Fields()) != 1 || f.Fields()[0].Code != string(session.LimitReached) {
		t.Errorf("refresh = %v, want it ended by the limit", err)
	}
	if _, err := n.verifier.Verify(t.Context(), one.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token: %v, want %v", err, auth.ErrRevoked)
	}
}

// Where the policy is to refuse, nobody is signed out by somebody else's sign-in, and there is room again after a sign-out.
func testLimitRefuses(t *testing.T, p *place) {
	n, _ := alone(t, p, limited(2, session.Refuse))
	subject := newSubject()
	first, second := n.signIn(t, session.Start{Subject: subject}), n.signIn(t, session.Start{Subject: subject})
	for _, page := range []bool{false, true} {
		if _, err := n.start(t.Context(), session.Start{Subject: subject, Page: page}); !errors.Is(err, session.ErrLimitReached) {
			t.Errorf("a third sign-in: %v, want %v", err, session.ErrLimitReached)
		}
	}
	if got := n.count(t, `SELECT count(*) FROM audit_events WHERE account = $1 AND action = 'session.refused'`, subject); got != 2 {
		t.Errorf("%d refusals in the trail, want 2", got)
	}
	first.Tokens = n.refresh(t, first.Tokens.Refresh)
	n.refresh(t, second.Tokens.Refresh)
	n.signIn(t, session.Start{})
	must(t, n.End(t.Context(), subject, first.Session.ID, session.SignedOut))
	n.signIn(t, session.Start{Subject: subject})
}

// The first rule for a role of the person takes the place of the general limit.
func testLimitByRole(t *testing.T, p *place) {
	n, c := alone(t, p, limited(2, session.EvictOldest, "role:admin=1", "role:staff=unlimited", "role:member=3:refuse"))
	for _, one := range []struct {
		roles   []string
		most    int
		refuses bool
	}{
		{nil, 2, false}, {[]string{"other"}, 2, false}, {[]string{"member", "admin"}, 1, false}, {[]string{"member"}, 3, true},
		{[]string{"staff", "member"}, 12, false},
	} {
		subject := newSubject()
		var started []session.Started
		for range one.most {
			started = append(started, n.signIn(t, session.Start{Subject: subject, Roles: one.roles}))
			c.Advance(time.Second)
		}
		_, err := n.start(t.Context(), session.Start{Subject: subject, Roles: one.roles})
		if errors.Is(err, session.ErrLimitReached) != one.refuses {
			t.Errorf("%q: %v", one.roles, err)
		}
		must(t, n.Apply(t.Context()))
		if !one.refuses && one.most < 12 {
			n.wantLimited(t, started[0])
			started = started[1:]
		}
		for _, stays := range started {
			n.claims(t, stays.Tokens.Access)
			n.refresh(t, stays.Tokens.Refresh)
		}
	}
}

// A limit of a client counts that client's sessions alone.
func testLimitByClient(t *testing.T, p *place) {
	n, c := alone(t, p, limited(10, session.EvictOldest, "client:tv=1", "client:sumun=2"))
	subject := newSubject()
	signIn := func(client string) session.Started {
		c.Advance(time.Second)
		return n.signIn(t, session.Start{Subject: subject, ClientID: client})
	}
	first, tv, second := signIn(""), signIn("tv"), signIn(session.FirstParty)
	signIn("tv")
	n.wantLimited(t, tv)
	n.claims(t, first.Tokens.Access)
	signIn("")
	n.wantLimited(t, first)
	n.refresh(t, second.Tokens.Refresh)
}

// One telephone and one computer: signing in on another telephone signs out the first.
func testOnePerDevice(t *testing.T, p *place) {
	cfg := limited(10, session.EvictOldest)
	cfg.OnePerDevice = true
	n, c := alone(t, p, cfg)
	subject := newSubject()
	signIn := func(userAgent string) session.Started {
		c.Advance(time.Second)
		return n.signIn(t, session.Start{Subject: subject, Device: session.NewDevice(userAgent, netip.Addr{})})
	}
	const android = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
	devices := []string{
		laptop.UserAgent, android + "Mobile Safari/537.36", android + "Safari/537.36", "okhttp/4.12.0",
	}
	var before []session.Started
	for _, d := range devices {
		before = append(before, signIn(d))
	}
	for i, d := range devices {
		for _, stays := range before[i:] {
			n.claims(t, stays.Tokens.Access)
		}
		signIn(d)
		n.wantLimited(t, before[i])
	}
}

// However many sign in at once on whichever nodes, no limit is passed, and what is told is true.
func testLimitsHoldInParallel(t *testing.T, p *place) {
	for _, full := range []session.WhenFull{session.EvictOldest, session.Refuse} {
		cfg := limited(3, full, "client:tv=1")
		c := clocktest.Noon()
		nodes := []*node{newNode(t, p, cfg, c.Now), newNode(t, p.again(t), cfg, c.Now)}
		subject := newSubject()
		var wg sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for i := range 24 {
			wg.Go(func() {
				client := [...]string{"", "tv"}[i%2]
				_, err := nodes[i/2%2].start(t.Context(), session.Start{Subject: subject, ClientID: client})
				if err != nil && (full == session.EvictOldest || !errors.Is(err, session.ErrLimitReached)) {
					t.Errorf("start: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					in++
				}
			})
		}
		wg.Wait()
		live, _, err := nodes[0].List(t.Context(), subject, "", 0)
		if err != nil || len(live) > 3 || len(live) < 1 || full == session.Refuse && in != len(live) {
			t.Errorf("%s: %d sessions live of %d started, %v; want at most 3", full, len(live), in, err)
		}
	}
}

func TestLimitRules(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"role:admin=1", "role:a b=unlimited", "client:tv=3:refuse", "client:x=1:evict_oldest"} {
		var r session.LimitRule
		must(t, r.UnmarshalText([]byte(good)))
		if text, err := r.MarshalText(); err != nil || string(text) != good {
			t.Errorf("%q is written %q, %v", good, text, err)
		}
	}
	for _, bad := range []string{"", "role", "role:=1", "admin=1", "role:admin", "role:admin=", "role:admin=0", "role:admin=-1",
		"role:admin=99999", "role:admin=1:shrug", "user:x=1"} {
		var r session.LimitRule
		if err := r.UnmarshalText([]byte(bad)); err == nil || !strings.Contains(err.Error(), "role:NAME=N") {
			t.Errorf("%q is accepted: %+v, %v", bad, r, err)
		}
	}
}
