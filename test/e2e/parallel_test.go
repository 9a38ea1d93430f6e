package e2e_test

import (
	"context"
	"slices"
	"sync"
	"testing"
)

// together runs fn n times at once, each told its number.
func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-gate
			fn(i)
		})
	}
	close(gate)
	all.Wait()
}

// A page with fifty tabs refreshes fifty times at once. All of them must get on, and none must become a second lineage that
// is later taken for theft.
func TestParallelRefreshes(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email, n = "tabs@example.com", 50
		st.addUser(t, email)
		s := st.serve(t)
		first := s.signIn(t, email)
		got, errs := make([]tokens, n), make([]error, n)
		together(n, func(i int) { got[i], errs[i] = s.tryRefresh(t.Context(), first.RefreshToken) })
		for i := range n {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			if got[i].RefreshToken != got[0].RefreshToken || got[i].SessionID != first.SessionID {
				t.Fatal("one refresh token has two successors")
			}
		}
		next := s.refresh(t, got[0].RefreshToken)
		for i := range n {
			s.me(t, got[i].AccessToken)
		}
		if list := readList(t, s, "/v1/sessions", next.AccessToken); len(list) != 1 {
			t.Errorf("%d sessions, want 1", len(list))
		}
	})
}

// A nervous finger, or fifty attackers, on one sign-up form: one address becomes one account.
func TestParallelSignUps(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email, n = "once@example.com", 50
		s := st.serve(t, quick()...)
		answers, errs := make([]answer, n), make([]error, n)
		together(n, func(i int) {
			answers[i], errs[i] = s.try(t.Context(), "POST /v1/users", map[string]string{"email": email})
		})
		for i := range n {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			answers[i].want(t, 202)
		}
		links := s.awaitLinks(t, email, n)
		together(n, func(i int) {
			answers[i], errs[i] = s.try(t.Context(), "POST /v1/users/confirmations",
				map[string]string{"token": links[i], "name": "Kim", "password": password})
		})
		made := 0
		for i := range n {
			switch {
			case errs[i] != nil:
				t.Fatal(errs[i])
			case answers[i].status == 201:
				made++
			default:
				answers[i].wantProblem(t, 409, "identity.email_taken")
			}
		}
		if users := st.users(t); made != 1 || len(users) != 1 {
			t.Errorf("%d confirmations succeeded, accounts: %v", made, users)
		}
		s.signIn(t, email)
	})
}

// awaitLinks waits for n mails with different sign-up links.
func (s *server) awaitLinks(t *testing.T, email string, n int) (links []string) {
	t.Helper()
	if err := eventually(t.Context(), mailPatience, "all the mails", func(ctx context.Context) (bool, error) {
		letters, err := s.letters(ctx, email)
		links = nil
		for _, l := range letters {
			if path, token := l.link(); path == "/sign-up/confirm" {
				links = append(links, token)
			}
		}
		return len(links) == n, err
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(links); len(slices.Compact(slices.Clone(links))) != n {
		t.Fatal("two mails hold the same link")
	}
	return links
}
