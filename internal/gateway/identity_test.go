package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/oauth"
	"github.com/sumunio/sumun/internal/httpd"
)

// asking gives a gateway an identity module that calls the token of kim active, and exchanges tokens, while up is set.
func asking(t *testing.T, up *atomic.Bool) setting {
	t.Helper()
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !up.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/oauth/introspect":
			fmt.Fprintf(w, `{"active":%t}`, r.FormValue("token") == "kim")
		default:
			fmt.Fprintf(w, `{"access_token":"%s-for-%s","token_type":"Bearer","expires_in":300}`, r.FormValue("subject_token"), r.FormValue("audience"))
		}
	}))
	t.Cleanup(identity.Close)
	return func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		d.OAuth = oauth.New(oauth.Config{HTTP: identity.Client(), URL: identity.URL, ID: "gateway", Secret: "secret", Clock: time.Now})
	}
}

// Where money moves, a token that only identity knows to be bad is refused, and so is everybody while identity cannot be asked; elsewhere
// nobody notices.
func TestIntrospectedRoutes(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	up.Store(true)
	pay := required("pay", "/pay")
	pay.Critical, pay.Introspect = true, true
	w := setup(t, routes(pay, required("ordinary", "/")), asking(t, &up))
	for _, tc := range []struct {
		up     bool
		caller string
		code   string
		status int
	}{{true, "kim", "", 200}, {true, "lee", "auth.revoked", 401}, {false, "kim", "gateway.identity_unavailable", 503}, {true, "kim", "", 200}} {
		up.Store(tc.up)
		a := w.send(t, "GET /pay", as(tc.caller))
		if a.status != tc.status || a.code() != tc.code || tc.status == 401 && a.header.Get("Www-Authenticate") == "" || tc.status == 503 && a.header.Get("Retry-After") == "" {
			t.Errorf("%+v: %d %s %v", tc, a.status, a.body, a.header)
		}
		if a := w.send(t, "GET /", as(tc.caller)); a.status != 200 {
			t.Errorf("%+v: ordinary %d", tc, a.status)
		}
	}
	if n := len(w.requests()); n != 6 {
		t.Errorf("%d requests arrived", n)
	}
}

// A service gets a token of its own and never the caller's; without one it gets no request.
func TestExchangedTokens(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	up.Store(true)
	exchanged, open := required("exchanged", "/"), public("open", "/open")
	exchanged.Forward, open.Forward = gateway.ForwardExchange, gateway.ForwardExchange
	w := setup(t, routes(exchanged, open), asking(t, &up))
	for range 2 {
		if a := w.send(t, "GET /", as("kim")); a.status != 200 || w.last(t).Header.Get("Authorization") != "Bearer kim-for-echo" {
			t.Errorf("%d, the service was told %q", a.status, w.last(t).Header["Authorization"])
		}
		up.Store(false) // what there is goes on
	}
	if a := w.send(t, "GET /", as("lee")); a.status != 503 || a.code() != "gateway.identity_unavailable" || len(w.requests()) != 2 {
		t.Errorf("without a token: %d %s, %d requests", a.status, a.body, len(w.requests()))
	}
	if a := w.send(t, "GET /open", as("kim")); a.status != 200 || w.last(t).Header["Authorization"] != nil {
		t.Errorf("nobody looked at the token: %d, told %q", a.status, w.last(t).Header["Authorization"])
	}
}

// A route must not promise what nobody does: it would let in what its author believes to be kept out.
func TestWhatNeedsIdentity(t *testing.T) {
	t.Parallel()
	cfg := gateway.DefaultConfig()
	elsewhere := newUpstream("far")
	elsewhere.Elsewhere = true
	cfg.Upstreams = []gateway.Upstream{newUpstream("echo", "http://127.0.0.1:1"), elsewhere}
	careless, unseen, far := required("careless", "/a"), public("unseen", "/b"), required("far", "/c")
	careless.Introspect = true
	unseen.Session, far.Session = gateway.SessionCookie, gateway.SessionCookie
	careless.Upstream, unseen.Upstream, far.Upstream = "echo", "echo", "far"
	cfg.Routes = []gateway.Route{careless, unseen, far}
	err := cfg.Validate()
	for _, want := range []string{"routes[0].introspect: ", "routes[1].session: ", "routes[2].session: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q: %v", want, err)
		}
	}
	bare := setup(t, routes(public("open", "/")))
	for want, change := range map[string]func(r *gateway.Route){
		"forward: exchange": func(r *gateway.Route) { r.Forward = gateway.ForwardExchange },
		"or introspect":     func(r *gateway.Route) { r.Critical, r.Introspect = true, true },
		"session: cookie":   func(r *gateway.Route) { r.Session = gateway.SessionCookie },
	} {
		r := required("x", "/x")
		r.Upstream = "echo"
		change(&r)
		next := bare.config
		next.Routes = append([]gateway.Route{r}, next.Routes...)
		if err := bare.gateway.Load(next); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
