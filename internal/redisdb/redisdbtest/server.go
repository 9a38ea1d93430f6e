package redisdbtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Server is a process of redis-server on a free port of this machine, for tests that take it away.
type Server struct {
	Addr string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
}

// Start starts a server that keeps every acknowledged write on disk, until the test ends. It needs the program redis-server.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	port := freePort(t)
	s := &Server{Addr: address(port), t: t}
	s.args = append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "yes",
		"--appendfsync", "always",
	}, args...)
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// URL is how redisdb.Open finds the server.
func (s *Server) URL() string { return "redis://" + s.Addr + "?timeout=1s" }

// Restart starts the server again after Kill, with what is on its disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	s.await("an answer", func(ctx context.Context) bool { return s.try(ctx, "PING") == "PONG" })
}

// Kill ends the server as a crash does. It may be called twice.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // as killed
}

// await asks again and again until the answer is yes, or the test fails.
func (s *Server) await(what string, yes func(ctx context.Context) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !yes(ctx) {
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: no %s in %v", s.Addr, what, patience)
		case <-tick.C:
		}
	}
}

// try runs a command and returns its answer as text, or "".
func (s *Server) try(ctx context.Context, command ...string) string {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, ForceSingleClient: true, DisableCache: true, ClientSetInfo: rueidis.DisableClientSetInfo,
		Dialer: net.Dialer{Timeout: time.Second}, DisableRetry: true,
	})
	if err != nil {
		return ""
	}
	defer client.Close()
	answer := client.Do(ctx, client.B().Arbitrary(command...).Build())
	if text, err := answer.ToString(); err == nil {
		return text
	}
	list, err := answer.ToArray()
	if err != nil {
		return ""
	}
	words := make([]string, len(list))
	for i, one := range list {
		words[i], _ = one.ToString() // what is no text is ""
	}
	return strings.Join(words, ":")
}

// Trio is a master with two replicas, watched by three Sentinels.
type Trio struct {
	Servers   []*Server // the first is the master, to begin with
	sentinels []*Server
}

const masterName = "sumun"

// StartTrio starts one, until the test ends.
func StartTrio(t testing.TB) *Trio {
	t.Helper()
	trio := &Trio{Servers: []*Server{Start(t)}}
	host, port, err := net.SplitHostPort(trio.Servers[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		trio.Servers = append(trio.Servers, Start(t, "--replicaof", host+" "+port))
	}
	for _, replica := range trio.Servers[1:] {
		replica.await("replication", func(ctx context.Context) bool {
			return strings.Contains(replica.try(ctx, "INFO", "replication"), "master_link_status:up")
		})
	}
	for range 3 {
		trio.sentinels = append(trio.sentinels, startSentinel(t, host, port))
	}
	for _, s := range trio.sentinels {
		s.await("quorum", func(ctx context.Context) bool {
			info := s.try(ctx, "INFO", "sentinel")
			return strings.Contains(info, "slaves=2") && strings.Contains(info, "sentinels=3")
		})
	}
	return trio
}

func startSentinel(t testing.TB, host, port string) *Server {
	t.Helper()
	own := freePort(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\nsentinel monitor %[2]s %[3]s %[4]s 2\nsentinel down-after-milliseconds %[2]s 500\n"+
		"sentinel failover-timeout %[2]s 5000\n", own, masterName, host, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: address(own), t: t, args: []string{file, "--sentinel"}}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// URL is how redisdb.Open finds the master.
func (trio *Trio) URL() string {
	var hosts []string
	for _, s := range trio.sentinels {
		hosts = append(hosts, s.Addr)
	}
	return "redis-sentinel://" + strings.Join(hosts, ",") + "/" + masterName + "?timeout=1s"
}

// FailOver kills the master and returns when another one has taken its place.
func (trio *Trio) FailOver() {
	old := trio.Servers[0]
	old.t.Helper()
	old.Kill()
	for _, s := range trio.sentinels {
		s.await("new master", func(ctx context.Context) bool {
			at := s.try(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)
			i := slices.IndexFunc(trio.Servers, func(one *Server) bool { return one.Addr == at })
			return i > 0 && strings.Contains(trio.Servers[i].try(ctx, "ROLE"), "master:")
		})
	}
}

// Cluster is three masters with a replica each.
type Cluster struct{ Servers []*Server } // masters first; the replica of the i-th is the i+3rd

// StartCluster starts one, until the test ends.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 6 {
		c.Servers = append(c.Servers, Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"))
	}
	ctx := t.Context()
	const slots = 16384
	for i, s := range c.Servers {
		s.try(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < 3 {
			s.try(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		}
		host, port, _ := net.SplitHostPort(c.Servers[0].Addr)
		s.try(ctx, "CLUSTER", "MEET", host, port)
	}
	c.await("six nodes", func(info string) bool { return strings.Contains(info, "cluster_known_nodes:6") })
	for i := range 3 {
		id := c.Servers[i].try(ctx, "CLUSTER", "MYID")
		c.Servers[i+3].await("replication", func(ctx context.Context) bool {
			return c.Servers[i+3].try(ctx, "CLUSTER", "REPLICATE", id) == "OK"
		})
	}
	c.await("whole cluster", func(info string) bool { return strings.Contains(info, "cluster_state:ok") })
	for _, replica := range c.Servers[3:] {
		replica.await("replication", func(ctx context.Context) bool {
			return strings.Contains(replica.try(ctx, "INFO", "replication"), "master_link_status:up")
		})
	}
	return c
}

// await asks all nodes for CLUSTER INFO until every answer is right.
func (c *Cluster) await(what string, right func(info string) bool) {
	for _, s := range c.Servers {
		s.t.Helper()
		s.await(what, func(ctx context.Context) bool { return right(s.try(ctx, "CLUSTER", "INFO")) })
	}
}

// URL is how redisdb.Open finds the nodes.
func (c *Cluster) URL() string {
	var hosts []string
	for _, s := range c.Servers {
		hosts = append(hosts, s.Addr)
	}
	return "redis-cluster://" + strings.Join(hosts, ",") + "?timeout=1s"
}

// FailOver kills the first master and returns when its replica has taken its place.
func (c *Cluster) FailOver() {
	old, heir := c.Servers[0], c.Servers[3]
	old.t.Helper()
	old.Kill()
	heir.await("promotion", func(ctx context.Context) bool {
		return strings.HasPrefix(heir.try(ctx, "ROLE"), "master:") &&
			strings.Contains(heir.try(ctx, "CLUSTER", "INFO"), "cluster_state:ok")
	})
}

// freePort finds a port that is free, and so is the one that a Cluster uses besides, 10000 above.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close() // it was only asked for its number
		if port > 55_000 {
			continue
		}
		if bus, err := net.Listen("tcp", address(port+10_000)); err == nil {
			_ = bus.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
