package identity_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestSignInWithAddressOrUserName(t *testing.T) {
	each(t, func(w *world) {
		w.person("Ada@Example.com", "Ada.L")
		for _, identifier := range []string{"ada@example.com", " ADA@example.COM ", "ada.l", "Ada.L"} {
			in, err := w.signIn(identifier, goodPW)
			if err != nil {
				t.Fatalf("sign in as %q: %v", identifier, err)
			}
			if !w.accepts(t.Context(), in.Tokens.Access) {
				t.Errorf("the access token of %q is refused", identifier)
			}
		}
	})
}

func TestFailuresLookAlike(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "ada")
		w.must(w.SetStatus(t.Context(), a.ID, identity.Disabled))
		for _, identifier := range []string{"ada@example.com", "ada", "nobody@example.com", "nobody", "", "a b", "x@", "a\x00b", "\xff"} {
			_, err := w.signIn(identifier, otherPW)
			var f *fault.Fault
			if !errors.As(err, &f) || f.Code() != identity.ErrCredentials.Code() || f.Message() != identity.ErrCredentials.Message() {
				t.Errorf("a wrong password for %q tells %v", identifier, err)
			}
		}
		if _, err := w.signIn("ada", goodPW); !errors.Is(err, identity.ErrDisabled) {
			t.Errorf("the owner of a disabled account is told %v", err)
		}
	})
}

// A thousand guesses at once must get no further than the same guesses one by one.
func TestParallelGuessesAreLimited(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		var wg sync.WaitGroup
		var mu sync.Mutex
		guesses := 0
		for range 100 {
			wg.Go(func() {
				_, err := w.signIn("ada@example.com", otherPW)
				if errors.Is(err, identity.ErrCredentials) {
					mu.Lock()
					guesses++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if free := identity.DefaultConfig().Attempts.Account.Free; guesses > free+1 {
			t.Errorf("%d guesses were checked at once, the limit is %d", guesses, free+1)
		}
		if _, err := w.signIn("ada@example.com", goodPW); !errors.Is(err, identity.ErrTooManyAttempts) {
			t.Errorf("after them the right password is answered %v", err)
		}
	})
}

func TestDelayGrowsThenLocksAndOwnerIsTold(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		limit := identity.DefaultConfig().Attempts.Account
		var waits []time.Duration
		for range limit.LockAfter {
			_, err := w.signIn("ada@example.com", otherPW)
			for errors.Is(err, identity.ErrTooManyAttempts) {
				wait := fault.From(err).RetryAfter()
				waits = append(waits, wait)
				w.clock.Advance(wait)
				_, err = w.signIn("ada@example.com", otherPW)
			}
			if !errors.Is(err, identity.ErrCredentials) {
				t.Fatal(err)
			}
		}
		for i := 1; i < len(waits); i++ {
			if waits[i] <= waits[i-1] {
				t.Errorf("waits do not grow: %v", waits)
			}
		}
		_, err := w.signIn("ada@example.com", goodPW)
		if !errors.Is(err, identity.ErrTooManyAttempts) || fault.From(err).RetryAfter() < limit.LockFor-time.Second {
			t.Errorf("not locked: %v", err)
		}
		if got := w.mails("ada@example.com"); len(got) != 2 {
			t.Errorf("the owner has %d mails, want the sign-up and one about the lock", len(got))
		}
		w.clock.Advance(limit.LockFor)
		if _, err := w.signIn("ada@example.com", goodPW); err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

// An unknown name locks like a known one, or the lock would tell which accounts exist.
func TestUnknownNamesLockToo(t *testing.T) {
	each(t, func(w *world) {
		for range identity.DefaultConfig().Attempts.Account.Free + 1 {
			if _, err := w.signIn("nobody@example.com", otherPW); !errors.Is(err, identity.ErrCredentials) {
				t.Fatal(err)
			}
		}
		if _, err := w.signIn("nobody@example.com", otherPW); !errors.Is(err, identity.ErrTooManyAttempts) {
			t.Errorf("an unknown name is answered %v", err)
		}
		if got := w.mails("nobody@example.com"); len(got) != 0 {
			t.Errorf("a stranger got %d mails", len(got))
		}
	})
}

func TestKnownDeviceIsNotLockedOut(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		mine := w.signedIn("ada@example.com")
		for range 6 {
			_, _ = w.SignIn(t.Context(), identity.SignIn{Identifier: "ada@example.com", Password: otherPW, Origin: from("198.51.100.9")})
		}
		if _, err := w.signIn("ada@example.com", goodPW); !errors.Is(err, identity.ErrTooManyAttempts) {
			t.Fatalf("the account is not limited: %v", err)
		}
		_, err := w.SignIn(t.Context(), identity.SignIn{
			Identifier: "ada@example.com", Password: goodPW, DeviceToken: mine.DeviceToken, Origin: here,
		})
		if err != nil {
			t.Errorf("the owner's device is shut out: %v", err)
		}
		refused := 0
		for range 6 {
			_, err := w.SignIn(t.Context(), identity.SignIn{
				Identifier: "ada@example.com", Password: otherPW, DeviceToken: mine.DeviceToken, Origin: here,
			})
			if errors.Is(err, identity.ErrTooManyAttempts) {
				refused++
			}
		}
		if refused == 0 {
			t.Error("a stolen device token allows guessing without end")
		}
	})
}

func TestWrongPasswordsFromOneNetworkAreLimited(t *testing.T) {
	const free = 3
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		mine := w.signedIn("ada@example.com")
		attempt := func(email, pw, device, addr string) error {
			_, err := w.SignIn(t.Context(), identity.SignIn{Identifier: email, Password: pw, DeviceToken: device, Origin: from(addr)})
			return err
		}
		for range 20 { // right passwords cost the network nothing
			w.must(attempt("ada@example.com", goodPW, mine.DeviceToken, "2001:db8:0:1::1"))
		}
		for i := range free + 1 {
			err := attempt(fmt.Sprintf("u%d@example.com", i), otherPW, "", fmt.Sprintf("2001:db8:0:1::%d", i))
			if !errors.Is(err, identity.ErrCredentials) {
				t.Fatalf("attempt %d is answered %v", i, err)
			}
		}
		if err := attempt("ada@example.com", goodPW, "", "2001:db8:0:1:ffff::1"); !errors.Is(err, identity.ErrTooManyAttempts) {
			t.Errorf("another address of the same /64 is answered %v", err)
		}
		if err := attempt("ada@example.com", goodPW, mine.DeviceToken, "2001:db8:0:1:ffff::1"); err != nil {
			t.Errorf("a known device is held up by its network: %v", err)
		}
		if err := attempt("ada@example.com", goodPW, "", "2001:db8:0:2::1"); err != nil {
			t.Errorf("another /64 is answered %v", err)
		}
		w.clock.Advance(free * time.Minute)
		if err := attempt("u9@example.com", otherPW, "", "2001:db8:0:1::9"); !errors.Is(err, identity.ErrCredentials) {
			t.Fatal(err)
		}
		if err := attempt("ada@example.com", goodPW, "", "2001:db8:0:1::9"); err != nil {
			t.Errorf("one mistake after the others were forgotten holds the network up: %v", err)
		}
	}, func(_ *world, c *identity.Config, _ *identity.Deps) {
		c.Attempts.Address = identity.AttemptLimit{Free: free, Delay: time.Second, LockAfter: free + 5, LockFor: 5 * time.Minute, Forget: time.Minute}
	})
}

// Who is turned away because the service is busy, or down, must not be locked out for it.
func TestOnlyWrongPasswordsCount(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 30 {
			// A context that ends stands for everything that is not the person's fault.
			if _, err := w.SignIn(gone, identity.SignIn{Identifier: "ada@example.com", Password: goodPW, Origin: here}); err == nil {
				t.Fatal("signed in with a context that has ended")
			}
		}
		if _, err := w.signIn("ada@example.com", goodPW); err != nil {
			t.Errorf("after failures of ours she is answered %v", err)
		}
	})
}

// A guesser who hangs up while the answer is drawn out has guessed all the same, in every place that asks for a password.
func TestHangingUpIsNoFreeGuess(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		c := w.caller(w.signedIn("ada@example.com"))
		for name, guess := range map[string]func(context.Context) error{
			"sign-in": func(ctx context.Context) error {
				_, err := w.SignIn(ctx, identity.SignIn{Identifier: "ada@example.com", Password: otherPW, Origin: here})
				return err
			},
			"reauthentication": func(ctx context.Context) error {
				_, err := w.Reauthenticate(ctx, c, otherPW)
				return err
			},
			"password change": func(ctx context.Context) error { return w.ChangePassword(ctx, c, otherPW, goodPW) },
		} {
			refused := false
			for range 60 {
				ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
				if refused = errors.Is(guess(ctx), identity.ErrTooManyAttempts); refused {
					cancel()
					break
				}
				cancel()
			}
			if !refused {
				t.Errorf("%s: guesses of a client that hangs up are not limited", name)
			}
		}
	}, func(w *world, _ *identity.Config, d *identity.Deps) {
		cfg := password.DefaultConfig()
		cfg.Argon2id = password.Argon2Config{Memory: 64, Time: 1, Parallelism: 1}
		cfg.FailureTime = 2 * time.Second
		hasher, err := password.NewHasher(cfg, w.ring, nil)
		w.must(err)
		d.Hasher = hasher
	})
}

func TestBusyGateCostsNoAttempt(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() { _, _ = w.signIn("ada@example.com", goodPW) })
		}
		wg.Wait()
		w.clock.Advance(time.Second)
		if _, err := w.signIn("ada@example.com", goodPW); err != nil {
			t.Errorf("after a storm of right passwords she is answered %v", err)
		}
	}, func(w *world, _ *identity.Config, d *identity.Deps) {
		cfg := password.DefaultConfig()
		cfg.Argon2id = password.Argon2Config{Memory: 64, Time: 1, Parallelism: 1}
		cfg.FailureTime = time.Millisecond
		cfg.Gate = password.GateConfig{Concurrency: 1, Queue: 1, Wait: time.Millisecond}
		hasher, err := password.NewHasher(cfg, w.ring, nil)
		w.must(err)
		d.Hasher = hasher
	})
}

// The attempt that locks but is right is no reason for a letter.
func TestRightPasswordIsNotReportedAsLock(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		for range identity.DefaultConfig().Attempts.Account.LockAfter - 1 {
			_, err := w.signIn("ada@example.com", otherPW)
			if errors.Is(err, identity.ErrTooManyAttempts) {
				w.clock.Advance(fault.From(err).RetryAfter())
				_, err = w.signIn("ada@example.com", otherPW)
			}
			if !errors.Is(err, identity.ErrCredentials) {
				t.Fatal(err)
			}
		}
		w.clock.Advance(5 * time.Minute)
		w.signedIn("ada@example.com")
		if n := len(w.mails("ada@example.com")); n != 1 {
			t.Errorf("%d mails, want only the sign-up's", n)
		}
	})
}

func TestLimitsOff(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		for range identity.DefaultConfig().Attempts.Account.LockAfter + 1 {
			if _, err := w.signIn("ada@example.com", otherPW); !errors.Is(err, identity.ErrCredentials) {
				t.Fatal(err)
			}
		}
	}, func(_ *world, _ *identity.Config, d *identity.Deps) { d.Limits = false })
}

func TestNewDeviceIsTold(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		first := w.signedIn("ada@example.com")
		if n := len(w.mails("ada@example.com")); n != 1 {
			t.Errorf("%d mails after the first sign-in, want only the sign-up's", n)
		}
		if _, err := w.SignIn(t.Context(), identity.SignIn{Identifier: "ada@example.com", Password: goodPW, DeviceToken: first.DeviceToken, Origin: here}); err != nil {
			t.Fatal(err)
		}
		if n := len(w.mails("ada@example.com")); n != 1 {
			t.Errorf("a known device caused a mail")
		}
		w.signedIn("ada@example.com")
		if n := len(w.mails("ada@example.com")); n != 2 {
			t.Errorf("%d mails after a new device, want 2", n)
		}
	})
}

func TestImportedHashIsUpgradedAtSignIn(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		old, err := bcrypt.GenerateFromPassword([]byte(goodPW), bcrypt.MinCost)
		w.must(err)
		stored := func() string {
			h, err := sqldb.One(t.Context(), w.db.Reader(), func(r sqldb.Row) (s string, err error) { return s, r.Scan(&s) },
				`SELECT password_hash FROM accounts WHERE id = $1`, a.ID)
			w.must(err)
			return h
		}
		_, err = w.db.Writer().ExecContext(t.Context(), `UPDATE accounts SET password_hash = $1 WHERE id = $2`, string(old), a.ID)
		w.must(err)
		w.signedIn("ada@example.com")
		if upgraded := stored(); upgraded == string(old) {
			t.Error("the old hash is still there")
		}
		w.signedIn("ada@example.com")
	})
}

// Two tabs that sign in at once right after an import must both succeed.
func TestParallelSignInsUpgradeOnce(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		old, err := bcrypt.GenerateFromPassword([]byte(goodPW), bcrypt.MinCost)
		w.must(err)
		_, err = w.db.Writer().ExecContext(t.Context(), `UPDATE accounts SET password_hash = $1 WHERE id = $2`, string(old), a.ID)
		w.must(err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := w.signIn("ada@example.com", goodPW); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// A sign-in that was on its way when the password was reset must not end up with a session.
func TestSignInRacesWithReset(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		link := w.link("ada@example.com")
		var wg sync.WaitGroup
		signed := make(chan identity.SignedIn, 20)
		for range 20 {
			wg.Go(func() {
				if in, err := w.signIn("ada@example.com", goodPW); err == nil {
					signed <- in
				}
			})
		}
		wg.Go(func() {
			if err := w.ResetPassword(t.Context(), link, otherPW, here); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		close(signed)
		for in := range signed {
			if w.accepts(t.Context(), in.Tokens.Access) {
				t.Error("a session opened with the old password outlives the reset")
			}
			if _, err := w.sessions.Refresh(t.Context(), in.Tokens.Refresh, session.Device{}); !errors.Is(err, session.ErrEnded) {
				t.Errorf("its refresh token is answered %v", err)
			}
		}
	}, func(_ *world, _ *identity.Config, d *identity.Deps) { d.Limits = false })
}
