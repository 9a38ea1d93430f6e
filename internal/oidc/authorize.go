package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

const (
	authorizePath = "/oauth/authorize"
	continuePath  = "/oauth/continue"
	consentPath   = "/oauth/consent"

	// signInPath and anotherPath are where people sign in; the latter also shows the form to who is signed in.
	signInPath  = "/sign-in?"
	anotherPath = "/sign-in?another=1&"
)

// pages are the endpoints that a person's browser comes to.
type pages struct {
	*Service
	web     *web.Renderer
	cookies httpd.Cookies
}

// visitor is the person at the browser.
type visitor struct {
	session session.Session
	account identity.Account
}

func (p pages) mount(mux *http.ServeMux) {
	for pattern, h := range map[string]httpd.Handler{
		"GET " + authorizePath:  p.authorize,
		"POST " + authorizePath: p.authorizePosted,
		"GET " + continuePath:   p.proceed,
		"POST " + consentPath:   p.consent,
		"GET " + logoutPath:     p.logout,
		"POST " + logoutPath:    p.logoutPosted,
		"POST " + signOutPath:   p.signOut,
		"GET " + appsPath:       p.apps,
		"POST " + appsPath:      p.withdraw,
		"GET " + devicePath:     p.device,
		"POST " + devicePath:    p.decideDevice,
	} {
		mux.Handle(pattern, httpd.WithErrors(p.web.Fault, h))
	}
}

// authorizePosted sends a request that was posted (OpenID Connect Core 1.0, section 3.1.2.1) on as one that is asked for: from another
// site the browser sends no cookies with a form, and does when it follows.
func (p pages) authorizePosted(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	return see(w, r, authorizePath+"?"+form.Encode())
}

// authorize is the authorization endpoint (RFC 6749, section 3.1).
func (p pages) authorize(w http.ResponseWriter, r *http.Request) error {
	req, err := p.readRequest(r.Context(), r.URL.Query())
	if err != nil {
		return err
	}
	if err := errors.Join(req.checkPushed(), req.check()); err != nil {
		return p.refuse(w, r, req, err)
	}
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	now := p.deps.Clock()
	switch {
	case v == nil && req.prompts("none"):
		return p.refuse(w, r, req, ErrLoginRequired)
	case v == nil:
		return p.signIn(w, r, req, signInPath)
	case !req.means(v) && (req.prompts("none") || !req.since.IsZero()): // who came back is not who was meant
		return p.refuse(w, r, req, ErrLoginRequired)
	case !req.means(v):
		return p.signIn(w, r, req, anotherPath)
	case !req.fresh(v.session.AuthTime, now) && req.prompts("none"):
		return p.refuse(w, r, req, ErrLoginRequired)
	case !req.fresh(v.session.AuthTime, now) && req.prompts("select_account"):
		return p.signIn(w, r, req, anotherPath)
	case !req.fresh(v.session.AuthTime, now):
		return p.signIn(w, r, req, "/account/reauthenticate?")
	case !req.claims.takesACR(v.session.ACR):
		return p.refuse(w, r, req, ErrUnmetAuthentication)
	}
	agreed, err := p.agreed(r.Context(), req, v)
	switch {
	case err != nil:
		return err
	case agreed:
		return p.finish(w, r, req, v, redirect)
	case req.prompts("none"):
		return p.refuse(w, r, req, ErrConsentRequired)
	default:
		return p.askConsent(w, r, req, v)
	}
}

// visitor returns who is signed in at the browser, nil for nobody.
func (p pages) visitor(r *http.Request) (*visitor, error) {
	cookie, err := r.Cookie(p.cookies.Session())
	if err != nil {
		return nil, nil
	}
	one, err := p.deps.Sessions.Authenticate(r.Context(), cookie.Value)
	if errors.Is(err, session.ErrInvalidCookie) || errors.Is(err, session.ErrEnded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	account, err := p.deps.People.Account(r.Context(), one.Subject)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, nil
	}
	return &visitor{one, account}, err
}

func (v visitor) seen(ctx context.Context) context.Context {
	return web.WithViewer(ctx, web.Viewer{Name: v.account.Name, Locale: v.account.Locale})
}

// signIn sends the person to sign in, from where they come back to the request.
func (p pages) signIn(w http.ResponseWriter, r *http.Request, req *request, to string) error {
	params, err := p.carry(r.Context(), req, req.again(p.deps.Clock()))
	if err != nil {
		return err
	}
	query := url.Values{"return_to": {continuePath + "?" + params.Encode()}}
	if req.loginHint != "" && len(req.loginHint) <= 254 {
		query.Set("login_hint", req.loginHint)
	}
	if req.lang != "" {
		query.Set("lang", req.lang)
	}
	return see(w, r, to+query.Encode())
}

// proceed follows a sign-in. It shows a page instead of redirecting: browsers take what follows a form for the form's target, and the
// forms of our pages may not lead to other sites (Content-Security-Policy, form-action).
func (p pages) proceed(w http.ResponseWriter, r *http.Request) error {
	return p.goOn(w, r, web.Continue{To: authorizePath + "?" + r.URL.RawQuery})
}

// goOn shows a page that goes on by itself, and has a link for where it does not.
func (p pages) goOn(w http.ResponseWriter, r *http.Request, page web.Continue) error {
	w.Header().Set("Refresh", "0; url="+page.To) // counted from when all is loaded (HTML, section 4.2.5.3)
	return p.web.Page(w, r, http.StatusOK, page)
}

// redirect and form are the ways in which an answer reaches the client's address: directly, or following a form of ours.
const (
	redirect  = false
	afterForm = true
)

// deliver sends the person to the client with an answer.
func (p pages) deliver(w http.ResponseWriter, r *http.Request, req *request, answer url.Values, follows bool) error {
	w.Header().Set("Cache-Control", "no-store")
	if req.mode == modeFormPost {
		return p.web.Page(w, r, http.StatusOK, web.FormPost{Action: req.redirectURI, Fields: answer})
	}
	if follows {
		return p.goOn(w, r, web.Continue{To: req.location(answer)})
	}
	return see(w, r, req.location(answer))
}

// errUnvetted is told the person instead of a client that nobody knows: they have not even come here to sign in.
var errUnvetted = ErrRequestRefused.With("The application that sent you here made a mistake. It registered itself: nobody here has checked it.")

// refuse tells the client why not. What is no fault of the request's stays with the person, and so does what would send somebody who is not
// signed in straight on to wherever a stranger likes (RFC 9700, section 4.11.2); prompt=none has to be answered.
func (p pages) refuse(w http.ResponseWriter, r *http.Request, req *request, err error) error {
	f := fault.From(err)
	if f.Kind() == fault.Internal {
		return err
	}
	p.requests.WithLabelValues("authorize", errorName(f)).Inc()
	if req.client.SelfRegistered() && req.params.Get("prompt") != "none" {
		if v, unsure := p.visitor(r); v == nil {
			return errors.Join(unsure, errUnvetted.Wrap(err))
		}
	}
	if err := p.spend(r.Context(), p.deps.DB.Writer(), req); err != nil {
		return err
	}
	return p.deliver(w, r, req, req.refusal(p.deps.Issuer, errorName(f), plain(f.Message())), redirect)
}

// finish answers with a code, or with tokens where the client may still have them so.
func (p pages) finish(w http.ResponseWriter, r *http.Request, req *request, v *visitor, follows bool) error {
	answer, err := p.result(r.Context(), req, v.session)
	if err != nil {
		return err
	}
	p.requests.WithLabelValues("authorize", "ok").Inc()
	return p.deliver(w, r, req, req.answer(p.deps.Issuer, answer), follows)
}

func (s *Service) result(ctx context.Context, req *request, one session.Session) (url.Values, error) {
	if req.implicit() {
		if err := s.spend(ctx, s.deps.DB.Writer(), req); err != nil {
			return nil, err
		}
		return s.implicitAnswer(ctx, req, one)
	}
	code, err := s.issueCode(ctx, req, one)
	return url.Values{"code": {code}}, err
}

// agreed reports whether the person need not be asked: they have agreed to all of it, or the client is the installation's own. A program
// whose address anybody on the device can claim is never taken at its word (RFC 8252, section 8.6).
func (p pages) agreed(ctx context.Context, req *request, v *visitor) (bool, error) {
	if req.prompts("consent") || !req.https() {
		return false, nil
	}
	if req.unasked() {
		return true, nil
	}
	given, err := p.store.consent(ctx, v.account.ID, req.client, p.deps.Clock())
	if err != nil {
		return false, err
	}
	return given != nil && !slices.ContainsFunc(req.asks(), func(word string) bool { return !slices.Contains(given, word) }), nil
}

func (r *request) https() bool { return strings.HasPrefix(r.redirectURI, "https:") }

// unasked reports whether the client may have what it asks for without anybody's consent.
func (r *request) unasked() bool { return r.client.Trusted && r.https() }

// askConsent shows who asks, and for what.
func (p pages) askConsent(w http.ResponseWriter, r *http.Request, req *request, v *visitor) error {
	host := req.redirectURI
	if u, err := url.Parse(req.redirectURI); err == nil && u.Host != "" {
		host = u.Host
	}
	params := url.Values{"client_id": {req.client.ID}, "request_uri": {req.reference}}
	if req.reference == "" {
		var err error
		if params, err = p.carry(r.Context(), req, req.params); err != nil {
			return err
		}
	}
	policy, terms := req.client.papers(host)
	return p.web.Page(w, r.WithContext(v.seen(r.Context())), http.StatusOK, web.Consent{
		Client: req.client.Name, Host: host, Email: v.account.Email, Scopes: req.asks(), Request: params.Encode(),
		Unvetted: req.client.SelfRegistered(), Policy: policy, Terms: terms,
	})
}

// consent is the person's answer. The request comes back with it, and is checked again from its beginning.
func (p pages) consent(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	params, err := url.ParseQuery(form.Get("request"))
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	req, err := p.readRequest(r.Context(), params)
	if err != nil {
		return err
	}
	if err := errors.Join(req.checkPushed(), req.check()); err != nil {
		return err
	}
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	if v == nil || !req.means(v) || !req.fresh(v.session.AuthTime, p.deps.Clock()) || !req.claims.takesACR(v.session.ACR) {
		return p.goOn(w, r, web.Continue{To: authorizePath + "?" + params.Encode()})
	}
	r = r.WithContext(v.seen(r.Context()))
	if form.Get("decision") != "allow" {
		if err := p.spend(r.Context(), p.deps.DB.Writer(), req); err != nil {
			return err
		}
		p.requests.WithLabelValues("authorize", "access_denied").Inc()
		denied := req.refusal(p.deps.Issuer, "access_denied", plain(ErrAccessDenied.Message()))
		return p.deliver(w, r, req, denied, afterForm)
	}
	if err := p.agree(r.Context(), v.account.ID, req.client, req.asks()); err != nil {
		return err
	}
	return p.finish(w, r, req, v, afterForm)
}

// see sends the browser on. 303 makes it ask with GET, whatever it did before: 307 would repeat a form with a password in it (RFC 9700,
// section 4.12).
func see(w http.ResponseWriter, r *http.Request, to string) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
