package gateway

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// forward returns what comes after all stages: the upstream of a route.
func (b *builder) forward(rc Route) (stage.Handler, error) {
	if rc.Upstream == Identity && b.deps.Identity != nil {
		return b.inProcess(), nil
	}
	pool, err := b.pool(rc.Upstream)
	if err != nil {
		return nil, err
	}
	clean := newCleaner(b.cfg.StripHeaders)
	// Two of them, so that no request needs one of its own.
	onPlain, onSecure := answer(rc, false), answer(rc, true)
	strip := escape([]byte(rc.Strip))
	token := rc.Forward == ForwardToken || rc.Upstream == Identity
	return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
		clean.clean(r.Header)
		if !token {
			delete(r.Header, "Authorization")
		}
		if rc.Upstream != Identity {
			withholdCookies(r.Header)
		}
		announce(r, c)
		if rc.IdentityHeaders {
			introduce(r.Header, c)
		}
		o := Options{Path: target(c.Path, strip, r.URL.RawQuery), OnAnswer: onPlain}
		if httpd.Secure(r.Context()) {
			o.OnAnswer = onSecure
		}
		return pool.Forward(w, r, o)
	}, nil
}

// inProcess hands requests to the identity module of this process.
func (b *builder) inProcess() stage.Handler {
	return func(w http.ResponseWriter, r *http.Request, _ *stage.Call) error {
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

// pool returns the service of that name.
func (b *builder) pool(name string) (upstream, error) {
	if name == Identity {
		if b.cfg.IdentityURL == "" {
			return nil, fmt.Errorf("gateway.identity_url: empty, and the identity module is not part of this process; name where it serves")
		}
		return newProxy(Upstream{Name: name, URLs: []string{b.cfg.IdentityURL}})
	}
	for _, u := range b.cfg.Upstreams {
		if u.Name == name {
			return newProxy(u)
		}
	}
	return nil, fmt.Errorf("gateway.upstreams: there is no %q", name)
}
