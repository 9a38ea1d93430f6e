package e2e_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// What an application offers on its own account page: passwords, addresses and farewell, with the consequences for sessions
// and the mail that warns an owner of a thief.
func TestAccountByAPI(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email = "owner@example.com"
		st.addUser(t, email)
		s := st.serve(t)
		changed := changePassword(t, s, email)
		reset := resetPassword(t, s, email, changed)
		moved := changeAddress(t, s, email, reset)
		deleteAccount(t, s, moved, reset)
	})
}

func changePassword(t *testing.T, s *server, email string) (next string) {
	t.Helper()
	next = "velvet anchor drizzle 71"
	here, elsewhere := s.signIn(t, email), s.signIn(t, email)
	s.awaitLetter(t, email, "New sign-in") // elsewhere did not know the device token
	change := func(current, next string) answer {
		return s.send(t, "PUT /v1/users/me/password", map[string]string{"current_password": current, "new_password": next},
			bearer(here.AccessToken))
	}
	change("wrong password here", next).wantProblem(t, 403, "identity.current_password_wrong")
	change(password, "12345678").wantProblem(t, 422, "identity.password_refused")
	change(password, password).wantProblem(t, 422, "identity.password_reused")
	change(password, next).want(t, 204)
	s.wantDead(t, elsewhere)
	s.me(t, here.AccessToken)
	s.refresh(t, here.RefreshToken)
	s.send(t, "POST /v1/sessions", credentials(email, password)).wantProblem(t, 401, "identity.invalid_credentials")
	s.awaitLetter(t, email, "password was changed")
	change(next, password).wantProblem(t, 422, "identity.password_reused")
	return next
}

func resetPassword(t *testing.T, s *server, email, current string) (next string) {
	t.Helper()
	next = "marble tunnel coconut 23"
	signedIn, err := s.exchange(t.Context(), 201, "POST /v1/sessions", credentials(email, current))
	if err != nil {
		t.Fatal(err)
	}
	known := s.send(t, "POST /v1/recoveries", map[string]string{"email": email}).want(t, 202)
	unknown := s.send(t, "POST /v1/recoveries", map[string]string{"email": "nobody@example.com"}).want(t, 202)
	if string(known.body) != string(unknown.body) {
		t.Errorf("recovery tells whether an account exists: %s %s", known.body, unknown.body)
	}
	token, err := s.awaitToken(t.Context(), email, "/recover/reset")
	if err != nil {
		t.Fatal(err)
	}
	confirm := map[string]string{"token": token, "password": current}
	s.send(t, "POST /v1/recoveries/confirmations", confirm).wantProblem(t, 422, "identity.password_reused")
	confirm["password"] = next
	s.send(t, "POST /v1/recoveries/confirmations", confirm).want(t, 204)
	s.send(t, "POST /v1/recoveries/confirmations", confirm).wantProblem(t, 410, "identity.confirmation_invalid")
	s.wantDead(t, signedIn)
	s.awaitLetter(t, email, "password was reset")
	if letters, err := s.letters(t.Context(), "nobody@example.com"); err != nil || len(letters) != 0 {
		t.Errorf("a stranger gets mail: %v %v", letters, err)
	}
	return next
}

func changeAddress(t *testing.T, s *server, email, current string) (moved string) {
	t.Helper()
	moved = "moved@example.com"
	signedIn, err := s.exchange(t.Context(), 201, "POST /v1/sessions", credentials(email, current))
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, "POST /v1/users/me/address-changes", map[string]string{"email": moved}, bearer(signedIn.AccessToken)).want(t, 202)
	s.awaitLetter(t, email, "address was requested")
	if me := s.me(t, signedIn.AccessToken); me.Email != email {
		t.Errorf("the address changed before it was proved: %+v", me)
	}
	token, err := s.awaitToken(t.Context(), moved, "/address/confirm")
	if err != nil {
		t.Fatal(err)
	}
	// The link alone is not enough: it takes a session of the account as well.
	const confirm = "POST /v1/users/me/address-confirmations"
	body := map[string]string{"token": token}
	s.send(t, confirm, body).wantProblem(t, 401, "auth.missing")
	s.send(t, confirm, body, bearer(signedIn.AccessToken)).want(t, 204)
	s.send(t, confirm, body, bearer(signedIn.AccessToken)).wantProblem(t, 410, "identity.confirmation_invalid")
	s.awaitLetter(t, email, "address was changed")
	s.send(t, "POST /v1/sessions", credentials(email, current)).wantProblem(t, 401, "identity.invalid_credentials")
	return moved
}

func deleteAccount(t *testing.T, s *server, email, current string) {
	t.Helper()
	signedIn, err := s.exchange(t.Context(), 201, "POST /v1/sessions", credentials(email, current))
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, "DELETE /v1/users/me", nil, bearer(signedIn.AccessToken)).want(t, 204)
	s.wantDead(t, signedIn)
	s.send(t, "POST /v1/sessions", credentials(email, current)).wantProblem(t, 401, "identity.invalid_credentials")
	s.awaitLetter(t, email, "account was deleted")
	s.mustRegister(t, email) // the address is free again
}

// A stolen access token alone must not be enough to take an account over: dangerous changes need a recent sign-in.
func TestDangerousChangesNeedARecentSignIn(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	s := st.serve(t, "SUMUN_IDENTITY_RECENT_SIGN_IN=1us")
	got := s.signIn(t, "owner@example.com")
	for request, body := range map[string]any{
		"PUT /v1/users/me/password":         map[string]string{"current_password": password, "new_password": "velvet anchor drizzle 71"},
		"POST /v1/users/me/address-changes": map[string]string{"email": "thief@example.com"},
		"DELETE /v1/users/me":               nil,
	} {
		a := s.send(t, request, body, bearer(got.AccessToken))
		a.wantProblem(t, 401, "identity.recent_sign_in_required")
		if !strings.Contains(a.header.Get("WWW-Authenticate"), "insufficient_user_authentication") {
			t.Errorf("%s: WWW-Authenticate %q", request, a.header.Get("WWW-Authenticate"))
		}
	}
	s.me(t, got.AccessToken)
}

// Somebody who guesses is slowed down and then locked out; the owner hears of it and goes on from a known device.
func TestGuessing(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email = "owner@example.com"
		st.addUser(t, email)
		s := st.serve(t, "SUMUN_PASSWORDS_FAILURE_TIME=1ms", "SUMUN_IDENTITY_ATTEMPTS_ACCOUNT_FREE=3",
			"SUMUN_IDENTITY_ATTEMPTS_ACCOUNT_DELAY=1ms", "SUMUN_IDENTITY_ATTEMPTS_ACCOUNT_LOCK_AFTER=6")
		known := s.signIn(t, email)
		for locked := false; !locked; {
			a := s.send(t, "POST /v1/sessions", credentials(email, "a wrong guess"))
			switch a.code() {
			case "identity.invalid_credentials":
			case "identity.too_many_attempts":
				locked = len(a.header.Get("Retry-After")) == 3 // 900 s, not the growing delay
				if a.status != 429 || a.header.Get("Retry-After") == "" {
					t.Errorf("refused guess: %d %v", a.status, a.header)
				}
			default:
				t.Fatalf("guess: %d %s", a.status, a.body)
			}
		}
		s.awaitLetter(t, email, "is locked for a while")
		s.send(t, "POST /v1/sessions", credentials(email, password)).wantProblem(t, 429, "identity.too_many_attempts")
		s.refresh(t, known.RefreshToken)
		body := credentials(email, password)
		body["device_token"] = known.DeviceToken
		s.send(t, "POST /v1/sessions", body).want(t, 201)
	})
}

// Lists of any length are read page by page, each entry once.
func TestLists(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email, sessions = "owner@example.com", 7
		st.addUser(t, email)
		s := st.serve(t, quick()...)
		var got tokens
		for range sessions {
			got = s.signIn(t, email)
		}
		if n := len(readList(t, s, "/v1/sessions", got.AccessToken)); n != sessions {
			t.Errorf("%d sessions, want %d", n, sessions)
		}
		s.send(t, "DELETE /v1/sessions", nil, bearer(got.AccessToken)).want(t, 204)
		left := readList(t, s, "/v1/sessions", got.AccessToken)
		if len(left) != 1 || left[0]["id"] != got.SessionID || left[0]["current"] != true {
			t.Errorf("after ending the others: %v", left)
		}
		events := readList(t, s, "/v1/users/me/events", got.AccessToken)
		if len(events) < sessions+1 || events[len(events)-1]["action"] != "account.created" {
			t.Errorf("%d events, the oldest of them %v", len(events), events[len(events)-1])
		}
		for _, list := range []string{"/v1/sessions", "/v1/users/me/events"} {
			a := s.send(t, "GET "+list+"?cursor=nonsense", nil, bearer(got.AccessToken)).want(t, 400)
			if !strings.HasSuffix(a.code(), ".cursor") {
				t.Errorf("%s: code %q", list, a.code())
			}
			s.send(t, "GET "+list+"?limit=0", nil, bearer(got.AccessToken)).wantProblem(t, 422, "request.invalid")
		}
	})
}

// readList follows the cursors, three entries a page.
func readList(t *testing.T, s *server, path, access string) (all []map[string]any) {
	t.Helper()
	seen := map[any]bool{}
	for cursor := ""; ; {
		var page struct {
			Items      []map[string]any
			NextCursor string `json:"next_cursor"`
		}
		query := url.Values{"limit": {"3"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		s.send(t, fmt.Sprintf("GET %s?%s", path, query.Encode()), nil, bearer(access)).want(t, 200).decode(t, &page)
		for _, item := range page.Items {
			if seen[item["id"]] {
				t.Errorf("%s: %v twice", path, item["id"])
			}
			seen[item["id"]] = true
		}
		all = append(all, page.Items...)
		if cursor = page.NextCursor; cursor == "" {
			return all
		}
		if len(page.Items) != 3 {
			t.Fatalf("%s: a page of %d entries that is not the last", path, len(page.Items))
		}
	}
}
