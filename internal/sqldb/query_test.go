package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

func TestOneAndAll(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		_, err := sqldb.One(t.Context(), db.Reader(), scanInt64, readToWriteSQLite, "z")
		if !errors.Is(err, sqldb.ErrNotFound) || !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("One without a row: %v", err)
		}
		if err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			_, err := sqldb.One(t.Context(), tx, scanInt64, add+` RETURNING n`, 3, "b")
			return err
		}); err != nil {
			t.Error(err)
		}
		// What RETURNING has told must be committed, also for those on other connections.
		if n, err := sqldb.One(t.Context(), db.Writer(), scanInt64, add+` RETURNING n`, 4, "b"); n != 7 || err != nil {
			t.Errorf("RETURNING told %d, %v", n, err)
		}
		if n := counter(t, sqldbtest.Reopen(t, db).Reader(), "b"); n != 7 {
			t.Errorf("the other connection sees %d", n)
		}
		all, err := sqldb.All(t.Context(), db.Reader(), scanInt64, `SELECT n FROM counters ORDER BY n`)
		if err != nil || !slices.Equal(all, []int64{0, 7}) {
			t.Errorf("All: %v, %v", all, err)
		}
		if all, err := sqldb.All(t.Context(), db.Reader(), scanInt64, `SELECT n FROM counters WHERE n > $1`, 99); len(all) != 0 || err != nil {
			t.Errorf("All without a row: %v, %v", all, err)
		}
		if _, err := sqldb.All(t.Context(), db.Reader(), scanInt64, `SELECT name FROM counters`); err == nil {
			t.Error("All hides that a row cannot be scanned")
		}
		if _, err := sqldb.All(t.Context(), db.Reader(), scanInt64, `SELECT nothing FROM nowhere`); err == nil {
			t.Error("All hides an error of the query")
		}
	})
}

// The same text may run again while its first rows are still open, and the kept statements must not get mixed up.
func TestSameQueryNested(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.PostgreSQL {
			return // the protocol allows one result at a time
		}
		const names = `SELECT name FROM counters WHERE name >= $1 ORDER BY name`
		scan := func(r sqldb.Row) (s string, err error) { err = r.Scan(&s); return s, err }
		err := db.Read(t.Context(), func(tx sqldb.Tx) error {
			outer, err := sqldb.All(t.Context(), tx, func(r sqldb.Row) (string, error) {
				name, err := scan(r)
				if err != nil {
					return "", err
				}
				inner, err := sqldb.All(t.Context(), tx, scan, names, name)
				return fmt.Sprint(name, inner), err
			}, names, "a")
			if want := []string{"a[a b]", "b[b]"}; err != nil || !slices.Equal(outer, want) {
				t.Errorf("got %q, %v, want %q", outer, err, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for i := range 300 { // more texts than are kept
			query := fmt.Sprintf(`SELECT n + %d FROM counters WHERE name = $1`, i)
			if n, err := sqldb.One(t.Context(), db.Reader(), scanInt64, query, "a"); err != nil || n != int64(i) {
				t.Fatalf("%s: %d, %v", query, n, err)
			}
		}
	})
}

// Two people who want one address at the same moment: one of them must be told so, and no other mistake be taken for it.
func TestUniqueIsTold(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		for query, unique := range map[string]bool{
			`INSERT INTO counters (name, n) VALUES ('a', 1)`:          true,
			`INSERT INTO counters (name, n, of) VALUES ('c', 1, 'z')`: false, // foreign key
			`INSERT INTO counters (name, n) VALUES ('c', -1)`:         false, // CHECK
			`INSERT INTO counters (name) VALUES ('c')`:                false, // NOT NULL
			`INSERT COUNTERS`: false,
		} {
			_, direct := db.Writer().ExecContext(t.Context(), query)
			within := db.Write(t.Context(), func(tx sqldb.Tx) error {
				_, err := tx.ExecContext(t.Context(), query)
				return fmt.Errorf("store: %w", err)
			})
			for _, err := range []error{direct, within} {
				if err == nil || sqldb.IsUnique(err) != unique {
					t.Errorf("%s: unique is %t: %v", query, sqldb.IsUnique(err), err)
				}
			}
		}
		if sqldb.IsUnique(nil) || sqldb.IsUnique(errors.New("UNIQUE")) {
			t.Error("an error that is none of ours was recognised")
		}
	})
}

func TestSweepDeletesInBatches(t *testing.T) {
	t.Parallel()
	const (
		fill  = `WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1234) INSERT INTO counters (name, n) SELECT 'x' || i, 1000 FROM s`
		sweep = `DELETE FROM counters WHERE name IN (SELECT name FROM counters WHERE n >= $1 LIMIT 500)`
	)
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if _, err := db.Writer().ExecContext(t.Context(), fill); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := sqldb.Sweep(ended, db, sweep, 1000); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("sweep after its context: %d, %v", n, err)
		}
		if n, err := sqldb.Sweep(t.Context(), db, sweep, 1000); n != 1234 || err != nil {
			t.Errorf("swept %d, %v, want 1234", n, err)
		}
		if n, err := sqldb.Sweep(t.Context(), db, sweep, 1000); n != 0 || err != nil {
			t.Errorf("swept %d, %v, want nothing", n, err)
		}
		counter(t, db.Reader(), "a")
	})
}

func TestTimes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	back := sqldb.Time(sqldb.Micros(now))
	if !back.Equal(now.Truncate(time.Microsecond)) || back.Location() != time.UTC {
		t.Errorf("%v came back as %v", now, back)
	}
	if sqldb.Micros(time.Time{}) != 0 || !sqldb.Time(0).IsZero() {
		t.Error("the zero time is not 0")
	}
}
