package pubsub_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/pubsub"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// natsAddress, in the environment of this test, makes it a NATS server instead: one that can be killed.
const natsAddress = "PUBSUB_TEST_SERVE_NATS"

// natsBinary names a nats-server to test with instead of the one that is linked in.
const natsBinary = "SUMUN_TEST_NATS_SERVER"

func TestMain(m *testing.M) {
	if address := os.Getenv(natsAddress); address != "" {
		serveNATS(address)
		return
	}
	os.Exit(m.Run())
}

func serveNATS(address string) {
	listener, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{Host: listener.IP.String(), Port: listener.Port, NoSigs: true, NoLog: true})
	if err != nil {
		panic(err)
	}
	s.Start()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test has gone
	s.Shutdown()
}

// node is what NATS and Redis are to their users.
type node interface {
	Publish(ctx context.Context, subject string, payload []byte) error
	Subscribe(ctx context.Context, subject string, message func(payload []byte), gap func()) (stop func(), err error)
	Healthy(ctx context.Context) error
	Name() string
	Close()
}

// world is an installation: what its nodes reach each other through.
type world struct {
	// start opens another node.
	start func(deps pubsub.Deps) (node, error)
	// down takes away what connects the nodes, up brings it back.
	down, up func(t testing.TB)
	// alone says that a node that is cut off goes on for itself, and Publish does not fail.
	alone bool
}

// open starts a node that is closed when the test ends.
func (w *world) open(t testing.TB) node {
	t.Helper()
	n, err := w.start(deps())
	must(t, err)
	t.Cleanup(n.Close)
	return n
}

func deps() pubsub.Deps {
	return pubsub.Deps{Clock: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
}

// worlds are all implementations. Each call makes another installation.
func worlds() map[string]func(t testing.TB) *world {
	all := map[string]func(testing.TB) *world{"embedded": newEmbedded, "nats": newNATS}
	if redisdbtest.Listed() {
		all["redis"], all["redis-cluster"] = newRedis, newRedisCluster
	}
	return all
}

// newEmbedded is a cluster of embedded servers, each behind a relay that can be cut.
func newEmbedded(t testing.TB) *world {
	var mu sync.Mutex
	var relays []*relay
	var routes []string
	secret := rand.Text()
	return &world{
		start: func(d pubsub.Deps) (node, error) {
			mu.Lock()
			defer mu.Unlock()
			listen := freeAddress(t)
			way := newRelay(t, listen)
			cfg := pubsub.DefaultConfig()
			cfg.Cluster.Listen, cfg.Cluster.Advertise, cfg.Cluster.Routes = listen, way.address, routes
			cfg.Cluster.Secret = "s3cr@t/" + keyring.Secret(secret)
			relays, routes = append(relays, way), append(routes, way.address)
			n, err := pubsub.OpenNATS(context.Background(), cfg, d)
			if err != nil {
				return nil, err
			}
			return embeddedNode{n, way}, nil
		},
		down: func(testing.TB) {
			for _, way := range relays {
				way.cut()
			}
		},
		up: func(testing.TB) {
			for _, way := range relays {
				way.mend()
			}
		},
		alone: true,
	}
}

// embeddedNode takes its relay along.
type embeddedNode struct {
	*pubsub.NATS
	way *relay
}

func (n embeddedNode) Close() {
	n.NATS.Close()
	n.way.close()
}

func newNATS(t testing.TB) *world {
	address := freeAddress(t)
	p := &process{address: address, command: func() *exec.Cmd {
		if binary := os.Getenv(natsBinary); binary != "" {
			host, port, _ := strings.Cut(address, ":")
			return exec.Command(binary, "-a", host, "-p", port)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), natsAddress+"="+address)
		return c
	}}
	p.start(t)
	cfg := pubsub.DefaultConfig()
	cfg.URL = keyring.Secret("nats://" + address)
	return &world{
		start: func(d pubsub.Deps) (node, error) { return opened(pubsub.OpenNATS(context.Background(), cfg, d)) },
		down:  p.kill, up: p.start,
	}
}

func newRedis(t testing.TB) *world {
	p := redisServer(t, freeAddress(t))
	p.start(t)
	return &world{
		start: func(d pubsub.Deps) (node, error) { return openRedis("redis://"+p.address, d) },
		down:  p.kill, up: p.start,
	}
}

// redisServer is a Redis that keeps nothing.
func redisServer(t testing.TB, address string, more ...string) *process {
	folder := t.TempDir()
	_, port, _ := strings.Cut(address, ":")
	return &process{address: address, command: func() *exec.Cmd {
		args := []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", folder}
		return exec.Command("redis-server", append(args, more...)...)
	}}
}

// redisNode closes its connection to Redis as well.
type redisNode struct {
	*pubsub.Redis
	db *redisdb.DB
}

func (n redisNode) Close() {
	n.Redis.Close()
	n.db.Close()
}

func openRedis(url string, d pubsub.Deps) (node, error) {
	db, err := redisdb.Open(context.Background(), url)
	if err != nil {
		return nil, err
	}
	cfg := pubsub.DefaultConfig()
	cfg.URL = pubsub.OverRedis
	n, err := pubsub.OpenRedis(context.Background(), db, cfg, d)
	if err != nil {
		db.Close()
		return nil, err
	}
	return redisNode{n, db}, nil
}

func opened(n *pubsub.NATS, err error) (node, error) {
	if err != nil {
		return nil, err
	}
	return n, nil
}

// process is a server of the test's own.
type process struct {
	address string
	command func() *exec.Cmd

	running *exec.Cmd
	stdin   io.Closer
}

// start starts it and waits until it accepts connections. It is killed when the test ends.
func (p *process) start(t testing.TB) {
	t.Helper()
	c := p.command()
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	in, err := c.StdinPipe()
	must(t, err)
	must(t, c.Start())
	p.running, p.stdin = c, in
	t.Cleanup(func() { p.stop() })
	eventually(t, "the server answers at "+p.address, func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (p *process) kill(t testing.TB) {
	t.Helper()
	p.stop()
}

func (p *process) stop() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill()
	_ = p.running.Wait() // says that it was killed
	_ = p.stdin.Close()
	p.running = nil
}

// relay is a way to an address that can be cut.
type relay struct {
	address, target string
	listener        net.Listener

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]struct{}
	running sync.WaitGroup
}

func newRelay(t testing.TB, target string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{address: l.Addr().String(), target: target, listener: l, conns: map[net.Conn]struct{}{}}
	r.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.carry(conn) })
		}
	})
	t.Cleanup(r.close)
	return r
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.cut()
	r.running.Wait()
}

func (r *relay) carry(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer to.Close()
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.conns[from], r.conns[to] = struct{}{}, struct{}{}
	r.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
	_, _ = from.Close(), to.Close()
	<-done
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for conn := range r.conns {
		_ = conn.Close()
	}
	clear(r.conns)
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// recorder is a subscriber that remembers.
type recorder struct {
	mu   sync.Mutex
	got  []string
	gaps int
}

// record subscribes, until the test ends.
func record(t testing.TB, n node, subject string) *recorder {
	t.Helper()
	r := &recorder{}
	stop, err := n.Subscribe(t.Context(), subject, r.message, r.gap)
	must(t, err)
	t.Cleanup(stop)
	return r
}

func (r *recorder) message(payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, string(payload))
}

func (r *recorder) gap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaps++
}

// has returns the messages that begin with prefix, and how many gaps there were.
func (r *recorder) has(prefix string) (got []string, gaps int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.got {
		if strings.HasPrefix(one, prefix) {
			got = append(got, one)
		}
	}
	return got, r.gaps
}

// meet returns once every node reaches every recorder: in a cluster, word of a subscription takes a moment.
func meet(t testing.TB, subject string, nodes []node, recorders ...*recorder) {
	t.Helper()
	for _, n := range nodes {
		for _, r := range recorders {
			hello := "hello " + rand.Text()
			eventually(t, "the nodes reach each other", func() bool {
				_ = n.Publish(t.Context(), subject, []byte(hello)) // it may take a while to succeed
				got, _ := r.has(hello)
				return len(got) > 0
			})
		}
	}
}

func subject() string { return "test." + strings.ToLower(rand.Text()) }

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, n node, subject, format string, args ...any) {
	t.Helper()
	if err := n.Publish(t.Context(), subject, fmt.Appendf(nil, format, args...)); err != nil {
		t.Errorf("publish through %s: %v", n.Name(), err)
	}
}
