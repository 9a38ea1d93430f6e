// Package identitytest makes the identity unit for tests of packages that work with it.
package identitytest

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
	"github.com/sumunio/sumun/internal/web"
)

// Unit is accounts and sessions on a database, with mails that can be read and passwords that cost little.
type Unit struct {
	People *identity.Service
	Ring   *keyring.Keyring
	Queue  *mail.Queue
	Box    *mail.Mailbox
}

// Migrations are the tables that New needs.
func Migrations() []sqldb.Migrations {
	return []sqldb.Migrations{keyring.Migrations, audit.Migrations, mail.Migrations, token.Migrations, session.Migrations, identity.Migrations}
}

// New makes a unit for the pages at issuer; a renderer of nil is the usual one.
func New(t *testing.T, db *sqldb.DB, issuer string, renderer *web.Renderer, clock func() time.Time, log *slog.Logger,
	directories ...identity.Directory) Unit {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if renderer == nil {
		var err error
		renderer, err = web.New(web.DefaultConfig())
		must(err)
	}
	ring, err := keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: filepath.Join(t.TempDir(), "master.key"), Create: true}, clock)
	must(err)
	tokens, err := token.New(token.DefaultConfig(), token.Deps{DB: db, Keyring: ring, Issuer: issuer, Clock: clock, Log: log})
	must(err)
	must(tokens.Load(t.Context()))
	trail := audit.New(audit.DefaultConfig(), clock)
	box := mail.NewMailbox(db, clock)
	queue, err := mail.NewQueue(mail.DefaultConfig(), mail.Deps{DB: db, Transport: box, Clock: clock, Log: log})
	must(err)
	sessions, err := session.New(session.DefaultConfig(), session.Deps{DB: db, Keyring: ring, Tokens: tokens, Audit: trail, Mail: queue,
		Clock: clock, StoreClock: clock, Log: log})
	must(err)
	must(sessions.Load(t.Context()))
	people := People(t, ring, identity.Deps{DB: db, Sessions: sessions, Audit: trail,
		Mail: queue, Limiter: ratelimit.Off{}, Issuer: issuer, Limits: true, Directories: directories, Clock: clock, Log: log})
	queue.Handle("", identity.NewLetters(people, renderer).Compose)
	return Unit{People: people, Ring: ring, Queue: queue, Box: box}
}

// People makes the service of accounts alone, of deps that lack what concerns passwords.
func People(t testing.TB, ring *keyring.Keyring, deps identity.Deps) *identity.Service {
	t.Helper()
	cheap := password.DefaultConfig()
	cheap.Argon2id = password.Argon2Config{Memory: 64, Time: 1, Parallelism: 1}
	cheap.FailureTime = time.Millisecond
	var err error
	if deps.Hasher, err = password.NewHasher(cheap, ring, nil); err != nil {
		t.Fatal(err)
	}
	if deps.Policy, err = password.OpenPolicy(cheap.Policy, deps.Log); err != nil {
		t.Fatal(err)
	}
	people, err := identity.New(identity.DefaultConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	return people
}
