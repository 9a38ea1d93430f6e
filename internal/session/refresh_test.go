package session_test

import (
	"context"
	"encoding/base64"
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
	"github.com/sumunio/sumun/internal/sqldb"
)

const window = 10 * time.Second

func TestRefresh(t *testing.T) { onEach(t, refreshTests) }

var refreshTests = []test{
	{"rotates", testRefreshRotates},
	{"repeats within the window", testRefreshRepeatsWithinTheWindow},
	{"reissues after a lost answer", testRefreshReissuesAfterALostAnswer},
	{"policy revoke", testRefreshPolicyRevoke},
	{"ahead of the store", testRefreshAcceptsWhatIsAheadOfTheStore},
	{"expires", testRefreshExpires},
	{"garbage", testGarbageChangesNothing},
	{"in parallel", testParallelRefreshesLeaveOneLineage},
	{"reissues in parallel", testParallelReissuesLeaveOneLineage},
	{"store away", testRefreshWhileTheStoreIsAway},
	{"theft", testTheftEndsTheSession},
	{"theft from another client", testTheftFromAnotherClientEndsItsGrant},
	{"theft and crash", testTheftSurvivesACrash},
	{"thefts in parallel", testParallelTheftsAreSettledOnce},
}

func testRefreshRotates(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	signedInAt := c.Now()
	started := n.signIn(t, session.Start{
		Roles: []string{"admin", "a role, with a comma"}, Scope: "profile", AMR: []string{"pwd", "otp"}, ACR: "2", Device: laptop,
	})
	c.Advance(time.Hour)
	tokens := n.refresh(t, started.Tokens.Refresh)
	if tokens.Refresh == started.Tokens.Refresh {
		t.Error("a refresh token survives its use")
	}
	if tokens.SessionID != started.Session.ID || tokens.RefreshExpiresIn != 7*24*time.Hour {
		t.Errorf("session %s, refresh expires in %v", tokens.SessionID, tokens.RefreshExpiresIn)
	}
	claims := n.claims(t, tokens.Access)
	if claims.Subject != started.Session.Subject || claims.SessionID != started.Session.ID || claims.ClientID != session.FirstParty ||
		claims.Scope != "profile" || claims.ACR != "2" || len(claims.AMR) != 2 ||
		len(claims.Roles) != 2 || claims.Roles[1] != "a role, with a comma" || !claims.AuthTime.Equal(signedInAt) {
		t.Errorf("claims = %+v", claims)
	}
	for range 5 {
		tokens = n.refresh(t, tokens.Refresh)
	}
	if got := n.outcomes(t, "rotated"); got != 6 {
		t.Errorf("%d rotations were counted, want 6", got)
	}
}

// Who retries because an answer was slow must not be signed out, nor end up with two families.
func testRefreshRepeatsWithinTheWindow(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	first := n.signIn(t, session.Start{}).Tokens.Refresh
	second := n.refresh(t, first)
	c.Advance(window - time.Microsecond)
	again := n.refresh(t, first)
	if again.Refresh != second.Refresh {
		t.Fatal("the same token got two successors")
	}
	if again.Access == second.Access {
		t.Error("the repeated answer carries an old access token")
	}
	n.claims(t, again.Access)
	// The first use of the successor closes the window.
	n.refresh(t, second.Refresh)
	if _, err := n.Refresh(t.Context(), first, laptop); !errors.Is(err, session.ErrEnded) {
		t.Fatalf("a token two generations old: %v, want %v", err, session.ErrEnded)
	}
}

// Whose answer was lost entirely, and who comes back later, must not be signed out either; the token that nobody received dies.
func testRefreshReissuesAfterALostAnswer(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	first := n.signIn(t, session.Start{}).Tokens.Refresh
	lost := n.refresh(t, first)
	c.Advance(window)
	second := n.refresh(t, first)
	if second.Refresh == lost.Refresh {
		t.Fatal("the lost successor was given out again after the window")
	}
	if got := n.outcomes(t, "reissued"); got != 1 {
		t.Errorf("%d reissues were counted, want 1", got)
	}
	if again := n.refresh(t, first); again.Refresh != second.Refresh {
		t.Error("the window of a reissued token does not repeat its answer")
	}
	third := n.refresh(t, second.Refresh)
	if _, err := n.Refresh(t.Context(), lost.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Fatalf("the replaced successor: %v, want %v", err, session.ErrEnded)
	}
	if _, err := n.Refresh(t.Context(), third.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Fatalf("the family after that theft: %v, want %v", err, session.ErrEnded)
	}
}

func testRefreshPolicyRevoke(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.LostAnswer = session.Revoke
	n, c := alone(t, p, cfg)
	first := n.signIn(t, session.Start{}).Tokens.Refresh
	n.refresh(t, first)
	c.Advance(window)
	if _, err := n.Refresh(t.Context(), first, laptop); !errors.Is(err, session.ErrEnded) {
		t.Fatalf("refresh after the window: %v, want %v", err, session.ErrEnded)
	}
}

// A store that failed over to a copy that lacks the last writes must not sign anybody out.
func testRefreshAcceptsWhatIsAheadOfTheStore(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{})
	failOver := n.replica(t, started.Session)
	second := n.refresh(t, started.Tokens.Refresh)
	third := n.refresh(t, second.Refresh)
	failOver()

	fourth := n.refresh(t, third.Refresh)
	if got := n.outcomes(t, "ahead"); got != 1 {
		t.Errorf("%d tokens ahead were counted, want 1", got)
	}
	if again := n.refresh(t, third.Refresh); again.Refresh != fourth.Refresh {
		t.Error("the answer to a token ahead is not repeated")
	}
	n.refresh(t, fourth.Refresh)
	if _, err := n.Refresh(t.Context(), second.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("an old token afterwards: %v, want %v", err, session.ErrEnded)
	}
}

func testRefreshExpires(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Idle, cfg.Lifetime = 24*time.Hour, 60*time.Hour
	n, c := alone(t, p, cfg)
	unused := n.signIn(t, session.Start{}).Tokens.Refresh
	used := n.signIn(t, session.Start{}).Tokens
	for range 2 {
		c.Advance(24*time.Hour - time.Second)
		used = n.refresh(t, used.Refresh)
	}
	if _, err := n.Refresh(t.Context(), unused, laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("idle for two days: %v, want %v", err, session.ErrInvalidGrant)
	}
	if want := 12*time.Hour + 2*time.Second; used.RefreshExpiresIn != want {
		t.Errorf("refresh expires in %v, want %v: the session's own end", used.RefreshExpiresIn, want)
	}
	c.Advance(used.RefreshExpiresIn)
	if _, err := n.Refresh(t.Context(), used.Refresh, laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("past its lifetime: %v, want %v", err, session.ErrInvalidGrant)
	}
}

// Theft costs the whole session of a first-party client, its access tokens at once, and the owner is told exactly once.
func testTheftEndsTheSession(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	other := n.signIn(t, session.Start{})
	started := n.signIn(t, session.Start{Subject: other.Session.Subject})
	second := n.refresh(t, started.Tokens.Refresh)
	third := n.refresh(t, second.Refresh)
	thief := session.NewDevice("curl/8.5.0", netip.MustParseAddr("198.51.100.9"))

	_, err := n.Refresh(t.Context(), started.Tokens.Refresh, thief)
	if f := fault.From(err); !errors.Is(err, session.ErrEnded) || len(f.Fields()) != 1 || f.Fields()[0].Code != string(session.Theft) {
		t.Fatalf("refresh = %v, want %v with the reason", err, session.ErrEnded)
	}
	for name, refresh := range map[string]string{"stolen": started.Tokens.Refresh, "newest": third.Refresh} {
		if _, err := n.Refresh(t.Context(), refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("%s token afterwards: %v, want %v", name, err, session.ErrEnded)
		}
	}
	if _, err := n.verifier.Verify(t.Context(), third.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token afterwards: %v, want %v", err, auth.ErrRevoked)
	}
	n.refresh(t, other.Tokens.Refresh)
	n.claims(t, other.Tokens.Access)
	n.wantTold(t, started.Session.Subject, 1)
	letter, err := sqldb.One(t.Context(), n.db.Reader(), func(r sqldb.Row) (s string, err error) {
		err = r.Scan(&s)
		return s, err
	}, `SELECT data FROM mail_letters WHERE account = $1`, started.Session.Subject)
	must(t, err)
	if want := `{"device":"curl","from":"198.51.100.9"}`; letter != want {
		t.Errorf("letter = %s, want %s", letter, want)
	}
}

// The theft of another client's token costs that client its grant, not the person the session.
func testTheftFromAnotherClientEndsItsGrant(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{ClientID: "shop"})
	second := n.refresh(t, started.Tokens.Refresh)
	third := n.refresh(t, second.Refresh)
	if _, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Fatalf("refresh = %v, want %v", err, session.ErrEnded)
	}
	if _, err := n.verifier.Verify(t.Context(), third.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("the client's access token afterwards: %v, want %v", err, auth.ErrRevoked)
	}
	if _, err := n.verifier.Verify(t.Context(), second.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("its access token before that: %v, want %v", err, auth.ErrRevoked)
	}
	n.wantTold(t, started.Session.Subject, 1)
}

// wantTold demands how many thefts the owner was told of, in the trail and by mail.
func (n *node) wantTold(t *testing.T, subject string, want int64) {
	t.Helper()
	if got := n.count(t, `SELECT count(*) FROM audit_events WHERE account = $1 AND action = 'session.theft'`, subject); got != want {
		t.Errorf("%d events in the trail, want %d", got, want)
	}
	if got := n.count(t, `SELECT count(*) FROM mail_letters WHERE account = $1 AND kind = 'session_theft'`, subject); got != want {
		t.Errorf("%d letters, want %d", got, want)
	}
}

// A process that dies between noticing a theft and acting on it must leave a family that is dead and an owner who is told.
func testTheftSurvivesACrash(t *testing.T, p *place) {
	c := clocktest.Noon()
	a := newNode(t, p, session.DefaultConfig(), c.Now)
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	started := a.signIn(t, session.Start{})
	second := a.refresh(t, started.Tokens.Refresh)
	third := a.refresh(t, second.Refresh)
	if outcome, err := a.Mark(t.Context(), started.Tokens.Refresh, laptop); err != nil || outcome != "theft" {
		t.Fatalf("mark = %s, %v", outcome, err)
	}
	a.wantTold(t, started.Session.Subject, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { []*node{a, b}[i%2].heal(t, third.Refresh) })
	}
	wg.Wait()
	a.wantTold(t, started.Session.Subject, 1)
	for name, n := range map[string]*node{"a": a, "b": b} {
		must(t, n.Apply(t.Context()))
		if _, err := n.verifier.Verify(t.Context(), third.Access); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("access token on node %s: %v, want %v", name, err, auth.ErrRevoked)
		}
	}
}

// Whoever knows the ids of a session, and has seen tokens of others, can neither use it nor end it.
func testGarbageChangesNothing(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	mine, theirs := n.signIn(t, session.Start{}), n.signIn(t, session.Start{})
	old := theirs.Tokens.Refresh
	current := n.refresh(t, old).Refresh
	body, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(current, "srt_"))
	must(t, err)
	flip := func(at int) string {
		b := append([]byte(nil), body...)
		b[at] ^= 1
		return "srt_" + base64.RawURLEncoding.EncodeToString(b)
	}
	garbage := []string{
		"", "srt_", "x", theirs.Session.ID, theirs.Session.ID + ".garbage", current[:len(current)-1], current + "A", "\n" + current,
		current[:80] + "\n" + current[80:], strings.TrimPrefix(current, "srt_"), strings.Repeat("A", 1<<16), theirs.Tokens.Access,
		"srt_" + base64.RawURLEncoding.EncodeToString(make([]byte, len(body))),
		"srt_" + strings.TrimPrefix(mine.Tokens.Refresh, "srt_")[:70] + strings.TrimPrefix(current, "srt_")[70:],
	}
	for at := range body {
		garbage = append(garbage, flip(at))
	}
	before := n.dump(t)
	for _, g := range garbage {
		if _, err := n.Refresh(t.Context(), g, laptop); !errors.Is(err, session.ErrInvalidGrant) {
			t.Errorf("refresh with %.40q: %v, want %v", g, err, session.ErrInvalidGrant)
		}
	}
	if after := n.dump(t); after != before {
		t.Errorf("garbage changed the store:\n%s\nwas:\n%s", after, before)
	}
	if got := n.outcomes(t, "invalid"); got != len(garbage) {
		t.Errorf("%d invalid tokens were counted, want %d", got, len(garbage))
	}
	n.refresh(t, current)
}

// A burst of tabs that refresh with the same token ends with one lineage, on whichever nodes they land.
func testParallelRefreshesLeaveOneLineage(t *testing.T, p *place) {
	c := clocktest.Noon()
	nodes := []*node{
		newNode(t, p, session.DefaultConfig(), c.Now),
		newNode(t, p.again(t), session.DefaultConfig(), c.Now),
	}
	presented := nodes[0].signIn(t, session.Start{}).Tokens.Refresh
	for range 4 {
		successors := burst(t, nodes, presented)
		if len(successors) != 1 {
			t.Fatalf("50 parallel refreshes made %d lineages", len(successors))
		}
		for presented = range successors {
		}
	}
	if rotated := nodes[0].outcomes(t, "rotated") + nodes[1].outcomes(t, "rotated"); rotated != 4 {
		t.Errorf("%d rotations were counted, want 4", rotated)
	}
}

// After the window the burst reissues once, and everybody gets that one successor.
func testParallelReissuesLeaveOneLineage(t *testing.T, p *place) {
	c := clocktest.Noon()
	nodes := []*node{
		newNode(t, p, session.DefaultConfig(), c.Now),
		newNode(t, p.again(t), session.DefaultConfig(), c.Now),
	}
	presented := nodes[0].signIn(t, session.Start{}).Tokens.Refresh
	lost := nodes[0].refresh(t, presented).Refresh
	c.Advance(window)
	successors := burst(t, nodes, presented)
	if len(successors) != 1 || successors[lost] {
		t.Fatalf("50 parallel refreshes made %d lineages, the lost one: %v", len(successors), successors[lost])
	}
}

// burst refreshes 50 times at once with one token and returns the successors.
func burst(t *testing.T, nodes []*node, presented string) map[string]bool {
	t.Helper()
	var (
		wg         sync.WaitGroup
		mu         sync.Mutex
		successors = map[string]bool{}
		start      = make(chan struct{})
	)
	for i := range 50 {
		wg.Go(func() {
			<-start
			tokens, err := nodes[i%len(nodes)].Refresh(t.Context(), presented, laptop)
			if err != nil {
				t.Errorf("refresh: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			successors[tokens.Refresh] = true
		})
	}
	close(start)
	wg.Wait()
	return successors
}

// Thefts noticed by many requests at once are settled once.
func testParallelTheftsAreSettledOnce(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{})
	second := n.refresh(t, started.Tokens.Refresh)
	n.refresh(t, second.Refresh)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
				t.Errorf("refresh = %v, want %v", err, session.ErrEnded)
			}
		})
	}
	wg.Wait()
	if got := n.outcomes(t, "theft"); got != 1 {
		t.Errorf("%d thefts were counted, want 1", got)
	}
	n.wantTold(t, started.Session.Subject, 1)
}

// An outage is not a sign-out: the client is asked to come back, and its token is still good then.
func testRefreshWhileTheStoreIsAway(t *testing.T, p *place) {
	c := clocktest.Noon()
	own := p.again(t)
	down := newNode(t, own, session.DefaultConfig(), c.Now)
	up := newNode(t, p, session.DefaultConfig(), c.Now)
	tokens := up.signIn(t, session.Start{}).Tokens
	_, cookie := up.openPage(t, newSubject())
	own.close(t)
	_, err := down.Refresh(t.Context(), tokens.Refresh, laptop)
	if f := fault.From(err); !errors.Is(err, session.ErrUnavailable) || f.Status() != 503 || f.RetryAfter() < time.Second {
		t.Errorf("refresh = %v, want %v with Retry-After", err, session.ErrUnavailable)
	}
	if _, err := down.Authenticate(t.Context(), cookie); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("authenticate = %v, want %v", err, session.ErrUnavailable)
	}
	down.claims(t, tokens.Access)
	up.refresh(t, tokens.Refresh)

	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := up.Refresh(ctx, tokens.Refresh, laptop); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("refresh with a store that does not answer in time = %v, want %v", err, session.ErrUnavailable)
	}
}
