package session_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
)

const issuer = "https://id.example.com"

var laptop = session.NewDevice("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
	netip.MustParseAddr("203.0.113.7"))

func migrations() []sqldb.Migrations {
	return []sqldb.Migrations{keyring.Migrations, token.Migrations, audit.Migrations, mail.Migrations, replay.Migrations, session.Migrations}
}

// place is where the nodes of a test keep sessions.
type place struct {
	db     *sqldb.DB
	redis  *redisdb.DB // nil: with everything else
	url    string      // of the Redis; "": the one for all tests
	prefix string      // of keys

	skew time.Duration // how far a node's own clock is ahead of the store's
}

// again opens the same place once more, as a second node would.
func (p *place) again(t testing.TB) *place {
	t.Helper()
	again := &place{db: sqldbtest.Reopen(t, p.db), url: p.url, prefix: p.prefix, skew: -p.skew}
	if p.redis != nil {
		again.redis = openRedis(t, p.url)
	}
	return again
}

// close makes the store unreachable from here.
func (p *place) close(t testing.TB) {
	t.Helper()
	if p.redis != nil {
		p.redis.Close()
		return
	}
	must(t, p.db.Close())
}

// heal does what settles a theft after a crash: in SQL any node's housekeeping, in Redis the next request of the person.
func (n *node) heal(t testing.TB, newest string) {
	t.Helper()
	if n.redis == nil {
		if err := n.SettleAll(t.Context()); err != nil {
			t.Errorf("settle: %v", err)
		}
	}
	if _, err := n.Refresh(t.Context(), newest, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("the newest token after the crash: %v, want %v", err, session.ErrEnded)
	}
}

// node is one process of a test.
type node struct {
	*session.Service
	*place
	verifier *auth.Verifier
	metrics  *prometheus.Registry
}

// newNode starts a process, with the master key that all nodes share. Now is the time; its own clock is as wrong as the place says.
func newNode(t testing.TB, p *place, cfg session.Config, now func() time.Time, with ...func(*session.Deps)) *node {
	t.Helper()
	stored := now
	if p.skew != 0 {
		now = func() time.Time { return stored().Add(p.skew) }
	}
	db, log := p.db, slog.New(slog.DiscardHandler)
	ctx := t.Context()
	master := keyring.Secret(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	keys, err := keyring.Open(ctx, db, keyring.Config{MasterKey: master}, now)
	must(t, err)
	tokens, err := token.New(token.DefaultConfig(), token.Deps{DB: db, Keyring: keys, Issuer: issuer, Clock: now, Log: log})
	must(t, err)
	must(t, tokens.Load(ctx))
	queue, err := mail.NewQueue(mail.DefaultConfig(), mail.Deps{DB: db, Clock: now, Log: log})
	must(t, err)
	registry := prometheus.NewRegistry()
	deps := session.Deps{
		DB: db, Redis: p.redis, RedisPrefix: p.prefix, Keyring: keys, Tokens: tokens, Audit: audit.New(audit.DefaultConfig(), now), Mail: queue,
		Clock: now, Log: log, Metrics: registry, StoreClock: stored,
	}
	for _, change := range with {
		change(&deps)
	}
	s, err := session.New(cfg, deps)
	must(t, err)
	must(t, s.Load(ctx))
	verifier, err := auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: tokens, Revocations: s.Revocations(), Clock: now})
	must(t, err)
	return &node{Service: s, place: p, verifier: verifier, metrics: registry}
}

// storeAt says what the store's clock shows, where that is not what the node believes.
func storeAt(now func() time.Time) func(*session.Deps) {
	return func(d *session.Deps) { d.StoreClock = now }
}

// test has nodes, clocks and people of its own in a place that it shares with the tests before it.
type test struct {
	name string
	run  func(t *testing.T, p *place)
}

// onEach runs the tests one after another in every kind of store.
func onEach(t *testing.T, tests []test) {
	t.Parallel()
	onSQL(t, tests)
	onRedis(t, tests)
}

// onSQL runs the tests with sessions in SQL, on each engine.
func onSQL(t *testing.T, tests []test) {
	t.Run("sql", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) { runAll(t, &place{db: db}, tests) })
	})
}

func runAll(t *testing.T, p *place, tests []test) {
	for _, one := range tests {
		t.Run(one.name, func(t *testing.T) { one.run(t, p) })
	}
}

// alone starts the only node of a test.
func alone(t *testing.T, p *place, cfg session.Config) (*node, *clocktest.Clock) {
	t.Helper()
	c := clocktest.Noon()
	return newNode(t, p, cfg, c.Now), c
}

// start starts a session as a sign-in does.
func (n *node) start(ctx context.Context, start session.Start) (session.Started, error) {
	var starting *session.Starting
	err := n.db.Write(ctx, func(tx sqldb.Tx) (err error) {
		starting, err = n.Begin(ctx, tx, start)
		return err
	})
	if err != nil {
		return session.Started{}, err
	}
	return starting.Commit(ctx)
}

// signIn starts a session of the subject, and brings up what that ended.
func (n *node) signIn(t testing.TB, start session.Start) session.Started {
	t.Helper()
	if start.Subject == "" {
		start.Subject = newSubject()
	}
	started, err := n.start(t.Context(), start)
	must(t, err)
	must(t, n.Apply(t.Context()))
	return started
}

// openPage starts a session of our own pages.
func (n *node) openPage(t testing.TB, subject string) (session.Session, string) {
	t.Helper()
	started, err := n.start(t.Context(), session.Start{Page: true, Subject: subject, Roles: []string{"member"}, Device: laptop})
	must(t, err)
	return started.Session, started.Cookie
}

// write runs fn in a transaction and applies what it revoked.
func (n *node) write(t testing.TB, fn func(ctx context.Context, tx sqldb.Tx) error) {
	t.Helper()
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error { return fn(t.Context(), tx) }))
	must(t, n.Apply(t.Context()))
}

// refresh demands that a refresh succeeds.
func (n *node) refresh(t testing.TB, presented string) session.Tokens {
	t.Helper()
	tokens, err := n.Refresh(t.Context(), presented, laptop)
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	return tokens
}

// claims verifies an access token as any endpoint would.
func (n *node) claims(t testing.TB, access string) *auth.Claims {
	t.Helper()
	claims, err := n.verifier.Verify(t.Context(), access)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return claims
}

// count returns the single number that a query finds.
func (n *node) count(t testing.TB, query string, args ...any) int64 {
	t.Helper()
	v, err := sqldb.One(t.Context(), n.db.Reader(), func(r sqldb.Row) (v int64, err error) {
		err = r.Scan(&v)
		return v, err
	}, query, args...)
	must(t, err)
	return v
}

func (n *node) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	_, err := n.db.Writer().ExecContext(t.Context(), query, args...)
	must(t, err)
}

// replica copies what the store has of a session's grant, and returns what fails over to that copy.
func (n *node) replica(t testing.TB, one session.Session) (failOver func()) {
	t.Helper()
	if n.redis != nil {
		return n.replicaRedis(t, one)
	}
	const columns = `generation, current_hash, previous_hash, successor_sealed, window_until, idle_expires_at`
	copied, err := sqldb.One(t.Context(), n.db.Reader(), func(r sqldb.Row) (v [6]any, err error) {
		err = r.Scan(&v[0], &v[1], &v[2], &v[3], &v[4], &v[5])
		return v, err
	}, `SELECT `+columns+` FROM session_grants WHERE session_id = $1`, one.ID)
	must(t, err)
	return func() {
		n.exec(t, `UPDATE session_grants SET (`+columns+`) = ($1, $2, $3, $4, $5, $6) WHERE session_id = $7`,
			append(copied[:], one.ID)...)
	}
}

// dump returns everything that the store holds, to tell that nothing has changed.
func (n *node) dump(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	for _, query := range []string{
		`SELECT * FROM session_subjects ORDER BY 1`, `SELECT * FROM sessions ORDER BY 1`,
		`SELECT * FROM session_grants ORDER BY 1`, `SELECT * FROM revocations ORDER BY 1`,
	} {
		rows, err := n.db.Reader().QueryContext(t.Context(), query)
		must(t, err)
		names, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			values := make([]any, len(names))
			for i := range values {
				values[i] = new(any)
			}
			must(t, rows.Scan(values...))
			for i := range values {
				fmt.Fprintf(&b, "%s=%v ", names[i], *values[i].(*any))
			}
			b.WriteByte('\n')
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	if n.redis != nil {
		b.WriteString(dumpRedis(t, n.redis, n.prefix))
	}
	return b.String()
}

// outcomes returns how often a refresh came to the given outcome on this node.
func (n *node) outcomes(t testing.TB, outcome string) int {
	t.Helper()
	families, err := n.metrics.Gather()
	must(t, err)
	for _, family := range families {
		if family.GetName() != "sumun_session_refreshes_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == outcome {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

func newSubject() string { return uuid.NewString() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
