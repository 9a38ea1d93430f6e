// Package websession lets browser applications call without ever holding a token: the gateway keeps the pair of access and refresh
// token, and the browser a cookie.
//
// It owns the cookie, where pairs are kept, and their renewal. It promises that neither a token nor what would do for one leaves the
// gateway towards the browser; that what is kept can be read only with the cookie in hand; that however many requests come at once, a
// node renews a pair once, and several nodes as if they were one; that what identity refuses is forgotten, and that an outage of
// identity takes nothing: the access token goes on until it expires.
//
// It refuses requests that another site's page makes a browser send, and to guess where a request comes with a cookie and a token.
package websession

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// Why a request of a browser is not passed on.
var (
	ErrUnavailable = fault.New(fault.Unavailable, "gateway.session_unavailable", "Your session cannot be reached right now. Please try again shortly.").After(time.Second)
	ErrTwo         = fault.New(fault.Malformed, "gateway.two_credentials", "The request has both a session cookie and an Authorization header.")
	ErrSignIn      = fault.New(fault.BadGateway, "gateway.session_sign_in", "The sign-in was not answered as expected.")
)

// errNone says that there is no session behind a cookie, or none any more.
var errNone = errors.New("no session")

// Deps are what a keeper is given.
type Deps struct {
	Store Store
	// Verify says what the token of a request is worth: package auth's claims or error.
	Verify func(r *http.Request) (*auth.Claims, error)
	// Identity reaches the identity module, which serves at URL.
	Identity *http.Client
	URL      string
	Cookies  httpd.Cookies
	// TrustedOrigins may have browsers send unsafe requests beside the origin itself.
	TrustedOrigins []string
	Clock          func() time.Time
	Log            *slog.Logger
}

// Keeper keeps the pairs of all routes. It is safe for concurrent use.
type Keeper struct {
	Deps
	origins *http.CrossOriginProtection

	mu    sync.Mutex
	known map[string]*session // by id
}

// New returns a keeper. It fails on a trusted origin that is none.
func New(deps Deps) (*Keeper, error) {
	k := &Keeper{Deps: deps, origins: http.NewCrossOriginProtection(), known: map[string]*session{}}
	for _, origin := range deps.TrustedOrigins {
		if err := k.origins.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("trusted origin: %w", err)
		}
	}
	return k, nil
}

// Stage returns what turns a browser's cookie into the token that the stages after it look at. Where the route leads to the identity
// module, whose paths then begin behind strip, sign-in and sign-out begin and end the cookie.
func (k *Keeper) Stage(toIdentity bool, strip string) stage.Stage {
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			x := &exchange{Keeper: k, w: w, r: r, c: c, next: next}
			if toIdentity {
				x.asks = r.Method + " " + c.Path[min(len(strip), len(c.Path)):]
			}
			return x.serve()
		}
	}
}

// exchange is one request.
type exchange struct {
	*Keeper
	w    http.ResponseWriter
	r    *http.Request
	c    *stage.Call
	next stage.Handler
	asks string // method and path at the identity module; "" elsewhere
}

const (
	signIn  = http.MethodPost + " /v1/sessions"
	signOut = http.MethodDelete + " /v1/sessions/current"
	refresh = http.MethodPost + " /v1/sessions/refresh"
)

func (x *exchange) serve() error {
	key := readCookie(x.r, x.Cookies.Gateway())
	if x.asks == refresh {
		return httpd.ErrNotFound // pairs are renewed by the gateway alone
	}
	if x.r.Header["Authorization"] != nil && x.asks != signIn {
		if key != nil {
			return ErrTwo
		}
		return x.next(x.w, x.r, x.c) // a program, which no page can make send this
	}
	if err := x.checkOrigin(); err != nil {
		return err
	}
	delete(x.r.Header, "Dpop") // it would bind the pair to a key that the gateway does not have
	if x.asks == signIn {
		return x.signIn(key)
	}
	if key == nil {
		return x.next(x.w, x.r, x.c)
	}
	return x.pass(key)
}

// checkOrigin refuses what another site's page makes a browser send. A WebSocket begins with a GET, but is no safe request: nothing keeps
// other pages from reading what comes over it.
func (x *exchange) checkOrigin() error {
	r := x.r
	if r.Header["Upgrade"] != nil {
		unsafe := *r
		unsafe.Method = http.MethodPost
		r = &unsafe
	}
	if err := x.origins.Check(r); err != nil {
		return httpd.ErrCrossOrigin.Wrap(err)
	}
	return nil
}

// pass lets the request go on with the token behind its cookie, or without one where there is none any more.
func (x *exchange) pass(key *key) error {
	p, renewed, err := x.token(x.r.Context(), key)
	switch {
	case errors.Is(err, errNone):
		return x.answer(func(int) { x.setCookie("", 0) })
	case err != nil:
		return err
	}
	x.r.Header["Authorization"] = []string{"Bearer " + p.Access}
	return x.answer(func(status int) {
		switch {
		case x.asks == signOut && (status < 300 || status == http.StatusUnauthorized):
			x.forget(x.r.Context(), key)
			x.setCookie("", 0)
		case renewed:
			x.setCookie(key.text, p.Until.Sub(x.Clock()))
		}
	})
}

// token returns a pair whose access token was not refused by this node: one that was revoked without the session, as when roles change,
// is renewed before its time.
func (x *exchange) token(ctx context.Context, key *key) (pair, bool, error) {
	from := origin{agent: x.r.UserAgent(), address: x.c.Client}
	p, renewed, err := x.current(ctx, key, "", from)
	if err != nil {
		return p, renewed, err
	}
	asked := http.Request{Method: x.r.Method, URL: x.r.URL, Host: x.r.Host, Header: http.Header{"Authorization": {"Bearer " + p.Access}}}
	_, err = x.Verify(asked.WithContext(ctx))
	if !errors.Is(err, auth.ErrRevoked) && !errors.Is(err, auth.ErrExpired) {
		return p, renewed, nil // what else is wrong with it, the route will say
	}
	return x.current(ctx, key, p.Access, from)
}

// answer calls what comes next. Its cookies are set at the last moment, so that no stage keeps them with an answer.
func (x *exchange) answer(last func(status int)) error {
	late := &late{ResponseWriter: x.w, last: last}
	err := x.next(late, x.r, x.c)
	if err != nil && !late.done {
		last(fault.From(err).Status())
	}
	return err
}

// late calls a function before the header of the answer is written.
type late struct {
	http.ResponseWriter
	last func(status int)
	done bool
}

// WriteHeader implements http.ResponseWriter.
func (l *late) WriteHeader(status int) {
	if !l.done && status >= 200 {
		l.done = true
		l.last(status)
	}
	l.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (l *late) Write(b []byte) (int, error) {
	if !l.done {
		l.WriteHeader(http.StatusOK)
	}
	return l.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (l *late) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// setCookie gives the browser its cookie, or takes it away where value is "".
func (x *exchange) setCookie(value string, lifetime time.Duration) {
	http.SetCookie(x.w, x.Cookies.GatewayCookie(value, lifetime))
}
