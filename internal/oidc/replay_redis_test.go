package oidc_test

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// gate stands before a Redis. From when it is shut nothing goes in until it is opened.
type gate struct {
	url     string // of the Redis, by way of the gate
	shut    func() bool
	reached chan struct{} // closed when something stands before it
	open    func()

	opened chan struct{}
	knock  func()
}

func newGate(t testing.TB, server *redisdbtest.Server, shut func() bool) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{url: "redis://" + l.Addr().String() + "?timeout=1m", shut: shut, reached: make(chan struct{}), opened: make(chan struct{})}
	g.open, g.knock = sync.OnceFunc(func() { close(g.opened) }), sync.OnceFunc(func() { close(g.reached) })
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", server.Addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			wg.Go(func() { g.pass(behind, client, true) })
			wg.Go(func() { g.pass(client, behind, false) })
		}
	})
	t.Cleanup(func() { g.open(); _ = l.Close(); wg.Wait() })
	return g
}

func (g *gate) pass(to, from net.Conn, in bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if in && g.shut() {
			g.knock()
			<-g.opened
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

const usedCodes = `SELECT (SELECT count(*) FROM oauth_codes WHERE consumed_at > 0) + (SELECT count(*) FROM oauth_devices WHERE status = 'consumed')`

// used reports whether a code of the database has been used.
func used(t testing.TB, db *sqldb.DB) bool {
	n, err := sqldb.One(t.Context(), db.Reader(), func(r sqldb.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, usedCodes)
	return err == nil && n > 0
}

// approved is the code of a television that the person has agreed to.
func (p *person) approved(t testing.TB) string {
	t.Helper()
	codes := p.n.device(t)
	if a := p.n.post(t, "/oauth/device", params("user_code", codes.UserCode, "decision", "allow"), p.show); a.status != 200 {
		t.Fatalf("allow: %d %s", a.status, a.body)
	}
	return codes.DeviceCode
}

// alone fails unless the browser's is the only session that the person has.
func (p *person) alone(t testing.TB, n *node) {
	t.Helper()
	live, _, err := n.sessions.List(t.Context(), p.account.ID, "", 100)
	must(t, err)
	if len(live) != 1 || live[0].ID != p.session.ID {
		t.Errorf("%d sessions are left, want the browser's alone", len(live))
	}
}

// A code is stolen on its way and comes twice. The first is not yet answered, as its session has still to begin in Redis, when the second
// comes, or the person takes everything back: it must not be forgotten by the one that is on its way.
func TestReplayBeforeTheSessionBegins(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	server := redisdbtest.Start(t)
	for name, scope := range map[string]string{
		"offline": "openid offline_access", "with the browser": "openid", "device": "", "withdrawn": "openid offline_access", "device withdrawn": "",
	} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
				g := newGate(t, server, func() bool { return used(t, db) })
				slow, direct := redisdbtest.OpenURL(t, g.url), redisdbtest.OpenURL(t, server.URL())
				t.Cleanup(g.open)
				c, prefix := clocktest.Noon(), redisdbtest.Prefix(t, direct)
				first, other := newNodeAt(t, place{db: db, redis: slow, prefix: prefix}, c, auth.ES256), newNodeAt(t, place{db: db, redis: direct, prefix: prefix}, c, auth.ES256)
				_, secret := first.add(t, "shop", shop)
				first.add(t, "tv", television)
				p := first.person(t, "kim@example.com")
				form, client := poll(""), "tv"
				change := func(*http.Request) {}
				if scope == "" {
					form = poll(p.approved(t))
				} else {
					form, client, change = exchange(p.code(t, wish("scope", scope))), "shop", basic("shop", secret)
				}
				answers := make(chan answer, 1)
				go func() { answers <- first.post(t, "/oauth/token", form, change) }()
				select {
				case <-g.reached:
				case a := <-answers:
					t.Fatalf("answered without a session: %d %s", a.status, a.body)
				}
				if strings.HasSuffix(name, "withdrawn") {
					must(t, other.agreeTo(t, p, client))
					must(t, other.Withdraw(t.Context(), p.account.ID, client))
				} else {
					other.post(t, "/oauth/token", form, change).refused(t, 400, "invalid_grant")
				}
				g.open()
				(<-answers).refused(t, 400, "invalid_grant")
				p.alone(t, other)
			})
		})
	}
}

// agreeTo makes sure that there is something to take back: people agree to devices one by one.
func (n *node) agreeTo(t testing.TB, p *person, client string) error {
	t.Helper()
	_, err := n.db.Writer().ExecContext(t.Context(), `INSERT INTO oauth_consents (subject, client_id, scope, created_at, used_at) VALUES ($1, $2, 'openid', $3, $3)
		ON CONFLICT (subject, client_id) DO NOTHING`, p.account.ID, client, sqldb.Micros(n.clock.Now()))
	return err
}

// However a theft falls in with the rightful request, on whichever node: when two have presented a code, and one was told so, nothing that
// the code gave works any more.
func TestReplaysRaceTheSession(t *testing.T) { onEachStore(t, raceReplays) }

func raceReplays(t *testing.T, at place) {
	const rounds, thieves = 24, 3
	c := clocktest.Noon()
	nodes := []*node{newNodeAt(t, at, c, auth.ES256), newNodeAt(t, at, c, auth.ES256)}
	_, secret := nodes[0].add(t, "shop", shop)
	nodes[0].add(t, "tv", television)
	p := nodes[0].person(t, "kim@example.com")
	for round := range rounds {
		c.Advance(time.Minute)
		form, change, refresh := poll(""), func(*http.Request) {}, params("grant_type", "refresh_token", "client_id", "tv")
		if round%2 == 0 {
			form = poll(p.approved(t))
		} else {
			form, change, refresh = exchange(p.code(t, wish("scope", "openid offline_access"))), basic("shop", secret), params("grant_type", "refresh_token")
		}
		answers := make([]answer, thieves)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = nodes[i%len(nodes)].post(t, "/oauth/token", form, change) })
		}
		wg.Wait()
		won := slices.DeleteFunc(answers, func(a answer) bool { return a.status != 200 })
		if len(won) > 1 {
			t.Fatalf("%d got tokens for one code", len(won))
		}
		for _, a := range won {
			nothingWorks(t, nodes, a.token(t), refresh, change)
		}
		p.alone(t, nodes[round%len(nodes)])
	}
}

func nothingWorks(t *testing.T, nodes []*node, got tokenAnswer, refresh url.Values, change func(*http.Request)) {
	t.Helper()
	refresh.Set("refresh_token", got.RefreshToken)
	for _, n := range nodes {
		n.post(t, "/oauth/token", refresh, change).refused(t, 400, "invalid_grant")
		must(t, n.sessions.Apply(t.Context()))
		if _, err := n.verifier.Verify(t.Context(), got.AccessToken); err == nil {
			t.Error("who was first keeps an access token of a stolen code")
		}
	}
}

// A new password ends all sessions, also one that grows at that very moment out of one of them: whoever stole the browser's session would
// have kept the other.
func TestEndOfAllOvertakesACode(t *testing.T) { onEachStore(t, endOvertakes) }

func endOvertakes(t *testing.T, at place) {
	n := newNodeAt(t, at, clocktest.Noon(), auth.ES256)
	_, secret := n.add(t, "shop", shop)
	p := n.person(t, "kim@example.com")
	form := exchange(p.code(t, wish("scope", "openid offline_access")))
	answers := make(chan answer, 1)
	come := sync.OnceFunc(func() {
		go func() { answers <- n.post(t, "/oauth/token", form, basic("shop", secret)) }()
	})
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		if err := n.sessions.EndAllTx(t.Context(), tx, p.account.ID, session.PasswordReset); err != nil {
			return err
		}
		come()
		n.awaitLock(t, answers)
		return nil
	}))
	(<-answers).refused(t, 400, "invalid_grant")
	must(t, n.sessions.Apply(t.Context()))
	live, _, err := n.sessions.List(t.Context(), p.account.ID, "", 100)
	must(t, err)
	if len(live) > 0 {
		t.Errorf("%d sessions outlive the end of all", len(live))
	}
}

const waiting = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

// awaitLock returns when somebody waits for the transaction that is open, or has an answer. SQLite has one writer: who waits has decided
// nothing.
func (n *node) awaitLock(t testing.TB, answers <-chan answer) {
	t.Helper()
	if n.db.Engine() == sqldb.SQLite {
		return
	}
	for len(answers) == 0 {
		blocked, err := sqldb.One(t.Context(), n.db.Reader(), func(r sqldb.Row) (n int64, err error) {
			err = r.Scan(&n)
			return n, err
		}, waiting)
		must(t, err)
		if blocked > 0 {
			return
		}
	}
}
