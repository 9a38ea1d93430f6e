// Package redisdbtest gives tests a Redis.
//
// It promises that tests which run at the same time on one server do not meet, and that their keys are gone afterwards. It
// refuses to decide what happens without a server: a test lists its Redis variant if Listed says so.
package redisdbtest

import (
	"context"
	"crypto/rand"
	"os"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/internal/redisdb"
)

// Variable is the environment variable that holds the URL of a Redis, in one of the forms of redisdb.Validate.
const Variable = "SUMUN_TEST_REDIS"

// patience bounds the cleaning up.
const patience = time.Minute

// Listed reports whether there is a Redis to test with.
func Listed() bool { return os.Getenv(Variable) != "" }

// Open opens the Redis, until the test ends.
func Open(t testing.TB) *redisdb.DB {
	t.Helper()
	return OpenURL(t, os.Getenv(Variable))
}

// OpenURL opens another Redis, such as one that Start started.
func OpenURL(t testing.TB, url string) *redisdb.DB {
	t.Helper()
	db, err := redisdb.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("%s: %v", Variable, err)
	}
	t.Cleanup(db.Close)
	return db
}

// Prefix returns what to begin every key with, so that they meet no other test's and are deleted when the test ends. It ends
// in a {tag}, so that all of them lie in one slot of a Cluster.
func Prefix(t testing.TB, db *redisdb.DB) string {
	t.Helper()
	prefix := "sumun-test:{" + rand.Text() + "}:"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own has ended
		defer cancel()
		for name, node := range db.Client().Nodes() {
			if err := clean(ctx, node, prefix); err != nil {
				t.Errorf("delete the test's keys on %s: %v", name, err)
			}
		}
	})
	return prefix
}

func clean(ctx context.Context, node rueidis.Client, prefix string) error {
	for cursor := uint64(0); ; {
		page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(prefix+"*").Count(1000).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		if len(page.Elements) > 0 {
			if err := node.Do(ctx, node.B().Del().Key(page.Elements...).Build()).Error(); err != nil {
				return err
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}
