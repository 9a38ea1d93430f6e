package pubsub_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/internal/pubsub"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// newRedisCluster is three servers that share the slots. All of them are taken away at once.
func newRedisCluster(t testing.TB) *world {
	processes := make([]*process, 3)
	addresses := make([]string, 3)
	for i := range processes {
		address := freeAddress(t)
		bus := freeAddress(t)
		processes[i] = redisServer(t, address, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-port", bus[strings.LastIndexByte(bus, ':')+1:])
		processes[i].start(t)
		addresses[i] = address
	}
	for i, from := range []string{"0", "5461", "10923"} {
		to := []string{"5460", "10922", "16383"}[i]
		commands := [][]string{{"CLUSTER", "ADDSLOTSRANGE", from, to}}
		if i > 0 {
			host, port, _ := strings.Cut(addresses[0], ":")
			bus := busPort(t, addresses[0])
			commands = append(commands, []string{"CLUSTER", "MEET", host, port, bus})
		}
		for _, c := range commands {
			must(t, command(t, addresses[i], c...).Error())
		}
	}
	ready := func(t testing.TB) {
		for _, address := range addresses {
			eventually(t, "the cluster is ready", func() bool {
				info, err := command(t, address, "CLUSTER", "INFO").ToString()
				return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
			})
		}
	}
	ready(t)
	return &world{
		start: func(d pubsub.Deps) (node, error) {
			return openRedis("redis-cluster://"+strings.Join(addresses, ","), d)
		},
		down: func(t testing.TB) {
			for _, p := range processes {
				p.kill(t)
			}
		},
		up: func(t testing.TB) {
			for _, p := range processes {
				p.start(t)
			}
			ready(t)
		},
	}
}

// command sends one command to one server.
func command(t testing.TB, address string, words ...string) rueidis.RedisResult {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{address}, ForceSingleClient: true, DisableCache: true,
	})
	must(t, err)
	defer c.Close()
	return c.Do(t.Context(), c.B().Arbitrary(words...).Build())
}

// busPort asks a server under which port the others of its cluster reach it: "id host:port@bus ...".
func busPort(t testing.TB, address string) string {
	t.Helper()
	nodes, err := command(t, address, "CLUSTER", "NODES").ToString()
	must(t, err)
	_, rest, _ := strings.Cut(nodes, "@")
	port, _, _ := strings.Cut(rest, " ")
	port, _, _ = strings.Cut(port, ",")
	return port
}

// TestRedis lists what is Redis's alone.
func TestRedis(t *testing.T) {
	t.Parallel()
	if redisdbtest.Listed() {
		t.Run("a user with few permissions", testRedisUser)
		t.Run("a listener that Redis disconnects", testRedisDisconnects)
	}
}

// testRedisUser signs in as a user who may do what is documented, and nothing else.
func testRedisUser(t *testing.T) {
	t.Parallel()
	p := redisServer(t, freeAddress(t))
	p.start(t)
	must(t, command(t, p.address, "ACL", "SETUSER", "sumun", "on", ">pw", "&sumun.*", "+ping", "+publish", "+subscribe",
		"+unsubscribe").Error())
	n, err := openRedis("redis://sumun:pw@"+p.address, deps())
	must(t, err)
	t.Cleanup(n.Close)
	s := subject()
	meet(t, s, []node{n}, record(t, n, s))

	// Redis disconnects who listens to what is no longer allowed. Whoever looks is told why there is no connection.
	r := record(t, n, s)
	must(t, command(t, p.address, "ACL", "SETUSER", "sumun", "resetchannels").Error())
	eventually(t, "it is refused", func() bool {
		_, err := n.Subscribe(t.Context(), subject(), func([]byte) {}, func() {})
		return errors.Is(err, pubsub.ErrUnavailable) && strings.Contains(err.Error(), "NOPERM")
	})
	if err := n.Healthy(t.Context()); !errors.Is(err, pubsub.ErrUnavailable) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("healthy: %v", err)
	}
	must(t, command(t, p.address, "ACL", "SETUSER", "sumun", "&sumun.*").Error())
	eventually(t, "a gap", func() bool { _, gaps := r.has(""); return gaps > 0 })
	meet(t, s, []node{n}, r)
}

// testRedisDisconnects: what Redis does with a listener that reads too slowly is a gap, and mends itself.
func testRedisDisconnects(t *testing.T) {
	t.Parallel()
	w := newRedis(t)
	a, b := w.open(t), w.open(t)
	s := subject()
	r := record(t, b, s)
	meet(t, s, []node{a}, r)
	u, err := url.Parse(a.Name())
	must(t, err)
	must(t, command(t, u.Host, "CLIENT", "KILL", "TYPE", "pubsub").Error())
	eventually(t, "a gap", func() bool { _, gaps := r.has(""); return gaps > 0 })
	meet(t, s, []node{a}, r)
}

// On the Redis that the other tests use, whatever it is.
func TestRedisOfTheTests(t *testing.T) {
	t.Parallel()
	if !redisdbtest.Listed() {
		return // the suite says so
	}
	n, err := openRedis(os.Getenv(redisdbtest.Variable), deps())
	must(t, err)
	t.Cleanup(n.Close)
	s := subject()
	meet(t, s, []node{n}, record(t, n, s))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, n.Healthy(ctx))
	closed := freeAddress(t)
	if _, err := openRedis("redis://user:hunter2@"+closed, deps()); !errors.Is(err, redisdb.ErrUnreachable) {
		t.Errorf("where nobody is: %v", err)
	}
}
