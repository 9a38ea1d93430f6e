package identity_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
	"github.com/sumunio/sumun/internal/web"
)

const (
	issuer  = "http://localhost:8080"
	goodPW  = "lantern-orbit-meadow-42"
	otherPW = "copper-violin-glacier-77"
)

var sets = []sqldb.Migrations{
	keyring.Migrations, audit.Migrations, mail.Migrations, token.Migrations, session.Migrations, identity.Migrations,
}

// world is the identity unit on a real database, with a clock of its own and mails that can be read.
type world struct {
	*identity.Service
	t        *testing.T
	db       *sqldb.DB
	clock    *clocktest.Clock
	queue    *mail.Queue
	box      *mail.Mailbox
	sessions *session.Service
	verifier *auth.Verifier
	compose  mail.Composer
	ring     *keyring.Keyring
	deps     identity.Deps
	company  *company // whose directory is asked, in the tests of directories
}

// option changes what a world is made of.
type option func(*world, *identity.Config, *identity.Deps)

// each runs a test on every engine, with sessions there and in Redis.
func each(t *testing.T, fn func(w *world), options ...option) {
	t.Helper()
	t.Parallel()
	t.Run("sql", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) { fn(newWorld(t, db, nil, options...)) })
	})
	if !redisdbtest.Listed() {
		return
	}
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) { fn(newWorld(t, db, redisdbtest.Open(t), options...)) })
	})
}

func newWorld(t *testing.T, db *sqldb.DB, redis *redisdb.DB, options ...option) *world {
	t.Helper()
	w := &world{t: t, db: db, clock: clocktest.At(time.Now().Truncate(time.Microsecond))}
	log := slog.New(slog.DiscardHandler)
	ring, err := keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: filepath.Join(t.TempDir(), "master.key"), Create: true}, w.clock.Now)
	w.must(err)
	w.ring = ring
	tokens, err := token.New(token.DefaultConfig(), token.Deps{DB: db, Keyring: ring, Issuer: issuer, Clock: w.clock.Now, Log: log})
	w.must(err)
	w.must(tokens.Load(t.Context()))
	trail := audit.New(audit.DefaultConfig(), w.clock.Now)
	w.box = mail.NewMailbox(db, w.clock.Now)
	w.queue, err = mail.NewQueue(mail.DefaultConfig(), mail.Deps{DB: db, Transport: w.box, Clock: w.clock.Now, Log: log})
	w.must(err)
	prefix := ""
	if redis != nil {
		prefix = redisdbtest.Prefix(t, redis)
	}
	w.sessions, err = session.New(session.DefaultConfig(), session.Deps{DB: db, Redis: redis, RedisPrefix: prefix, Keyring: ring,
		Tokens: tokens, Audit: trail, Mail: w.queue, Clock: w.clock.Now, StoreClock: w.clock.Now, Log: log})
	w.must(err)
	w.must(w.sessions.Load(t.Context()))
	w.verifier, err = auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: tokens, Revocations: w.sessions.Revocations(), Clock: w.clock.Now})
	w.must(err)
	cheap := password.DefaultConfig()
	cheap.Argon2id = password.Argon2Config{Memory: 64, Time: 1, Parallelism: 1}
	cheap.Enabled = []string{password.Argon2id, password.Bcrypt}
	cheap.FailureTime = time.Millisecond
	cheap.Gate.Queue, cheap.Gate.Wait = 1000, time.Minute
	hasher, err := password.NewHasher(cheap, ring, nil)
	w.must(err)
	policy, err := password.OpenPolicy(cheap.Policy, log)
	w.must(err)
	renderer, err := web.New(web.DefaultConfig())
	w.must(err)
	cfg := identity.DefaultConfig()
	deps := identity.Deps{DB: db, Hasher: hasher, Policy: policy, Sessions: w.sessions, Audit: trail, Mail: w.queue,
		Limiter: ratelimit.Off{}, Issuer: issuer, Limits: true,
		Clock: w.clock.Now, Log: log}
	for _, o := range options {
		o(w, &cfg, &deps)
	}
	w.Service, err = identity.New(cfg, deps)
	w.must(err)
	w.deps = deps
	w.compose = identity.NewLetters(w.Service, renderer).Compose
	w.queue.Handle("", w.compose)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// from is a request from a network address.
func from(addr string) audit.Origin {
	return audit.Origin{Address: netip.MustParseAddr(addr), UserAgent: "test"}
}

var here = from("192.0.2.1")

// mails delivers what is in the outbox and returns the subjects that an address received, newest first.
func (w *world) mails(to string) []mail.Received {
	w.t.Helper()
	w.must(w.queue.Drain(w.t.Context()))
	all, err := w.box.List(w.t.Context())
	w.must(err)
	var got []mail.Received
	for _, m := range all {
		if strings.EqualFold(m.To, to) {
			got = append(got, m)
		}
	}
	return got
}

var tokenInLink = regexp.MustCompile(`\?token=([A-Za-z0-9_-]+)`)

// link returns the token of the newest mail to an address.
func (w *world) link(to string) string {
	w.t.Helper()
	got := w.mails(to)
	if len(got) == 0 {
		w.t.Fatalf("no mail to %s", to)
	}
	m := tokenInLink.FindStringSubmatch(got[0].Text)
	if m == nil {
		w.t.Fatalf("no link in the mail %q", got[0].Subject)
	}
	return m[1]
}

// person makes a confirmed account by the way everybody takes.
func (w *world) person(email, userName string) identity.Account {
	w.t.Helper()
	w.must(w.SignUp(w.t.Context(), email, "en", here))
	a, err := w.ConfirmSignUp(w.t.Context(), w.link(email), identity.NewAccount{Name: "Somebody", UserName: userName, Password: goodPW}, here)
	w.must(err)
	return a
}

func (w *world) signIn(identifier, pw string) (identity.SignedIn, error) {
	return w.SignIn(w.t.Context(), identity.SignIn{Identifier: identifier, Password: pw, Origin: here})
}

func (w *world) signedIn(identifier string) identity.SignedIn {
	w.t.Helper()
	in, err := w.signIn(identifier, goodPW)
	w.must(err)
	return in
}

// caller is who a sign-in lets act.
func (w *world) caller(in identity.SignedIn) identity.Caller {
	return identity.Caller{Account: in.Account.ID, Session: in.Session.ID, AuthTime: in.Session.AuthTime, Origin: here}
}

func (w *world) accepts(ctx context.Context, access string) bool {
	_, err := w.verifier.Verify(ctx, access)
	return err == nil
}
