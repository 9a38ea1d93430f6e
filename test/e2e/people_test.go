package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// mailPatience is how long a mail may take.
const mailPatience = 30 * time.Second

// password is what people choose unless the test is about that.
const password = "cobalt lantern orchard 58"

// tokens is what a sign-in or a refresh answers.
type tokens struct {
	SessionID        string `json:"session_id"`
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type"`
	ExpiresIn        int64  `json:"expires_in"`
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresIn int64  `json:"refresh_expires_in"`
	DeviceToken      string `json:"device_token"`
}

// account is what its owner sees of it.
type account struct {
	ID            string   `json:"id"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Name          string   `json:"name"`
	UserName      string   `json:"user_name"`
	Locale        string   `json:"locale"`
	Roles         []string `json:"roles"`
}

// letter is a mail in the development mailbox.
type letter struct {
	ID, To, Subject, Text, HTML string
}

var oneTimeLink = regexp.MustCompile(`https?://[^\s/]+(/[a-z/-]+)\?token=([A-Za-z0-9_-]+)`)

// link returns path and token of the one-time link in the letter, if there is one.
func (l letter) link() (path, token string) {
	if m := oneTimeLink.FindStringSubmatch(l.Text); m != nil {
		return m[1], m[2]
	}
	return "", ""
}

// letters reads the mail to an address, newest first.
func (s *server) letters(ctx context.Context, to string) ([]letter, error) {
	a, err := s.opsGet(ctx, "/mailbox/messages.json", bearer(s.mailboxToken))
	if err != nil {
		return nil, err
	}
	if err := a.failed(200); err != nil {
		return nil, err
	}
	var all, theirs []letter
	if err := json.Unmarshal(a.body, &all); err != nil {
		return nil, err
	}
	for _, l := range all {
		if strings.EqualFold(l.To, to) {
			theirs = append(theirs, l)
		}
	}
	return theirs, nil
}

// awaitToken waits for a mail with a one-time link to the page and returns its token.
func (s *server) awaitToken(ctx context.Context, to, page string) (token string, err error) {
	err = eventually(ctx, mailPatience, "mail to "+to+" with a link to "+page, func(ctx context.Context) (bool, error) {
		letters, err := s.letters(ctx, to)
		for _, l := range letters {
			if path, t := l.link(); path == page {
				token = t
				return true, nil
			}
		}
		return false, err
	})
	return token, err
}

// awaitLetter waits for a mail whose subject holds the words.
func (s *server) awaitLetter(t testing.TB, to, words string) letter {
	t.Helper()
	var found letter
	err := eventually(t.Context(), mailPatience, "mail to "+to+" about "+words, func(ctx context.Context) (bool, error) {
		letters, err := s.letters(ctx, to)
		for _, l := range letters {
			if strings.Contains(l.Subject, words) {
				found = l
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// register makes an account as a person does: sign up, read the mail, choose a password.
func (s *server) register(ctx context.Context, email string, options ...option) error {
	a, err := s.try(ctx, "POST /v1/users", map[string]string{"email": email}, options...)
	if err := errors.Join(err, a.failed(202)); err != nil {
		return err
	}
	token, err := s.awaitToken(ctx, email, "/sign-up/confirm")
	if err != nil {
		return err
	}
	a, err = s.try(ctx, "POST /v1/users/confirmations", map[string]string{
		"token": token, "name": "Kim Minji", "password": password,
	}, options...)
	return errors.Join(err, a.failed(201))
}

func (s *server) mustRegister(t testing.TB, emails ...string) {
	t.Helper()
	for _, email := range emails {
		if err := s.register(t.Context(), email); err != nil {
			t.Fatal(err)
		}
	}
}

// addUser makes an account on the operator's word, which is faster.
func (st store) addUser(t testing.TB, email string, args ...string) {
	t.Helper()
	r := st.command(t, password+"\n", append([]string{"user", "add", "--email", email, "--password-stdin", "--verified"}, args...)...)
	if r.code != 0 {
		t.Fatalf("user add %s: %+v", email, r)
	}
}

func credentials(identifier, password string) map[string]string {
	return map[string]string{"identifier": identifier, "password": password}
}

// exchange sends a request that is answered with tokens.
func (s *server) exchange(ctx context.Context, status int, request string, body any, options ...option) (tokens, error) {
	a, err := s.try(ctx, request, body, options...)
	if err != nil {
		return tokens{}, err
	}
	if err := a.failed(status); err != nil {
		return tokens{}, err
	}
	var out tokens
	if err := json.Unmarshal(a.body, &out); err != nil {
		return tokens{}, fmt.Errorf("%s: %w", request, err)
	}
	return out, nil
}

func (s *server) trySignIn(ctx context.Context, identifier string) (tokens, error) {
	return s.exchange(ctx, 201, "POST /v1/sessions", credentials(identifier, password))
}

func (s *server) tryRefresh(ctx context.Context, token string) (tokens, error) {
	return s.exchange(ctx, 200, "POST /v1/sessions/refresh", map[string]string{"refresh_token": token})
}

func (s *server) signIn(t testing.TB, identifier string) tokens {
	t.Helper()
	got, err := s.trySignIn(t.Context(), identifier)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (s *server) refresh(t testing.TB, token string) tokens {
	t.Helper()
	got, err := s.tryRefresh(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// me calls an endpoint with an access token, as every service of a company would.
func (s *server) me(t testing.TB, access string) account {
	t.Helper()
	var a account
	s.send(t, "GET /v1/users/me", nil, bearer(access)).want(t, 200).decode(t, &a)
	return a
}

// wantDead fails unless nothing of a session works any more.
func (s *server) wantDead(t testing.TB, family ...tokens) {
	t.Helper()
	for i, tk := range family {
		a := s.send(t, "GET /v1/users/me", nil, bearer(tk.AccessToken))
		a.want(t, 401)
		if !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
			t.Errorf("access token %d: WWW-Authenticate is %q", i, a.header.Get("WWW-Authenticate"))
		}
		s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": tk.RefreshToken}).wantProblem(t, 401, "session.ended")
	}
}

// users lists the addresses of all accounts, as an operator sees them.
func (st store) users(t testing.TB) (emails []string) {
	t.Helper()
	r := st.command(t, "", "user", "list", "--json")
	if r.code != 0 {
		t.Fatalf("user list: %+v", r)
	}
	for line := range strings.Lines(r.stdout) {
		var one account
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("user list: %v in %s", err, line)
		}
		emails = append(emails, one.Email)
	}
	slices.Sort(emails)
	return emails
}
