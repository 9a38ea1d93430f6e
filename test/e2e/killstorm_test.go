package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// One of two nodes is killed in the middle of a storm of refreshes, again and again, with sessions in SQL and in Redis. Every client
// asks both nodes at once: as long as one of them answers the client goes on, both say the same, and nobody is signed out.
func TestKillInARotationStorm(t *testing.T) {
	t.Parallel()
	if !hasPostgres() {
		return
	}
	run := func(name string, args ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := slices.Concat(quick(), []string{"--log-level", "error", "--issuer", "https://id.example.com"}, args)
			st := postgresStore(t)
			s := &rotationStorm{nodes: [2]*server{st.serve(t, args...), st.serve(t, args...)}}
			st.addUser(t, "storm@example.com")
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 24 {
				s.chains = append(s.chains, s.nodes[0].signIn(t, "storm@example.com").RefreshToken)
			}
			s.rotations = make([]atomic.Int64, len(s.chains))
			for i := range s.chains {
				clients.Go(func() {
					for ctx.Err() == nil && s.turn(t, i) {
					}
				})
			}
			for round := range 4 {
				s.everybodyGoesOn(t)
				s.node(round % 2).kill(t)
				s.everybodyGoesOn(t)
				s.replace(round%2, st.serve(t, args...))
			}
			s.everybodyGoesOn(t)
			stop()
			clients.Wait()
			for i, token := range s.chains {
				s.node(i%2).refresh(t, token)
			}
			t.Logf("%d refreshes lost their node", s.lost.Load())
		})
	}
	run("sql")
	if url := os.Getenv(redisVariable); url != "" {
		run("redis", "--redis", url)
	}
}

// settled is how long a client that lost an answer uses what it got from the other node before it refreshes again; others have ten
// minutes. What a killed process has asked of the database may still be carried out, and must not come after two more refreshes.
const settled = time.Second

// rotationStorm is clients that refresh, each with a chain of its own, on two nodes that come and go.
type rotationStorm struct {
	chains    []string // current tokens, each for one client
	rotations []atomic.Int64
	lost      atomic.Int64

	mu    sync.Mutex
	nodes [2]*server
}

func (s *rotationStorm) node(i int) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[i]
}

func (s *rotationStorm) replace(i int, with *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[i] = with
}

// turn is one refresh of one client, on both nodes at once; whoever got no answer keeps the token and tries again.
func (s *rotationStorm) turn(t *testing.T, i int) (goOn bool) {
	var answers [2]string
	var refused, lost atomic.Bool
	var both sync.WaitGroup
	for n := range answers {
		both.Go(func() {
			a, err := s.node(n).try(t.Context(), "POST /v1/sessions/refresh", map[string]string{"refresh_token": s.chains[i]})
			if err != nil {
				s.lost.Add(1)
				if !errors.Is(err, syscall.ECONNREFUSED) {
					lost.Store(true) // it may have got as far as the database
				}
				return
			}
			var got tokens
			if a.status != 200 || json.Unmarshal(a.body, &got) != nil {
				t.Errorf("refresh in the storm: %d %s", a.status, a.body)
				refused.Store(true)
			}
			answers[n] = got.RefreshToken
		})
	}
	both.Wait()
	switch one, other := answers[0], answers[1]; {
	case refused.Load():
		return false
	case one != "" && other != "" && one != other:
		t.Error("one token got two successors")
		return false
	case one != "" || other != "":
		s.chains[i] = max(one, other)
		s.rotations[i].Add(1)
	}
	if lost.Load() {
		<-time.After(settled)
	}
	return true
}

// everybodyGoesOn waits until every client has refreshed once more.
func (s *rotationStorm) everybodyGoesOn(t *testing.T) {
	t.Helper()
	was := make([]int64, len(s.rotations))
	for i := range was {
		was[i] = s.rotations[i].Load()
	}
	err := eventually(t.Context(), startPatience, "a refresh of everybody", func(context.Context) (bool, error) {
		for i := range was {
			if s.rotations[i].Load() == was[i] {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
