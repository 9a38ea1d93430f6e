package e2e_test

import (
	"strings"
	"testing"
)

// Whoever copied a refresh token and used it must not stay in: the first reuse ends the session for both, and its owner is
// told.
func TestTheft(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email = "owner@example.com"
		st.addUser(t, email)
		s := st.serve(t)
		first := s.signIn(t, email)
		second := s.refresh(t, first.RefreshToken)
		third := s.refresh(t, second.RefreshToken)
		bystander := s.signIn(t, email)

		p := s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": first.RefreshToken}).
			wantProblem(t, 401, "session.ended")
		if len(p.Errors) != 1 || p.Errors[0].Code != "theft" {
			t.Errorf("the reason is not told: %+v", p)
		}
		s.wantDead(t, third, second, first)
		s.me(t, bystander.AccessToken)
		s.refresh(t, bystander.RefreshToken)
		s.awaitLetter(t, email, "ended for your safety")
	})
}

// A phone in a tunnel loses an answer. Long afterwards its old token still works once, and the successor that nobody ever
// had is worth nothing.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email = "owner@example.com"
		st.addUser(t, email)
		s := st.serve(t, "SUMUN_SESSIONS_WINDOW=0s")
		first := s.signIn(t, email)
		lost := s.refresh(t, first.RefreshToken)
		found := s.refresh(t, first.RefreshToken)
		if found.RefreshToken == lost.RefreshToken {
			t.Fatal("the window was open")
		}
		next := s.refresh(t, found.RefreshToken)
		s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": lost.RefreshToken}).
			wantProblem(t, 401, "session.ended")
		s.wantDead(t, next)
	})
}

// A stranger who knows a session's id, which is in every access token, must not be able to end it by sending nonsense.
func TestNonsenseChangesNothing(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	s := st.serve(t)
	got := s.signIn(t, "owner@example.com")
	flipped := []byte(got.RefreshToken)
	flipped[len(flipped)/2] ^= 1
	for _, nonsense := range []string{
		"", "x", string(flipped), got.SessionID, got.SessionID + ".garbage", got.AccessToken[:200], got.RefreshToken + "A",
		got.RefreshToken[1:], strings.ToUpper(got.RefreshToken), strings.Repeat("A", len(got.RefreshToken)),
	} {
		a := s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": nonsense})
		a.want(t, 401)
		if code := a.code(); !strings.HasSuffix(code, "invalid_grant") {
			t.Errorf("%q: code %q", nonsense, code)
		}
	}
	parts := strings.Split(got.AccessToken, ".")
	for _, forged := range []string{
		"x", parts[0] + "." + parts[1] + ".", parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"eyJhbGciOiJub25lIn0." + parts[1] + ".",
	} {
		s.send(t, "GET /v1/users/me", nil, bearer(forged)).want(t, 401)
	}
	s.me(t, got.AccessToken)
	s.refresh(t, got.RefreshToken)
}
