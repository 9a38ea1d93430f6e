package federation

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/web"
)

const (
	pathFinish      = "/sign-up/finish"
	pathConnect     = identity.PathConfirmProved
	pathConnections = "/account/connections"
	pathConfirm     = pathConnections + "/confirm"
	pathAccount     = "/account"
)

// CrossOrigin lists the addresses, as patterns of http.ServeMux, to which providers post answers from their own origin. What is posted
// there is only passed on to the browser's next request; nothing is read of the browser or kept in it.
func CrossOrigin() []string { return []string{"POST /federation/{provider}/callback"} }

// pages are the use cases in a browser.
type pages struct {
	*Service
	web     *web.Renderer
	cookies httpd.Cookies
}

// Mount adds the pages. Without providers there are none.
func (s *Service) Mount(mux *http.ServeMux, renderer *web.Renderer, cookies httpd.Cookies) {
	if len(s.providers) == 0 {
		return
	}
	p := pages{s, renderer, cookies}
	for pattern, h := range map[string]httpd.Handler{
		"GET /federation/{provider}":           p.start,
		"GET /federation/{provider}/callback":  p.answered,
		"POST /federation/{provider}/callback": p.posted,
		"GET /federation/{provider}/metadata":  p.describe,
	} {
		mux.Handle(pattern, httpd.WithErrors(p.failed, p.limited(h)))
	}
	for pattern, h := range map[string]httpd.Handler{
		"GET " + pathFinish:   p.finishForm,
		"POST " + pathFinish:  p.finishSignUp,
		"GET " + pathConnect:  p.connectForm,
		"POST " + pathConnect: p.connectSignUp,

		"GET " + pathConnections:  p.own(p.connections),
		"POST " + pathConnections: p.own(p.changeConnection),
		"GET " + pathConfirm:      p.own(p.confirmForm),
		"POST " + pathConfirm:     p.own(p.confirmConnection),
	} {
		mux.Handle(pattern, httpd.WithErrors(renderer.Fault, h))
	}
}

// limited stands before every route at which strangers begin or end something.
func (p pages) limited(h httpd.Handler) httpd.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := p.admit(r.Context()); err != nil {
			return err
		}
		return h(w, r)
	}
}

// failed shows what went wrong with a provider, and how to try again.
func (p pages) failed(w http.ResponseWriter, r *http.Request, f *fault.Fault) {
	page := web.ProviderFailed{Fault: f, Provider: r.PathValue("provider"), RequestID: httpd.RequestID(r.Context())}
	one, err := p.provider(page.Provider)
	if err != nil {
		p.web.Fault(w, r, f)
		return
	}
	page.Provider, page.Retry = one.Label, p.retry(r, one.Name)
	if err := p.web.Page(w, r, f.Status(), page); err != nil {
		p.web.Fault(w, r, f)
	}
}

// retry is where the person can begin again what they wanted.
func (p pages) retry(r *http.Request, provider string) string {
	button := web.Provider{Name: provider}
	var f flow
	if c, err := r.Cookie(p.cookies.Flow()); err != nil || unseal(p.deps.Sealer, sealFlow, c.Value, &f) != nil || f.Provider != provider {
		return button.Path("")
	}
	switch f.Intent {
	case intentConnect:
		return pathConnections
	case intentReauthenticate:
		return button.ProofPath(f.ReturnTo)
	}
	return button.Path(f.ReturnTo)
}

// start sends a person to a provider. What another site caused begins at the sign-in page, so that nobody is signed in unasked.
func (p pages) start(w http.ResponseWriter, r *http.Request) error {
	name, back := r.PathValue("provider"), r.URL.Query().Get("return_to")
	if _, err := p.provider(name); err != nil {
		return err
	}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return see(w, r, "/sign-in", url.Values{"return_to": {web.SafeReturn(back)}})
	}
	i := intentSignIn
	var caller *identity.Caller
	if r.URL.Query().Get("for") == "proof" {
		v, err := p.deps.People.Visitor(r, p.cookies)
		if err != nil {
			return err
		}
		if v == nil {
			return see(w, r, "/sign-in", url.Values{"return_to": {web.SafeReturn(back)}})
		}
		c := v.Caller(r.Context())
		i, caller = intentReauthenticate, &c
	}
	address, sealed, err := p.begin(r.Context(), name, i, caller, web.SafeReturn(back))
	if err != nil {
		return err
	}
	http.SetCookie(w, p.cookies.FlowCookie(sealed, flowLifetime))
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

// posted is an answer that a provider sends as a form (OAuth 2.0 Form Post Response Mode). The browser sends no cookies along with
// it; it is asked to come again, with the answer sealed, so that neither code nor name is in an address that others could read.
func (p pages) posted(w http.ResponseWriter, r *http.Request) error {
	one, err := p.provider(r.PathValue("provider"))
	if err != nil {
		return err
	}
	a, err := p.readPosted(r, one)
	if err != nil {
		return p.noted(r.Context(), one.Name, err)
	}
	sealed, err := seal(p.deps.Sealer, sealAnswer, a)
	if err != nil {
		return err
	}
	return see(w, r, r.URL.Path, url.Values{"answer": {sealed}})
}

func (p pages) readPosted(r *http.Request, one *connected) (answer, error) {
	verifier, verifies := one.provider.(receiver)
	if !verifies {
		form, err := readForm(r, maxForm)
		if err != nil {
			return answer{}, err
		}
		return readAnswer(form)
	}
	form, err := readForm(r, maxResponse)
	if err != nil {
		return answer{}, err
	}
	return verifier.receive(r.Context(), form)
}

// describe is how a provider learns of this installation.
func (p pages) describe(w http.ResponseWriter, r *http.Request) error {
	one, err := p.provider(r.PathValue("provider"))
	if err != nil {
		return err
	}
	described, ok := one.provider.(publisher)
	if !ok {
		return ErrProvider
	}
	text, err := described.metadata()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/samlmetadata+xml")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, err = w.Write(text)
	return err
}

// answered is a person who comes back from a provider.
func (p pages) answered(w http.ResponseWriter, r *http.Request) error {
	a, err := p.readAnswer(r)
	if err != nil {
		return err
	}
	c, err := r.Cookie(p.cookies.Flow())
	if err != nil {
		return ErrState
	}
	name := r.PathValue("provider")
	f, who, err := p.finish(r.Context(), name, c.Value, a)
	if f.State != "" {
		http.SetCookie(w, p.cookies.FlowCookie("", 0)) // used, whatever came of it
	}
	if err != nil {
		return err
	}
	v, err := p.deps.People.Visitor(r, p.cookies)
	if err != nil {
		return err
	}
	if f.Intent == intentSignIn {
		return p.arrived(w, r, f, who, v)
	}
	if v == nil || v.Account.ID != f.Account || v.Session.ID != f.Session {
		return ErrState // the session that asked has ended, or another person has signed in
	}
	caller := v.Caller(r.Context())
	if f.Intent == intentConnect {
		if err := p.connect(r.Context(), caller, who, p.deps.Clock()); err != nil {
			return err
		}
		return see(w, r, pathConnections, url.Values{"notice": {"connected"}})
	}
	cookie, err := p.reauthenticate(r.Context(), caller, who)
	if err != nil {
		return err
	}
	p.deps.People.RememberAgain(w, p.cookies, cookie)
	return see(w, r, returnTo(f.ReturnTo), nil)
}

// readAnswer reads an answer from the address, or the sealed one that was posted.
func (p pages) readAnswer(r *http.Request) (answer, error) {
	q := r.URL.Query()
	if !q.Has("answer") {
		return readAnswer(q)
	}
	var a answer
	return a, unseal(p.deps.Sealer, sealAnswer, q.Get("answer"), &a)
}

// arrived lets a person in whom the identity opens an account, and asks everybody else what it is to open.
func (p pages) arrived(w http.ResponseWriter, r *http.Request, f flow, who Identity, v *identity.Visitor) error {
	a := arrival{who: who, deviceToken: identity.DeviceToken(r, p.cookies), visitor: v, origin: identity.OriginOf(r.Context())}
	signed, found, err := p.signIn(r.Context(), a)
	if err != nil {
		return err
	}
	if found {
		p.deps.People.Remember(w, p.cookies, signed)
		return see(w, r, returnTo(f.ReturnTo), nil)
	}
	sealed, err := seal(p.deps.Sealer, sealProved, proved{Identity: who, ReturnTo: f.ReturnTo, At: p.deps.Clock()})
	if err != nil {
		return err
	}
	http.SetCookie(w, p.cookies.ProvedCookie(sealed, provedLifetime))
	return see(w, r, pathFinish, nil)
}

// proved returns the identity that this browser has proved, nil for none.
func (p pages) proved(r *http.Request) *proved {
	c, err := r.Cookie(p.cookies.Proved())
	if err != nil {
		return nil
	}
	var one proved
	if unseal(p.deps.Sealer, sealProved, c.Value, &one) != nil || p.deps.Clock().Sub(one.At) > provedLifetime {
		return nil
	}
	if _, known := p.providers[one.Identity.Provider]; !known {
		return nil
	}
	return &one
}

func (p pages) forgetProved(w http.ResponseWriter) { http.SetCookie(w, p.cookies.ProvedCookie("", 0)) }

// own serves a page of the signed-in person; everybody else signs in first and comes back.
func (p pages) own(h func(http.ResponseWriter, *http.Request, identity.Visitor) error) httpd.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := p.deps.People.Visitor(r, p.cookies)
		if err != nil {
			return err
		}
		if v == nil {
			back := pathConnections
			if r.Method == http.MethodGet {
				back = r.URL.Path
			}
			return see(w, r, "/sign-in", url.Values{"return_to": {back}})
		}
		r = r.WithContext(web.WithViewer(r.Context(), web.Viewer{Name: v.Account.Name, Locale: v.Account.Locale}))
		err = h(w, r, *v)
		if errors.Is(err, identity.ErrRecentSignIn) {
			return see(w, r, pathAccount+"/reauthenticate", url.Values{"return_to": {r.URL.Path}})
		}
		return err
	}
}

// returnTo is a page of ours, else the account.
func returnTo(path string) string {
	if path = web.SafeReturn(path); path != "/" {
		return path
	}
	return pathAccount
}

// see sends the browser to a path of ours.
func see(w http.ResponseWriter, r *http.Request, path string, query url.Values) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, path, http.StatusSeeOther)
	return nil
}

// Bounds of posted forms, and of those that hold a SAML response, in bytes.
const (
	maxForm     = 32 << 10
	maxResponse = 256 << 10
)

func readForm(r *http.Request, limit int64) (url.Values, error) {
	r.Body = http.MaxBytesReader(nil, r.Body, limit)
	if err := r.ParseForm(); err != nil {
		if f := fault.From(err); f.Kind() == fault.TooLarge {
			return nil, f
		}
		return nil, ErrForm.Wrap(err)
	}
	return r.PostForm, nil
}
