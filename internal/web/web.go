// Package web owns what a person sees: the templates, styles and scripts of every page, the texts of every mail, and the
// message catalogues in Korean and English.
//
// It promises that every page works without JavaScript and under a Content-Security-Policy without inline code, that a
// page is written whole or not at all, that a redirect built with SafeReturn stays on this host, and that both catalogues
// say the same things: a text missing from one of them fails the tests, not the visitor.
//
// It refuses to decide anything. It knows no accounts, sessions or passwords, only the view structs its callers fill in
// (SignIn, Account, Sessions, ...) and the faults they came back with. It never shows the cause of a fault, and no view
// struct has room for a password.
package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

// Config says how pages introduce the service. Start from DefaultConfig.
type Config struct {
	// Service is the name people know the service by. It appears in titles, in the header and in mails.
	Service string
	// Providers are those with whose word people may sign in, in the order of their buttons.
	Providers []Provider
	// Cookies makes the one that remembers a chosen language.
	Cookies httpd.Cookies
	// RequestID returns the id under which a request is logged, "" when it has none. It is shown on error pages, so that a
	// person can quote it. It may be nil.
	RequestID func(context.Context) string
}

// DefaultConfig returns the configuration of a service that has not been given a name of its own.
func DefaultConfig() Config {
	return Config{Service: "Sumun", Cookies: httpd.Cookies{Secure: true}}
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Service == "" {
		return errors.New(`service: it is empty; give the name people know the service by, such as "Sumun"`)
	}
	return nil
}

// Renderer writes pages and mails. It is immutable and safe for concurrent use.
type Renderer struct {
	cfg     Config
	assets  *assets
	locales map[string]*locale
}

// New parses templates and catalogues. It does no I/O: both are part of the program.
func New(cfg Config) (*Renderer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	public, err := loadAssets()
	if err != nil {
		return nil, fmt.Errorf("load assets: %w", err)
	}
	r := &Renderer{cfg: cfg, assets: public, locales: map[string]*locale{}}
	for _, lang := range languages {
		l, err := newLocale(lang, cfg.Service, cfg.Providers, public)
		if err != nil {
			return nil, fmt.Errorf("load language %s: %w", lang, err)
		}
		r.locales[lang] = l
	}
	return r, nil
}

// Mount registers the assets and the language switch.
func (r *Renderer) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /assets/{file}", r.assets.serve)
	mux.HandleFunc("GET /favicon.ico", r.assets.serveIcon)
	mux.HandleFunc("POST /language", r.switchLanguage)
}

// Viewer is the person a page is shown to. The zero Viewer is nobody.
type Viewer struct {
	// Name is what they are called; where an account has none, its address.
	Name string
	// Locale is the language they chose for their account, "" when none.
	Locale string
}

type viewerKey struct{}

// WithViewer returns a context whose pages are shown to a signed-in person: with links to the account and a sign-out
// button in the header. With the zero Viewer they are shown to a stranger again, after signing out.
func WithViewer(ctx context.Context, v Viewer) context.Context {
	return context.WithValue(ctx, viewerKey{}, v)
}

// viewer returns the signed-in person, nil when nobody is.
func viewer(ctx context.Context) *Viewer {
	if v, ok := ctx.Value(viewerKey{}).(Viewer); ok && v != (Viewer{}) {
		return &v
	}
	return nil
}

// contentSecurityPolicy lets a page use this host's own files and nothing else (CSP Level 3). It replaces the stricter one
// that answers without a page carry.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// policy is the page's: no other origin may be led to or shown than those that it names.
func (m meta) policy() string {
	policy := contentSecurityPolicy
	if m.formAction != "" {
		policy = strings.Replace(policy, "form-action 'self'", "form-action "+m.formAction, 1)
	}
	if len(m.frames) > 0 {
		policy += "; frame-src " + strings.Join(m.frames, " ")
	}
	return policy
}

// document is what the layout template is executed with.
type document struct {
	Lang    string
	Service string
	Title   string
	Viewer  *Viewer
	// Here is where this page can be asked for again, for the language switch.
	Here string
	meta
	Page Page
}

// Page writes a page in the language of the request. A language asked for in the address (?lang=) is remembered in a
// cookie, because the forms that follow do not carry it. When it returns an error nothing has been written.
func (r *Renderer) Page(w http.ResponseWriter, req *http.Request, status int, page Page) error {
	lang := r.Lang(req)
	l := r.locales[lang]
	m := page.meta()
	doc := document{Lang: lang, Service: r.cfg.Service, Viewer: viewer(req.Context()), Here: here(req, m), meta: m, Page: page}
	title, err := l.text(m.titleKey())
	if err != nil {
		return fmt.Errorf("page %s: %w", m.Template, err)
	}
	doc.Title = title
	if f, ok := page.(interface{ failed() bool }); ok && f.failed() {
		doc.Title = l.must("form.error_title", "title", title)
	}
	body, err := l.execute(m.Template, doc)
	if err != nil {
		return fmt.Errorf("page %s: %w", m.Template, err)
	}
	if asked := req.URL.Query().Get("lang"); asked == lang {
		http.SetCookie(w, r.cfg.Cookies.LangCookie(lang, languageLifetime))
	}
	pageHeaders(w.Header(), lang, m.Private || doc.Viewer != nil)
	w.Header().Set("Content-Security-Policy", m.policy())
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // a visitor who has left is not an error
	}
	return nil
}

func (l *locale) execute(name string, doc document) (body bytes.Buffer, err error) {
	set, err := l.pages[name]()
	if err == nil {
		err = set.ExecuteTemplate(&body, "layout", doc)
	}
	return body, err
}

// pageHeaders sets what every page carries. The referrer stays on this host, because addresses may hold tokens.
func pageHeaders(h http.Header, lang string, private bool) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", lang)
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, no-cache")
	if private {
		h.Set("Cache-Control", "no-store")
	}
	h.Add("Vary", "Accept-Language, Cookie")
}

// here returns the local address that shows this page again when it is asked for with GET.
func here(req *http.Request, m meta) string {
	switch {
	case m.here != "":
		return m.here
	case req.Method == http.MethodGet || req.Method == http.MethodHead:
		return SafeReturn(withoutLang(req.URL))
	default:
		return SafeReturn(req.URL.EscapedPath())
	}
}

// Fault writes the error page for f. It always writes something: when even the page fails, the bare message.
func (r *Renderer) Fault(w http.ResponseWriter, req *http.Request, f *fault.Fault) {
	f.SetHeaders(w.Header())
	page := errorPage{Fault: f, Remedies: remedies(req.URL.Path, f)}
	if r.cfg.RequestID != nil {
		page.RequestID = r.cfg.RequestID(req.Context())
	}
	if err := r.Page(w, req, f.Status(), page); err != nil {
		http.Error(w, f.Message(), f.Status())
	}
}

// parsePage returns the set of one page: the layout, the shared parts, and the page itself. All pages in all languages would be megabytes of
// parsed text, most of which few servers ever show.
func parsePage(base *template.Template, name string) (*template.Template, error) {
	set, err := base.Clone()
	if err != nil {
		return nil, err
	}
	return set.ParseFS(content, "templates/pages/"+name+".html")
}
