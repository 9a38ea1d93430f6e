// Package sqldbtest gives tests an isolated, migrated database on every engine.
//
// SQLite always runs. PostgreSQL runs too when SUMUN_TEST_POSTGRES holds the URL of a database in which the user may create
// schemas:
//
//	SUMUN_TEST_POSTGRES='postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable' go test ./...
package sqldbtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Variable is the environment variable that holds the URL of a PostgreSQL server.
const Variable = "SUMUN_TEST_POSTGRES"

// TB is what a test and a benchmark have in common.
type TB[T any] interface {
	testing.TB
	Run(name string, fn func(T)) bool
}

// Each runs fn once per engine, as the subtests (or sub-benchmarks) "sqlite" and "postgresql", each with a database of its
// own (a schema, on PostgreSQL) that is closed and dropped afterwards. Subtests run in parallel.
func Each[T TB[T]](t T, sets []sqldb.Migrations, fn func(t T, db *sqldb.DB)) {
	t.Helper()
	t.Run(string(sqldb.SQLite), func(t T) {
		parallel(t)
		fn(t, open(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"), sets))
	})
	server := os.Getenv(Variable)
	if server == "" {
		return
	}
	t.Run(string(sqldb.PostgreSQL), func(t T) {
		parallel(t)
		fn(t, open(t, isolate(t, server), sets))
	})
}

func parallel(t testing.TB) {
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
}

// Reopen opens the database of db once more, as a second node would. It is closed after the test.
func Reopen(t testing.TB, db *sqldb.DB) *sqldb.DB {
	t.Helper()
	return open(t, db.Config().URL, nil)
}

func open(t testing.TB, dsn string, sets []sqldb.Migrations) *sqldb.DB {
	t.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = dsn
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close test database: %v", err)
		}
	})
	if err := sqldb.Migrate(t.Context(), db, sets...); err != nil {
		t.Fatalf("migrate test database: %v", err)
	}
	return db
}
