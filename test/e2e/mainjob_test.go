package e2e_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The main job, from nothing to a dead token family. If it fails, Sumun does not do what it is for.
func TestMainJob(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) { mainJob(t, st.serve(t)) })
}

// The same with counters in Redis, as a team with one server runs it.
func TestMainJobWithRedis(t *testing.T) {
	t.Parallel()
	if url := os.Getenv(redisVariable); url != "" {
		mainJob(t, sqliteStore(t).serve(t, "--redis", url))
	}
}

func mainJob(t *testing.T, s *server) {
	const email = "minji@example.com"
	signUp(t, s, email)
	first := enter(t, s, email)
	edit(t, s, first.AccessToken)
	family := rotate(t, s, first)
	endFromElsewhere(t, s, email, family)
}

// signUp makes an account. Neither answer tells whether the address has one.
func signUp(t *testing.T, s *server, email string) {
	t.Helper()
	body := map[string]string{"email": email}
	unknown := s.send(t, "POST /v1/users", body).want(t, 202)
	token, err := s.awaitToken(t.Context(), email, "/sign-up/confirm")
	if err != nil {
		t.Fatal(err)
	}
	confirmation := map[string]string{"token": token, "name": "Kim Minji", "user_name": "minji", "password": "short"}
	refused := s.send(t, "POST /v1/users/confirmations", confirmation).wantProblem(t, 422, "identity.password_refused")
	if len(refused.Errors) == 0 || refused.Errors[0].Name != "password" || strings.Contains(refused.Detail, "short") {
		t.Errorf("refused password: %+v", refused)
	}
	confirmation["password"] = password // the link is still good
	made := s.send(t, "POST /v1/users/confirmations", confirmation).want(t, 201)
	if made.header.Get("Location") != "/v1/users/me" || made.header.Get("ETag") == "" {
		t.Errorf("created: %v", made.header)
	}
	s.send(t, "POST /v1/users/confirmations", confirmation).wantProblem(t, 410, "identity.confirmation_invalid")

	known := s.send(t, "POST /v1/users", body).want(t, 202)
	for _, a := range []answer{unknown, known} {
		for _, changing := range []string{"X-Request-Id", "Date", "Ratelimit"} {
			a.header.Del(changing)
		}
	}
	if u, k := flatten(unknown), flatten(known); u != k {
		t.Errorf("sign-up tells whether an account exists:\n%s\n%s", u, k)
	}
	s.awaitLetter(t, email, "You already have")
}

func flatten(a answer) string {
	text, _ := json.Marshal(a.header)
	return string(text) + string(a.body)
}

// enter signs in by address and by user name; a wrong password and an unknown person look alike.
func enter(t *testing.T, s *server, email string) tokens {
	t.Helper()
	a := s.send(t, "POST /v1/sessions", credentials(email, password)).want(t, 201)
	var got tokens
	a.decode(t, &got)
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Location") != "/v1/sessions/"+got.SessionID {
		t.Errorf("headers of a sign-in: %v", a.header)
	}
	if got.SessionID == "" || strings.Count(got.AccessToken, ".") != 2 || got.TokenType != "Bearer" || got.ExpiresIn < 800 ||
		got.ExpiresIn > 900 || got.RefreshToken == "" || got.RefreshExpiresIn < 7*24*3600-60 || got.DeviceToken == "" {
		t.Errorf("incomplete sign-in: %s", a.body)
	}
	again := s.send(t, "POST /v1/sessions", map[string]string{
		"identifier": "MINJI", "password": password, "device_token": got.DeviceToken,
	}).want(t, 201)
	var second tokens
	again.decode(t, &second)
	if second.SessionID == got.SessionID {
		t.Error("a new sign-in kept the session id")
	}
	wrong := s.send(t, "POST /v1/sessions", credentials(email, "not the password")).wantProblem(t, 401, "identity.invalid_credentials")
	nobody := s.send(t, "POST /v1/sessions", credentials("nobody@example.com", password)).wantProblem(t, 401, "identity.invalid_credentials")
	if wrong.Detail != nobody.Detail || wrong.Title != nobody.Title {
		t.Errorf("sign-in tells whether an account exists: %+v %+v", wrong, nobody)
	}
	s.send(t, "DELETE /v1/sessions/"+second.SessionID, nil, bearer(got.AccessToken)).want(t, 204)
	return got
}

// edit changes the account; of two edits on one version the second is refused instead of overwriting the first.
func edit(t *testing.T, s *server, access string) {
	t.Helper()
	s.send(t, "GET /v1/users/me", nil).wantProblem(t, 401, "auth.missing")
	before := s.send(t, "GET /v1/users/me", nil, bearer(access)).want(t, 200)
	tag := before.header.Get("ETag")
	change := map[string]string{"name": "김민지", "locale": "ko"}
	after := s.send(t, "PATCH /v1/users/me", change, bearer(access), header("If-Match", tag)).want(t, 200)
	s.send(t, "PATCH /v1/users/me", change, bearer(access), header("If-Match", tag)).
		wantProblem(t, 412, "identity.version_changed")
	if after.header.Get("ETag") == tag {
		t.Error("an edit kept the ETag")
	}
	me := s.me(t, access)
	if me.Name != "김민지" || me.Locale != "ko" || me.UserName != "minji" || !me.EmailVerified || me.Roles == nil {
		t.Errorf("after the edit: %+v", me)
	}
	s.send(t, "PATCH /v1/users/me", map[string]any{"phone_number": "+82 10-1234-5678", "address": map[string]string{"locality": "서울"}}, bearer(access)).want(t, 200)
	s.send(t, "PATCH /v1/users/me", map[string]string{"phone_number": "010-1234-5678"}, bearer(access)).wantProblem(t, 422, "identity.invalid_field")
	s.send(t, "PATCH /v1/users/me", map[string]string{"locale": "en"}, bearer(access)).want(t, 200)
	if me := s.send(t, "GET /v1/users/me", nil, bearer(access)).want(t, 200); !strings.Contains(string(me.body), `"phone_number":"+821012345678"`) ||
		!strings.Contains(string(me.body), `"address":{"locality":"서울"}`) {
		t.Errorf("after the edit: %s", me.body)
	}
}

// rotate refreshes. A client whose answer was lost asks again and gets the same successor, never a second lineage.
func rotate(t *testing.T, s *server, first tokens) []tokens {
	t.Helper()
	second := s.refresh(t, first.RefreshToken)
	if second.SessionID != first.SessionID || second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Errorf("a refresh gave %+v after %+v", second, first)
	}
	if repeated := s.refresh(t, first.RefreshToken); repeated.RefreshToken != second.RefreshToken {
		t.Error("the same refresh token got two successors")
	}
	a := s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": second.RefreshToken}).want(t, 200)
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control of a refresh: %q", a.header.Get("Cache-Control"))
	}
	var third tokens
	a.decode(t, &third)
	s.me(t, third.AccessToken)
	return []tokens{third, second} // the first is too old to present without it being theft
}

// endFromElsewhere ends the session from another device: at once, and with everything that came of it.
func endFromElsewhere(t *testing.T, s *server, email string, family []tokens) {
	t.Helper()
	other := s.signIn(t, email)
	var list struct {
		Items []struct {
			ID, Device, Address string
			Current             bool
			CreatedAt           string `json:"created_at"`
		}
	}
	s.send(t, "GET /v1/sessions", nil, bearer(other.AccessToken)).want(t, 200).decode(t, &list)
	if len(list.Items) != 2 || list.Items[0].Address != "127.0.0.1" || list.Items[0].CreatedAt == "" {
		t.Errorf("sessions: %+v", list)
	}
	s.send(t, "DELETE /v1/sessions/"+family[0].SessionID, nil, bearer(other.AccessToken)).want(t, 204)
	s.wantDead(t, family...)
	s.send(t, "DELETE /v1/sessions/"+family[0].SessionID, nil, bearer(other.AccessToken)).wantProblem(t, 404, "session.not_found")
	s.me(t, other.AccessToken)
	s.send(t, "DELETE /v1/sessions/current", nil, bearer(other.AccessToken)).want(t, 204)
	s.wantDead(t, other)
}
