package sqldb_test

import (
	"testing"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// BenchmarkConditionalUpdate is the shape of a refresh: one statement that decides, commits and tells.
func BenchmarkConditionalUpdate(b *testing.B) {
	sqldbtest.Each(b, counters, func(b *testing.B, db *sqldb.DB) {
		const update = `UPDATE counters SET n = n + $1, of = CASE WHEN n > $2 THEN name ELSE of END
			WHERE name = $3 AND n >= $4 RETURNING n`
		for b.Loop() {
			if _, err := sqldb.One(b.Context(), db.Writer(), scanInt64, update, 1, 10, "a", 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGathered is the same for many callers at once, all of one row.
func BenchmarkGathered(b *testing.B) {
	sqldbtest.Each(b, counters, func(b *testing.B, db *sqldb.DB) {
		g := sqldb.NewGather(db, scanInt64, addReturning)
		for name, one := range map[string]func() error{
			"together": func() error { _, err := g.One(b.Context(), "a", 1, "a"); return err },
			"alone": func() error {
				_, err := sqldb.One(b.Context(), db.Writer(), scanInt64, addReturning, 1, "a")
				return err
			},
		} {
			b.Run(name, func(b *testing.B) {
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := one(); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	})
}

func BenchmarkRead(b *testing.B) {
	sqldbtest.Each(b, counters, func(b *testing.B, db *sqldb.DB) {
		for b.Loop() {
			if _, err := sqldb.One(b.Context(), db.Reader(), scanInt64, `SELECT n FROM counters WHERE name = $1`, "a"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkWriteTransaction(b *testing.B) {
	sqldbtest.Each(b, counters, func(b *testing.B, db *sqldb.DB) {
		for b.Loop() {
			err := db.Write(b.Context(), func(tx sqldb.Tx) error {
				_, err := tx.ExecContext(b.Context(), `UPDATE counters SET n = n + 1 WHERE name = $1`, "a")
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
