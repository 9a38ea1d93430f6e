package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// Questions answers proxies that ask about a request before they pass it on themselves: 200 with what the service is to be told, or
// the refusal that the request would have got here. It belongs inside of httpd.Edge, on a listener that only proxies reach.
//
// Each kind of proxy has an address of its own, where only the headers are read that this kind sets: all of them pass on their
// client's headers too, so that a client could add those of another kind and be judged by a path that it does not ask for.
func (g *Gateway) Questions() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, found := dialect(r)
		switch {
		case !httpd.FromTrustedProxy(r.Context()):
			httpd.Error(w, r, ErrNotProxy)
		case !found:
			httpd.Error(w, r, httpd.ErrNotFound)
		default:
			g.answer(w, r, ask)
		}
	})
}

// question is how a kind of proxy tells about the request.
type question struct {
	method, uri, host string
	reads             []string // the headers that said so
	nginx, envoy      bool
}

// dialect reads what the proxy says at the address for its kind. What is missing stays empty.
func dialect(r *http.Request) (q question, found bool) {
	of := func(method, uri, host string) question {
		q := question{reads: []string{method, uri, host}}
		q.method, q.uri, q.host = single(r.Header, method), single(r.Header, uri), single(r.Header, host)
		return q
	}
	switch path, _, _ := strings.Cut(r.RequestURI, "?"); {
	case path == "/nginx":
		q = of("X-Original-Method", "X-Original-Uri", "X-Original-Host")
		q.nginx = true
		return q, true
	case path == "/forwarded":
		return of("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host"), true
	case strings.HasPrefix(path, "/envoy/"):
		return question{method: r.Method, uri: strings.TrimPrefix(r.RequestURI, "/envoy"), host: r.Host, envoy: true}, true
	}
	return q, false
}

// single is the value of a header that is there once; "" otherwise.
func single(h http.Header, name string) string {
	if values := h[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, q question) {
	if q.nginx {
		w = &narrowed{ResponseWriter: w}
	}
	asked, err := q.request(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if err := g.judge(w, asked, q); err != nil {
		g.refuse(w, asked, err)
	}
}

// request is the one that the proxy has got.
func (q question) request(r *http.Request) (*http.Request, error) {
	if !isMethod(q.method) || !isHost(q.host) || !strings.HasPrefix(q.uri, "/") {
		return nil, ErrQuestion
	}
	// A proxy drops what follows "#", before it looks for the location; in a request there is none.
	if strings.ContainsFunc(q.uri, func(c rune) bool { return c <= ' ' || c == '#' || c == 0x7f }) {
		return nil, ErrPath
	}
	u, err := url.ParseRequestURI(q.uri)
	if err != nil || u.Host != "" || u.User != nil {
		return nil, ErrPath
	}
	asked := *r
	asked.Method, asked.URL, asked.Host, asked.RequestURI = q.method, u, q.host, q.uri
	asked.Body, asked.ContentLength = http.NoBody, 0
	return &asked, nil
}

func isMethod(text string) bool {
	return text != "" && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

func isHost(text string) bool {
	return text != "" && strings.Trim(text, nameCharacters+":[]") == ""
}

// judge asks the route of a request what it thinks of it.
func (g *Gateway) judge(w http.ResponseWriter, r *http.Request, q question) error {
	t := g.table.Load()
	for name := range r.Header {
		if t.outside.strips(name) && !slices.Contains(q.reads, name) && !isVouched(r, name) {
			return ErrHeader // the proxy would pass it on, and nobody here can take it away
		}
	}
	accepted := r.Header["Accept"]
	rt, c, err := g.locate(w, r, t)
	if err != nil {
		return err
	}
	if !slices.Equal(r.Header["Accept"], accepted) {
		return ErrHeader // it names versions of other routes, and the service would see them
	}
	if rt.judge == nil {
		return httpd.ErrNotFound
	}
	if err := rt.judge(w, r, c); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if q.envoy {
		var missing []string
		for _, name := range toldAbout {
			if h[name] == nil {
				missing = append(missing, strings.ToLower(name))
			}
		}
		h.Set("X-Envoy-Auth-Headers-To-Remove", strings.Join(missing, ","))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// vouched are the headers that proxies set themselves, whatever strip_headers says.
var vouched = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix",
	"X-Real-Ip", "X-Request-Id"}

// isVouched reports whether a header is the proxy's word, whatever strip_headers says.
func isVouched(r *http.Request, name string) bool {
	return slices.Contains(vouched, name) || httpd.IsCertificateHeader(name) && httpd.VouchesForCertificates(r.Context())
}

// newOutside finds headers by which a client would tell the service who calls, or change what it asks for once it has been judged.
func newOutside(strip []string) *cleaner {
	c := &cleaner{names: map[string]bool{}}
	c.add(strip, []string{"Client-Cert", "Client-Cert-Chain", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override"})
	return c
}

// toldAbout are the headers by which a service is told who calls, Authorization included.
var toldAbout = []string{"Authorization", "X-Sumun-Subject", "X-Sumun-Client", "X-Sumun-Session", "X-Sumun-Scope", "X-Sumun-Roles"}

// verdict ends the questions of a route: the request may pass, and this is what its service is told.
func verdict(rc Route, told authorization) stage.Handler {
	return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
		h := w.Header()
		value, err := told(r, c)
		if err != nil {
			return err
		}
		if value != nil {
			h["Authorization"] = value
		}
		if rc.IdentityHeaders {
			introduce(h, c)
		}
		return nil
	}
}

// narrowed answers as nginx understands: of all refusals it passes on 401 and 403 alone, and makes 500 of the others.
type narrowed struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (n *narrowed) WriteHeader(status int) {
	if status >= 300 {
		n.Header().Set("X-Sumun-Status", strconv.Itoa(status))
		if status != http.StatusUnauthorized {
			status = http.StatusForbidden
		}
	}
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (n *narrowed) Unwrap() http.ResponseWriter { return n.ResponseWriter }
