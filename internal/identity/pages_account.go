package identity

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

// The pages of one's own account.

const (
	pathAccount        = "/account"
	pathProfile        = pathAccount + "/profile"
	pathPassword       = pathAccount + "/password"
	pathAddress        = pathAccount + "/address"
	pathReauthenticate = pathAccount + "/reauthenticate"
	pathActivity       = pathAccount + "/activity"
	pathDelete         = pathAccount + "/delete"
)

// pageSize is how many sessions or events a page lists.
const pageSize = 20

func (p pages) account(w http.ResponseWriter, r *http.Request, v visitor) error {
	pending, err := p.PendingEmail(r.Context(), v.account.ID)
	if err != nil {
		return err
	}
	a := v.account
	directory := ""
	if a.Directory != "" {
		directory, _ = p.passwordPlaceOf(a)
	}
	return p.show(w, r, web.Account{Name: a.Name, UserName: a.UserName, Email: a.Email, PendingEmail: pending, Locale: a.Locale,
		Phone: a.Phone, Address: web.Address(a.Address), Directory: directory,
		CreatedAt: a.CreatedAt, PasswordChangedAt: a.PasswordChangedAt, NoPassword: !a.HasPassword(),
		Notice: notice(r, "profile_saved", "password_changed", "address_changed")})
}

func (p pages) profileForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	a := v.account
	return p.show(w, r, web.EditProfile{Version: strconv.FormatInt(a.Version, 10), Name: a.Name, UserName: a.UserName, Locale: a.Locale,
		Phone: a.Phone, Address: web.Address(a.Address)})
}

func (p pages) profile(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	version, err := strconv.ParseInt(f.Get("version"), 10, 64)
	if err != nil || version < 1 {
		return errForm
	}
	name, userName, locale, phone := f.Get("name"), f.Get("user_name"), f.Get("locale"), f.Get("phone_number")
	address := PostalAddress{Street: f.Get("street_address"), Locality: f.Get("locality"), Region: f.Get("region"),
		PostalCode: f.Get("postal_code"), Country: f.Get("country")}
	e := Edit{Name: &name, UserName: &userName, Locale: &locale}
	if f.Has("phone_number") { // a page of the version before has no such fields
		e.Phone, e.Address = &phone, &address
	}
	_, err = p.EditProfile(r.Context(), p.caller(r, v), version, e)
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.EditProfile{Form: form, Version: strconv.FormatInt(v.account.Version, 10), Name: name, UserName: userName, Locale: locale,
				Phone: phone, Address: web.Address(address)}
		})
	}
	return see(w, r, pathAccount, url.Values{"notice": {"profile_saved"}})
}

func (p pages) passwordForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	if v.account.Directory != "" {
		label, address := p.passwordPlaceOf(v.account)
		return p.show(w, r, web.PasswordElsewhere{Keeper: label, Address: address, Back: pathAccount})
	}
	return p.show(w, r, web.ChangePassword{Email: v.account.Email, AskCurrent: v.account.HasPassword(), Rules: p.rules()})
}

func (p pages) password(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	err = p.ChangePassword(r.Context(), p.caller(r, v), f.Get("current_password"), f.Get("new_password"))
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.ChangePassword{Form: form, Email: v.account.Email, AskCurrent: v.account.HasPassword(), Rules: p.rules()}
		})
	}
	return see(w, r, pathAccount, url.Values{"notice": {"password_changed"}})
}

func (p pages) addressForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	return p.show(w, r, web.ChangeAddress{Current: v.account.Email})
}

func (p pages) address(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	email := f.Get("email")
	if err := p.ChangeAddress(r.Context(), p.caller(r, v), email); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.ChangeAddress{Form: form, Current: v.account.Email, Email: email}
		})
	}
	return p.show(w, r, web.ChangeAddressSent{Current: v.account.Email, Email: email, Lifetime: p.cfg.ConfirmationLifetime})
}

func (p pages) confirmAddressForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	token := r.URL.Query().Get("token")
	email, err := p.PendingAddress(r.Context(), p.caller(r, v), token)
	if err != nil {
		return err
	}
	return p.show(w, r, web.AddressConfirm{Token: token, Email: email})
}

func (p pages) confirmAddress(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	if err := p.ConfirmAddress(r.Context(), p.caller(r, v), f.Get("token")); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.AddressConfirm{Form: form, Token: f.Get("token")}
		})
	}
	return see(w, r, pathAccount, url.Values{"notice": {"address_changed"}})
}

func (p pages) reauthenticateForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	return p.show(w, r, web.Reauthenticate{Email: v.account.Email, NoPassword: !v.account.asksPassword(), ReturnTo: r.URL.Query().Get("return_to")})
}

func (p pages) reauthenticate(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	cookie, err := p.Reauthenticate(r.Context(), p.caller(r, v), f.Get("current_password"))
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.Reauthenticate{Form: form, Email: v.account.Email, NoPassword: !v.account.asksPassword(), ReturnTo: f.Get("return_to")}
		})
	}
	p.remember(w, cookie)
	return see(w, r, returnTo(f.Get("return_to")), nil)
}

func (p pages) sessions(w http.ResponseWriter, r *http.Request, v visitor) error {
	list, next, err := p.deps.Sessions.List(r.Context(), v.account.ID, r.URL.Query().Get("cursor"), pageSize)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(list, func(s session.Session) bool { return s.ID == v.session.ID }); i > 0 {
		list = slices.Insert(slices.Delete(slices.Clone(list), i, i+1), 0, list[i]) // the visitor's own comes first
	}
	page := web.Sessions{Next: next, Notice: notice(r, "session_ended", "other_sessions_ended")}
	for _, s := range list {
		page.Sessions = append(page.Sessions, web.Session{ID: s.ID, Device: s.Device.Label, Address: audit.AddressText(s.Device.Address),
			CreatedAt: s.CreatedAt, LastUsedAt: s.LastUsedAt, Current: s.ID == v.session.ID})
	}
	return p.show(w, r, page)
}

func (p pages) endSession(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	// One that ended meanwhile is what the person wanted.
	if err := p.endOwn(r, v, f.Get("session_id"), session.EndedByOwner); err != nil && !errors.Is(err, session.ErrNotFound) {
		return err
	}
	return see(w, r, pathSessions, url.Values{"notice": {"session_ended"}})
}

func (p pages) endOwn(r *http.Request, v visitor, id string, reason session.Reason) error {
	return p.deps.Sessions.End(r.Context(), v.account.ID, id, reason)
}

func (p pages) endOthers(w http.ResponseWriter, r *http.Request, v visitor) error {
	if err := p.deps.Sessions.EndOthers(r.Context(), v.account.ID, v.session.ID, session.EndedByOwner); err != nil {
		return err
	}
	return see(w, r, pathSessions, url.Values{"notice": {"other_sessions_ended"}})
}

func (p pages) activity(w http.ResponseWriter, r *http.Request, v visitor) error {
	events, next, err := p.Activity(r.Context(), v.account.ID, r.URL.Query().Get("cursor"), pageSize)
	if err != nil {
		return err
	}
	page := web.Activity{Next: next}
	for _, e := range events {
		page.Events = append(page.Events, web.Event{At: e.At, Action: e.Action, ByOperator: actor(e) == "operator",
			Device: session.DeviceLabel(e.Origin.UserAgent), Address: audit.AddressText(e.Origin.Address)})
	}
	return p.show(w, r, page)
}

func (p pages) deleteForm(w http.ResponseWriter, r *http.Request, v visitor) error {
	return p.show(w, r, web.Delete{Email: v.account.Email})
}

func (p pages) delete(w http.ResponseWriter, r *http.Request, v visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	frames, err := p.deps.Frames(r.Context(), v.session.ID)
	if err != nil {
		return err
	}
	err = invalid("confirm", "confirm.required", "Tick the box to confirm.")
	if f.Get("confirm") == "yes" {
		err = p.DeleteAccount(r.Context(), p.caller(r, v), 0)
	}
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page { return web.Delete{Form: form, Email: v.account.Email} })
	}
	p.forget(w)
	return p.show(w, stranger(r), web.Deleted{Frames: frames})
}
