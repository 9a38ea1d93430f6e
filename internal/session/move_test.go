package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var (
	toRedis = session.Move{From: session.InSQL, To: session.InRedis, Batch: 7}
	toSQL   = session.Move{From: session.InRedis, To: session.InSQL, Batch: 7}
)

// in is a configuration that keeps sessions there.
func in(store session.Store) session.Config {
	cfg := session.DefaultConfig()
	cfg.Store = store
	return cfg
}

// moveAll moves everybody, to the end.
func (n *node) moveAll(t testing.TB, m session.Move) session.MoveState {
	t.Helper()
	state, err := n.Move(t.Context(), m, func(session.MoveState) {})
	if err != nil {
		t.Fatalf("move to %s: %v", m.To, err)
	}
	if state.FinishedAt.IsZero() || state.Remaining != 0 {
		t.Fatalf("the move to %s has not come to its end: %+v", m.To, state)
	}
	return state
}

// bothWays runs a test for either direction.
func bothWays(run func(t *testing.T, p *place, m session.Move)) func(t *testing.T, p *place) {
	return func(t *testing.T, p *place) {
		for _, m := range []session.Move{toRedis, toSQL} {
			t.Run("to "+string(m.To), func(t *testing.T) {
				p.empty(t)
				p.gather(t, m.From)
				run(t, p, m)
				p.onlyIn(t, m.To)
			})
		}
	}
}

// empty forgets everybody.
func (p *place) empty(t *testing.T) {
	t.Helper()
	for _, table := range []string{"session_grants", "sessions", "session_transits", "session_intents", "session_subjects"} {
		_, err := p.db.Writer().ExecContext(t.Context(), `DELETE FROM `+table)
		must(t, err)
	}
	p.prefix = redisdbtest.Prefix(t, p.redis)
}

// installation is the name of the database in Redis.
func (p *place) installation(t *testing.T) string {
	t.Helper()
	name, err := sqldb.One(t.Context(), p.db.Reader(), func(r sqldb.Row) (s string, err error) {
		err = r.Scan(&s)
		return s, err
	}, `SELECT installation FROM session_moves WHERE id = 1`)
	must(t, err)
	return name
}

// gather brings everybody home, whatever is under way.
func (p *place) gather(t *testing.T, home session.Store) {
	t.Helper()
	m := session.Move{From: session.InSQL, To: home, Batch: 100, Turn: true}
	if home == session.InSQL {
		m.From = session.InRedis
	}
	newNode(t, p.again(t), in(home), clocktest.Noon().Now).moveAll(t, m)
}

// onlyIn demands that nobody has anything anywhere else.
func (p *place) onlyIn(t *testing.T, home session.Store) {
	t.Helper()
	p.gather(t, home)
	census, err := newNode(t, p, in(home), clocktest.Noon().Now).Census(t.Context(), true)
	must(t, err)
	here, there := census.SQL, census.Redis
	if home == session.InRedis {
		here, there = there, here
	}
	if here.People == 0 || there.People != 0 || there.Sessions != 0 || census.UnderWay != 0 || len(census.Twice) > 0 {
		t.Errorf("census = %+v, want everybody in %s", census, home)
	}
}

// What a person would lose: the sign-in on every device, when operators change where sessions are kept.
func TestMove(t *testing.T) {
	t.Parallel()
	onRedis(t, []test{
		{"nobody notices", bothWays(testMoveInAStorm)},
		{"everything comes along", testMoveCarriesEverything},
		{"mover dies", bothWays(testMoverDies)},
		{"two movers", bothWays(testTwoMovers)},
		{"decided on the way", bothWays(testDecidedOnTheWay)},
		{"theft is not settled", bothWays(testTheftBeforeTheMove)},
		{"sign-in on the way", testSignInOnTheWay},
		{"limits", bothWays(testLimitsWhileMoving)},
		{"refusals", testMoveRefuses},
		{"no redis", testNodeWithoutRedis},
	})
}

// lineage is one refresh family, of which a client and its retry present every token at two nodes at once.
type lineage struct {
	token string
	steps int
}

// refreshTwice presents a token at both nodes at the same time. Two lineages would show as two successors.
func (c *lineage) refreshTwice(ctx context.Context, nodes [2]*node) error {
	var got [2]session.Tokens
	var errs [2]error
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { got[i], errs[i] = n.Refresh(ctx, c.token, laptop) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("after %d steps: %w", c.steps, err)
	}
	if got[0].Refresh != got[1].Refresh {
		return fmt.Errorf("the chain forked after %d steps", c.steps)
	}
	c.token, c.steps = got[0].Refresh, c.steps+1
	return nil
}

// refreshStorm refreshes chains of their own from workers, until stopped. Whoever is refused, or sees a fork, fails the test.
func refreshStorm(t *testing.T, nodes [2]*node, chains []*lineage, workers int) (stop func() (steps int)) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				for i := w; i < len(chains) && ctx.Err() == nil; i += workers {
					if err := chains[i].refreshTwice(t.Context(), nodes); err != nil {
						t.Errorf("chain %d: %v", i, err)
						return
					}
				}
			}
		})
	}
	return func() (steps int) {
		cancel()
		wg.Wait()
		for _, c := range chains {
			steps += c.steps
		}
		return steps
	}
}

func testMoveInAStorm(t *testing.T, p *place, m session.Move) {
	const people, workers = 200, 8
	now := clocktest.Noon().Now
	from := newNode(t, p, in(m.From), now)
	nodes := [2]*node{from, newNode(t, p.again(t), in(m.To), now)}
	chains := make([]*lineage, people)
	for i := range chains {
		chains[i] = &lineage{token: from.signIn(t, session.Start{Roles: []string{"member"}, Device: laptop}).Tokens.Refresh}
	}
	stop := refreshStorm(t, nodes, chains, workers)
	state := newNode(t, p.again(t), in(m.To), now).moveAll(t, m)
	steps := stop()
	t.Logf("%d people with %d sessions moved while %d refreshes went on", state.People, state.Sessions, 2*steps)
	if state.People != people || state.Sessions != people {
		t.Errorf("%d people with %d sessions were counted, want %d", state.People, state.Sessions, people)
	}
	for i, c := range chains {
		for range 2 {
			if err := c.refreshTwice(t.Context(), nodes); err != nil {
				t.Errorf("chain %d after the move: %v", i, err)
			}
		}
	}
}

// A mover may be killed after any of its steps. Whoever needs a session then completes the step; so does any node, and the mover
// that is started again.
func testMoverDies(t *testing.T, p *place, m session.Move) {
	m.Batch = session.MaxBatch
	for _, step := range session.MoveSteps {
		for _, rescuer := range []string{"its owner", "a node", "the next mover"} {
			t.Run(step+" then "+rescuer, func(t *testing.T) {
				c := clocktest.Noon()
				n := newNode(t, p, in(m.From), c.Now)
				p.gather(t, m.From)
				nodes := [2]*node{n, newNode(t, p.again(t), in(m.To), c.Now)}
				subject := newSubject()
				one := &lineage{token: n.signIn(t, session.Start{Subject: subject}).Tokens.Refresh}
				_, cookie := n.openPage(t, subject)
				mover := newNode(t, p.again(t), in(m.To), c.Now)
				mover.DieAfter(step)
				if _, err := mover.Move(t.Context(), m, func(session.MoveState) {}); !errors.Is(err, session.ErrDied) && (step != "arrived" || m.To == session.InSQL) {
					t.Fatalf("the mover did not die: %v", err)
				}
				switch rescuer {
				case "a node":
					c.Advance(6 * time.Second)
					must(t, nodes[1].Chores(t.Context()))
					if census, err := n.Census(t.Context(), false); err != nil || census.UnderWay != 0 {
						t.Errorf("census = %+v, %v; want nobody under way", census, err)
					}
				case "the next mover":
					mover.DieAfter("")
					mover.moveAll(t, m)
				}
				for range 3 {
					must(t, one.refreshTwice(t.Context(), nodes))
				}
				for _, n := range nodes {
					if _, err := n.Authenticate(t.Context(), cookie); err != nil {
						t.Errorf("the cookie: %v", err)
					}
					if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 2 {
						t.Errorf("%d sessions, %v; want 2", len(live), err)
					}
				}
				mover.DieAfter("")
				mover.moveAll(t, m)
				must(t, one.refreshTwice(t.Context(), nodes))
			})
		}
	}
}

// What a session is, and what became of it, is the same after a move, to the microsecond.
func testMoveCarriesEverything(t *testing.T, p *place) {
	p.empty(t)
	p.gather(t, session.InSQL)
	n, c := alone(t, p, in(session.InSQL))
	subject := newSubject()
	start := session.Start{
		Subject: subject, Roles: []string{"member", "editor"}, ClientID: "shop", Scope: "openid profile", Device: laptop,
		Audience: []string{issuer, "https://api.example.com"}, AMR: []string{"pwd", "otp"}, ACR: "2", AuthTime: c.Now().Add(-time.Minute),
	}
	used := n.signIn(t, start)
	_, cookie := n.openPage(t, subject)
	c.Advance(time.Hour)
	first := n.refresh(t, used.Tokens.Refresh)
	c.Advance(time.Minute)
	second := n.refresh(t, first.Refresh)
	unused := n.signIn(t, session.Start{Subject: subject})
	mine := newClient(t, c.Now)
	bound := n.signIn(t, session.Start{Subject: subject, Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	ended := n.signIn(t, session.Start{Subject: subject})
	endedPage, endedCookie := n.openPage(t, subject)
	must(t, n.End(t.Context(), subject, ended.Session.ID, session.EndedByOwner))
	must(t, n.End(t.Context(), subject, endedPage.ID, session.EndedByOperator))

	_, err := n.Authenticate(t.Context(), cookie) // its use is written down now, and not again within a minute
	must(t, err)
	rows := p.rows(t, subject)
	before, _, err := n.List(t.Context(), subject, "", 0)
	must(t, err)
	for _, m := range []session.Move{toRedis, toSQL} {
		n.moveAll(t, m)
		after, _, err := n.List(t.Context(), subject, "", 0)
		must(t, err)
		if !slices.EqualFunc(after, before, sameSession) {
			t.Errorf("sessions after the move to %s:\n%+v\nwant\n%+v", m.To, after, before)
		}
		if again := n.refresh(t, first.Refresh); again.Refresh != second.Refresh {
			t.Errorf("after the move to %s a retry got another successor", m.To)
		}
		if _, err := n.Authenticate(t.Context(), cookie); err != nil {
			t.Errorf("the cookie, in %s: %v", m.To, err)
		}
		n.wantReasons(t, ended.Tokens.Refresh, endedCookie)
		n.wantRefused(t, bound, session.Evidence{}, session.ErrProofRequired)
	}
	if again := p.rows(t, subject); again != rows {
		t.Errorf("rows after there and back:\n%s\nbefore:\n%s", again, rows)
	}
	claims := n.claims(t, n.refresh(t, second.Refresh).Access)
	if claims.ClientID != "shop" || claims.Scope != "openid profile" || len(claims.Audience) != 2 || claims.ACR != "2" ||
		!slices.Equal(claims.AMR, start.AMR) || !slices.Equal(claims.Roles, start.Roles) || !claims.AuthTime.Equal(start.AuthTime.Truncate(time.Second)) {
		t.Errorf("claims = %+v", claims)
	}
	n.refresh(t, unused.Tokens.Refresh)
	_, err = n.RefreshWith(t.Context(), bound, mine.evidence(), laptop)
	must(t, err)
	if _, err := n.Refresh(t.Context(), used.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a stolen token after the moves: %v, want %v", err, session.ErrEnded)
	}
}

// wantReasons demands that what was ended says why.
func (n *node) wantReasons(t *testing.T, byOwner, byOperator string) {
	t.Helper()
	if _, err := n.Refresh(t.Context(), byOwner, laptop); !errors.Is(err, session.ErrEnded) || !strings.Contains(err.Error(), "another device") {
		t.Errorf("the token of what its owner ended: %v", err)
	}
	if _, err := n.Authenticate(t.Context(), byOperator); !errors.Is(err, session.ErrEnded) || !strings.Contains(err.Error(), "administrator") {
		t.Errorf("the cookie of what an operator ended: %v", err)
	}
}

// sameSession compares what people see.
func sameSession(a, b session.Session) bool {
	return a.ID == b.ID && a.Subject == b.Subject && slices.Equal(a.Roles, b.Roles) && a.Epoch == b.Epoch && a.Device == b.Device &&
		a.CreatedAt.Equal(b.CreatedAt) && a.LastUsedAt.Equal(b.LastUsedAt) && a.AuthTime.Equal(b.AuthTime) &&
		a.ExpiresAt.Equal(b.ExpiresAt) && slices.Equal(a.AMR, b.AMR) && a.ACR == b.ACR
}

// rows returns every column of a person's live sessions and grants, but for what one store has and the other need not: the
// second halves of hashes, what came of the last token, when the cookie apart from the tokens was used, and the ids of grants.
func (p *place) rows(t *testing.T, subject string) string {
	t.Helper()
	var b strings.Builder
	for _, query := range []string{
		`SELECT * FROM sessions WHERE subject = $1 AND ended_at = 0 ORDER BY id`,
		`SELECT * FROM session_grants WHERE subject = $1 AND status = 'live' ORDER BY session_id`,
	} {
		rows, err := p.db.Reader().QueryContext(t.Context(), query, subject)
		must(t, err)
		names, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			values := make([]any, len(names))
			for i := range values {
				values[i] = new(any)
			}
			must(t, rows.Scan(values...))
			for i, name := range names {
				if !session.Carried(name) {
					t.Errorf("column %s does not come along: name it in baggage_sql.go, and in carriedSessionCore or carriedGrantCore", name)
				}
				value := *values[i].(*any)
				if raw, ok := value.([]byte); ok && strings.HasSuffix(name, "_hash") {
					value = raw[:12]
				}
				if !(name == "id" && strings.Contains(query, "grants")) && name != "outcome" && name != "last_used_at" {
					fmt.Fprintf(&b, "%s=%v\n", name, value)
				}
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	return b.String()
}

func testTwoMovers(t *testing.T, p *place, m session.Move) {
	const people = 120
	now := clocktest.Noon().Now
	n := newNode(t, p, in(m.From), now)
	nodes := [2]*node{n, newNode(t, p.again(t), in(m.To), now)}
	chains := make([]*lineage, people)
	for i := range chains {
		chains[i] = &lineage{token: n.signIn(t, session.Start{}).Tokens.Refresh}
	}
	before := n.count(t, `SELECT count(*) FROM session_subjects WHERE home = $1`, string(m.From))
	var wg sync.WaitGroup
	for range 3 {
		mover := newNode(t, p.again(t), in(m.To), now)
		wg.Go(func() {
			if _, err := mover.Move(t.Context(), m, func(session.MoveState) {}); err != nil {
				t.Errorf("one of the movers: %v", err)
			}
		})
	}
	wg.Wait()
	state, err := n.MoveState(t.Context())
	must(t, err)
	if state.People+state.Skipped != before || state.FinishedAt.IsZero() {
		t.Errorf("the movers counted %+v, want %d people, each once", state, before)
	}
	for i, c := range chains {
		if err := c.refreshTwice(t.Context(), nodes); err != nil {
			t.Errorf("chain %d: %v", i, err)
		}
	}
}

// A new password, or new roles, must hold for somebody who is between two stores.
func testDecidedOnTheWay(t *testing.T, p *place, m session.Move) {
	m.Batch = session.MaxBatch
	for _, step := range session.MoveSteps {
		t.Run(step, func(t *testing.T) {
			now := clocktest.Noon().Now
			n := newNode(t, p, in(m.From), now)
			p.gather(t, m.From)
			reset := n.signIn(t, session.Start{Roles: []string{"member"}})
			promoted := n.signIn(t, session.Start{Roles: []string{"member"}})
			mover := newNode(t, p.again(t), in(m.To), now)
			mover.DieAfter(step)
			_, err := mover.Move(t.Context(), m, func(session.MoveState) {})
			if err != nil && !errors.Is(err, session.ErrDied) {
				t.Fatal(err)
			}
			n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
				return errors.Join(
					n.EndAllTx(ctx, tx, reset.Session.Subject, session.PasswordReset),
					n.SetRolesTx(ctx, tx, promoted.Session.Subject, []string{"admin"}),
				)
			})
			mover.DieAfter("")
			mover.moveAll(t, m)
			must(t, n.Apply(t.Context()))
			if _, err := n.Refresh(t.Context(), reset.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
				t.Errorf("a refresh after the reset: %v, want %v", err, session.ErrEnded)
			}
			if claims := n.claims(t, n.refresh(t, promoted.Tokens.Refresh).Access); !slices.Equal(claims.Roles, []string{"admin"}) {
				t.Errorf("roles = %q after the change, want admin", claims.Roles)
			}
		})
	}
}

// A thief must not gain time by a move.
func testTheftBeforeTheMove(t *testing.T, p *place, m session.Move) {
	n := newNode(t, p, in(m.From), clocktest.Noon().Now)
	started := n.signIn(t, session.Start{})
	newest := n.refresh(t, n.refresh(t, started.Tokens.Refresh).Refresh)
	if what, err := n.Mark(t.Context(), started.Tokens.Refresh, laptop); err != nil || what != "theft" {
		t.Fatalf("the stolen token: %s, %v", what, err)
	}
	n.moveAll(t, m)
	if _, err := n.Refresh(t.Context(), newest.Refresh, laptop); !errors.Is(err, session.ErrEnded) || !strings.Contains(err.Error(), "theft") {
		t.Errorf("the newest token: %v, want that it is told of the theft", err)
	}
	if got := n.count(t, `SELECT count(*) FROM audit_events WHERE account = $1 AND action = 'session.theft'`, started.Session.Subject); got != 1 {
		t.Errorf("the trail tells of the theft %d times, want once", got)
	}
}

// A sign-in that was decided in Redis comes to life where its owner lives by then, unless it has been overtaken.
func testSignInOnTheWay(t *testing.T, p *place) {
	p.empty(t)
	n := newNode(t, p, in(session.InRedis), clocktest.Noon().Now)
	for _, overtaken := range []bool{false, true} {
		p.gather(t, session.InRedis)
		subject := newSubject()
		n.signIn(t, session.Start{Subject: subject})
		var starting *session.Starting
		must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
			starting, err = n.Begin(t.Context(), tx, session.Start{Subject: subject})
			return err
		}))
		n.moveAll(t, toSQL)
		if overtaken {
			n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
				return n.EndAllTx(ctx, tx, subject, session.PasswordReset)
			})
		}
		started, err := starting.Commit(t.Context())
		if overtaken {
			if !errors.Is(err, session.ErrOvertaken) {
				t.Errorf("a sign-in that was overtaken: %v, want %v", err, session.ErrOvertaken)
			}
			continue
		}
		must(t, err)
		n.refresh(t, started.Tokens.Refresh)
		if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 2 {
			t.Errorf("%d sessions, %v; want 2", len(live), err)
		}
		n.moveAll(t, toRedis)
		n.refresh(t, started.Tokens.Refresh)
	}
	n.moveAll(t, toSQL)
}

// Nobody gets around a limit by signing in while they are moved.
func testLimitsWhileMoving(t *testing.T, p *place, m session.Move) {
	now := clocktest.Noon().Now
	cfg := in(m.From)
	cfg.Limit = 3
	n := newNode(t, p, cfg, now)
	p.gather(t, m.From)
	other := newNode(t, p.again(t), cfg, now)
	subjects := make([]string, 30)
	for i := range subjects {
		subjects[i] = newSubject()
		n.signIn(t, session.Start{Subject: subjects[i]})
	}
	var wg sync.WaitGroup
	var moved atomic.Bool
	for w, node := range []*node{n, other} {
		wg.Go(func() {
			for i := w; !moved.Load(); i++ {
				if _, err := node.start(t.Context(), session.Start{Subject: subjects[i%len(subjects)]}); err != nil {
					t.Errorf("sign-in while moving: %v", err)
					return
				}
			}
		})
	}
	newNode(t, p.again(t), cfg, now).moveAll(t, m)
	moved.Store(true)
	wg.Wait()
	for _, subject := range subjects {
		n.signIn(t, session.Start{Subject: subject})
		if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) > 3 {
			t.Errorf("%d sessions, %v; want 3 at most", len(live), err)
		}
	}
}

func testMoveRefuses(t *testing.T, p *place) {
	p.empty(t)
	now := clocktest.Noon().Now
	n := newNode(t, p, in(session.InSQL), now)
	p.gather(t, session.InSQL)
	for i := range 3 {
		n.signIn(t, session.Start{Subject: fmt.Sprint(newSubject(), i)})
	}
	nothing := func(session.MoveState) {}
	for _, bad := range []session.Move{
		{From: session.InSQL, To: session.InSQL, Batch: 1}, {From: session.Anywhere, To: session.InSQL, Batch: 1},
		{From: session.InSQL, To: session.InRedis}, {From: session.InSQL, To: session.InRedis, Batch: 1, Rate: -1},
	} {
		if _, err := n.Move(t.Context(), bad, nothing); err == nil {
			t.Errorf("%+v was not refused", bad)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	some := toRedis
	some.Batch = 1
	state, err := n.Move(ctx, some, func(s session.MoveState) {
		if s.People == 1 {
			stop()
		}
	})
	if !errors.Is(err, context.Canceled) || state.People != 1 {
		t.Errorf("a move that was stopped: %+v, %v; want one person", state, err)
	}
	if _, err := n.Move(t.Context(), toSQL, nothing); err == nil || !strings.Contains(err.Error(), "--turn") {
		t.Errorf("a move against one that is under way: %v", err)
	}
	back := toSQL
	back.Turn = true
	n.moveAll(t, back)
	unknown := p.prefix + "{" + p.installation(t) + "}" // as in a Redis that no server of this database uses
	must(t, p.redis.Client().Do(t.Context(), p.redis.Client().B().Del().Key(unknown).Build()).Error())
	if _, err := n.Move(t.Context(), toRedis, nothing); err == nil || !strings.Contains(err.Error(), "no server with this database") {
		t.Errorf("a move to a Redis that nobody uses: %v", err)
	}
	must(t, n.Load(t.Context()))
	without := &place{db: p.db}
	if _, err := newNode(t, without, session.DefaultConfig(), now).Move(t.Context(), toRedis, nothing); err == nil {
		t.Error("a move without Redis was not refused")
	}
}

// A node that lacks the Redis where people live must not tell them that they are signed out.
func testNodeWithoutRedis(t *testing.T, p *place) {
	p.empty(t)
	now := clocktest.Noon().Now
	n := newNode(t, p, in(session.InSQL), now)
	p.gather(t, session.InSQL)
	without := newNode(t, &place{db: p.db}, session.DefaultConfig(), now)
	subject := newSubject()
	started := without.signIn(t, session.Start{Subject: subject})
	n.moveAll(t, toRedis)
	if _, err := without.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("refresh: %v, want %v", err, session.ErrUnavailable)
	}
	if _, err := without.start(t.Context(), session.Start{Subject: subject}); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("sign-in: %v, want %v", err, session.ErrUnavailable)
	}
	if err := without.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "sessions move") {
		t.Errorf("a node without Redis starts: %v", err)
	}
	n.moveAll(t, toSQL)
	must(t, without.Load(t.Context()))
	without.refresh(t, started.Tokens.Refresh)
}

// When Redis dies in the middle, those who have not moved go on, those who have wait, and nobody is signed out.
func TestMoveThroughAnOutage(t *testing.T) {
	t.Parallel()
	if !redisdbtest.Listed() {
		return
	}
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		server := redisdbtest.Start(t)
		p := &place{db: db, url: server.URL(), prefix: fmt.Sprintf("move:%s:", db.Engine())}
		p.redis = openRedis(t, p.url)
		now := clocktest.Noon().Now
		n := newNode(t, p, in(session.InSQL), now)
		other := newNode(t, p.again(t), in(session.InRedis), now)
		var tokens []string
		for range 30 {
			tokens = append(tokens, n.signIn(t, session.Start{}).Tokens.Refresh)
		}
		mover := newNode(t, p.again(t), in(session.InSQL), now)
		killed := false
		_, err := mover.Move(t.Context(), toRedis, func(s session.MoveState) {
			if s.People > 0 && !killed {
				killed = true
				server.Kill()
			}
		})
		if err == nil {
			t.Fatal("the mover did not notice that Redis is gone")
		}
		must(t, other.Load(t.Context())) // it asks Redis first from now on
		served := refreshInOutage(t, [2]*node{n, other}, tokens)
		if served == 0 || served == len(tokens) {
			t.Errorf("%d of %d were served during the outage, want those who had not moved", served, len(tokens))
		}
		server.Restart()
		mover.moveAll(t, toRedis)
		for i, token := range tokens {
			_, err := n.Refresh(t.Context(), token, laptop)
			if errors.Is(err, session.ErrUnavailable) { // a connection that the outage broke
				_, err = n.Refresh(t.Context(), token, laptop)
			}
			if err != nil {
				t.Errorf("chain %d after the outage: %v", i, err)
			}
		}
	})
}

// refreshInOutage refreshes at either node, and returns how many were served. The others must be told to come again.
func refreshInOutage(t *testing.T, nodes [2]*node, tokens []string) (served int) {
	t.Helper()
	for i, token := range tokens {
		got, err := nodes[i%2].Refresh(t.Context(), token, laptop)
		switch {
		case err == nil:
			served++
			tokens[i] = got.Refresh
		case !errors.Is(err, session.ErrUnavailable):
			t.Errorf("chain %d during the outage: %v, want %v", i, err, session.ErrUnavailable)
		}
	}
	return served
}
