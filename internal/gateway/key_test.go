package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/httpd"
)

// register gives one key the tokens of a caller, one after the other.
type register struct {
	key    apikey.Key
	tokens []string
	asked  atomic.Int64
	gone   atomic.Bool
	late   atomic.Int64 // nanoseconds by which its clock is ahead
}

func (k *register) now() time.Time { return time.Now().Add(time.Duration(k.late.Load())) }

func (k *register) Exchange(_ context.Context, key apikey.Key) (apikeys.Token, error) {
	n := int(k.asked.Add(1))
	if key != k.key || k.gone.Load() {
		return apikeys.Token{}, apikeys.ErrInvalid
	}
	return apikeys.Token{Text: k.tokens[min(n, len(k.tokens))-1], Life: 15 * time.Minute}, nil
}

// withKeys lets a register's key in.
func withKeys(k *register) setting {
	return func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		var err error
		if d.APIKeys, err = apikeys.New(apikeys.Deps{Exchanger: k, Limiter: d.Limiter, Clock: k.now, Metrics: d.Metrics}); err != nil {
			panic(err)
		}
	}
}

func keyed(name, path string) gateway.Route {
	r := required(name, path)
	r.APIKeys = true
	return r
}

// A program with a key is let in like one with a token, with the same demands; the service never sees the key.
func TestAPIKey(t *testing.T) {
	t.Parallel()
	k := &register{key: apikey.New(), tokens: []string{"robot"}}
	scoped := keyed("scoped", "/scoped")
	scoped.Scopes = []string{"write"}
	told := keyed("told", "/told")
	told.IdentityHeaders = true
	token := keyed("token", "/token")
	token.Forward = gateway.ForwardToken
	token.Authentication = gateway.Optional
	w := setup(t, withKeys(k), routes(told, scoped, token, required("plain", "/plain")))
	text := k.key.Reveal()
	inHeader, asBearer := "X-API-Key: "+text, "Authorization: Bearer "+text
	for _, line := range []string{inHeader, asBearer, "authorization: bearer  " + text} {
		if a := w.send(t, "GET /told", line); a.status != 200 {
			t.Fatalf("%s: %d %s", line, a.status, a.body)
		}
		got := w.last(t)
		if got.Header.Get("X-Sumun-Client") != "robot" || got.Header["Authorization"] != nil || got.Header["X-Api-Key"] != nil {
			t.Errorf("the service was told %v", got.Header)
		}
		if a := w.send(t, "GET /token", line); a.status != 200 || w.last(t).Header.Get("Authorization") != "Bearer robot" {
			t.Errorf("the service got %v", w.last(t).Header)
		}
	}
	n := len(w.requests())
	for _, one := range []struct {
		request, code string
		status        int
		lines         []string
	}{
		{"GET /scoped", "auth.scope", 403, []string{inHeader}},
		{"GET /plain", "auth.missing", 401, []string{inHeader}},
		{"GET /plain", "auth.expired", 401, []string{asBearer}}, // what this test's verifier says of any other token
		{"GET /told", "auth.missing", 401, nil},
		{"GET /told?api_key=" + text, "auth.missing", 401, nil},
		{"GET /told", "auth.request", 400, []string{inHeader, as("robot")}},
		{"GET /told", "auth.request", 400, []string{inHeader, inHeader}},
		{"GET /told", "auth.request", 400, []string{asBearer, asBearer}},
		{"GET /told", "gateway.api_key", 401, []string{"X-API-Key: " + apikey.New().Reveal()}},
		{"GET /told", "gateway.api_key", 401, []string{"X-API-Key: robot"}},
		{"GET /told", "gateway.api_key", 401, []string{inHeader[:len(inHeader)-1]}},
		{"GET /told", "gateway.api_key", 401, []string{asBearer + "0"}},
		{"GET /token", "gateway.api_key", 401, []string{asBearer + "0"}},
	} {
		a := w.send(t, one.request, one.lines...)
		if a.status != one.status || a.code() != one.code {
			t.Errorf("%s %v: %d %s", one.request, one.lines, a.status, a.body)
		}
		if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %v: no challenge", one.request, one.lines)
		}
	}
	if len(w.requests()) != n {
		t.Error("a refused request has arrived at the service")
	}
	if asked := k.asked.Load(); asked != 2 {
		t.Errorf("%d questions about two keys that could be some", asked)
	}
	if strings.Contains(w.log.String(), text) {
		t.Error("the key is in the log")
	}
}

// withdrawn are callers of whom one token was revoked.
type withdrawn struct {
	tokens
	dead string
}

func (v withdrawn) VerifyRequest(r *http.Request) (*auth.Claims, error) {
	if text, err := auth.Token(r); err == nil && text == v.dead {
		return nil, auth.ErrRevoked
	}
	return v.tokens.VerifyRequest(r)
}

// A token that dies before its key, because a client was disabled and enabled again, is replaced at once; a key that was revoked is not
// asked about with every request.
func TestTokenOfKeyDies(t *testing.T) {
	t.Parallel()
	k := &register{key: apikey.New(), tokens: []string{"dead", "robot"}}
	revoked := func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) { d.Verifier = withdrawn{callers, "dead"} }
	w := setup(t, revoked, withKeys(k), routes(keyed("told", "/told")))
	show := "X-API-Key: " + k.key.Reveal()
	for range 3 {
		if a := w.send(t, "GET /told", show); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n := k.asked.Load(); n != 2 {
		t.Errorf("%d questions", n)
	}
	gone := &register{key: apikey.New(), tokens: []string{"dead"}}
	w = setup(t, revoked, withKeys(gone), routes(keyed("told", "/told")))
	show = "X-API-Key: " + gone.key.Reveal()
	for range 20 {
		if a := w.send(t, "GET /told", show); a.status != 401 || a.code() != "auth.revoked" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := gone.asked.Load(); n != 2 {
		t.Errorf("%d questions about a key whose tokens are all refused", n)
	}
	gone.late.Store(int64(2 * time.Second))
	gone.gone.Store(true)
	for range 5 {
		if a := w.send(t, "GET /told", show); a.status != 401 || a.code() != "gateway.api_key" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := gone.asked.Load(); n != 3 {
		t.Errorf("%d questions about a revoked key", n)
	}
}

// Programs with keys are counted by key: two of one client do not use up each other's share.
func TestKeysAreCounted(t *testing.T) {
	t.Parallel()
	k := &register{key: apikey.New(), tokens: []string{"robot"}}
	r := keyed("told", "/told")
	r.Limits = []gateway.Limit{{By: gateway.ByCaller, Rate: 2, Per: time.Hour}}
	w := setup(t, limited(time.Now), withKeys(k), routes(r))
	for i, want := range []int{200, 200, 429} {
		if a := w.send(t, "GET /told", "X-API-Key: "+k.key.Reveal()); a.status != want {
			t.Errorf("request %d: %d", i, a.status)
		}
	}
	if a := w.send(t, "GET /told", as("robot")); a.status != 200 {
		t.Errorf("the same client with a token: %d", a.status)
	}
}

// A route that promises keys where nobody knows any must not start.
func TestKeysNeedSomebodyToAsk(t *testing.T) {
	t.Parallel()
	cfg := gateway.DefaultConfig()
	cfg.DefaultRoutes = false
	cfg.Upstreams = []gateway.Upstream{newUpstream("echo", "http://127.0.0.1:9")}
	r := keyed("a", "/a")
	r.Upstream = "echo"
	cfg.Routes = []gateway.Route{r}
	w := setup(t)
	if err := w.gateway.Load(cfg); err == nil || !strings.Contains(err.Error(), "apikeys:exchange") {
		t.Errorf("without anybody to ask: %v", err)
	}
	cfg.Routes[0].Authentication = gateway.Public
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "routes[0].api_keys") {
		t.Errorf("on a public route: %v", err)
	}
}

// Behind somebody else's proxy a key must not reach the service either: it is read only where the proxy is told what to send instead.
func TestKeysBehindProxies(t *testing.T) {
	t.Parallel()
	k := &register{key: apikey.New(), tokens: []string{"robot"}}
	keys, err := apikeys.New(apikeys.Deps{Exchanger: k, Clock: time.Now, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	shop, token := proxied("shop", "/shop"), proxied("token", "/token")
	shop.APIKeys, token.APIKeys, token.Forward = true, true, gateway.ForwardToken
	h := questionsWith(t, keys, shop, token)
	for path, want := range map[string]string{"/shop": "", "/token": "Bearer robot"} {
		a := ask(t, h, "/nginx", original("GET", path, as(k.key.Reveal()))...)
		if a.StatusCode != 200 || a.Header.Get("Authorization") != want || a.Header.Get("X-Sumun-Client") != "robot" {
			t.Errorf("%s: %d, the service is told %v", path, a.StatusCode, a.Header)
		}
		if a := ask(t, h, "/nginx", original("GET", path, "X-Api-Key: "+k.key.Reveal())...); a.StatusCode != 401 {
			t.Errorf("%s: a key that the proxy would pass on: %d", path, a.StatusCode)
		}
	}
}
