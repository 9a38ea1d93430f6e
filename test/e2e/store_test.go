package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	postgresVariable = "SUMUN_TEST_POSTGRES"
	redisVariable    = "SUMUN_TEST_REDIS"
)

// store is where an installation keeps its data: empty at first, gone after the test. Several processes can be started on it.
type store struct {
	args  []string
	split bool // identity and gateway are two processes
}

// serve starts the program on the store.
func (st store) serve(t testing.TB, args ...string) *server {
	t.Helper()
	if st.split {
		return st.serveSplit(t, args...)
	}
	return serve(t, slices.Concat(st.args, args)...)
}

// command runs a command of the program on the store.
func (st store) command(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	return command(t, stdin, slices.Concat(args, st.args)...)
}

// eachStore runs fn on every engine there is.
func eachStore(t *testing.T, fn func(t *testing.T, st store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, sqliteStore(t))
	})
	if hasPostgres() {
		t.Run("postgresql", func(t *testing.T) {
			t.Parallel()
			fn(t, postgresStore(t))
		})
	}
}

// sqliteStore is a data folder that the program makes itself, master key included.
func sqliteStore(t testing.TB) store {
	return store{args: []string{"--data", filepath.Join(t.TempDir(), "data")}}
}

func hasPostgres() bool { return os.Getenv(postgresVariable) != "" }

// postgresStore is an empty database, with a master key from the environment, so that nothing is kept on disk.
func postgresStore(t testing.TB) store {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	return store{args: []string{
		"--data", filepath.Join(t.TempDir(), "nothing"), "--database", newDatabase(t),
		"SUMUN_MASTER_KEY=" + base64.StdEncoding.EncodeToString(key), "SUMUN_SQL_MAX_CONNS=8",
	}}
}

// newDatabase makes a PostgreSQL database that is dropped after the test, and returns its URL.
func newDatabase(t testing.TB) string {
	t.Helper()
	server := os.Getenv(postgresVariable)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s is not a URL", postgresVariable)
	}
	name := fmt.Sprintf("sumun_e2e_%d_%s", time.Now().Unix(), strings.ToLower(rand.Text()[:10]))
	administer(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { administer(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// administer runs one statement outside of a test's database; the test's own context has ended when that is dropped.
func administer(t testing.TB, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := sqldb.DefaultConfig()
	cfg.URL = server
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("%s: %v", postgresVariable, err)
	}
	defer db.Close()
	if _, err := db.Writer().ExecContext(ctx, statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}

// quick are settings for tests that start hundreds of sessions and are not about passwords or limits: the cheapest hash that
// is allowed, and nobody turned away.
func quick() []string {
	return []string{
		"--limits", "off", "SUMUN_PASSWORDS_ARGON2ID_MEMORY=7168", "SUMUN_PASSWORDS_ARGON2ID_TIME=1",
		"SUMUN_PASSWORDS_FAILURE_TIME=1ms", "SUMUN_PASSWORDS_GATE_QUEUE=256", "SUMUN_PASSWORDS_GATE_WAIT=20s",
	}
}
