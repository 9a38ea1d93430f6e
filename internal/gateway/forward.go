package gateway

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/files"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/httpd"
)

// forward returns what comes after all stages: the upstream of a route.
func (b *builder) forward(rc Route, told authorization) (stage.Handler, error) {
	if rc.Files.Enabled() {
		return serveFiles(rc)
	}
	if rc.Upstream == Identity && b.deps.Identity != nil {
		return b.inProcess(), nil
	}
	if b.isElsewhere(rc.Upstream) {
		return func(http.ResponseWriter, *http.Request, *stage.Call) error { return httpd.ErrNotFound }, nil
	}
	to := b.services[rc.Upstream]
	if to == nil {
		return nil, errNoIdentity
	}
	clean := newCleaner(b.cfg.StripHeaders)
	strips := clean.strips
	// Two of them, so that no request needs one of its own.
	onPlain, onSecure := answer(rc, false), answer(rc, true)
	hashed := to.cfg.Balance == upstream.BalanceHash
	strip := escape([]byte(rc.Strip))
	asSent := rc.sendsToken()
	return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
		value, err := told(r, c)
		if err != nil {
			return err
		}
		clean.clean(r.Header)
		if !asSent {
			delete(r.Header, "Authorization")
			delete(r.Header, "Dpop") // the proof that goes with it
		}
		if value != nil {
			r.Header["Authorization"] = value
		}
		if rc.Upstream != Identity {
			withholdCookies(r.Header)
		}
		announce(r, c)
		if asSent { // a token that is bound to a certificate is judged again, together with it
			httpd.SetClientCertificate(r.Context(), r.Header)
		}
		if rc.IdentityHeaders {
			introduce(r.Header, c)
		}
		o := upstream.Options{Path: target(c.Path, strip, r.URL.RawQuery), OnAnswer: onPlain, Sent: &c.Sent, NoStatic: c.NoStatic,
			Strips: strips}
		if httpd.Secure(r.Context()) {
			o.OnAnswer = onSecure
		}
		if hashed {
			o.Key = to.cfg.key(r, c)
		}
		return to.pool.Forward(w, r, o)
	}, nil
}

// serveFiles answers with files.
func serveFiles(rc Route) (stage.Handler, error) {
	serve, err := files.New(rc.Files, files.Route{Strip: rc.Strip, Private: rc.Authentication != Public})
	if err != nil || !rc.SecurityHeaders {
		return serve, err
	}
	return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
		secure(w.Header(), httpd.Secure(r.Context()))
		return serve(w, r, c)
	}, nil
}

// inProcess hands requests to the identity module of this process.
func (b *builder) inProcess() stage.Handler {
	return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
		c.Sent = true
		b.deps.Identity.ServeHTTP(w, r)
		return nil
	}
}

// target is the path and query that the upstream is asked for.
func target(path, strip, query string) string {
	if path = strings.TrimPrefix(path, strip); path == "" {
		path = "/"
	}
	if query == "" {
		return path
	}
	return path + "?" + query
}

// answer returns what is done to the header of an answer.
func answer(rc Route, https bool) func(int, http.Header) {
	if !rc.SecurityHeaders {
		return nil
	}
	return func(_ int, h http.Header) { secure(h, https) }
}

// withholdCookies removes Sumun's own cookies: who has them is the person, and services are not.
func withholdCookies(h http.Header) {
	lines := h["Cookie"]
	for i, line := range lines {
		if !strings.Contains(line, "sumun_") {
			continue
		}
		var kept []string
		for cookie := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(cookie), "=")
			name = strings.TrimPrefix(strings.TrimPrefix(name, "__Host-"), "__Secure-")
			if !strings.HasPrefix(name, "sumun_") {
				kept = append(kept, strings.TrimSpace(cookie))
			}
		}
		lines[i] = strings.Join(kept, "; ")
	}
}

// key is what decides the endpoint under consistent hashing.
func (u *Upstream) key(r *http.Request, c *stage.Call) string {
	kind, name, _ := strings.Cut(u.HashBy, ":")
	switch kind {
	case "header":
		return r.Header.Get(name)
	case "cookie":
		if cookie, err := r.Cookie(name); err == nil {
			return cookie.Value
		}
		return ""
	default:
		return string(ByCaller.key(nil, c))
	}
}

// errNoIdentity is for routes that lead to the identity module where there is none.
var errNoIdentity = errors.New("gateway.identity_url: empty, and the identity module is not part of this process; give where it serves")

// isElsewhere reports whether an upstream gets its requests from a proxy that asks here.
func (b *builder) isElsewhere(name string) bool {
	return b.cfg.isElsewhere(name)
}

// upstreams are those of the configuration, and the identity module where it is elsewhere.
func (b *builder) upstreams() []Upstream {
	all := slices.DeleteFunc(slices.Clone(b.cfg.Upstreams), func(u Upstream) bool { return u.Elsewhere })
	if b.deps.Identity != nil || b.cfg.IdentityURL == "" || b.cfg.has(Identity) {
		return all
	}
	u := Upstream{Config: upstream.DefaultConfig()}
	u.Name, u.Endpoints = Identity, []upstream.Endpoint{{URL: b.cfg.IdentityURL}}
	// Its 503 is an answer to one person, such as in a storm of sign-ins, and no reason to keep refreshes from it.
	u.Breaker, u.Health.Passive, u.Retry.Statuses = upstream.Breaker{}, upstream.Passive{}, nil
	return append(all, u)
}
