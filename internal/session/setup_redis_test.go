package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// onRedis runs the tests with sessions in Redis, on each engine for everything else.
func onRedis(t *testing.T, tests []test) {
	if !redisdbtest.Listed() {
		return
	}
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
			redis := redisdbtest.Open(t)
			runAll(t, &place{db: db, redis: redis, prefix: redisdbtest.Prefix(t, redis)}, tests)
		})
	})
}

func openRedis(t testing.TB, url string) *redisdb.DB {
	t.Helper()
	if url == "" {
		return redisdbtest.Open(t)
	}
	return redisdbtest.OpenURL(t, url)
}

// key is that of a person's hash.
func (p *place) key(t testing.TB, subject string) string {
	t.Helper()
	routing, err := sqldb.One(t.Context(), p.db.Reader(), func(r sqldb.Row) (s string, err error) {
		err = r.Scan(&s)
		return s, err
	}, `SELECT routing FROM session_subjects WHERE subject = $1`, subject)
	must(t, err)
	return p.prefix + "{" + routing + "}"
}

// replicaRedis copies a person's hash, and returns what fails over to that copy.
func (n *node) replicaRedis(t testing.TB, one session.Session) (failOver func()) {
	t.Helper()
	client, key := n.redis.Client(), n.key(t, one.Subject)
	copied, err := client.Do(t.Context(), client.B().Dump().Key(key).Build()).ToString()
	must(t, err)
	return func() {
		must(t, client.Do(t.Context(), client.B().Restore().Key(key).Ttl(0).SerializedValue(copied).Replace().Build()).Error())
	}
}

// hash returns what Redis holds of a person.
func (p *place) hash(t testing.TB, subject string) map[string]string {
	t.Helper()
	client := p.redis.Client()
	h, err := client.Do(t.Context(), client.B().Hgetall().Key(p.key(t, subject)).Build()).AsStrMap()
	must(t, err)
	return h
}

func dumpRedis(t testing.TB, redis *redisdb.DB, prefix string) string {
	t.Helper()
	client := redis.Client()
	var keys []string
	for _, one := range client.Nodes() {
		more, err := one.Do(t.Context(), one.B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
		must(t, err)
		keys = append(keys, more...)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	var b strings.Builder
	for _, key := range keys {
		h, err := client.Do(t.Context(), client.B().Hgetall().Key(key).Build()).AsStrMap()
		must(t, err)
		fmt.Fprintf(&b, "%s %q\n", key, h)
	}
	return b.String()
}
