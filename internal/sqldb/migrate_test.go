package sqldb_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// library has tables of its own for each engine, and a step that would count double if it ran twice.
var library = sqldb.Migrations{Name: "library", FS: fstest.MapFS{
	"migrations/00001_books.sql": {Data: []byte(`-- +goose Up
CREATE TABLE books (title TEXT NOT NULL PRIMARY KEY, copies BIGINT NOT NULL);
INSERT INTO books (title, copies) VALUES ('The Sea', 1);
`)},
	"migrations/00002_twice.sql": {Data: []byte("-- +goose Up\nUPDATE books SET copies = copies * 2;\n")},
	"migrations/sqlite/00003_own.sql": {Data: []byte(`-- +goose Up
-- +goose StatementBegin
CREATE TRIGGER keep BEFORE DELETE ON books BEGIN
    SELECT RAISE(ABORT, 'kept');
END;
-- +goose StatementEnd
`)},
	"migrations/postgresql/00003_own.sql": {Data: []byte(`-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'kept';
END $$;
-- +goose StatementEnd
CREATE TRIGGER keep BEFORE DELETE ON books FOR EACH ROW EXECUTE FUNCTION keep();
`)},
	"migrations/00004_shelves.sql": {Data: []byte("-- +goose Up\nCREATE TABLE shelves (name TEXT NOT NULL PRIMARY KEY);\n")},
}}

// A fleet is deployed: all its processes start at the same moment on an empty database.
func TestMigrateInManyProcessesAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			node := db
			if i%2 == 1 {
				node = sqldbtest.Reopen(t, db)
			}
			wg.Go(func() { errs[i] = sqldb.Migrate(t.Context(), node, library, counters[0]) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		copies, err := sqldb.One(t.Context(), db.Reader(), scanInt64, `SELECT copies FROM books WHERE title = $1`, "The Sea")
		if err != nil || copies != 2 {
			t.Errorf("%d copies, %v: a migration ran more than once or not at all", copies, err)
		}
		if _, err := db.Writer().ExecContext(t.Context(), `DELETE FROM books`); err == nil || !strings.Contains(err.Error(), "kept") {
			t.Errorf("the engine's own migration is missing: %v", err)
		}
		counter(t, db.Reader(), "a")
	})
}

func TestPendingChangesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		want := []string{"library/00001_books.sql", "library/00002_twice.sql", "library/00003_own.sql",
			"library/00004_shelves.sql", "counters/00001_counters.sql"}
		for range 2 {
			pending, err := sqldb.Pending(t.Context(), db, library, counters[0])
			if err != nil || !slices.Equal(pending, want) {
				t.Fatalf("pending %q, %v, want %q", pending, err, want)
			}
		}
		if err := sqldb.Migrate(t.Context(), db, library); err != nil {
			t.Fatal(err)
		}
		pending, err := sqldb.Pending(t.Context(), db, library, counters[0])
		if err != nil || !slices.Equal(pending, want[4:]) {
			t.Errorf("pending %q, %v, want %q", pending, err, want[4:])
		}
	})
}

// The previous version still runs, or is started again, after the next one has migrated.
func TestOlderProgramOnNewerDatabase(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, []sqldb.Migrations{library}, func(t *testing.T, db *sqldb.DB) {
		older := sqldb.Migrations{Name: library.Name, FS: fstest.MapFS{
			"00001_books.sql": library.FS.(fstest.MapFS)["migrations/00001_books.sql"],
		}}
		if err := sqldb.Migrate(t.Context(), db, older); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedMigrationLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	broken := sqldb.Migrations{Name: "broken", FS: fstest.MapFS{
		"00001_broken.sql": {Data: []byte("-- +goose Up\nCREATE TABLE half (id BIGINT);\nINSERT INTO nowhere (id) VALUES (1);\n")},
	}}
	repaired := sqldb.Migrations{Name: "broken", FS: fstest.MapFS{
		"00001_broken.sql": {Data: []byte("-- +goose Up\nCREATE TABLE half (id BIGINT);\n")},
	}}
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		err := sqldb.Migrate(t.Context(), db, broken)
		if err == nil || !strings.Contains(err.Error(), "00001_broken.sql") {
			t.Fatalf("got %v, want an error that names the file", err)
		}
		if err := sqldb.Migrate(t.Context(), db, repaired); err != nil {
			t.Error(err)
		}
	})
}

func TestMigrateEndsWithItsContext(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := sqldb.Migrate(ctx, db, library); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want cancelled", err)
		}
	})
}

func TestMigrateRefusesOddNames(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		for _, name := range []string{"", "Books", "a-b", "a; DROP TABLE books"} {
			if err := sqldb.Migrate(t.Context(), db, sqldb.Migrations{Name: name, FS: library.FS}); err == nil {
				t.Errorf("%q was accepted", name)
			}
		}
	})
}
