package session_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/session"
)

// Redis is killed in the middle of a storm of refreshes, twice, and comes back. With always nothing that was answered is lost by that,
// with everysec only what it held back while the disk was slow; after a power cut the end of the file is missing, which makes tokens
// ahead of the store.
// Never does a token get two successors, and never is anybody signed out.
func TestRedisKilled(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	for name, row := range map[string]struct {
		fsync string
		cut   int64            // bytes at the end of the file that never reached the disk
		fits  func(int64) bool // whether so many tokens may be ahead
	}{
		"always":              {"always", 0, func(ahead int64) bool { return ahead == 0 }},
		"everysec":            {"everysec", 0, func(int64) bool { return true }},
		"everysec, power cut": {"everysec", 20_000, func(ahead int64) bool { return ahead > 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			server := redisdbtest.Start(t, "--dir", folder, "--appendfsync", row.fsync)
			s := newStorm(t, newPlace(t, server.URL()))
			s.blow(t)
			for range 2 {
				server.Kill()
				s.calm(t)
				if row.cut > 0 {
					cutShort(t, folder, row.cut)
				}
				server.Restart()
				s.back()
				everybodyGoesOn(t, s.rotations)
			}
			s.end(t)
			ahead := s.outcomes(t, "ahead")
			if !row.fits(int64(ahead)) {
				t.Errorf("%d refreshes ahead of the store", ahead)
			}
			for _, outcome := range []string{"theft", "ended", "unknown", "expired", "invalid"} {
				if got := s.outcomes(t, outcome); got != 0 {
					t.Errorf("%d refreshes came to %q", got, outcome)
				}
			}
			if got := connections(t, s.nodes[0].redis); got > 20 {
				t.Errorf("%d connections were made after the last outage", got)
			}
			t.Logf("%d ahead, %d repeated, %d answered 503", ahead, s.outcomes(t, "repeated"), s.unavailable.Load())
		})
	}
}

// storm is many people who refresh on two nodes. Each asks both at once, as a client does that repeats itself.
type storm struct {
	nodes       []*node
	chains      []string // current tokens
	rotations   []atomic.Int64
	unavailable atomic.Int64
	waiting     atomic.Int64
	waits       sync.Map // of what clients were told to wait
	stop        chan struct{}
	running     sync.WaitGroup

	mu   sync.Mutex
	gate chan struct{} // closed while the store is there
}

func newStorm(t *testing.T, p *place) *storm {
	t.Helper()
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	cfg.Window = time.Minute // longer than an outage here
	s := &storm{stop: make(chan struct{}), gate: make(chan struct{})}
	s.nodes = []*node{newNode(t, p, cfg, c.Now, storeAt(nil)), newNode(t, p.again(t), cfg, c.Now, storeAt(nil))}
	for range 60 {
		s.chains = append(s.chains, s.nodes[0].signIn(t, session.Start{}).Tokens.Refresh)
	}
	s.rotations = make([]atomic.Int64, len(s.chains))
	close(s.gate)
	return s
}

// blow lets everybody begin, and returns when all have refreshed.
func (s *storm) blow(t *testing.T) {
	t.Helper()
	for i := range s.chains {
		s.running.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for s.turn(t, i) {
				select {
				case <-tick.C:
				case <-s.stop:
					return
				}
			}
		})
	}
	everybodyGoesOn(t, s.rotations)
}

// turn is one refresh of one client, on both nodes at once.
func (s *storm) turn(t *testing.T, i int) bool {
	var answers [2]session.Tokens
	var errs [2]error
	var both sync.WaitGroup
	for n := range s.nodes {
		both.Go(func() { answers[n], errs[n] = s.nodes[n].Refresh(t.Context(), s.chains[i], laptop) })
	}
	both.Wait()
	for _, err := range errs {
		switch {
		case errors.Is(err, session.ErrUnavailable):
			s.unavailable.Add(1)
			s.waits.Store(fault.From(err).RetryAfter().Truncate(time.Second), true)
		case err != nil:
			t.Errorf("refresh in the storm: %v", err)
			return false
		}
	}
	switch one, other := answers[0].Refresh, answers[1].Refresh; {
	case one == "" && other == "":
		return s.wait()
	case one != "" && other != "" && one != other:
		t.Errorf("one token got two successors")
		return false
	default:
		s.chains[i] = max(one, other)
		s.rotations[i].Add(1)
		return true
	}
}

// wait is what clients do that are told to come back later.
func (s *storm) wait() bool {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-gate:
		return true
	case <-s.stop:
		return false
	}
}

// calm closes the gate and returns when every client has been turned away.
func (s *storm) calm(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	s.gate = make(chan struct{})
	s.mu.Unlock()
	deadline, tick := time.After(time.Minute), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for s.waiting.Load() < int64(len(s.chains)) {
		select {
		case <-deadline:
			t.Fatalf("only %d of %d were turned away by an outage", s.waiting.Load(), len(s.chains))
		case <-tick.C:
		}
	}
}

// back opens the gate: all come at once, which is worse than what they were told.
func (s *storm) back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
}

// end stops everybody, who must then be able to go on.
func (s *storm) end(t *testing.T) {
	t.Helper()
	close(s.stop)
	s.running.Wait()
	for i := range s.chains {
		s.nodes[i%2].refresh(t, s.chains[i])
	}
	spread := 0
	s.waits.Range(func(_, _ any) bool { spread++; return true })
	if spread < 3 {
		t.Errorf("everybody was told to come back at the same time: %d different waits", spread)
	}
}

func (s *storm) outcomes(t *testing.T, outcome string) int {
	t.Helper()
	return s.nodes[0].outcomes(t, outcome) + s.nodes[1].outcomes(t, outcome)
}

// connections is how many a server has seen since it started.
func connections(t *testing.T, db *redisdb.DB) int {
	t.Helper()
	info, err := db.Client().Do(context.WithoutCancel(t.Context()), db.Client().B().Info().Section("stats").Build()).ToString()
	must(t, err)
	for line := range strings.Lines(info) {
		if n, found := strings.CutPrefix(strings.TrimSpace(line), "total_connections_received:"); found {
			count, err := strconv.Atoi(n)
			must(t, err)
			return count
		}
	}
	t.Fatal("the server does not say how many connections there were")
	return 0
}

// cutShort takes away the end of what a server has written, as a power cut does with what was not synced yet.
func cutShort(t *testing.T, folder string, by int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "appendonlydir", "*.incr.aof"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%d files of writes, want one", len(files))
	}
	info, err := os.Stat(files[0])
	must(t, err)
	must(t, os.Truncate(files[0], info.Size()-by))
}
