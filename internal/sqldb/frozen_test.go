package sqldb_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// proxy stands between the program and its server. While it is frozen, everything is accepted and nothing gets through, new
// connections included: what is left of a server behind a load balancer that has lost it.
type proxy struct{ gate sync.RWMutex } // locked while frozen

// through returns the URL of the server by way of a proxy.
func through(t *testing.T, server string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, behind := &proxy{}, u.Host
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.connect(client, behind) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) connect(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			p.gate.RLock()
			_, failed := to.Write(buf[:n])
			p.gate.RUnlock()
			if err != nil || failed != nil {
				return
			}
		}
	}
	wg.Go(func() { pass(server, client) })
	wg.Go(func() { pass(client, server) })
	wg.Wait()
}

// People who sign in must not wait for ever, nor the server's goroutines, when the database has gone without a word.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, direct *sqldb.DB) {
		if direct.Engine() == sqldb.SQLite {
			return // there is no connection that could freeze
		}
		p, address := through(t, direct.Config().URL)
		db, err := openURL(t, address)
		if err != nil {
			t.Fatal(err)
		}
		p.gate.Lock()
		thaw := sync.OnceFunc(p.gate.Unlock)
		defer thaw()
		for name, work := range map[string]func(context.Context) error{
			"query": func(ctx context.Context) error {
				_, err := sqldb.One(ctx, db.Reader(), scanInt64, `SELECT n FROM counters WHERE name = $1`, "a")
				return err
			},
			"statement": func(ctx context.Context) error {
				_, err := db.Writer().ExecContext(ctx, add, 1, "a")
				return err
			},
			"transaction": func(ctx context.Context) error {
				return db.Write(ctx, func(tx sqldb.Tx) error {
					_, err := tx.ExecContext(ctx, add, 1, "a")
					return err
				})
			},
			"ping": db.Ping,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			start := time.Now()
			if err := work(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want the deadline", name, err)
			}
			if waited := time.Since(start); waited > 5*time.Second {
				t.Errorf("%s: waited %v", name, waited)
			}
			cancel()
		}
		thaw()
		if _, err := db.Writer().ExecContext(t.Context(), add, 1, "b"); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		if n := counter(t, direct.Reader(), "b"); n != 1 {
			t.Errorf("counter is %d, want 1", n)
		}
	})
}

func TestServerFreezesWithinATransaction(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, direct *sqldb.DB) {
		if direct.Engine() == sqldb.SQLite {
			return
		}
		p, address := through(t, direct.Config().URL)
		db, err := openURL(t, address)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		err = db.Write(ctx, func(tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, add, 1, "a"); err != nil {
				return err
			}
			p.gate.Lock()
			_, err := tx.ExecContext(ctx, add, 1, "a")
			return err
		})
		p.gate.Unlock()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if waited := time.Since(start); waited > 6*time.Second {
			t.Errorf("waited %v", waited)
		}
		if n := counter(t, direct.Reader(), "a"); n != 0 {
			t.Errorf("counter is %d, want 0", n)
		}
	})
}
