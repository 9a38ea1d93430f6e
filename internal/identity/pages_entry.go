package identity

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

// The pages in front of an account: sign-up, sign-in, recovery, set-up.

func (p pages) signUpForm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	return p.show(w, r, web.SignUp{})
}

func (p pages) signUp(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	email := f.Get("email")
	if err := p.SignUp(r.Context(), email, p.web.Lang(r), OriginOf(r.Context())); errors.Is(err, ErrDirectory) {
		return p.elsewhere(w, r, email)
	} else if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page { return web.SignUp{Form: form, Email: email} })
	}
	return p.show(w, r, web.SignUpSent{Email: email, Lifetime: p.cfg.ConfirmationLifetime})
}

func (p pages) confirmForm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	token := r.URL.Query().Get("token")
	email, err := p.PendingSignUp(r.Context(), token, OriginOf(r.Context()))
	if err != nil {
		return err
	}
	return p.show(w, r, web.Confirm{Token: token, Email: email, Rules: p.rules()})
}

func (p pages) confirm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	token := f.Get("token")
	email, err := p.PendingSignUp(r.Context(), token, OriginOf(r.Context()))
	if err != nil {
		return err
	}
	n := NewAccount{Name: f.Get("name"), UserName: f.Get("user_name"), Password: f.Get("new_password"), Locale: p.web.Lang(r)}
	if _, err := p.ConfirmSignUp(r.Context(), token, n, OriginOf(r.Context())); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.Confirm{Form: form, Token: token, Email: email, Name: n.Name, UserName: n.UserName, Rules: p.rules()}
		})
	}
	return see(w, r, pathSignIn, url.Values{"notice": {"account_created"}})
}

func (p pages) signInForm(w http.ResponseWriter, r *http.Request, v *visitor) error {
	back := r.URL.Query().Get("return_to")
	another := r.URL.Query().Has("another") // who is signed in wants to be, or shall be, somebody else
	if v != nil && !another {
		return see(w, r, returnTo(back), nil)
	}
	return p.show(w, r, web.SignIn{ReturnTo: back, Another: another, Identifier: r.URL.Query().Get("login_hint"),
		Notice: notice(r, "account_created", "password_reset", "address_changed", "session_ended")})
}

// returnTo is where a form wanted to go, if that is a page of ours, else the account.
func returnTo(path string) string {
	if path = web.SafeReturn(path); path != "/" {
		return path
	}
	return pathAccount
}

func (p pages) signIn(w http.ResponseWriter, r *http.Request, v *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	in := SignIn{Identifier: f.Get("identifier"), Password: f.Get("password"), Browser: true, Origin: OriginOf(r.Context()),
		DeviceToken: DeviceToken(r, p.cookies)}
	if v != nil {
		in.Replaces = v.session
	}
	signed, err := p.SignIn(r.Context(), in)
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.SignIn{Form: form, Identifier: in.Identifier, ReturnTo: f.Get("return_to"), Another: v != nil}
		})
	}
	p.Remember(w, p.cookies, signed)
	return see(w, r, returnTo(f.Get("return_to")), nil)
}

func (p pages) signOut(w http.ResponseWriter, r *http.Request, v *visitor) error {
	var frames []string
	if v != nil {
		var err error
		if frames, err = p.deps.Frames(r.Context(), v.session.ID); err != nil {
			return err
		}
		if err := p.endOwn(r, *v, v.session.ID, session.SignedOut); err != nil {
			return err
		}
	}
	p.forget(w)
	// The answer is a page of its own rather than a redirect, so that it is written for a stranger.
	return p.show(w, stranger(r), web.SignedOut{Frames: frames})
}

// elsewhere says, by the address alone, who keeps the password.
func (p pages) elsewhere(w http.ResponseWriter, r *http.Request, email string) error {
	label, address, _ := p.PasswordPlace(email)
	return p.show(w, r, web.PasswordElsewhere{Keeper: label, Address: address, Back: pathSignIn})
}

func (p pages) recoverForm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	return p.show(w, r, web.Recover{})
}

func (p pages) recover(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	email := f.Get("email")
	if err := p.Recover(r.Context(), email, p.web.Lang(r), OriginOf(r.Context())); errors.Is(err, ErrDirectory) {
		return p.elsewhere(w, r, email)
	} else if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page { return web.Recover{Form: form, Email: email} })
	}
	return p.show(w, r, web.RecoverSent{Email: email, Lifetime: p.cfg.RecoveryLifetime})
}

func (p pages) resetForm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	token := r.URL.Query().Get("token")
	email, err := p.PendingRecovery(r.Context(), token, OriginOf(r.Context()))
	if err != nil {
		return err
	}
	return p.show(w, r, web.Reset{Token: token, Email: email, Rules: p.rules()})
}

func (p pages) reset(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	token := f.Get("token")
	email, err := p.PendingRecovery(r.Context(), token, OriginOf(r.Context()))
	if err != nil {
		return err
	}
	if err := p.ResetPassword(r.Context(), token, f.Get("new_password"), OriginOf(r.Context())); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.Reset{Form: form, Token: token, Email: email, Rules: p.rules()}
		})
	}
	p.forget(w)
	return see(w, r, pathSignIn, url.Values{"notice": {"password_reset"}})
}

func (p pages) setupForm(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	token := r.URL.Query().Get("token")
	if err := p.PendingSetup(r.Context(), token, OriginOf(r.Context())); err != nil {
		return err
	}
	return p.show(w, r, web.Setup{Token: token, Rules: p.rules()})
}

func (p pages) setup(w http.ResponseWriter, r *http.Request, _ *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	token := f.Get("token")
	n := NewAccount{Email: f.Get("email"), Name: f.Get("name"), UserName: f.Get("user_name"),
		Password: f.Get("new_password"), Locale: p.web.Lang(r)}
	if _, err := p.SetUp(r.Context(), token, n, OriginOf(r.Context())); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.Setup{Form: form, Token: token, Email: n.Email, Name: n.Name, UserName: n.UserName, Rules: p.rules()}
		})
	}
	return see(w, r, pathSignIn, url.Values{"notice": {"account_created"}})
}
