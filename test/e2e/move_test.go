package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	moveUsers   = 8
	moveDevices = 4 // each
)

// Operators take Redis into use, and give it up again, while everybody refreshes, and the command that moves the sessions is
// killed again and again. Nobody is signed out, no refresh family forks, and the sessions are where they were sent.
func TestMoveSessions(t *testing.T) {
	t.Parallel()
	url := os.Getenv(redisVariable)
	if url == "" {
		return
	}
	eachStore(t, func(t *testing.T, st store) {
		st.args = append(st.args, "SUMUN_REDIS="+url)
		for i := range moveUsers {
			st.addUser(t, moverAddress(i))
		}
		args := append(quick(), "--issuer", "https://id.example.com", "--log-level", "error")
		nodes := []*server{st.serve(t, append(args, "SUMUN_SESSIONS_STORE=sql")...)}
		if strings.Contains(strings.Join(st.args, " "), "postgres") {
			nodes = append(nodes, st.serve(t, append(args, "SUMUN_SESSIONS_STORE=redis")...))
		}
		chains := make([]tokens, moveUsers*moveDevices)
		for i := range chains {
			chains[i] = nodes[0].signIn(t, moverAddress(i%moveUsers))
		}
		stop := refreshWhileMoving(t, nodes, chains)
		for _, way := range []string{"redis", "sql", "redis", "sql"} {
			killed := st.moveThroughKills(t, way)
			t.Logf("moved to %s; the command was killed %d times", way, killed)
		}
		t.Logf("%d refreshes meanwhile", stop())
		status := st.command(t, "", "sessions", "status", "--check")
		if status.code != 0 || !strings.Contains(status.stdout, fmt.Sprintf("sql    %d       %d\nredis  0       0\n", moveUsers, len(chains))) {
			t.Errorf("status: %+v", status)
		}
		for i := range chains {
			got := nodes[i%len(nodes)].refresh(t, chains[i].RefreshToken)
			nodes[0].me(t, got.AccessToken)
		}
	})
}

func moverAddress(i int) string { return fmt.Sprintf("mover%d@example.com", i) }

// moveThroughKills runs the command until it comes to its end, and kills it most times.
func (st store) moveThroughKills(t *testing.T, to string) (killed int) {
	t.Helper()
	from := map[string]string{"sql": "redis", "redis": "sql"}[to]
	move := slices.Concat([]string{"sessions", "move", "--from", from, "--to", to, "--batch", "1"}, st.args)
	for range 12 {
		mover := launch(t, append(move, "--rate", "20")...)
		select {
		case <-mover.ended:
			return killed
		case <-time.After(50*time.Millisecond + rand.N(250*time.Millisecond)):
			if err := mover.cmd.Process.Signal(syscall.SIGKILL); err == nil {
				killed++
			}
			<-mover.ended
		}
	}
	if r := st.command(t, "", "sessions", "move", "--from", from, "--to", to); r.code != 0 || !strings.Contains(r.stdout, "moved ") {
		t.Errorf("the move to %s, left alone: %+v", to, r)
	}
	return killed
}

// refreshWhileMoving lets every device refresh, at both nodes at once, until stopped. Two answers to one token are a fork.
func refreshWhileMoving(t *testing.T, nodes []*server, chains []tokens) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	counts := make([]int, len(chains))
	for i := range chains {
		all.Go(func() {
			for ctx.Err() == nil {
				var got [2]tokens
				var errs [2]error
				together(2, func(n int) { got[n], errs[n] = nodes[n%len(nodes)].tryRefresh(t.Context(), chains[i].RefreshToken) })
				if errs[0] != nil || errs[1] != nil {
					t.Errorf("device %d, after %d refreshes: %v, %v", i, counts[i], errs[0], errs[1])
					return
				}
				if got[0].RefreshToken != got[1].RefreshToken {
					t.Errorf("device %d: the family forked after %d refreshes", i, counts[i])
					return
				}
				chains[i] = got[0]
				counts[i]++
				pauseFor(ctx, 10*time.Millisecond)
			}
		})
	}
	return func() (refreshes int) {
		cancel()
		all.Wait()
		for _, n := range counts {
			refreshes += 2 * n
		}
		return refreshes
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Who mistypes a move, or runs it where it cannot work, is told on one line, and nothing is moved.
func TestMoveRefuses(t *testing.T) {
	t.Parallel()
	url := os.Getenv(redisVariable)
	if url == "" {
		return
	}
	eachStore(t, func(t *testing.T, st store) {
		nothing := sqliteStore(t)
		move := []string{"sessions", "move", "--from", "sql", "--to"}
		wantOneLine(t, "no installation", nothing.command(t, "", append(move, "redis", "--redis", url)...), 1)
		st.addUser(t, "somebody@example.com")
		wantOneLine(t, "no redis", st.command(t, "", append(move, "redis")...), 1)
		wantOneLine(t, "a redis that does not answer", st.command(t, "", append(move, "redis", "--redis", "redis://127.0.0.1:1")...), 1)
		wantOneLine(t, "the same store", st.command(t, "", append(move, "sql", "--redis", url)...), 2)
		wantOneLine(t, "no store", st.command(t, "", append(move, "disk", "--redis", url)...), 2)
		wantOneLine(t, "a redis that no server uses", st.command(t, "", append(move, "redis", "--redis", url)...), 1)

		s := st.serve(t, "--redis", url, "SUMUN_SESSIONS_STORE=sql")
		s.signIn(t, "somebody@example.com")
		if r := st.command(t, "", append(move, "redis", "--redis", url)...); r.code != 0 || !strings.Contains(r.stdout, "moved 1 people with 1 sessions") {
			t.Errorf("a move that is right: %+v", r)
		}
		without := launch(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, st.args...)...)
		<-without.ended
		if code := without.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(without.stderr.String(), "sessions move --from redis --to sql") {
			t.Errorf("a node without Redis ended with %d: %s", code, without.stderr)
		}
		if r := st.command(t, "", "sessions", "move", "--from", "redis", "--to", "sql", "--redis", url); r.code != 0 {
			t.Errorf("a move back: %+v", r)
		}
	})
}
