package sqldbtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	// Schemas are called sumun_test_<seconds since 1970>_<random>.
	prefix = "sumun_test_"
	// tooOld is the age at which a schema must be left over from a run that was killed.
	tooOld = time.Hour
	// patience bounds the statements that make and drop a schema.
	patience = time.Minute
)

// isolate makes an empty schema that is dropped after the test, and returns a URL whose connections see nothing else. A
// database of its own would take a checkpoint of the whole server to drop, which is most of the time that a small test
// takes. Commits do not wait for the disk: no test pulls the plug of the server.
func isolate(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s is not a URL", Variable)
	}
	name := fmt.Sprintf("%s%d_%s", prefix, time.Now().Unix(), strings.ToLower(rand.Text()[:12]))
	if err := administer(server, func(ctx context.Context, tx sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, "CREATE SCHEMA "+name)
		return err
	}); err != nil {
		t.Fatalf("create test schema: %v", err)
	}
	t.Cleanup(func() {
		if err := administer(server, func(ctx context.Context, tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, "DROP SCHEMA "+name+" CASCADE"); err != nil {
				return err
			}
			return dropLeftOvers(ctx, tx)
		}); err != nil {
			t.Errorf("drop test schema: %v", err)
		}
	})
	q := u.Query()
	q.Set("search_path", name)
	q.Set("synchronous_commit", "off")
	u.RawQuery = q.Encode()
	return u.String()
}

// administer runs fn in a transaction outside the schema. Its context is not the test's, which has ended when the schema is
// dropped.
func administer(server string, fn func(ctx context.Context, tx sqldb.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := sqldb.DefaultConfig()
	cfg.URL = server
	admin, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	return admin.Write(ctx, func(tx sqldb.Tx) error { return fn(ctx, tx) })
}

// dropLeftOvers drops the schemas of runs that were killed.
func dropLeftOvers(ctx context.Context, tx sqldb.Tx) error {
	names, err := sqldb.All(ctx, tx, func(r sqldb.Row) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}, `SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)`, prefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		seconds, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "_")
		made, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || time.Since(time.Unix(made, 0)) < tooOld {
			continue
		}
		if _, err := tx.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+name+" CASCADE"); err != nil {
			return err
		}
	}
	return nil
}
