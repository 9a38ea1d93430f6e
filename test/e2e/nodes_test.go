package e2e_test

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// rotationBound is how soon every node must know the keys: it reads them every 30 s.
const rotationBound = 45 * time.Second

// revocationBound is how soon every node must refuse an ended session: it polls every 250 ms.
func revocationBound() time.Duration {
	if raceEnabled {
		return 10 * time.Second
	}
	return time.Second
}

// twoNodes starts two processes of one installation.
func twoNodes(t *testing.T, args ...string) (store, *server, *server) {
	t.Helper()
	st := postgresStore(t)
	args = append(args, "--issuer", "https://id.example.com")
	return st, st.serve(t, args...), st.serve(t, args...)
}

// Behind a load balancer nobody knows which node answers: what one node says, the other must hold to.
func TestTwoNodesAgree(t *testing.T) {
	t.Parallel()
	if !hasPostgres() {
		return
	}
	st, a, b := twoNodes(t)
	const email = "anywhere@example.com"
	st.addUser(t, email)
	onA, onB := a.signIn(t, email), b.signIn(t, email)
	if me := b.me(t, onA.AccessToken); me.Email != email {
		t.Errorf("B says of A's token: %+v", me)
	}
	a.me(t, onB.AccessToken)
	refreshed := b.refresh(t, onA.RefreshToken)
	if again := a.refresh(t, onA.RefreshToken); again.RefreshToken != refreshed.RefreshToken {
		t.Error("two nodes gave one refresh token two successors")
	}

	a.send(t, "DELETE /v1/sessions/"+onB.SessionID, nil, bearer(refreshed.AccessToken)).want(t, 204)
	a.wantDead(t, onB)
	took := timeUntilRefused(t, b, onB.AccessToken, revocationBound())
	t.Logf("the other node refuses an ended session after %v", took)
	b.wantDead(t, onB)
}

// When a signing key has leaked, one command must reach every node that runs, without signing anybody out.
func TestLeakedKeyReachesRunningNodes(t *testing.T) {
	t.Parallel()
	if !hasPostgres() {
		return
	}
	st, a, b := twoNodes(t)
	st.addUser(t, "anywhere@example.com")
	got := a.signIn(t, "anywhere@example.com")
	b.me(t, got.AccessToken)
	if r := st.command(t, "", "keys", "rotate", "--revoke-old"); r.code != 0 {
		t.Fatalf("keys rotate: %+v", r)
	}
	for _, node := range []*server{a, b} {
		took := timeUntilRefused(t, node, got.AccessToken, rotationBound)
		t.Logf("a node that runs refuses the old key after %v", took)
	}
	for _, node := range []*server{a, b} {
		got = node.refresh(t, got.RefreshToken)
		a.me(t, got.AccessToken)
		b.me(t, got.AccessToken)
	}
}

func timeUntilRefused(t *testing.T, s *server, access string, bound time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	if err := eventually(t.Context(), bound, "refusal of a dead access token", func(ctx context.Context) (bool, error) {
		got, err := s.try(ctx, "GET /v1/users/me", nil, bearer(access))
		return got.status == 401, err
	}); err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

// A node dies in the middle of the rush. Clients that simply try the other node go on, and nobody is signed out.
func TestNodeDiesWhileClientsRefresh(t *testing.T) {
	t.Parallel()
	if !hasPostgres() {
		return
	}
	const clients, rounds = 16, 20
	st, a, b := twoNodes(t, quick()...)
	first := make([]tokens, clients)
	for i := range first {
		email := "client" + strconv.Itoa(i) + "@example.com"
		if i < 4 { // four people with four devices each
			st.addUser(t, email)
		}
		first[i] = a.signIn(t, "client"+strconv.Itoa(i%4)+"@example.com")
	}
	var once sync.Once
	together(clients, func(i int) {
		current := first[i]
		for round := range rounds {
			if i == 0 && round == rounds/3 {
				once.Do(func() { a.kill(t) })
			}
			next, err := a.tryRefresh(t.Context(), current.RefreshToken)
			if err != nil { // the connection broke, or there is none
				next, err = b.tryRefresh(t.Context(), current.RefreshToken)
			}
			if err != nil {
				t.Errorf("client %d, round %d: %v", i, round, err)
				return
			}
			current = next
		}
		if _, err := b.tryRefresh(t.Context(), current.RefreshToken); err != nil {
			t.Errorf("client %d at the end: %v", i, err)
		}
	})
}

// With Redis, what strangers may cause is counted once, whichever node they reach.
func TestNodesCountTogether(t *testing.T) {
	t.Parallel()
	url := os.Getenv(redisVariable)
	if url == "" || !hasPostgres() {
		return
	}
	_, a, b := twoNodes(t, "--redis", url, "SUMUN_HTTP_TRUSTED_PROXIES=127.0.0.0/8", "SUMUN_IDENTITY_REQUESTS_MAILS_PER_CLIENT=4")
	from := header("X-Forwarded-For", "198.51.100.7")
	for i := range 4 {
		node := []*server{a, b}[i%2]
		node.send(t, "POST /v1/users", map[string]string{"email": "someone" + strconv.Itoa(i) + "@example.com"}, from).want(t, 202)
	}
	for _, node := range []*server{a, b} {
		refused := node.send(t, "POST /v1/users", map[string]string{"email": "more@example.com"}, from)
		refused.wantProblem(t, 429, "identity.too_many_requests")
		if refused.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		node.send(t, "POST /v1/users", map[string]string{"email": "more@example.com"}, header("X-Forwarded-For", "198.51.100.8")).want(t, 202)
	}
}
