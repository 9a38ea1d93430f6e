package identity

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

// pages are the use cases in a browser. A handler parses its form, calls the service and shows a page; nothing is decided
// here.
type pages struct {
	*Service
	web     *web.Renderer
	cookies httpd.Cookies
}

// visitor is the person that a page session cookie proves; nil when nobody is signed in.
type visitor struct {
	session session.Session
	account Account
}

type (
	openPage    func(w http.ResponseWriter, r *http.Request, v *visitor) error
	accountPage func(w http.ResponseWriter, r *http.Request, v visitor) error
)

// MountPages adds the pages. Protection of unsafe requests against other origins is httpd's, for every route alike.
func (s *Service) MountPages(mux *http.ServeMux, renderer *web.Renderer, cookies httpd.Cookies) {
	p := pages{s, renderer, cookies}
	for pattern, h := range map[string]openPage{
		"GET /{$}":                  p.home,
		"GET /sign-up":              p.signUpForm,
		"POST /sign-up":             p.signUp,
		"GET " + pathConfirmSignUp:  p.confirmForm,
		"POST " + pathConfirmSignUp: p.confirm,
		"GET " + pathSignIn:         p.signInForm,
		"POST " + pathSignIn:        p.signIn,
		"POST /sign-out":            p.signOut,
		"GET " + pathRecover:        p.recoverForm,
		"POST " + pathRecover:       p.recover,
		"GET " + pathReset:          p.resetForm,
		"POST " + pathReset:         p.reset,
		"GET " + pathSetup:          p.setupForm,
		"POST " + pathSetup:         p.setup,
		"POST /password-check":      p.passwordCheck,
	} {
		mux.Handle(pattern, httpd.WithErrors(renderer.Fault, p.open(h)))
	}
	for pattern, h := range map[string]accountPage{
		"GET " + pathAccount:                   p.account,
		"GET " + pathProfile:                   p.profileForm,
		"POST " + pathProfile:                  p.profile,
		"GET " + pathPassword:                  p.recently(p.passwordForm),
		"POST " + pathPassword:                 p.recently(p.password),
		"GET " + pathAddress:                   p.recently(p.addressForm),
		"POST " + pathAddress:                  p.recently(p.address),
		"GET " + pathConfirmAddress:            p.confirmAddressForm,
		"POST " + pathConfirmAddress:           p.confirmAddress,
		"GET " + pathReauthenticate:            p.reauthenticateForm,
		"POST " + pathReauthenticate:           p.reauthenticate,
		"GET " + pathSessions:                  p.sessions,
		"POST " + pathSessions + "/end":        p.endSession,
		"POST " + pathSessions + "/end-others": p.endOthers,
		"GET " + pathActivity:                  p.activity,
		"GET " + pathDelete:                    p.recently(p.deleteForm),
		"POST " + pathDelete:                   p.recently(p.delete),
	} {
		mux.Handle(pattern, httpd.WithErrors(renderer.Fault, p.own(h)))
	}
}

// open serves a page that anybody may see, with the visitor where there is one.
func (p pages) open(h openPage) httpd.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := p.visitor(r)
		if err != nil && !signedOut(err) {
			return err
		}
		if v != nil {
			r = r.WithContext(v.seen(r.Context()))
		}
		return h(w, r, v)
	}
}

// own serves a page of the signed-in person; everybody else is sent to sign in and comes back.
func (p pages) own(h accountPage) httpd.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := p.visitor(r)
		switch {
		case err != nil && !signedOut(err):
			return err
		case v == nil:
			if err != nil {
				p.forget(w)
			}
			back := url.Values{}
			if r.Method == http.MethodGet {
				back.Set("return_to", r.URL.RequestURI())
			}
			if err != nil {
				back.Set("notice", "session_ended")
			}
			return see(w, r, pathSignIn, back)
		}
		return h(w, r.WithContext(v.seen(r.Context())), *v)
	}
}

// recently sends a person whose sign-in is too old to prove the password again first.
func (p pages) recently(h accountPage) accountPage {
	return func(w http.ResponseWriter, r *http.Request, v visitor) error {
		err := p.caller(r, v).recent(p.deps.Clock(), p.cfg.RecentSignIn)
		if err == nil {
			err = h(w, r, v)
		}
		if errors.Is(err, ErrRecentSignIn) {
			return see(w, r, pathReauthenticate, url.Values{"return_to": {r.URL.Path}})
		}
		return err
	}
}

// visitor reads the session cookie. No cookie is no error.
func (p pages) visitor(r *http.Request) (*visitor, error) {
	cookie, err := r.Cookie(p.cookies.Session())
	if err != nil {
		return nil, nil
	}
	sess, err := p.deps.Sessions.Authenticate(r.Context(), cookie.Value)
	if err != nil {
		return nil, err
	}
	account, err := p.Account(r.Context(), sess.Subject)
	if err != nil {
		return nil, err
	}
	return &visitor{session: sess, account: account}, nil
}

func (v visitor) seen(ctx context.Context) context.Context {
	return web.WithViewer(ctx, web.Viewer{Name: v.account.Name, Locale: v.account.Locale})
}

// signedOut reports errors that mean the cookie is worth nothing any more.
func signedOut(err error) bool {
	return errors.Is(err, session.ErrInvalidCookie) || errors.Is(err, session.ErrEnded) || errors.Is(err, ErrNotFound)
}

// remember gives the browser its session cookie. The cookie outlives the session, whose end the server decides.
func (p pages) remember(w http.ResponseWriter, cookie string) {
	http.SetCookie(w, p.cookies.SessionCookie(cookie, p.cfg.DeviceLifetime))
}

func (p pages) forget(w http.ResponseWriter) { http.SetCookie(w, p.cookies.SessionCookie("", 0)) }

// stranger is the request without its visitor, for the page that follows signing out.
func stranger(r *http.Request) *http.Request {
	return r.WithContext(web.WithViewer(r.Context(), web.Viewer{}))
}

func (p pages) caller(r *http.Request, v visitor) Caller {
	return Caller{Account: v.account.ID, Session: v.session.ID, AuthTime: v.session.AuthTime, Origin: OriginOf(r.Context())}
}

// see answers a form that was carried out: go and look there (RFC 9110, section 15.4.4).
func see(w http.ResponseWriter, r *http.Request, path string, query url.Values) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, web.SafeReturn(path), http.StatusSeeOther)
	return nil
}

// form reads a posted form.
func form(r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		if f := fault.From(err); f.Kind() == fault.TooLarge {
			return nil, f
		}
		return nil, errForm.Wrap(err)
	}
	return r.PostForm, nil
}

var errForm = fault.New(fault.Malformed, "identity.form", "The form could not be read. Load the page again.")

// show writes a page; show again writes it with what was wrong, where the person can put that right here.
func (p pages) show(w http.ResponseWriter, r *http.Request, page web.Page) error {
	return p.web.Page(w, r, http.StatusOK, page)
}

func (p pages) again(w http.ResponseWriter, r *http.Request, err error, page func(web.Form) web.Page) error {
	f := fault.From(err)
	correctable := []fault.Kind{fault.Invalid, fault.Conflict, fault.Forbidden, fault.Unauthenticated, fault.PreconditionFailed,
		fault.RateLimited, fault.Unavailable}
	if errors.Is(err, ErrRecentSignIn) || !slices.Contains(correctable, f.Kind()) {
		return err
	}
	f.SetHeaders(w.Header())
	return p.web.Page(w, r, f.Status(), page(web.Form{Fault: whole(f), Errors: p.fieldErrors(f)}))
}

// whole is a fault without its fields, which the form shows one by one.
func whole(f *fault.Fault) *fault.Fault {
	bare := fault.New(f.Kind(), f.Code(), f.Message())
	if f.RetryAfter() > 0 {
		return bare.After(f.RetryAfter())
	}
	return bare
}

// faultFields are the fields beside which a fault about a form as a whole is shown.
var faultFields = map[string]string{
	ErrPasswordReused.Code():  "new_password",
	ErrUserNameTaken.Code():   "user_name",
	ErrCurrentPassword.Code(): "current_password",
}

// fieldErrors are the fields at fault, under the names that the forms give them.
func (p pages) fieldErrors(f *fault.Fault) []web.FieldError {
	args := map[string][]any{}
	for _, rule := range p.deps.Policy.Rules() {
		args[rule.Code] = rule.Args
	}
	var out []web.FieldError
	for _, field := range f.Fields() {
		name := field.Name
		if name == "password" {
			name = "new_password" // what password managers look for
		}
		out = append(out, web.FieldError{Field: name, Code: field.Code, Args: args[field.Code], Message: field.Message})
	}
	if name := faultFields[f.Code()]; name != "" {
		out = append(out, web.FieldError{Field: name, Code: f.Code(), Message: f.Message()})
	}
	return out
}

// notice passes on a notice of the page before, if the page knows it.
func notice(r *http.Request, known ...string) string {
	if n := r.URL.Query().Get("notice"); slices.Contains(known, n) {
		return n
	}
	return ""
}

func (p pages) rules() []web.Rule {
	rules := p.deps.Policy.Rules()
	out := make([]web.Rule, len(rules))
	for i, rule := range rules {
		out[i] = web.Rule{Code: rule.Code, Args: rule.Args}
	}
	return out
}

func (p pages) home(w http.ResponseWriter, r *http.Request, v *visitor) error {
	page := web.Home{}
	if v != nil {
		page = web.Home{SignedIn: true, Name: v.account.Name}
	}
	return p.show(w, r, page)
}

func (p pages) passwordCheck(w http.ResponseWriter, r *http.Request, v *visitor) error {
	f, err := form(r)
	if err != nil {
		return err
	}
	who := password.Person{Email: f.Get("email"), UserName: f.Get("user_name"), Name: f.Get("name")}
	if v != nil {
		who = password.Person{Email: v.account.Email, UserName: v.account.UserName, Name: v.account.Name}
	}
	violations, err := p.CheckPassword(r.Context(), f.Get("password"), who, OriginOf(r.Context()))
	if err != nil {
		return err
	}
	objections := make([]web.FieldError, len(violations))
	for i, v := range violations {
		objections[i] = web.FieldError{Code: v.Code, Args: v.Args, Message: v.Message()}
	}
	return p.web.PasswordCheck(w, r, objections)
}
