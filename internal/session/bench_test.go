package session_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// benchEach runs fn on every engine, with 2,000 sessions and as many clients at once as benefits from batching at the disk.
func benchEach(b *testing.B, fn func(b *testing.B, n *node, clients *clients)) {
	run := func(name string, open func(b *testing.B) *place) {
		b.Run(name, func(b *testing.B) {
			n := newNode(b, open(b), session.DefaultConfig(), clocktest.Noon().Now, storeAt(nil))
			clients := &clients{}
			for range 2000 {
				clients.put(n.signIn(b, session.Start{Roles: []string{"member"}, Device: laptop}).Tokens.Refresh)
			}
			b.SetParallelism(32)
			b.ResetTimer()
			fn(b, n, clients)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "refreshes/s")
		})
	}
	sqlite := func(b *testing.B) *place { return newPlaceAt(b, "sqlite:"+filepath.Join(b.TempDir(), "bench.db")) }
	run("sql/sqlite", sqlite)
	if server := os.Getenv(sqldbtest.Variable); server != "" {
		run("sql/postgresql", func(b *testing.B) *place { return newPlaceAt(b, benchDatabase(b, server)) })
	}
	if redisdbtest.Listed() {
		run("redis", func(b *testing.B) *place {
			p := sqlite(b)
			p.redis = redisdbtest.Open(b)
			p.prefix = redisdbtest.Prefix(b, p.redis)
			return p
		})
	}
}

// newPlaceAt has a database of its own, and no Redis.
func newPlaceAt(b testing.TB, dsn string) *place {
	cfg := sqldb.DefaultConfig()
	cfg.URL = dsn
	db, err := sqldb.Open(b.Context(), cfg)
	must(b, err)
	b.Cleanup(func() { must(b, db.Close()) })
	must(b, sqldb.Migrate(b.Context(), db, migrations()...))
	return &place{db: db}
}

func benchDatabase(b *testing.B, server string) string {
	cfg := sqldb.DefaultConfig()
	cfg.URL = server
	admin, err := sqldb.Open(b.Context(), cfg)
	must(b, err)
	name := "sumun_bench_" + strings.ToLower(rand.Text())
	_, err = admin.Writer().ExecContext(b.Context(), "CREATE DATABASE "+name)
	must(b, err)
	ctx := b.Context()
	b.Cleanup(func() {
		_, err := admin.Writer().ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		must(b, err)
		must(b, admin.Close())
	})
	u, err := url.Parse(server)
	must(b, err)
	u.Path = "/" + name
	return u.String()
}

// clients are refresh tokens, each in use by one client at a time.
type clients struct {
	mu     sync.Mutex
	tokens []string
}

func (c *clients) put(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = append(c.tokens, token)
}

// take returns the token that was put first.
func (c *clients) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	token := c.tokens[0]
	c.tokens = c.tokens[1:]
	return token
}

// BenchmarkRotate is what the store has to do, and the check of the token.
func BenchmarkRotate(b *testing.B) {
	benchEach(b, func(b *testing.B, n *node, clients *clients) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				next, err := n.Rotate(b.Context(), clients.take(), laptop)
				must(b, err)
				clients.put(next)
			}
		})
	})
}

// BenchmarkRefresh is a refresh without HTTP: token check, rotation in the store, a signed access token.
func BenchmarkRefresh(b *testing.B) {
	benchEach(b, func(b *testing.B, n *node, clients *clients) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				clients.put(n.refresh(b, clients.take()).Refresh)
			}
		})
	})
}

// BenchmarkRefreshHTTP is the operation, without a network.
func BenchmarkRefreshHTTP(b *testing.B) {
	benchEach(b, func(b *testing.B, n *node, clients *clients) {
		h := n.serve(b)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r := ask(b, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody(clients.take()))
				clients.put(decode[session.TokenAnswer](b, r, 200).RefreshToken)
			}
		})
	})
}

// BenchmarkMove moves people with one session each, to Redis and back. It runs as long as the people it was given last.
func BenchmarkMove(b *testing.B) {
	if !redisdbtest.Listed() {
		b.Skip("there is no Redis to move to")
	}
	for name, open := range map[string]func() *place{
		"sqlite":     func() *place { return newPlaceAt(b, "sqlite:"+filepath.Join(b.TempDir(), "bench.db")) },
		"postgresql": func() *place { return newPlaceAt(b, benchDatabase(b, os.Getenv(sqldbtest.Variable))) },
	} {
		if name == "postgresql" && os.Getenv(sqldbtest.Variable) == "" {
			continue
		}
		p := open()
		p.redis = redisdbtest.Open(b)
		p.prefix = redisdbtest.Prefix(b, p.redis)
		n := newNode(b, p, in(session.InSQL), clocktest.Noon().Now)
		for range 3000 {
			n.signIn(b, session.Start{Roles: []string{"member"}, Device: laptop})
		}
		for _, m := range []session.Move{toRedis, toSQL} {
			m.Batch = 100
			b.Run(name+"/to_"+string(m.To), func(b *testing.B) {
				back := session.Move{From: m.To, To: m.From, Batch: 100}
				for b.Loop() {
					b.StopTimer()
					n.moveAll(b, back)
					b.StartTimer()
					n.moveAll(b, m)
				}
				b.ReportMetric(3000*float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
			})
		}
	}
}
