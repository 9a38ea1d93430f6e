package federation

import (
	"errors"
	"net/http"
	"slices"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/web"
)

// The pages for those whom an identity opens no account yet, and of one's connections.

// finishPage is what a person with an identity that opens nothing can do with it.
func (p pages) finishPage(r *http.Request, one proved) (web.FinishSignUp, error) {
	who := one.Identity
	owner, err := p.owner(r.Context(), who)
	if err != nil {
		return web.FinishSignUp{}, err
	}
	provider := p.providers[who.Provider]
	return web.FinishSignUp{Provider: provider.Label, Email: who.Email, Verified: who.EmailVerified, Exists: owner != nil,
		Closed: !provider.SignUp, Name: who.Name}, nil
}

func (p pages) finishForm(w http.ResponseWriter, r *http.Request) error {
	one := p.proved(r)
	if one == nil {
		return see(w, r, "/sign-up", nil)
	}
	page, err := p.finishPage(r, *one)
	if err != nil {
		return err
	}
	return p.web.Page(w, r, http.StatusOK, page)
}

func (p pages) finishSignUp(w http.ResponseWriter, r *http.Request) error {
	one := p.proved(r)
	if one == nil {
		return ErrState
	}
	form, err := readForm(r, maxForm)
	if err != nil {
		return err
	}
	page, err := p.finishPage(r, *one)
	if err != nil {
		return err
	}
	if page.Exists || page.Closed {
		return p.web.Page(w, r, http.StatusConflict, page)
	}
	if page.Verified {
		page.Name = form.Get("name")
		_, err = p.create(r.Context(), one.Identity, identity.NewAccount{Name: page.Name, Locale: p.web.Lang(r)}, identity.OriginOf(r.Context()))
		if err == nil {
			return p.enter(w, r, *one)
		}
	} else {
		page.Email = form.Get("email")
		err = p.deps.People.SignUpProved(r.Context(), page.Email, p.web.Lang(r), identity.OriginOf(r.Context()))
		if err == nil {
			return p.web.Page(w, r, http.StatusOK, web.SignUpSent{Email: page.Email, Lifetime: provedLifetime})
		}
	}
	return p.again(w, r, err, func(form web.Form) web.Page { page.Form = form; return page })
}

// enter signs a person in whose account was just made.
func (p pages) enter(w http.ResponseWriter, r *http.Request, one proved) error {
	p.forgetProved(w)
	v, err := p.deps.People.Visitor(r, p.cookies)
	if err != nil {
		return err
	}
	return p.arrived(w, r, flow{ReturnTo: one.ReturnTo}, one.Identity, v)
}

// connectForm is where the mail leads. In a browser that has proved nobody it is an ordinary sign-up: whoever asked for the mail in
// the name of a stranger's address gets nothing of the account that the stranger then makes.
func (p pages) connectForm(w http.ResponseWriter, r *http.Request) error {
	token := r.URL.Query().Get("token")
	one := p.proved(r)
	if one == nil {
		return see(w, r, "/sign-up/confirm", r.URL.Query())
	}
	email, err := p.deps.People.PendingSignUp(r.Context(), token, identity.OriginOf(r.Context()))
	if err != nil {
		return err
	}
	return p.web.Page(w, r, http.StatusOK, web.ConnectSignUp{Provider: p.providers[one.Identity.Provider].Label, Token: token, Email: email,
		Name: one.Identity.Name})
}

func (p pages) connectSignUp(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r, maxForm)
	if err != nil {
		return err
	}
	one := p.proved(r)
	if one == nil {
		return ErrState
	}
	token, name := form.Get("token"), form.Get("name")
	email, err := p.deps.People.PendingSignUp(r.Context(), token, identity.OriginOf(r.Context()))
	if err != nil {
		return err
	}
	_, err = p.confirm(r.Context(), one.Identity, token, identity.NewAccount{Name: name, Locale: p.web.Lang(r)}, identity.OriginOf(r.Context()))
	if err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			return web.ConnectSignUp{Form: form, Provider: p.providers[one.Identity.Provider].Label, Token: token, Email: email, Name: name}
		})
	}
	return p.enter(w, r, *one)
}

func (p pages) connectionsPage(r *http.Request, v identity.Visitor) (web.Connections, error) {
	all, err := p.Connections(r.Context(), v.Account.ID)
	if err != nil {
		return web.Connections{}, err
	}
	var page web.Connections
	for _, name := range p.order {
		one := web.Connection{Name: name, Label: p.providers[name].Label, Known: true}
		if i := slices.IndexFunc(all, func(c Connection) bool { return c.Provider == name }); i >= 0 {
			one.Connected, one.As, one.Since, one.LastUsedAt = true, all[i].Label, all[i].CreatedAt, all[i].LastUsedAt
			one.Known = all[i].authority == p.providers[name].Issuer
		}
		page.Connections = append(page.Connections, one)
	}
	for _, c := range all {
		if _, known := p.providers[c.Provider]; !known {
			page.Connections = append(page.Connections, web.Connection{Name: c.Provider, Label: c.Provider, Connected: true, As: c.Label,
				Since: c.CreatedAt, LastUsedAt: c.LastUsedAt})
		}
	}
	return page, nil
}

func (p pages) connections(w http.ResponseWriter, r *http.Request, v identity.Visitor) error {
	page, err := p.connectionsPage(r, v)
	if err != nil {
		return err
	}
	if n := r.URL.Query().Get("notice"); n == "connected" || n == "disconnected" {
		page.Notice = n
	}
	return p.web.Page(w, r, http.StatusOK, page)
}

// changeConnection connects or disconnects. The way to the provider is a page that leads on rather than a redirect, which the policy
// on what a form may lead to would stop.
func (p pages) changeConnection(w http.ResponseWriter, r *http.Request, v identity.Visitor) error {
	form, err := readForm(r, maxForm)
	if err != nil {
		return err
	}
	name, caller := form.Get("provider"), v.Caller(r.Context())
	switch form.Get("action") {
	case "disconnect":
		err = p.disconnect(r.Context(), caller, name)
	case "connect":
		address, sealed, err := p.begin(r.Context(), name, intentConnect, &caller, "")
		if f := fault.From(err); err != nil && f.Kind() == fault.Unavailable {
			f.SetHeaders(w.Header())
			return p.web.Page(w, r, f.Status(), web.ProviderFailed{Fault: f, Provider: p.providers[name].Label, Retry: pathConnections})
		}
		if err != nil {
			return err
		}
		http.SetCookie(w, p.cookies.FlowCookie(sealed, flowLifetime))
		w.Header().Set("Refresh", "0; url="+address)
		return p.web.Page(w, r, http.StatusOK, web.Leaving{Provider: p.providers[name].Label, To: address})
	default:
		return ErrForm
	}
	if errors.Is(err, ErrLastWay) {
		page, pageErr := p.connectionsPage(r, v)
		if pageErr != nil {
			return pageErr
		}
		return p.again(w, r, err, func(form web.Form) web.Page { page.Form = form; return page })
	}
	if err != nil {
		return err
	}
	return seeNotice(w, r, "disconnected")
}

func (p pages) confirmForm(w http.ResponseWriter, r *http.Request, v identity.Visitor) error {
	one := p.proved(r)
	if one == nil {
		return see(w, r, pathConnections, nil)
	}
	if err := p.deps.People.Recent(v.Caller(r.Context())); err != nil {
		return err
	}
	return p.web.Page(w, r, http.StatusOK, p.confirmPage(*one, v))
}

func (p pages) confirmPage(one proved, v identity.Visitor) web.ConfirmConnection {
	return web.ConfirmConnection{Provider: p.providers[one.Identity.Provider].Label, As: one.Identity.label(), Email: v.Account.Email}
}

func (p pages) confirmConnection(w http.ResponseWriter, r *http.Request, v identity.Visitor) error {
	one := p.proved(r)
	if one == nil {
		return ErrState
	}
	if err := p.connect(r.Context(), v.Caller(r.Context()), one.Identity, one.At); err != nil {
		return p.again(w, r, err, func(form web.Form) web.Page {
			page := p.confirmPage(*one, v)
			page.Form = form
			return page
		})
	}
	p.forgetProved(w)
	return seeNotice(w, r, "connected")
}

func seeNotice(w http.ResponseWriter, r *http.Request, notice string) error {
	return see(w, r, pathConnections, map[string][]string{"notice": {notice}})
}

// again shows a form with what was wrong, where the person can put that right there.
func (p pages) again(w http.ResponseWriter, r *http.Request, err error, page func(web.Form) web.Page) error {
	f := fault.From(err)
	correctable := []fault.Kind{fault.Invalid, fault.Conflict, fault.RateLimited, fault.Unavailable, fault.Gone, fault.Forbidden}
	if !slices.Contains(correctable, f.Kind()) || errors.Is(err, identity.ErrConfirmation) {
		return err
	}
	f.SetHeaders(w.Header())
	var fields []web.FieldError
	for _, field := range f.Fields() {
		fields = append(fields, web.FieldError{Field: field.Name, Code: field.Code, Message: field.Message})
	}
	bare := fault.New(f.Kind(), f.Code(), f.Message())
	if f.RetryAfter() > 0 {
		bare = bare.After(f.RetryAfter())
	}
	return p.web.Page(w, r, f.Status(), page(web.Form{Fault: bare, Errors: fields}))
}
