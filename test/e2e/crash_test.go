package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	crashRounds  = 4
	crashWorkers = 6
	crashSignUps = 80 // by a worker that does not wait for the mail, so that some is still to be sent
)

// Somebody pulls the plug in the middle of the rush, again and again. Whatever was answered must still hold: an account that
// was confirmed can sign in, a session that was ended stays dead, a client that was given tokens goes on with them, and the
// mail that was promised comes.
func TestKill(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		box := newPostbox(t)
		b := &book{box: box}
		args := slices.Concat(quick(), box.settings(), []string{"--log-level", "error"})
		for round := range crashRounds {
			s := st.serve(t, args...)
			delay := rand.N(600 * time.Millisecond)
			b.loadUntilKilled(t, s, round, delay)
			t.Logf("round %d: killed %v into the rush; so far %d sign-ups, %d accounts, %d live and %d ended sessions answered", round, delay,
				len(b.asked), len(b.accounts), len(b.live), len(b.ended))
		}
		s := st.serve(t, args...)
		b.audit(t, st, s)
	})
}

// book is what the clients were answered, and nothing else.
type book struct {
	box *postbox

	mu       sync.Mutex
	asked    []string   // addresses whose sign-up was accepted
	accounts []string   // addresses whose confirmation was answered
	live     [][]tokens // per session, its last tokens and those before them
	ended    []tokens   // sessions whose end was answered
}

func (b *book) note(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// done is how many sessions have gone all their way, to the end or to being left open.
func (b *book) done() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.live) + len(b.ended)
}

// loadUntilKilled lets workers use the program as people would, until the process is killed under them: some time after
// the first of them are through, however fast the machine is.
func (b *book) loadUntilKilled(t *testing.T, s *server, round int, delay time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := b.done()
	var workers sync.WaitGroup
	for w := range crashWorkers {
		workers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				visit := b.visit
				if w == 0 && n < crashSignUps {
					visit = b.signUp
				}
				if err := visit(ctx, s, fmt.Sprintf("r%dw%dn%d@example.com", round, w, n)); err != nil {
					select {
					case <-s.ended:
					case <-time.After(stopPatience): // the connection broke because the process is dying
						t.Errorf("while the program ran: %v", err)
					}
					return
				}
			}
		})
	}
	if err := eventually(ctx, startPatience, "the rush", func(context.Context) (bool, error) { return b.done() >= before+4, nil }); err != nil {
		t.Error(err)
	}
	<-time.After(delay)
	s.kill(t)
	cancel()
	workers.Wait()
}

func (b *book) signUp(ctx context.Context, s *server, email string) error {
	a, err := s.try(ctx, "POST /v1/users", map[string]string{"email": email})
	if err == nil {
		err = a.failed(202)
	}
	if err == nil {
		b.note(func() { b.asked = append(b.asked, email) })
	}
	return err
}

// visit is one person: signs up, comes in on two devices, refreshes, leaves one. Every answer is written down as it comes.
func (b *book) visit(ctx context.Context, s *server, email string) error {
	if err := b.signUp(ctx, s, email); err != nil {
		return err
	}
	token, err := b.box.awaitToken(ctx, email, "/sign-up/confirm")
	if err != nil {
		return err
	}
	a, err := s.try(ctx, "POST /v1/users/confirmations", map[string]string{"token": token, "name": "Kim", "password": password})
	if err != nil {
		return err
	}
	if err := a.failed(201); err != nil {
		return err
	}
	b.note(func() { b.accounts = append(b.accounts, email) })
	for leave := range 2 {
		if err := b.device(ctx, s, email, leave == 1); err != nil {
			return err
		}
	}
	return nil
}

func (b *book) device(ctx context.Context, s *server, email string, leave bool) error {
	current, err := s.trySignIn(ctx, email)
	if err != nil {
		return err
	}
	family := []tokens{current}
	defer func() {
		if family != nil {
			b.note(func() { b.live = append(b.live, family) })
		}
	}()
	for range 3 {
		next, err := s.tryRefresh(ctx, family[len(family)-1].RefreshToken)
		if err != nil {
			return err
		}
		family = append(family, next)
	}
	if !leave {
		return nil
	}
	last := family[len(family)-1]
	family = nil // from here on it may have ended, whether the answer comes or not
	a, err := s.try(ctx, "DELETE /v1/sessions/current", nil, bearer(last.AccessToken))
	if err != nil {
		return err
	}
	if err := a.failed(204); err != nil {
		return err
	}
	b.note(func() { b.ended = append(b.ended, last) })
	return nil
}

// audit compares the book with what is there.
func (b *book) audit(t *testing.T, st store, s *server) {
	t.Helper()
	if len(b.asked) == 0 || len(b.accounts) == 0 || len(b.live) == 0 {
		t.Fatalf("the load was too short to mean anything: %d, %d, %d", len(b.asked), len(b.accounts), len(b.live))
	}
	there := st.users(t)
	if once := slices.Compact(slices.Clone(there)); len(once) != len(there) {
		t.Errorf("an address has two accounts: %v", there)
	}
	for _, email := range b.accounts {
		if _, found := slices.BinarySearch(there, email); !found {
			t.Errorf("the account of %s is lost", email)
		}
	}
	for _, email := range b.accounts[:min(len(b.accounts), 20)] {
		if _, err := s.trySignIn(t.Context(), email); err != nil {
			t.Errorf("%s cannot sign in: %v", email, err)
		}
	}
	for _, tk := range b.ended {
		s.wantDead(t, tk)
	}
	for _, family := range b.live {
		next, err := s.tryRefresh(t.Context(), family[len(family)-1].RefreshToken)
		if err != nil {
			t.Errorf("a client's newest refresh token is lost: %v", err)
			continue
		}
		s.me(t, next.AccessToken)
	}
	b.auditMail(t)
}

// auditMail waits until everybody who was promised a mail has it. A mail may come twice, never not at all. Those that were
// just being sent come last: what a dead process had claimed is free again when its claim has run out, after some minutes.
func (b *book) auditMail(t *testing.T) {
	t.Helper()
	const beingSent = crashRounds * 4 // mail.workers
	if err := eventually(t.Context(), mailPatience, "the promised mails", func(context.Context) (bool, error) {
		missing := slices.DeleteFunc(slices.Clone(b.asked), func(email string) bool {
			letters, _ := b.box.to(email)
			return len(letters) > 0
		})
		if len(missing) > beingSent {
			return false, fmt.Errorf("%d of %d are missing", len(missing), len(b.asked))
		}
		return true, nil
	}); err != nil {
		t.Error(err)
	}
}
