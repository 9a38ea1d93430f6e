package e2e_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// tab is a browser without scripts: it keeps cookies and goes where it is sent, for as long as that is the server.
type tab struct {
	t       testing.TB
	s       *server
	cookies map[string]string
}

func (s *server) newTab(t testing.TB) *tab { return &tab{t, s, map[string]string{}} }

// ask sends one request, following nothing.
func (b *tab) ask(method, target string, form url.Values) (answer, string) {
	b.t.Helper()
	at, err := url.Parse(b.s.issuer)
	if err != nil {
		b.t.Fatal(err)
	}
	to, err := at.Parse(target)
	if err != nil {
		b.t.Fatal(err)
	}
	var body any
	options := []option{header("Accept-Language", "en")}
	for name, value := range b.cookies {
		options = append(options, func(r *http.Request) { r.AddCookie(&http.Cookie{Name: name, Value: value}) })
	}
	if form != nil {
		body = form.Encode()
		options = append(options, header("Content-Type", "application/x-www-form-urlencoded"))
	}
	a := b.s.send(b.t, method+" "+to.RequestURI(), body, options...)
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	next := a.header.Get("Location")
	if refresh, found := strings.CutPrefix(a.header.Get("Refresh"), "0; url="); found {
		next = refresh
	}
	return a, next
}

var (
	formAction  = regexp.MustCompile(`<form method="post" action="(/(?:sign-in|oauth/consent|account/reauthenticate|oauth/sign-out))"`)
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([a-z_]+)" value="([^"]*)">`)
)

// visit goes where it is sent, signing in and agreeing on the way, and returns the address on another site that it comes to.
func (b *tab) visit(target, identifier string) string {
	b.t.Helper()
	for range 20 {
		if !strings.HasPrefix(target, "/") && !strings.HasPrefix(target, b.s.issuer+"/") {
			return target
		}
		a, next := b.ask("GET", target, nil)
		if next == "" {
			m := formAction.FindStringSubmatch(string(a.body))
			if m == nil {
				b.t.Fatalf("stranded at %s: %d %s", target, a.status, a.body)
			}
			values := url.Values{"identifier": {identifier}, "password": {password}, "current_password": {password}, "decision": {"allow"}}
			page := string(a.body)
			for _, f := range hiddenField.FindAllStringSubmatch(page[strings.Index(page, m[0]):], -1) {
				if !values.Has(f[1]) {
					values.Set(f[1], html.UnescapeString(f[2]))
				}
			}
			if strings.HasPrefix(m[1], "/oauth/") {
				values = url.Values{"request": values["request"], "decision": {"allow"}}
			}
			if a, next = b.ask("POST", m[1], values); next == "" {
				b.t.Fatalf("%s leads nowhere: %d %s", m[1], a.status, a.body)
			}
		}
		target = next
	}
	b.t.Fatalf("sent around in circles, last to %s", target)
	return ""
}
