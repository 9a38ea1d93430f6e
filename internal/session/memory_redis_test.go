package session_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// perSession is what a person with one session may cost in Redis, in bytes of used_memory: key, hash and their places in the tables.
const perSession = 500

// With people on the devices that people have, memory is what operators are told to plan with. So many leave the
// tables of Redis, whose sizes are powers of two, rather empty: a million cost less each.
func TestMemoryPerSession(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	n, before := memoryNode(t)
	const people = 5_000
	refreshed(t, n, people)
	got := (usedMemory(t, n.redis) - before) / people
	if got >= perSession {
		t.Errorf("%d bytes for each session, want less than %d", got, perSession)
	}
	t.Logf("%d bytes for each session", got)
}

// BenchmarkMemoryPerSession starts and refreshes as many sessions as there are rounds: say -benchtime 1000000x.
func BenchmarkMemoryPerSession(b *testing.B) {
	if !redisdbtest.Listed() {
		b.Fatal("needs " + redisdbtest.Variable)
	}
	n, before := memoryNode(b)
	b.ResetTimer()
	refreshed(b, n, b.N)
	b.StopTimer()
	b.ReportMetric(float64(usedMemory(b, n.redis)-before)/float64(b.N), "B/session")
}

// memoryNode has a Redis of its own, of which it returns the memory in use.
func memoryNode(t testing.TB) (n *node, before int) {
	t.Helper()
	server := redisdbtest.Start(t, "--appendonly", "no")
	p := newPlaceAt(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	p.redis, p.url, p.prefix = redisdbtest.OpenURL(t, server.URL()), server.URL(), "sumun:login:"
	n = newNode(t, p, session.DefaultConfig(), clocktest.Noon().Now)
	first := n.signIn(t, session.Start{})
	n.refresh(t, first.Tokens.Refresh) // the scripts are loaded now, and connections open
	return n, usedMemory(t, p.redis)
}

// devices are those of most people: Windows, Android, iPhone and a messenger's browser, over IPv4 and IPv6.
var devices = []session.Device{
	laptop,
	session.NewDevice("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
		netip.MustParseAddr("2001:db8:85a3::8a2e:370:7334")),
	session.NewDevice("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "+
		"Mobile/15E148 Safari/604.1", netip.MustParseAddr("198.51.100.23")),
	session.NewDevice("Mozilla/5.0 (Linux; Android 15; SM-S938N; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 "+
		"Chrome/140.0.7339.51 Mobile Safari/537.36;KAKAOTALK 2511810", netip.MustParseAddr("2001:db8::17")),
}

// refreshed starts sessions of so many people and refreshes each once, in batches that share a transaction.
func refreshed(t testing.TB, n *node, people int) {
	t.Helper()
	for done := 0; done < people; {
		batch := make([]*session.Starting, min(1000, people-done))
		must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
			for i := range batch {
				batch[i], err = n.Begin(t.Context(), tx, session.Start{
					Subject: newSubject(), Roles: []string{"member"}, AMR: []string{"pwd"}, ACR: "1", Device: devices[i%len(devices)],
				})
				if err != nil {
					return err
				}
			}
			return nil
		}))
		var workers sync.WaitGroup
		for w := range 16 {
			workers.Go(func() {
				for i := w; i < len(batch); i += 16 {
					started, err := batch[i].Commit(t.Context())
					if err != nil {
						t.Errorf("start: %v", err)
						return
					}
					if _, err := n.Rotate(t.Context(), started.Tokens.Refresh, started.Session.Device); err != nil {
						t.Errorf("rotate: %v", err)
					}
				}
			})
		}
		workers.Wait()
		done += len(batch)
	}
}

func usedMemory(t testing.TB, db *redisdb.DB) int {
	t.Helper()
	info, err := db.Client().Do(context.WithoutCancel(t.Context()), db.Client().B().Info().Section("memory").Build()).ToString()
	must(t, err)
	for line := range strings.Lines(info) {
		if n, found := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); found {
			used, err := strconv.Atoi(n)
			must(t, err)
			return used
		}
	}
	t.Fatal("the server does not say how much memory it uses")
	return 0
}
