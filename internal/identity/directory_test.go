package identity_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// company is a directory in memory, for addresses at corp.example.
type company struct {
	mu     sync.Mutex
	people map[string]identity.DirectoryEntry // by login
	pw     string
	broken error
	hangs  chan struct{} // until this is closed; nil: it answers at once
	waits  chan struct{} // told of everybody who waits
	asked  int
}

func (*company) Describe() (name, label, passwordURL string) {
	return "corp", "Corp", "https://password.corp.example"
}

func (*company) Holds(typed string) bool {
	typed = strings.ToLower(strings.TrimSpace(typed))
	return strings.HasSuffix(typed, "@corp.example") || strings.HasPrefix(typed, `corp\`)
}

func (c *company) Authenticate(_ context.Context, typed, password string) (identity.DirectoryEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if hangs := c.hangs; hangs != nil {
		c.mu.Unlock()
		c.waits <- struct{}{}
		<-hangs
		c.mu.Lock()
	}
	e, known := c.people[typed]
	switch {
	case c.broken != nil:
		return e, c.broken
	case !known || password != c.pw:
		return identity.DirectoryEntry{}, identity.ErrCredentials
	}
	return e, nil
}

func (c *company) Keeps(_ context.Context, typed, subject string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return c.people[typed].Subject == subject, c.broken
}

func (c *company) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// withCompany runs a test where kim and lee are people of a directory.
func withCompany(t *testing.T, fn func(w *world, c *company)) {
	t.Helper()
	each(t, func(w *world) { fn(w, w.company) }, func(w *world, _ *identity.Config, deps *identity.Deps) {
		w.company = &company{pw: goodPW, people: map[string]identity.DirectoryEntry{
			"kim@corp.example": {Subject: "s-kim", Email: "kim@corp.example", Name: "Kim"},
			"lee@corp.example": {Subject: "s-lee", Email: "lee@corp.example"},
		}}
		deps.Directories = []identity.Directory{w.company}
	})
}

// Many browsers in which one person signs in for the first time, all at once: one account, and nobody is turned away.
func TestDirectoryMakesOneAccount(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]bool{}
		for range 4 { // more would have to wait: no attempt has been right yet
			wg.Go(func() {
				in, err := w.signIn("lee@corp.example", goodPW)
				mu.Lock()
				defer mu.Unlock()
				if ids[in.Account.ID] = true; err != nil {
					t.Errorf("a first sign-in: %v", err)
				}
			})
		}
		wg.Wait()
		if len(ids) != 1 {
			t.Errorf("the person has %d accounts", len(ids))
		}
		in, err := w.signIn("lee@corp.example", goodPW)
		w.must(err)
		if in.Account.Name != "lee@corp.example" || in.Account.Directory != "corp" || in.Account.HasPassword() {
			t.Errorf("the account is %+v", in.Account)
		}
		if !w.accepts(t.Context(), in.Tokens.Access) {
			t.Error("its token is refused")
		}
	})
}

// An account that was there is opened only where the operator lets the directory; then the directory alone opens it.
func TestDirectoryAndExistingAccounts(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		old, err := w.AddAccount(t.Context(), identity.NewAccount{Email: "kim@corp.example", UserName: "kim", Name: "Old Kim", Password: otherPW})
		w.must(err)
		before, err := w.signIn("kim", otherPW)
		w.must(err)
		if _, err := w.signIn("kim@corp.example", goodPW); !errors.Is(err, identity.ErrDirectoryAddress) {
			t.Fatalf("unasked, the directory opens an account that was there: %v", err)
		}
		if _, err := w.signIn("kim@corp.example", otherPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("the address opens with a password of ours: %v", err)
		}
		c.set(func() {
			e := c.people["kim@corp.example"]
			e.Links = true
			c.people["kim@corp.example"] = e
		})
		in, err := w.signIn("kim@corp.example", goodPW)
		if err != nil || in.Account.ID != old.ID || !in.Account.EmailVerified {
			t.Fatalf("with link_accounts: %+v, %v", in.Account, err)
		}
		if w.accepts(t.Context(), before.Tokens.Access) {
			t.Error("a session from before goes on")
		}
		if _, err := w.signIn("kim", otherPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("the old password still opens: %v", err)
		}
		if got := w.mails("kim@corp.example"); len(got) == 0 || !strings.Contains(got[0].Subject+got[len(got)-1].Subject, "Corp") {
			t.Errorf("the owner was not told: %+v", got)
		}
		_, err = w.SignInProved(t.Context(), identity.Proved{Account: old.ID, Way: "google", Origin: here})
		if !errors.Is(err, identity.ErrDirectory) {
			t.Errorf("another provider opens the account: %v", err)
		}
	})
}

// People whose password is elsewhere can neither change nor reset it here, and the answer depends on the address alone.
func TestPasswordsElsewhere(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		in, err := w.signIn("kim@corp.example", goodPW)
		w.must(err)
		for name, err := range map[string]error{
			"change":           w.ChangePassword(t.Context(), w.caller(in), "", otherPW),
			"recover":          w.Recover(t.Context(), "kim@corp.example", "en", here),
			"recover, unknown": w.Recover(t.Context(), "nobody@corp.example", "en", here),
			"sign up":          w.SignUp(t.Context(), "nobody@corp.example", "en", here),
			"connect":          w.ChangeWays(t.Context(), w.caller(in), identity.WayChange{Change: func(context.Context, sqldb.Tx, identity.Account) error { return nil }}),
		} {
			if !errors.Is(err, identity.ErrDirectory) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.AddAccount(t.Context(), identity.NewAccount{Email: "x@corp.example", Name: "X", Password: otherPW}); !errors.Is(err, identity.ErrDirectory) {
			t.Errorf("a password that nobody can use: %v", err)
		}
		page, err := w.SignIn(t.Context(), identity.SignIn{Identifier: "kim@corp.example", Password: goodPW, Browser: true, Origin: here})
		w.must(err)
		if cookie, err := w.Reauthenticate(t.Context(), w.caller(page), goodPW); err != nil || cookie == "" {
			t.Errorf("proving again: %v", err)
		}
		c.set(func() {
			c.people["kim@corp.example"] = identity.DirectoryEntry{Subject: "s-other", Email: "kim@corp.example"}
		})
		page, err = w.SignIn(t.Context(), identity.SignIn{Identifier: "kim@corp.example", Password: goodPW, Browser: true, Origin: here})
		if !errors.Is(err, identity.ErrDirectoryAddress) {
			t.Errorf("another person with the address: %+v, %v", page.Account, err)
		}
	})
}

// Guesses at a directory's passwords are slowed down and locked as ours are, whether there is anybody; an outage costs no attempt, and
// the directory is not asked for who is locked out.
func TestDirectoryGuessesAreLimited(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		c.set(func() { c.broken = fault.New(fault.Unavailable, "test.down", "Down.") })
		for range 20 {
			if _, err := w.signIn("kim@corp.example", goodPW); fault.From(err).Kind() != fault.Unavailable {
				t.Fatalf("an outage: %v", err)
			}
		}
		c.set(func() { c.broken = nil })
		if _, err := w.signIn("kim@corp.example", goodPW); err != nil {
			t.Fatalf("after the outage: %v", err)
		}
		for _, login := range []string{"kim@corp.example", "nobody@corp.example"} {
			c.set(func() { c.asked = 0 })
			for range 50 {
				_, err := w.signIn(login, otherPW)
				if !errors.Is(err, identity.ErrCredentials) && !errors.Is(err, identity.ErrTooManyAttempts) {
					t.Fatalf("a guess at %s: %v", login, err)
				}
			}
			if c.asked > 5 {
				t.Errorf("of 50 guesses at once at %s, the directory saw %d", login, c.asked)
			}
			w.clock.Advance(24 * time.Hour)
		}
		c.set(func() { c.broken = identity.ErrTooManyAttempts.After(time.Minute) })
		for range 10 {
			_, err := w.signIn("lee@corp.example", otherPW)
			if !errors.Is(err, identity.ErrTooManyAttempts) {
				t.Fatalf("locked in the directory: %v", err)
			}
		}
		w.clock.Advance(24 * time.Hour)
		c.set(func() { c.broken = nil })
		for range 3 {
			_, _ = w.signIn("kim@corp.example", otherPW)
		}
		if _, err := w.signIn("kim@corp.example", goodPW); err != nil {
			t.Errorf("after three wrong ones: %v", err)
		}
		for range 4 { // the success has forgotten them
			if _, err := w.signIn("kim@corp.example", otherPW); !errors.Is(err, identity.ErrCredentials) {
				t.Errorf("a guess after a success: %v", err)
			}
		}
		a, err := w.AccountByAddress(t.Context(), "kim@corp.example")
		w.must(err)
		w.must(w.SetStatus(t.Context(), a.ID, identity.Disabled))
		w.clock.Advance(24 * time.Hour)
		if _, err := w.signIn("kim@corp.example", goodPW); !errors.Is(err, identity.ErrDisabled) {
			t.Errorf("an account that is disabled here: %v", err)
		}
	})
}

// However many wait for a directory that hangs, everybody else signs in: none of them holds a place at the gate, or a connection.
func TestAHangingDirectoryHoldsNobodyUp(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		w.person("ada@example.com", "")
		hangs, waits := make(chan struct{}), make(chan struct{})
		c.set(func() { c.hangs, c.waits = hangs, waits })
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() { _, _ = w.signIn(strings.Repeat("k", i+1)+"@corp.example", goodPW) })
		}
		for range 64 {
			<-waits
		}
		if _, err := w.signIn("ada@example.com", goodPW); err != nil {
			t.Errorf("meanwhile: %v", err)
		}
		close(hangs)
		wg.Wait()
	})
}

// Who has left the company is signed out within the hour, once; an outage signs nobody out, and whoever comes back comes in.
func TestWhoLeavesADirectoryIsSignedOut(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		kim, err := w.signIn("kim@corp.example", goodPW)
		w.must(err)
		lee, err := w.signIn("lee@corp.example", goodPW)
		w.must(err)
		was := c.people["kim@corp.example"]
		c.set(func() { delete(c.people, "kim@corp.example"); c.asked = 0 })
		w.must(w.CheckDirectories(t.Context()))
		if c.asked != 0 {
			t.Error("who was asked about within the hour is asked about again")
		}
		w.clock.Advance(time.Hour)
		c.set(func() { c.broken = fault.New(fault.Unavailable, "test.down", "Down.") })
		if err := w.CheckDirectories(t.Context()); err == nil || c.asked != 1 {
			t.Errorf("an outage: %v after %d questions", err, c.asked)
		}
		c.set(func() { c.broken = nil; c.asked = 0 })
		_, err = w.sessions.Refresh(t.Context(), kim.Tokens.Refresh, session.Device{})
		w.must(err)
		var wg sync.WaitGroup
		for range 3 { // nodes, once it is up again
			wg.Go(func() {
				if err := w.CheckDirectories(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if c.asked != 2 {
			t.Errorf("three nodes asked %d times about two people", c.asked)
		}
		if _, err := w.sessions.Refresh(t.Context(), lee.Tokens.Refresh, session.Device{}); err != nil {
			t.Errorf("who is still there: %v", err)
		}
		if w.accepts(t.Context(), kim.Tokens.Access) {
			t.Error("who has left goes on")
		}
		w.clock.Advance(2 * time.Hour)
		c.set(func() { c.asked = 0 })
		w.must(w.CheckDirectories(t.Context()))
		if c.asked != 1 {
			t.Errorf("%d questions, about one person who is left", c.asked)
		}
		c.set(func() { c.people["kim@corp.example"] = was })
		if _, err := w.signIn("kim@corp.example", goodPW); err != nil {
			t.Errorf("who comes back: %v", err)
		}
	})
}

// link_accounts opens the account with the person's address, and not one whose address only looks like it.
func TestDirectoryOpensNoLookAlike(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		old, err := w.AddAccount(t.Context(), identity.NewAccount{Email: "kim@corp.example", UserName: "kim", Name: "Kim", Password: otherPW})
		w.must(err)
		c.set(func() {
			c.people["other@corp.example"] = identity.DirectoryEntry{Subject: "s-other", Email: "\uff4bim@corp.example", Links: true}
			c.people["kim@corp.example"] = identity.DirectoryEntry{Subject: "s-kim", Email: "Kim@corp.example", Links: true}
		})
		if in, err := w.signIn("other@corp.example", goodPW); !errors.Is(err, identity.ErrDirectoryAddress) {
			t.Errorf("a look-alike opens %+v, %v", in.Account, err)
		}
		if in, err := w.signIn("kim@corp.example", goodPW); err != nil || in.Account.ID != old.ID {
			t.Errorf("the address itself: %v", err)
		}
	})
}

// A password that nobody is asked for is no way into an account: disconnecting the last other one would lock its owner out.
func TestPasswordsThatOpenNothing(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		a, err := w.AddAccount(t.Context(), identity.NewAccount{Email: "kim@corp.example", UserName: "kim", Name: "Kim", Password: goodPW})
		w.must(err)
		in := w.signedIn("kim")
		if !w.PasswordOpens(a) || w.PasswordOpens(identity.Account{}) {
			t.Error("with a user name the password opens nothing")
		}
		none := ""
		a, err = w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{UserName: &none})
		w.must(err)
		if _, err := w.signIn(a.Email, goodPW); !errors.Is(err, identity.ErrDirectoryAddress) || w.PasswordOpens(a) {
			t.Errorf("the address opens with it: %v", err)
		}
	})
}

// Nobody takes an address to an account of ours that the directory answers for: with it they could not sign in, nor the person whose
// it will be. Nor does another provider prove the owner of a directory's account again.
func TestAddressesOfADirectoryStayThere(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		w.person("ada@example.com", "")
		ada := w.signedIn("ada@example.com")
		for name, err := range map[string]error{
			"change": w.ChangeAddress(t.Context(), w.caller(ada), "kim@corp.example"),
			"made by a provider": func() error {
				_, err := w.CreateProved(t.Context(), identity.NewAccount{Email: "kim@corp.example", Name: "Kim", Verified: true},
					func(context.Context, sqldb.Tx, string) error { return nil }, here)
				return err
			}(),
			"sign up with a provider's": w.SignUpProved(t.Context(), "kim@corp.example", "en", here),
		} {
			if !errors.Is(err, identity.ErrDirectory) {
				t.Errorf("%s: %v", name, err)
			}
		}
		kim := w.signedIn("kim@corp.example")
		if err := w.ChangeAddress(t.Context(), w.caller(kim), "kim2@corp.example"); err != nil {
			t.Errorf("within the directory: %v", err)
		}
		if err := w.ChangeAddress(t.Context(), w.caller(kim), "kim@example.com"); err != nil {
			t.Errorf("out of the directory: %v", err)
		}
		page, err := w.SignIn(t.Context(), identity.SignIn{Identifier: "kim@corp.example", Password: goodPW, Browser: true, Origin: here})
		w.must(err)
		if _, err := w.ReauthenticateProved(t.Context(), w.caller(page), "google"); !errors.Is(err, identity.ErrDirectory) {
			t.Errorf("another provider proves the owner again: %v", err)
		}
	})
}
