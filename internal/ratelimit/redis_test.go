package ratelimit_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// openRedis returns a limiter on the test's Redis. Its clock is Redis's own: time passes by moving what is stored back.
func openRedis(t testing.TB) limiter {
	db := redisdbtest.Open(t)
	prefix := redisdbtest.Prefix(t, db)
	l := ratelimit.NewRedis(db, ratelimit.RedisConfig{
		Prefix: prefix, Secret: []byte("secret"), Clock: time.Now, Log: failOnLog(t),
	})
	return limiter{l, func(d time.Duration) {
		for _, key := range keysOf(t, db, prefix) {
			by := db.Client().B().Decrby().Key(key).Decrement(d.Microseconds()).Build()
			if err := db.Client().Do(t.Context(), by).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}}
}

// failOnLog makes a fall-back to memory, which would pass the suite, a failure.
func failOnLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		t.Errorf("logged: %s", p)
		return len(p), nil
	}), nil))
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func keysOf(t testing.TB, db *redisdb.DB, prefix string) (keys []string) {
	t.Helper()
	for _, node := range db.Client().Nodes() {
		found, err := node.Do(t.Context(), node.B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, found...)
	}
	return keys
}

// TestRedis lists what is Redis's alone.
func TestRedis(t *testing.T) {
	t.Parallel()
	if redisdbtest.Listed() {
		t.Run("holds no addresses", testHoldsNoAddresses)
		t.Run("stops nobody by an outage", testOutageStopsNobody)
	}
}

func testHoldsNoAddresses(t *testing.T) {
	t.Parallel()
	db := redisdbtest.Open(t)
	prefix := redisdbtest.Prefix(t, db)
	take := func(secret string) {
		l := ratelimit.NewRedis(db, ratelimit.RedisConfig{Prefix: prefix, Secret: []byte(secret), Clock: time.Now, Log: failOnLog(t)})
		if _, err := l.Take(t.Context(), hourly, "sumin@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	take("one secret")
	take("one secret")
	take("another secret")
	keys := keysOf(t, db, prefix)
	if len(keys) != 2 {
		t.Errorf("keys %q, want one for each secret", keys)
	}
	for _, key := range keys {
		if strings.Contains(key, "sumin") || !strings.HasPrefix(key, prefix+"test.hourly:") {
			t.Errorf("key %q", key)
		}
		left, err := db.Client().Do(t.Context(), db.Client().B().Pttl().Key(key).Build()).AsInt64()
		if full := 2 * time.Hour.Milliseconds(); err != nil || left <= 0 || left > full {
			t.Errorf("%s goes away in %d ms, %v; want when the burst is full again", key, left, err)
		}
	}
}

// testOutageStopsNobody: the limiter is cut off from Redis, counts on, says so once, and finds its way back.
func testOutageStopsNobody(t *testing.T) {
	t.Parallel()
	way := newRelay(t)
	db, err := redisdb.Open(t.Context(), way.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	prefix := redisdbtest.Prefix(t, redisdbtest.Open(t))
	var log bytes.Buffer
	c := clocktest.Noon()
	l := ratelimit.NewRedis(db, ratelimit.RedisConfig{
		Prefix: prefix, Clock: c.Now, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	allowed := func(key string, n int) (count int) {
		for range n {
			v, err := l.Take(t.Context(), hourly, key)
			if err != nil {
				t.Errorf("an outage reached a person: %v", err)
			}
			if v.Allowed {
				count++
			}
		}
		return count
	}
	if n := allowed("a", 5); n != 3 {
		t.Errorf("with Redis %d of 5 were allowed, want 3", n)
	}
	way.cut()
	if n := allowed("a", 5); n != 3 { // this node starts over
		t.Errorf("without Redis %d of 5 were allowed, want 3", n)
	}
	for range 10 {
		c.Advance(5 * time.Second)
		allowed("b", 1)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("logged %d times in 50 seconds, want once:\n%s", n, &log)
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log tells a password:\n%s", &log)
	}
	way.mend()
	c.Advance(5 * time.Second)
	if n := allowed("a", 5); n != 0 {
		t.Errorf("back with Redis %d of 5 were allowed, want 0", n)
	}
}

// relay stands between a client and the test's Redis, which is a single server here.
type relay struct {
	url    string
	server string
	mu     sync.Mutex
	conns  []net.Conn
	broken bool
}

func newRelay(t testing.TB) *relay {
	t.Helper()
	u, err := url.Parse(os.Getenv(redisdbtest.Variable))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{server: u.Host}
	if u.Port() == "" {
		r.server = net.JoinHostPort(u.Hostname(), "6379")
	}
	u.Host = listener.Addr().String()
	r.url = u.String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.join(conn, &wg)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut()
		wg.Wait()
	})
	return r
}

// join connects a client, unless the way is cut.
func (r *relay) join(client net.Conn, wg *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	server, err := net.Dial("tcp", r.server)
	if err != nil || r.broken {
		_ = client.Close()
		return
	}
	r.conns = append(r.conns, client, server)
	wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	wg.Go(func() { _, _ = io.Copy(client, server); _ = client.Close() })
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = true
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = false
}

func BenchmarkRedis(b *testing.B) {
	if redisdbtest.Listed() {
		b.Run("take", func(b *testing.B) { bench(b, openRedis(b)) })
	}
}
