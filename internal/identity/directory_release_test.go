package identity_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
)

// withoutDirectory is the world after a start without its directory, and what that start logs.
func (w *world) withoutDirectory(deps identity.Deps) (people *identity.Service, log string) {
	w.t.Helper()
	var b bytes.Buffer
	deps.Directories, deps.Log = nil, slog.New(slog.NewTextHandler(&b, nil))
	people, err := identity.New(identity.DefaultConfig(), deps)
	w.must(err)
	w.must(people.Load(w.t.Context()))
	return people, b.String()
}

// When a company's directory is gone its people are not locked out for good, and who had left the company stays out: an operator says who
// may come in, and each proves their mailbox.
func TestRelease(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		kim, err := w.signIn("kim@corp.example", goodPW)
		w.must(err)
		lee, err := w.signIn("lee@corp.example", goodPW)
		w.must(err)
		if _, err := w.Release(t.Context(), kim.Account); !errors.Is(err, identity.ErrAskedAbout) {
			t.Errorf("while the directory is configured: %v", err)
		}
		c.set(func() { delete(c.people, "lee@corp.example") })
		w.clock.Advance(2 * time.Hour)
		w.must(w.CheckDirectories(t.Context()))
		var said string
		if w.Service, said = w.withoutDirectory(w.deps); !strings.Contains(said, "directory=corp accounts=2") {
			t.Errorf("the start does not say whom it locks out: %q", said)
		}
		if _, err := w.signIn("kim@corp.example", goodPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("before the release: %v", err)
		}
		w.must(w.Recover(t.Context(), "kim@corp.example", "en", here))
		if got := w.mails("kim@corp.example"); len(got) != 0 {
			t.Errorf("before the release a link is mailed: %q", got[0].Subject)
		}
		mailed, err := w.Release(t.Context(), kim.Account)
		w.must(err)
		if !mailed || w.accepts(t.Context(), kim.Tokens.Access) {
			t.Errorf("released: mailed %t; or a session from before goes on", mailed)
		}
		if _, err := w.sessions.Refresh(t.Context(), kim.Tokens.Refresh, session.Device{}); err == nil {
			t.Error("a session from before is refreshed")
		}
		w.must(w.ResetPassword(t.Context(), w.link("kim@corp.example"), otherPW, here))
		in, err := w.signIn("kim@corp.example", otherPW)
		if err != nil || in.Account.ID != kim.Account.ID {
			t.Errorf("with the new password: %v", err)
		}
		if _, err := w.Release(t.Context(), lee.Account); !errors.Is(err, identity.ErrLeftDirectory) {
			t.Errorf("who has left the company: %v", err)
		}
		if _, err := w.Release(t.Context(), in.Account); !errors.Is(err, identity.ErrNoDirectory) {
			t.Errorf("once more: %v", err)
		}
	})
}

// Whom strangers lock out under the name that the company gave them still gets in from the device that they always use, and from no other.
func TestKnownDeviceUnderADirectorysName(t *testing.T) {
	withCompany(t, func(w *world, c *company) {
		t := w.t
		c.set(func() {
			c.people[`CORP\kim`] = c.people["kim@corp.example"]
			c.people[`CORP\lee`] = c.people["lee@corp.example"]
		})
		attempt := func(login, pw, device string) (identity.SignedIn, error) {
			return w.SignIn(t.Context(), identity.SignIn{Identifier: login, Password: pw, DeviceToken: device, Origin: here})
		}
		kim, err := attempt(`CORP\kim`, goodPW, "")
		w.must(err)
		lee, err := attempt(`CORP\lee`, goodPW, "")
		w.must(err)
		for range 12 {
			_, _ = attempt(`CORP\kim`, otherPW, "")
			w.clock.Advance(time.Second)
		}
		for name, device := range map[string]string{"no": "", "somebody else's": lee.DeviceToken} {
			if _, err := attempt(`CORP\kim`, goodPW, device); !errors.Is(err, identity.ErrTooManyAttempts) {
				t.Errorf("with %s device: %v", name, err)
			}
		}
		if _, err := attempt(`CORP\kim`, goodPW, kim.DeviceToken); err != nil {
			t.Errorf("with the known device: %v", err)
		}
	})
}
