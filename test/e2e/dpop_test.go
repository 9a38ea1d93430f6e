package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	"github.com/sumunio/sumun/auth"
)

// key is a client's, which never leaves it.
type key struct {
	*auth.Prover
	issuer string // where proofs are for, whichever node gets them
}

func newKey(t testing.TB, issuer string) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := auth.NewProver(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{p, issuer}
}

// proves sends a proof with a request, and the access token, if there is one, in the scheme DPoP.
func (k key) proves(access, nonce string) option {
	return func(r *http.Request) {
		proof, err := k.Proof(r.Method, k.issuer+r.URL.Path, access, nonce)
		if err != nil {
			panic(err)
		}
		r.Header.Set("DPoP", proof)
		if access != "" {
			r.Header.Set("Authorization", "DPoP "+access)
		}
	}
}

// Tokens that were stolen from a client that proves a key are worth nothing to the thief, on any node, and the client goes on.
func TestStolenTokensWithoutTheirKey(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		s := st.serve(t)
		const email = "bound@example.com"
		st.addUser(t, email)
		mine, thief := newKey(t, s.issuer), newKey(t, s.issuer)
		got, err := s.exchange(t.Context(), 201, "POST /v1/sessions", credentials(email, password), mine.proves("", ""))
		if err != nil || got.TokenType != "DPoP" {
			t.Fatalf("sign in with a proof: type %q, %v", got.TokenType, err)
		}
		me := "GET /v1/users/me"
		s.send(t, me, nil, mine.proves(got.AccessToken, "")).want(t, 200)
		refused := s.send(t, me, nil, bearer(got.AccessToken))
		refused.wantProblem(t, 401, "auth.bound")
		if challenge := refused.header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, `DPoP realm="sumun", algs="`) {
			t.Errorf("challenge %s", challenge)
		}
		s.send(t, me, nil, thief.proves(got.AccessToken, "")).wantProblem(t, 401, "auth.dpop_key")
		body := map[string]string{"refresh_token": got.RefreshToken}
		refresh := "POST /v1/sessions/refresh"
		s.send(t, refresh, body).wantProblem(t, 401, "session.proof_required")
		s.send(t, refresh, body, thief.proves("", "")).wantProblem(t, 401, "session.wrong_key")
		fresh, err := s.exchange(t.Context(), 200, refresh, body, mine.proves("", ""))
		if err != nil || fresh.TokenType != "DPoP" {
			t.Fatalf("refresh with a proof: type %q, %v", fresh.TokenType, err)
		}
		s.send(t, "DELETE /v1/sessions/current", nil, mine.proves(fresh.AccessToken, "")).want(t, 204)
		s.send(t, me, nil, mine.proves(fresh.AccessToken, "")).wantProblem(t, 401, "auth.revoked")
	})
}

// Behind a load balancer a proof that was used on one node is used up on the other; and a nonce of one is good on the other.
func TestProofsOnTwoNodes(t *testing.T) {
	t.Parallel()
	if !hasPostgres() {
		return
	}
	st, a, b := twoNodes(t, "SUMUN_SESSIONS_DPOP=required", "SUMUN_SESSIONS_DPOP_NONCE=required")
	const email = "bound@example.com"
	st.addUser(t, email)
	mine := newKey(t, "https://id.example.com")
	signIn := "POST /v1/sessions"
	a.send(t, signIn, credentials(email, password)).wantProblem(t, 401, "session.proof_required")
	first := a.send(t, signIn, credentials(email, password), mine.proves("", ""))
	first.wantProblem(t, 401, "auth.dpop_nonce")
	nonce := first.header.Get("DPoP-Nonce")
	var same string
	proof := func(r *http.Request) {
		if same == "" {
			mine.proves("", nonce)(r)
			same = r.Header.Get("DPoP")
		}
		r.Header.Set("DPoP", same)
	}
	got, err := b.exchange(t.Context(), 201, signIn, credentials(email, password), proof)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []*server{a, b} {
		node.send(t, signIn, credentials(email, password), proof).wantProblem(t, 401, "auth.dpop_replayed")
		node.send(t, "GET /v1/users/me", nil, mine.proves(got.AccessToken, nonce)).want(t, 200)
	}
}
