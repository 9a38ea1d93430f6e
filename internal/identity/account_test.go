package identity_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/session"
)

func TestFiftySignUpsMakeOneAccount(t *testing.T) {
	each(t, func(w *world) {
		var tokens []string
		for range 50 {
			w.must(w.SignUp(t.Context(), "Ada@Example.com", "en", here))
		}
		for _, m := range w.mails("ada@example.com") {
			tokens = append(tokens, tokenInLink.FindStringSubmatch(m.Text)[1])
		}
		if len(tokens) != 50 {
			t.Fatalf("%d links, want 50 (limits are off here)", len(tokens))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i, token := range tokens {
			wg.Go(func() {
				_, err := w.ConfirmSignUp(t.Context(), token, identity.NewAccount{Name: fmt.Sprint("Ada ", i), Password: goodPW}, here)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					made++
				case !errors.Is(err, identity.ErrEmailTaken) && !errors.Is(err, identity.ErrConfirmation):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Errorf("%d accounts were made", made)
		}
		accounts, err := w.Accounts(t.Context(), "", 10)
		w.must(err)
		if len(accounts) != 1 {
			t.Errorf("%d accounts are there", len(accounts))
		}
	})
}

// Whether the address has an account shows only in the mail that its owner gets.
func TestSignUpForExistingAddress(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		w.must(w.SignUp(t.Context(), "ADA@example.com", "en", here))
		newest := w.mails("ada@example.com")[0]
		if tokenInLink.MatchString(newest.Text) || !strings.Contains(newest.Text, "/sign-in") {
			t.Errorf("the second mail is %q", newest.Text)
		}
	})
}

func TestOneTimeLinks(t *testing.T) {
	each(t, func(w *world) {
		w.must(w.SignUp(t.Context(), "ada@example.com", "en", here))
		link := w.link("ada@example.com")
		n := identity.NewAccount{Name: "Ada", Password: "password1"}
		if _, err := w.ConfirmSignUp(t.Context(), link, n, here); !errors.Is(err, identity.ErrPasswordPolicy) {
			t.Fatalf("a weak password is answered %v", err)
		}
		n.Password = goodPW
		if _, err := w.ConfirmSignUp(t.Context(), link, n, here); err != nil {
			t.Fatalf("a refused password used the link up: %v", err)
		}
		if _, err := w.ConfirmSignUp(t.Context(), link, n, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("the link works twice: %v", err)
		}
		w.must(w.SignUp(t.Context(), "late@example.com", "en", here))
		late := w.link("late@example.com")
		w.clock.Advance(identity.DefaultConfig().ConfirmationLifetime)
		if _, err := w.ConfirmSignUp(t.Context(), late, n, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("an expired link works: %v", err)
		}
		for _, bad := range []string{"", "x", strings.Repeat("a", 43), strings.Repeat("a", 10_000), link + "\x00"} {
			if _, err := w.ConfirmSignUp(t.Context(), bad, n, here); !errors.Is(err, identity.ErrConfirmation) {
				t.Errorf("token %.10q is answered %v", bad, err)
			}
		}
	})
}

// A recovery link must not confirm a sign-up, nor the other way round.
func TestLinksServeTheirPurposeOnly(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		link := w.link("ada@example.com")
		if _, err := w.ConfirmSignUp(t.Context(), link, identity.NewAccount{Name: "A", Password: goodPW}, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Error(err)
		}
		if err := w.ConfirmAddress(t.Context(), w.caller(w.signedIn("ada@example.com")), link); !errors.Is(err, identity.ErrConfirmation) {
			t.Error(err)
		}
		if _, err := w.SetUp(t.Context(), link, identity.NewAccount{Email: "m@example.com", Name: "M", Password: goodPW}, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Error(err)
		}
	})
}

func TestUserNamesAreUniqueWhateverTheCase(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "ada")
		b := w.person("bob@example.com", "")
		in := w.signedIn("bob@example.com")
		name := "ADA"
		if _, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{UserName: &name}); !errors.Is(err, identity.ErrUserNameTaken) {
			t.Errorf("a taken user name is answered %v", err)
		}
		again, err := w.Account(t.Context(), b.ID)
		w.must(err)
		if again.Version != b.Version {
			t.Error("the refused edit left a trace")
		}
	})
}

func TestEditsOfOneVersionConflict(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 20 {
			wg.Go(func() {
				name := fmt.Sprint("Ada ", i)
				_, err := w.EditProfile(t.Context(), w.caller(in), a.Version, identity.Edit{Name: &name})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !errors.Is(err, identity.ErrVersion) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d edits of one version went through", won)
		}
	})
}

func TestPasswordChangeEndsOtherSessions(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		other, mine := w.signedIn("ada@example.com"), w.signedIn("ada@example.com")
		if err := w.ChangePassword(t.Context(), w.caller(mine), otherPW, otherPW); !errors.Is(err, identity.ErrCurrentPassword) {
			t.Errorf("a wrong current password is answered %v", err)
		}
		w.must(w.ChangePassword(t.Context(), w.caller(mine), goodPW, otherPW))
		if w.accepts(t.Context(), other.Tokens.Access) {
			t.Error("another session's access token still works")
		}
		if _, err := w.sessions.Refresh(t.Context(), mine.Tokens.Refresh, session.Device{}); err != nil {
			t.Errorf("one's own session ended: %v", err)
		}
		if _, err := w.signIn("ada@example.com", goodPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("the old password is answered %v", err)
		}
		if _, err := w.signIn("ada@example.com", otherPW); err != nil {
			t.Error(err)
		}
	})
}

func TestLastFivePasswordsAreRefused(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		c := w.caller(in)
		change := func(from, to string) error {
			w.clock.Advance(time.Second)
			return w.ChangePassword(t.Context(), c, from, to)
		}
		pw := func(i int) string { return fmt.Sprintf("harbour-quartz-%d-thimble", i) }
		w.must(change(goodPW, pw(1)))
		for i := 1; i < 4; i++ {
			w.must(change(pw(i), pw(i+1)))
		}
		for _, used := range []string{goodPW, pw(1), pw(2), pw(3), pw(4)} {
			if err := change(pw(4), used); !errors.Is(err, identity.ErrPasswordReused) {
				t.Errorf("%s is answered %v", used, err)
			}
		}
		w.must(change(pw(4), pw(5)))
		if err := change(pw(5), goodPW); err != nil {
			t.Errorf("the sixth last password is refused: %v", err)
		}
	})
}

func TestSensitiveChangesNeedARecentSignIn(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		in, err := w.SignIn(t.Context(), identity.SignIn{Identifier: "ada@example.com", Password: goodPW, Browser: true, Origin: here})
		w.must(err)
		w.clock.Advance(identity.DefaultConfig().RecentSignIn + time.Second)
		c := w.caller(in)
		for name, err := range map[string]error{
			"password": w.ChangePassword(t.Context(), c, goodPW, otherPW),
			"address":  w.ChangeAddress(t.Context(), c, "new@example.com"),
			"deletion": w.DeleteAccount(t.Context(), c, 0),
		} {
			if !errors.Is(err, identity.ErrRecentSignIn) {
				t.Errorf("%s is answered %v", name, err)
			}
		}
		if _, err := w.Reauthenticate(t.Context(), c, otherPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("a wrong password is answered %v", err)
		}
		cookie, err := w.Reauthenticate(t.Context(), c, goodPW)
		w.must(err)
		if cookie == in.Cookie {
			t.Error("the cookie did not change")
		}
		if _, err := w.sessions.Authenticate(t.Context(), in.Cookie); !errors.Is(err, session.ErrInvalidCookie) {
			t.Errorf("the old cookie is answered %v", err)
		}
		sess, err := w.sessions.Authenticate(t.Context(), cookie)
		w.must(err)
		c.AuthTime = sess.AuthTime
		w.must(w.ChangePassword(t.Context(), c, goodPW, otherPW))
	})
}

func TestResetEndsAllSessionsAndOtherLinks(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		first := w.link("ada@example.com")
		w.clock.Advance(time.Second)
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		second := w.link("ada@example.com")
		if first == second {
			t.Fatal("both links are the same")
		}
		w.must(w.ResetPassword(t.Context(), first, otherPW, here))
		if w.accepts(t.Context(), in.Tokens.Access) {
			t.Error("a session survived the reset")
		}
		if err := w.ResetPassword(t.Context(), second, goodPW, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("an older link undoes the reset: %v", err)
		}
		w.must(w.Recover(t.Context(), "nobody@example.com", "en", here))
		if n := len(w.mails("nobody@example.com")); n != 0 {
			t.Errorf("a stranger got %d mails", n)
		}
	})
}

func TestAddressChange(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		w.person("bob@example.com", "")
		in := w.signedIn("ada@example.com")
		w.must(w.ChangeAddress(t.Context(), w.caller(in), "bob@example.com"))
		if m := w.mails("bob@example.com")[0]; tokenInLink.MatchString(m.Text) {
			t.Error("the owner of a taken address got a link to take over the change")
		}
		w.must(w.ChangeAddress(t.Context(), w.caller(in), "new@example.com"))
		link := w.link("new@example.com")
		if pending, err := w.PendingEmail(t.Context(), a.ID); err != nil || pending != "new@example.com" {
			t.Errorf("pending is %q, %v", pending, err)
		}
		told := len(w.mails("ada@example.com"))
		bob := w.caller(w.signedIn("bob@example.com"))
		if err := w.ConfirmAddress(t.Context(), bob, link); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("somebody else may confirm: %v", err)
		}
		w.must(w.ConfirmAddress(t.Context(), w.caller(in), link))
		if n := len(w.mails("ada@example.com")); n != told+1 {
			t.Error("the old address was not told")
		}
		if _, err := w.signIn("new@example.com", goodPW); err != nil {
			t.Error(err)
		}
		if _, err := w.signIn("ada@example.com", goodPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("the old address is answered %v", err)
		}
	})
}

// A thief who asked for another address before the owner chose a new password must not get the account by mail afterwards.
func TestNewPasswordEndsWhatAThiefPrepared(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		thief := w.signedIn("ada@example.com")
		w.must(w.ChangeAddress(t.Context(), w.caller(thief), "thief@example.com"))
		sent := w.link("thief@example.com")
		w.clock.Advance(time.Second)
		w.must(w.ChangeAddress(t.Context(), w.caller(thief), "waiting@example.com"))
		w.clock.Advance(time.Second)
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		reset := w.link("ada@example.com") // delivers the waiting letter as well
		waiting := w.link("waiting@example.com")
		w.must(w.ResetPassword(t.Context(), reset, otherPW, here))
		if err := w.ConfirmAddress(t.Context(), w.caller(thief), waiting); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("the other link from before is answered %v", err)
		}
		if err := w.ConfirmAddress(t.Context(), w.caller(thief), sent); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("the link from before is answered %v", err)
		}
		w.clock.Advance(time.Second)
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		w.link("ada@example.com")
		told := len(w.mails("ada@example.com"))
		_, err := w.SignIn(t.Context(), identity.SignIn{Identifier: "ada@example.com", Password: otherPW, DeviceToken: thief.DeviceToken, Origin: here})
		w.must(err)
		_, err = w.SignIn(t.Context(), identity.SignIn{Identifier: "ada@example.com", Password: otherPW, Origin: here})
		w.must(err)
		if n := len(w.mails("ada@example.com")); n != told+1 {
			t.Errorf("%d mails about new devices, want 1", n-told)
		}
	})
}

// A letter that waited while the password changed must not make a link any more.
func TestLettersFromBeforeANewPasswordMakeNoLinks(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		asked := w.clock.Now()
		w.clock.Advance(time.Second)
		w.must(w.ChangePassword(t.Context(), w.caller(in), goodPW, otherPW))
		for _, l := range []mail.Letter{
			{Kind: "recovery", Address: "ada@example.com", CreatedAt: asked},
			{Kind: "address_change", Address: "thief@example.com", Account: a.ID, CreatedAt: asked},
		} {
			if m, err := w.compose(t.Context(), l); err != nil || m != nil {
				t.Errorf("%s still makes a mail: %v, %v", l.Kind, m, err)
			}
		}
	})
}

// Who sends no If-Match asks for the change on whatever is there, and must not be told that somebody was quicker.
func TestEditsWithoutAVersionAllSucceed(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				name := fmt.Sprint("Ada ", i)
				if _, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Name: &name}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		after, err := w.Account(t.Context(), a.ID)
		w.must(err)
		if after.Version != a.Version+10 {
			t.Errorf("version %d after ten edits of version %d", after.Version, a.Version)
		}
	})
}

// Strangers who sign up with somebody's address must not use up the mails with which she recovers her account.
func TestSignUpsLeaveRecoveryAlone(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		for range 20 {
			w.must(w.SignUp(t.Context(), "ada@example.com", "en", from("198.51.100.7")))
		}
		before := len(w.mails("ada@example.com"))
		w.must(w.Recover(t.Context(), "ada@example.com", "en", here))
		if n := len(w.mails("ada@example.com")); n != before+1 {
			t.Error("no recovery mail came")
		}
		if before > identity.DefaultConfig().Requests.MailsPerAddress+1 {
			t.Errorf("strangers caused %d mails", before)
		}
	}, func(_ *world, _ *identity.Config, d *identity.Deps) { d.Limiter = ratelimit.NewMemory(d.Clock) })
}

func TestDisabledAccount(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		w.must(w.SetStatus(t.Context(), a.ID, identity.Disabled))
		if w.accepts(t.Context(), in.Tokens.Access) {
			t.Error("its access token still works")
		}
		if err := w.SetStatus(t.Context(), "nobody", identity.Disabled); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("an unknown account is answered %v", err)
		}
		w.must(w.SetStatus(t.Context(), a.ID, identity.Active))
		w.signedIn("ada@example.com")
	})
}

func TestParallelDeletionsDeleteOnce(t *testing.T) {
	each(t, func(w *world) {
		w.person("ada@example.com", "")
		c := w.caller(w.signedIn("ada@example.com"))
		if err := w.DeleteAccount(t.Context(), c, 999); !errors.Is(err, identity.ErrVersion) {
			t.Errorf("a deletion of another version is answered %v", err)
		}
		var wg sync.WaitGroup
		var deleted atomic.Int32
		for range 8 {
			wg.Go(func() {
				switch err := w.DeleteAccount(t.Context(), c, 0); {
				case err == nil:
					deleted.Add(1)
				case !errors.Is(err, identity.ErrNotFound):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if deleted.Load() != 1 {
			t.Errorf("%d deletions succeeded", deleted.Load())
		}
	})
}

// An edit that changes nothing must not fill the trail, and many edits must end somewhere.
func TestIdleEditsLeaveNoTrace(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		c := w.caller(w.signedIn("ada@example.com"))
		refused := 0
		for range identity.DefaultConfig().Requests.EditsPerAccount + 5 {
			if _, err := w.EditProfile(t.Context(), c, 0, identity.Edit{Name: &a.Name}); errors.Is(err, identity.ErrTooManyRequests) {
				refused++
			}
		}
		if refused == 0 {
			t.Error("edits are not limited")
		}
		events, _, err := w.Activity(t.Context(), a.ID, "", 10)
		w.must(err)
		if len(events) != 2 {
			t.Errorf("%d events, want the account's beginning and the sign-in", len(events))
		}
	}, func(_ *world, _ *identity.Config, d *identity.Deps) { d.Limiter = ratelimit.NewMemory(d.Clock) })
}

// A neighbour who tries links that do not exist must not keep others from following theirs.
func TestLinksThatExistAreNeverHeldUp(t *testing.T) {
	each(t, func(w *world) {
		w.must(w.SignUp(t.Context(), "ada@example.com", "en", here))
		link := w.link("ada@example.com")
		var last error
		for range identity.DefaultConfig().Requests.ConfirmsPerClient + 1 {
			_, last = w.PendingSignUp(t.Context(), "nothing", here)
		}
		if !errors.Is(last, identity.ErrTooManyRequests) {
			t.Errorf("trying links is answered %v in the end", last)
		}
		if _, err := w.ConfirmSignUp(t.Context(), link, identity.NewAccount{Name: "Ada", Password: goodPW}, here); err != nil {
			t.Error(err)
		}
	}, func(_ *world, _ *identity.Config, d *identity.Deps) { d.Limiter = ratelimit.NewMemory(d.Clock) })
}

func TestDeletedAccountLeavesNothingToSignInWith(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "ada")
		in := w.signedIn("ada")
		w.must(w.DeleteAccount(t.Context(), w.caller(in), 0))
		if w.accepts(t.Context(), in.Tokens.Access) {
			t.Error("its access token still works")
		}
		if _, err := w.signIn("ada", goodPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("sign-in is answered %v", err)
		}
		if _, err := w.Account(t.Context(), a.ID); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("the account is answered %v", err)
		}
		w.person("ada@example.com", "ada") // both names are free again
	})
}

func TestFirstAdministratorIsMadeOnce(t *testing.T) {
	each(t, func(w *world) {
		first, err := w.SetupLink(t.Context())
		w.must(err)
		second, err := w.SetupLink(t.Context())
		w.must(err)
		token := func(link string) string { return tokenInLink.FindStringSubmatch(link)[1] }
		n := identity.NewAccount{Email: "root@example.com", Name: "Root", Password: goodPW}
		if _, err := w.SetUp(t.Context(), token(first), n, here); !errors.Is(err, identity.ErrConfirmation) {
			t.Errorf("a replaced link is answered %v", err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i := range 10 {
			wg.Go(func() {
				n := n
				n.Email = fmt.Sprintf("root%d@example.com", i)
				if _, err := w.SetUp(t.Context(), token(second), n, here); err == nil {
					mu.Lock()
					made++
					mu.Unlock()
				} else if !errors.Is(err, identity.ErrConfirmation) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Errorf("%d administrators were made", made)
		}
		if link, err := w.SetupLink(t.Context()); err != nil || link != "" {
			t.Errorf("there is another link %q, %v", link, err)
		}
	})
}

func TestActivityTellsWhatHappened(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "")
		in := w.signedIn("ada@example.com")
		w.must(w.ChangePassword(t.Context(), w.caller(in), goodPW, otherPW))
		events, _, err := w.Activity(t.Context(), a.ID, "", 10)
		w.must(err)
		var actions []string
		for _, e := range events {
			actions = append(actions, e.Action)
			if e.Origin.Address != here.Address || e.Origin.UserAgent != here.UserAgent {
				t.Errorf("%s came from %v", e.Action, e.Origin)
			}
		}
		if want := "password.changed session.started account.created"; strings.Join(actions, " ") != want {
			t.Errorf("the trail is %v, want %s", actions, want)
		}
	})
}

func TestEveryFieldAtFaultIsNamed(t *testing.T) {
	each(t, func(w *world) {
		_, err := w.AddAccount(t.Context(), identity.NewAccount{
			Email: "not an address", Name: "\u202eevil", UserName: "1", Locale: "xx", Password: "short", Roles: []string{"Not A Role"},
		})
		got := map[string]bool{}
		for _, f := range fault.From(err).Fields() {
			got[f.Name] = true
		}
		for _, field := range []string{"email", "name", "user_name", "locale", "password", "roles"} {
			if !got[field] {
				t.Errorf("%s is not named in %v", field, err)
			}
		}
	})
}

func TestSweepRemovesWhatExpired(t *testing.T) {
	each(t, func(w *world) {
		w.must(w.SignUp(t.Context(), "ada@example.com", "en", here))
		w.link("ada@example.com")
		_, _ = w.signIn("nobody", otherPW)
		count := func(table string) (n int) {
			w.must(w.db.Reader().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM `+table).Scan(&n))
			return n
		}
		w.must(w.Sweep(t.Context()))
		if count("confirmations") != 1 || count("attempts") != 2 {
			t.Fatal("living rows are gone")
		}
		w.clock.Advance(60 * 24 * time.Hour)
		w.must(w.Sweep(t.Context()))
		if n := count("confirmations") + count("attempts"); n != 0 {
			t.Errorf("%d expired rows are left", n)
		}
	})
}
