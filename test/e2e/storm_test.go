package e2e_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	stormClients  = 200
	stormDuration = 4 * time.Second
)

// stormBound is generous, for a slow machine that runs the clients and other tests as well; the number is in the log.
func stormBound() time.Duration {
	if raceEnabled {
		return 10 * time.Second
	}
	return 2 * time.Second
}

// Everybody signs in at the same second. Some are asked to come again; those who are signed in already notice nothing.
func TestSignInStorm(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		const email = "everybody@example.com"
		st.addUser(t, email)
		s := st.serve(t, "--limits", "off", "--log-level", "error", "SUMUN_SESSIONS_LIMIT=10000")
		var refreshing []tokens
		for range 4 {
			refreshing = append(refreshing, s.signIn(t, email))
		}
		ctx, cancel := context.WithTimeout(t.Context(), stormDuration)
		defer cancel()
		rush := storm{s: s, email: email}
		var all sync.WaitGroup
		for range stormClients {
			all.Go(func() { rush.client(t, ctx) })
		}
		times := make([][]time.Duration, len(refreshing))
		for i := range refreshing {
			all.Go(func() { times[i] = refreshUntil(t, ctx, s, refreshing[i]) })
		}
		all.Wait()
		took := slices.Sorted(slices.Values(slices.Concat(times...)))
		if len(took) == 0 {
			t.Fatal("nobody could refresh")
		}
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		t.Logf("%d signed in, %d asked to come again; %d refreshes, p50 %v, p99 %v", rush.in.Load(), rush.later.Load(), len(took), p50, p99)
		if rush.in.Load() == 0 || rush.later.Load() == 0 {
			t.Error("it was no storm, or nobody got in")
		}
		if p99 > stormBound() {
			t.Errorf("refreshing took %v (p99) while others signed in", p99)
		}
	})
}

// storm counts what happened to those who sign in.
type storm struct {
	s         *server
	email     string
	in, later atomic.Int64
}

// client signs in as a person would who is asked to come again: after the time named, until the storm is over.
func (st *storm) client(t *testing.T, ctx context.Context) {
	for ctx.Err() == nil {
		a, err := st.s.try(t.Context(), "POST /v1/sessions", credentials(st.email, password))
		switch {
		case err != nil:
			t.Errorf("sign in: %v", err)
			return
		case a.status == 201:
			st.in.Add(1)
		case a.code() == "identity.busy" && a.status == 503 && a.header.Get("Retry-After") != "":
			st.later.Add(1)
		default:
			t.Errorf("sign in: %d %s", a.status, a.body)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// refreshUntil refreshes again and again, and times it.
func refreshUntil(t *testing.T, ctx context.Context, s *server, current tokens) (took []time.Duration) {
	for ctx.Err() == nil {
		began := time.Now()
		next, err := s.tryRefresh(t.Context(), current.RefreshToken)
		if err != nil {
			t.Errorf("refresh: %v", err)
			return took
		}
		took = append(took, time.Since(began))
		current = next
	}
	return took
}
