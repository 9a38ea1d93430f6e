package cache

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// ErrNotCached answers who asked for a kept answer only (RFC 9111, section 5.2.1.7).
var ErrNotCached = fault.New(fault.Timeout, "cache.not_kept", "There is no kept answer to this.")

// Deps are what the stages are given.
type Deps struct {
	Store *Store
	// Internal reports whether a header is set by the gateway, so that what a client sends under its name means nothing.
	Internal func(name string) bool
	Clock    func() time.Time
	// Count counts how a request was answered: hit, stale, miss or pass.
	Count func(outcome string)
}

// New returns the stage of a route. It comes last, so that nobody gets an answer whom the stages before would have refused. Where
// cfg is off, it only takes note of changes, which other routes' answers may be about.
func New(cfg Config, deps Deps) stage.Stage {
	s := &keeper{cfg: cfg, deps: deps}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			switch {
			case !isSafe(r.Method):
				return s.change(w, r, c, next)
			case !cfg.Enabled:
				return next(w, r, c)
			case passes(r):
				deps.Count("pass")
				return next(w, r, c)
			}
			return s.serve(&exchange{keeper: s, w: w, r: r, c: c, next: next, request: newRequest(cfg, deps.Store, r, c)})
		}
	}
}

// keeper is the stage of a route.
type keeper struct {
	cfg  Config
	deps Deps
}

// isSafe reports whether a method has no effect (RFC 9110, section 9.2.1).
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// passes reports whether a request goes by the cache: its answer could not be kept, or not be taken for another's.
func passes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 ||
		r.Header["Range"] != nil || r.Header["If-Match"] != nil || r.Header["If-Unmodified-Since"] != nil || r.Header["Upgrade"] != nil ||
		strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// request is what decides about the answer to a request.
type request struct {
	key     string // of the resource, in the store
	uri     string // of the resource, whoever asks
	person  string // whose answers they are; "" for everybody's
	header  http.Header
	control directives
	// authorized says that the request came with something that can say whose it is.
	authorized bool
	epoch      uint64
}

func newRequest(cfg Config, store *Store, r *http.Request, c *stage.Call) *request {
	q := &request{uri: uri(r, c.Path), header: r.Header, control: parseControl(r.Header["Cache-Control"])}
	if r.Header["Cache-Control"] == nil && strings.Contains(r.Header.Get("Pragma"), "no-cache") {
		q.control.noCache = true
	}
	q.authorized = c.Claims != nil || c.APIKey != "" || r.Header["Authorization"] != nil || r.Header["Cookie"] != nil
	if cfg.PerPerson {
		q.person = personOf(c)
	}
	scheme := "http"
	if httpd.Secure(r.Context()) {
		scheme = "https"
	}
	q.key = strings.Join([]string{c.Route, scheme, q.uri, q.person}, "\x00")
	q.epoch = store.epoch(q.uri).Load()
	return q
}

// uri names a resource.
func uri(r *http.Request, path string) string {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		path += "?" + r.URL.RawQuery
	}
	return strings.ToLower(r.Host) + path
}

// personOf is who asks, with all that an answer may depend on; "" where nobody knows.
func personOf(c *stage.Call) string {
	switch {
	case c.APIKey != "":
		return "k" + c.APIKey
	case c.Claims != nil:
		return strings.Join(append([]string{"p" + c.Claims.Subject, c.Claims.ClientID, c.Claims.Scope}, c.Claims.Roles...), "\x01")
	}
	return ""
}

// change passes on what may have an effect. Unless it was refused, nothing that was asked for before is given out again (RFC 9111,
// section 4.4).
func (s *keeper) change(w http.ResponseWriter, r *http.Request, c *stage.Call, next stage.Handler) error {
	host, target := strings.ToLower(r.Host), uri(r, c.Path)
	store, refused := s.deps.Store, false
	defer func() { // also after a failure or a panic: nobody knows what the service did
		if !refused && c.Sent {
			store.epoch(target).Add(1)
		}
	}()
	return next(&watcher{ResponseWriter: w, onHeader: func(status int, h http.Header) {
		if refused = status >= 400 && status < 500; refused {
			return
		}
		store.epoch(target).Add(1) // before the client knows
		for _, name := range [...]string{"Location", "Content-Location"} {
			if other, ok := sameHost(host, r, h.Get(name)); ok {
				store.epoch(other).Add(1)
			}
		}
	}}, r, c)
}

// sameHost resolves a reference of an answer, which must stay on the host.
func sameHost(host string, r *http.Request, ref string) (string, bool) {
	if ref == "" {
		return "", false
	}
	u, err := r.URL.Parse(ref)
	if err != nil || u.Host != "" && strings.ToLower(u.Host) != host {
		return "", false
	}
	path := u.EscapedPath()
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return host + path, true
}

// exchange is one request that may be answered from the store.
type exchange struct {
	*keeper
	*request
	w    http.ResponseWriter
	r    *http.Request
	c    *stage.Call
	next stage.Handler
}

func (s *keeper) serve(x *exchange) error {
	now := s.deps.Clock()
	e, known := s.deps.Store.find(x.request)
	if e != nil {
		left := e.left(now)
		if x.satisfiedBy(e, now) {
			s.deps.Count("hit")
			return x.give(e, "hit; ttl="+seconds(left))
		}
		if left <= 0 && !x.control.noCache && x.control.maxAge == absent && e.mayBeStale(-left, e.d.staleWhileRevalidate) {
			s.deps.Count("stale")
			x.revalidateLater(e)
			return x.give(e, "hit; ttl="+seconds(left))
		}
	}
	if x.control.onlyIfCached {
		return ErrNotCached
	}
	if x.r.Method == http.MethodHead {
		s.deps.Count("pass")
		return x.next(x.w, x.r, x.c)
	}
	why := "uri-miss"
	switch {
	case e != nil && e.left(now) > 0:
		why = "request"
	case e != nil:
		why = "stale"
	case known:
		why = "vary-miss"
	}
	s.deps.Count("miss")
	return x.collapse(e, why)
}

// satisfiedBy reports whether a kept answer is fresh enough (RFC 9111, sections 4.2 and 5.2.1).
func (x *exchange) satisfiedBy(e *entry, now time.Time) bool {
	q, left := x.control, e.left(now)
	switch {
	case q.noCache, q.maxAge != absent && e.ageAt(now) > q.maxAge, q.minFresh != absent && left < q.minFresh:
		return false
	case left > 0:
		return true
	}
	return q.maxStale != absent && e.d.sMaxAge == absent && e.mayBeStale(-left, q.maxStale)
}

// collapse lets one of those who want the same ask, and the others wait for its answer.
func (x *exchange) collapse(e *entry, why string) error {
	if x.deps.Store.hurries(x.key, x.deps.Clock()) {
		return x.fetch(e, nil, why)
	}
	f, first := x.deps.Store.join(x.key)
	if first {
		defer x.deps.Store.leave(x.key, f)
		return x.fetch(e, f, why)
	}
	select {
	case <-f.landed:
	case <-x.r.Context().Done():
		return x.r.Context().Err()
	}
	switch {
	case f.err != nil:
		return x.failed(e, f.err)
	case f.got != nil && f.got.matches(x.request):
		return x.give(f.got, "fwd="+why+"; collapsed")
	}
	return x.fetch(e, nil, why)
}

// failed answers with a stale answer, where that is allowed, or with the failure.
func (x *exchange) failed(e *entry, err error) error {
	if e == nil || errors.Is(err, context.Canceled) || !x.mayHideErrors(e) {
		return err
	}
	x.deps.Count("stale")
	return x.give(e, "hit; ttl="+seconds(e.left(x.deps.Clock()))+"; detail=stale-if-error")
}

// mayHideErrors reports whether a stale answer may be given while the service fails.
func (x *exchange) mayHideErrors(e *entry) bool {
	window := e.d.staleIfError
	if x.control.staleIfError != absent {
		window = max(window, x.control.staleIfError)
	}
	if window == absent && e.d.sMaxAge == absent {
		window = x.cfg.StaleIfError
	}
	return window != absent && e.mayBeStale(-e.left(x.deps.Clock()), window)
}

// patience bounds a revalidation that nobody waits for.
const patience = time.Minute

// revalidateLater asks the service, unless somebody does already, while the stale answer is given.
func (x *exchange) revalidateLater(e *entry) {
	f, first := x.deps.Store.join(x.key)
	if !first {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), patience)
	call := *x.c
	q := *x.request
	q.header = q.header.Clone()
	r := x.r.WithContext(ctx)
	r.Header, r.Method = q.header, http.MethodGet
	later := &exchange{keeper: x.keeper, request: &q, w: discard{http.Header{}}, r: r, c: &call, next: x.next}
	x.deps.Store.group.Go(func() {
		defer cancel()
		defer x.deps.Store.leave(q.key, f)
		defer func() {
			if what := recover(); what != nil && what != http.ErrAbortHandler {
				panic(what)
			}
		}()
		_ = later.fetch(e, f, "stale") // what is stale is asked for again
	})
}

// discard is a client that does not listen.
type discard struct{ header http.Header }

// Header implements http.ResponseWriter.
func (d discard) Header() http.Header { return d.header }

// WriteHeader implements http.ResponseWriter.
func (discard) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (discard) Write(p []byte) (int, error) { return len(p), nil }
