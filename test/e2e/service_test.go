package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// follower is a service of a third party: its verifier, and where it keeps its snapshot.
func follower(t *testing.T, s *server, c program, snapshot string) *auth.Verifier {
	t.Helper()
	credentials, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{Issuer: s.issuer, ID: c.ID, Secret: c.Secret})
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.New(auth.Config{
		Issuer: s.issuer, Credentials: credentials, Log: slog.New(slog.DiscardHandler),
		Snapshot: auth.SnapshotConfig{Path: snapshot, Key: bytes.Repeat([]byte("k"), 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keepUp runs a verifier until the returned function is called.
func keepUp(t *testing.T, v *auth.Verifier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// What the first two promises are for somebody else's service: an ended session is refused there a moment later, and when Sumun is
// killed the service goes on, and even starts, and still refuses what was ended.
func TestServiceStandsAndRevokes(t *testing.T) {
	st := sqliteStore(t)
	client := st.addClient(t, "--name", "Orders", "--grant", "client_credentials", "--scope", auth.FeedScope)
	st.addUser(t, "owner@example.com")
	s := st.serve(t, quick()...)
	snapshot := filepath.Join(t.TempDir(), "auth.snapshot")
	v := follower(t, s, client, snapshot)
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.Fresh(); err != nil {
		t.Errorf("after Load: %v", err)
	}
	stop := keepUp(t, v)

	var ended string
	var took []time.Duration
	for range 40 {
		one := s.signIn(t, "owner@example.com")
		claims, err := v.Verify(t.Context(), one.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		v.Watch(claims, func(err error) { told <- err })
		began := time.Now()
		s.send(t, "DELETE /v1/sessions/current", nil, bearer(one.AccessToken)).want(t, 204)
		select {
		case err := <-told:
			took = append(took, time.Since(began))
			if !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("the watch says %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the service never got to know")
		}
		if _, err := v.Verify(t.Context(), one.AccessToken); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("an ended session: %v", err)
		}
		ended = one.AccessToken
	}
	slices.Sort(took)
	t.Logf("from DELETE to the service: p50 %v, longest %v of %d", took[len(took)/2], took[len(took)-1], len(took))

	living := s.signIn(t, "owner@example.com").AccessToken
	s.kill(t)
	if _, err := v.Verify(t.Context(), living); err != nil {
		t.Errorf("while Sumun is down: %v", err)
	}
	stop()
	again := follower(t, s, client, snapshot)
	if err := again.Load(t.Context()); err != nil {
		t.Fatalf("start while Sumun is down: %v", err)
	}
	if _, err := again.Verify(t.Context(), living); err != nil {
		t.Errorf("after a start while Sumun is down: %v", err)
	}
	if _, err := again.Verify(t.Context(), ended); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("an ended session, after a start while Sumun is down: %v", err)
	}
	if age := again.Staleness(); age <= 0 || age > time.Minute {
		t.Errorf("the service thinks that it knows what was revoked %v ago", age)
	}
}
