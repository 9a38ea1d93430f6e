package web

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// The languages of pages and mails, as BCP 47 tags.
const (
	English = "en"
	Korean  = "ko"
)

var (
	// languages lists every catalogue; the first is the one for visitors whose language is not among them.
	languages = []string{English, Korean}
	matcher   = language.NewMatcher([]language.Tag{language.English, language.Korean})
)

// languageLifetime is how long a browser remembers the language that was chosen in it.
const languageLifetime = 365 * 24 * time.Hour

// maxAcceptLanguage bounds the header that is parsed, in bytes; browsers send less than a tenth of it.
const maxAcceptLanguage = 1024

// Lang returns the language of a request, English or Korean: the one asked for in the address (?lang=), else the one chosen
// before (cookie), else the one of the viewer's account, else what Accept-Language prefers, else English.
func (r *Renderer) Lang(req *http.Request) string {
	if lang, ok := supported(req.URL.Query().Get("lang")); ok {
		return lang
	}
	if c, err := req.Cookie(r.cfg.Cookies.Lang()); err == nil {
		if lang, ok := supported(c.Value); ok {
			return lang
		}
	}
	if v := viewer(req.Context()); v != nil {
		if lang, ok := supported(v.Locale); ok {
			return lang
		}
	}
	return accepted(req.Header.Get("Accept-Language"))
}

// supported reports whether lang is exactly one of our languages.
func supported(lang string) (string, bool) {
	for _, l := range languages {
		if l == lang {
			return l, true
		}
	}
	return "", false
}

// Locale returns the language of ours that suits a BCP 47 tag such as "ko-KR", or English.
func Locale(tag string) string { return accepted(tag) }

// accepted returns the language that an Accept-Language header prefers (RFC 9110, section 12.5.4).
func accepted(header string) string {
	if len(header) > maxAcceptLanguage {
		return languages[0]
	}
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil || len(tags) == 0 {
		return languages[0]
	}
	_, i, confidence := matcher.Match(tags...)
	if confidence == language.No {
		return languages[0]
	}
	return languages[i]
}

// switchLanguage remembers the chosen language and goes back to where the visitor was.
func (r *Renderer) switchLanguage(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, 16<<10)
	if lang, ok := supported(req.PostFormValue("lang")); ok {
		http.SetCookie(w, r.cfg.Cookies.LangCookie(lang, languageLifetime))
	}
	back := "/"
	if u, err := url.Parse(SafeReturn(req.PostFormValue("return_to"))); err == nil {
		back = SafeReturn(withoutLang(u))
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, req, back, http.StatusSeeOther)
}

// withoutLang returns path and query of u without the parameter that would override the cookie.
func withoutLang(u *url.URL) string {
	q := u.Query()
	if !q.Has("lang") {
		return u.RequestURI()
	}
	q.Del("lang")
	local := url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: q.Encode()}
	return local.RequestURI()
}

// maxReturn bounds a return address, in bytes.
const maxReturn = 8 << 10

// SafeReturn returns target when it is a path on this host, and "/" otherwise, so that a redirect to what a request asked
// for cannot lead anywhere else. It is stricter than a browser is lenient: what browsers strip (tabs, line breaks), treat
// as a slash (backslashes) or take for a host ("//") is refused rather than repaired.
func SafeReturn(target string) string {
	if len(target) > maxReturn || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return "/"
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "/"
		}
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "/"
	}
	// "/..//host" is harmless to a browser, but not to whoever cleans the path before redirecting.
	if strings.Contains(u.EscapedPath(), "//") || strings.HasPrefix(path.Clean(u.Path), "//") || strings.Contains(u.Path, `\`) {
		return "/"
	}
	return target
}
