package websession_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/websession"
	"github.com/sumunio/sumun/internal/httpd"
)

// issuer is an identity module with one session, whose tokens are numbered.
type issuer struct {
	*httptest.Server

	mu        sync.Mutex
	serial    int           // of the latest pair
	refreshes int           // how often a pair was asked for
	fails     int           // the status of every refresh; 0 for none
	refused   string        // the access token that was revoked
	hold      chan struct{} // refreshes wait until it is closed; nil for none
	last      *http.Request
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(i.answer))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *issuer) asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.refreshes
}

func (i *issuer) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	i.mu.Lock()
	hold := i.hold
	i.last = r
	if r.URL.Path == "/v1/sessions/refresh" {
		i.refreshes++
	}
	i.mu.Unlock()
	if hold != nil {
		<-hold
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var asked struct {
		Refresh   string `json:"refresh_token"`
		Access    string `json:"access_token"`
		Transport string
	}
	_ = json.Unmarshal(body, &asked)
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/sessions":
		i.serial++
		if asked.Transport != "cookie" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.Header().Add("Set-Cookie", fmt.Sprintf("__Secure-sumun_refresh=r%d; Path=/v1/sessions", i.serial))
		w.Header().Add("Set-Cookie", "__Host-sumun_device=d; Path=/")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"session_id":"s1","access_token":"a%d","token_type":"Bearer","expires_in":900,"refresh_expires_in":86400}`, i.serial)
	case "POST /v1/sessions/refresh":
		switch {
		case i.fails != 0:
			w.WriteHeader(i.fails)
		case asked.Refresh == fmt.Sprintf("r%d", i.serial) && asked.Access == fmt.Sprintf("a%d", i.serial):
			i.serial++
			fallthrough
		case asked.Refresh == fmt.Sprintf("r%d", i.serial-1): // a repeat
			fmt.Fprintf(w, `{"access_token":"a%d","refresh_token":"r%d","expires_in":900,"refresh_expires_in":86400}`, i.serial, i.serial)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	case "DELETE /v1/sessions/current":
		w.WriteHeader(http.StatusNoContent)
	}
}

// verify is a verifier to which all tokens are good but one.
func (i *issuer) verify(r *http.Request) (*auth.Claims, error) {
	token, err := auth.Token(r)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil && token == i.refused {
		err = auth.ErrRevoked
	}
	return &auth.Claims{}, err
}

// node is a gateway with one route to the issuer and one to a service.
type node struct {
	issuer            *issuer
	toIssuer, service stage.Handler
	open              stage.Handler // answers nothing

	mu   sync.Mutex
	seen []string // the Authorization of each request that reached the service
}

func newNode(t testing.TB, i *issuer, s websession.Store, c *clocktest.Clock) *node {
	t.Helper()
	k, err := websession.New(websession.Deps{
		Store: s, Verify: i.verify, Identity: i.Client(), URL: i.URL, Cookies: httpd.Cookies{Secure: true},
		TrustedOrigins: []string{"https://friend.example"}, Clock: c.Now, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	n := &node{issuer: i}
	n.toIssuer = k.Stage(true, "")(func(w http.ResponseWriter, r *http.Request, _ *stage.Call) error { i.answer(w, r); return nil })
	n.open = k.Stage(false, "")(func(http.ResponseWriter, *http.Request, *stage.Call) error { return nil })
	n.service = k.Stage(false, "")(func(w http.ResponseWriter, r *http.Request, _ *stage.Call) error {
		n.mu.Lock()
		n.seen = append(n.seen, r.Header.Get("Authorization"))
		n.mu.Unlock()
		_, err := io.WriteString(w, "hello")
		return err
	})
	return n
}

const name = "__Host-sumun_gateway"

// ask sends a request to a route, with header lines such as "Cookie: a=b".
func (n *node) ask(to stage.Handler, request, body string, lines ...string) (*http.Response, error) {
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, "https://shop.example"+path, strings.NewReader(body))
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ": ")
		r.Header.Add(key, value)
	}
	w := httptest.NewRecorder()
	err := to(w, r, &stage.Call{Path: path, Client: netip.MustParseAddr("192.0.2.7")})
	return w.Result(), err
}

// signIn returns the line of the cookie that the browser got.
func (n *node) signIn(t testing.TB) string {
	t.Helper()
	answer, err := n.ask(n.toIssuer, "POST /v1/sessions", `{"identifier":"kim","password":"x"}`)
	must(t, err)
	for _, c := range answer.Cookies() {
		if c.Name == name {
			return "Cookie: " + name + "=" + c.Value
		}
	}
	t.Fatalf("no cookie: %d %v", answer.StatusCode, answer.Header)
	return ""
}

// told is the last that the service was told.
func (n *node) told() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) == 0 {
		return ""
	}
	return n.seen[len(n.seen)-1]
}

// lost reports whether an answer takes the browser's cookie away.
func lost(answer *http.Response) bool {
	for _, c := range answer.Cookies() {
		if c.Name == name && c.MaxAge < 0 {
			return true
		}
	}
	return false
}

// What the browser has must be useless to who steals it elsewhere: no token, and a cookie that scripts cannot read.
func TestSignIn(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	n := newNode(t, i, websession.NewMemory(time.Now), clocktest.At(time.Now()))
	answer, err := n.ask(n.toIssuer, "POST /v1/sessions", `{"identifier":"kim","password":"x"}`, "Dpop: proof", "Authorization: Bearer x")
	must(t, err)
	body, _ := io.ReadAll(answer.Body)
	if got := string(body); answer.StatusCode != 201 || got != `{"refresh_expires_in":86400,"session_id":"s1"}` {
		t.Errorf("%d %s", answer.StatusCode, got)
	}
	set := strings.Join(answer.Header["Set-Cookie"], "\n")
	if strings.Contains(set, "refresh") || !strings.Contains(set, "sumun_device=d") || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", answer.Header)
	}
	for _, c := range answer.Cookies() {
		if c.Name == name && (!c.HttpOnly || !c.Secure || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode || c.MaxAge < 86390) {
			t.Errorf("%+v", c)
		}
	}
	if i.last.Header.Get("Dpop") != "" {
		t.Error("the pair could be bound to a key that the gateway does not have")
	}
	if _, err := n.ask(n.toIssuer, "POST /v1/sessions/refresh", `{"refresh_token":"r1"}`); !errors.Is(err, httpd.ErrNotFound) {
		t.Errorf("a browser may renew: %v", err)
	}
	if one, two := n.signIn(t), n.signIn(t); one == two {
		t.Error("two sign-ins have one cookie")
	}
}

// The service is called with the token behind the cookie; after a sign-out nobody is.
func TestCookieIsASession(t *testing.T) {
	t.Parallel()
	n := newNode(t, newIssuer(t), websession.NewMemory(time.Now), clocktest.At(time.Now()))
	cookie := n.signIn(t)
	if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a1" {
		t.Errorf("told %q, %v", n.told(), err)
	}
	if _, err := n.ask(n.service, "GET /", "", cookie, "Authorization: Bearer other"); !errors.Is(err, websession.ErrTwo) {
		t.Errorf("cookie and token: %v", err)
	}
	if _, err := n.ask(n.service, "POST /", "", "Authorization: Bearer program", "Sec-Fetch-Site: cross-site"); err != nil || n.told() != "Bearer program" {
		t.Errorf("a program: %q, %v", n.told(), err)
	}
	answer, err := n.ask(n.toIssuer, "DELETE /v1/sessions/current", "", cookie)
	if err != nil || answer.StatusCode != 204 || !lost(answer) || n.issuer.last.Header.Get("Authorization") != "Bearer a1" {
		t.Errorf("sign-out: %d %v, %v", answer.StatusCode, answer.Header, err)
	}
	for _, line := range []string{cookie, "Cookie: " + name + "=x", cookie + "; " + strings.TrimPrefix(cookie, "Cookie: "), "Cookie: other=x"} {
		if answer, err := n.ask(n.service, "GET /", "", line); err != nil || n.told() != "" || line == cookie && !lost(answer) {
			t.Errorf("%s: told %q, %v, %v", line, n.told(), answer.Header, err)
		}
	}
}

// Another site's page must not be able to act with the cookie, nor to sign the browser in as somebody else, nor to listen.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	n := newNode(t, newIssuer(t), websession.NewMemory(time.Now), clocktest.At(time.Now()))
	cookie := n.signIn(t)
	foreign, own := "Origin: https://evil.example", "Origin: https://shop.example"
	for _, tc := range []struct {
		to      stage.Handler
		request string
		lines   []string
		refused bool
	}{
		{n.service, "POST /", []string{cookie, foreign}, true},
		{n.service, "DELETE /", []string{cookie, "Sec-Fetch-Site: cross-site"}, true},
		{n.service, "PUT /", []string{cookie, "Sec-Fetch-Site: same-site"}, true},
		{n.service, "POST /", []string{cookie, "Origin: null"}, true},
		{n.service, "GET /", []string{cookie, foreign, "Upgrade: websocket", "Connection: Upgrade"}, true},
		{n.toIssuer, "POST /v1/sessions", []string{foreign}, true},
		{n.service, "POST /", []string{cookie, own, "Sec-Fetch-Site: same-origin"}, false},
		{n.service, "POST /", []string{cookie, "Origin: https://friend.example", "Sec-Fetch-Site: cross-site"}, false},
		{n.service, "GET /", []string{cookie, own, "Upgrade: websocket"}, false},
		{n.service, "GET /", []string{cookie, "Sec-Fetch-Site: cross-site"}, false},
	} {
		if _, err := n.ask(tc.to, tc.request, "{}", tc.lines...); errors.Is(err, httpd.ErrCrossOrigin) != tc.refused || !tc.refused && err != nil {
			t.Errorf("%s %v: %v", tc.request, tc.lines, err)
		}
	}
}

// However many requests come at two thirds of the lifetime, identity is asked once, and none of them waits; after its end all wait for the
// one that asks.
func TestOneRenewal(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s websession.Store, _ func(time.Duration)) {
		i, c := newIssuer(t), clocktest.At(time.Now())
		n := newNode(t, i, s, c)
		cookie := n.signIn(t)
		c.Advance(599 * time.Second)
		storm(t, n, cookie)
		if i.asked() != 0 {
			t.Error("renewed before two thirds")
		}
		for round, wait := range []time.Duration{2 * time.Second, 901 * time.Second} {
			c.Advance(wait)
			storm(t, n, cookie)
			if i.asked() != round+1 {
				t.Errorf("%d renewals, want %d", i.asked(), round+1)
			}
			if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != fmt.Sprintf("Bearer a%d", round+2) {
				t.Errorf("told %q, %v", n.told(), err)
			}
		}
	})
}

// storm has 64 requests come at once, all of which must be served.
func storm(t *testing.T, n *node, cookie string) {
	t.Helper()
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			if answer, err := n.ask(n.service, "GET /", "", cookie); err != nil || answer.StatusCode != 200 || n.told() == "" {
				t.Errorf("%v", err)
			}
		})
	}
	group.Wait()
}

// Nodes that renew at the same time must not look like a thief who uses a refresh token again.
func TestNodesAgree(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s websession.Store, _ func(time.Duration)) {
		i, c := newIssuer(t), clocktest.At(time.Now())
		nodes := []*node{newNode(t, i, s, c), newNode(t, i, s, c), newNode(t, i, s, c)}
		cookie := nodes[0].signIn(t)
		for round := range 3 {
			c.Advance(601 * time.Second)
			var group sync.WaitGroup
			for _, n := range nodes {
				group.Go(func() { storm(t, n, cookie) })
			}
			group.Wait()
			for _, n := range nodes {
				if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != fmt.Sprintf("Bearer a%d", round+2) {
					t.Errorf("round %d: told %q, %v", round, n.told(), err)
				}
			}
		}
		if i.asked() > 9 {
			t.Errorf("%d renewals by three nodes in three rounds", i.asked())
		}
	})
}

// An outage of identity takes nothing from anybody: tokens go on to their end, and the session comes back with identity.
func TestOutageOfIdentity(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 503, 429, 404} {
		i, c := newIssuer(t), clocktest.At(time.Now())
		n := newNode(t, i, websession.NewMemory(c.Now), c)
		cookie := n.signIn(t)
		i.set(func() { i.fails = status })
		c.Advance(700 * time.Second)
		for range 3 {
			if answer, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a1" || lost(answer) {
				t.Errorf("%d: told %q, %v", status, n.told(), err)
			}
		}
		if i.asked() != 1 {
			t.Errorf("%d: asked %d times within a second", status, i.asked())
		}
		c.Advance(300 * time.Second)
		for range 3 {
			answer, err := n.ask(n.service, "GET /", "", cookie)
			if !errors.Is(err, websession.ErrUnavailable) || lost(answer) || fault.From(err).RetryAfter() == 0 {
				t.Errorf("%d, after the token's end: %v, %v", status, answer.Header, err)
			}
		}
		if i.asked() != 2 {
			t.Errorf("%d: asked %d times, also after the token's end", status, i.asked())
		}
		i.set(func() { i.fails = 0 })
		c.Advance(2 * time.Second)
		if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a2" {
			t.Errorf("%d, identity is back: told %q, %v", status, n.told(), err)
		}
	}
}

// A session that was ended elsewhere is over here with the next request; one whose person only got another role goes on.
func TestRevocation(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), clocktest.At(time.Now())
	n := newNode(t, i, websession.NewMemory(c.Now), c)
	cookie := n.signIn(t)
	i.set(func() { i.refused = "a1" })
	if answer, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a2" || lost(answer) {
		t.Errorf("another role: told %q, %v", n.told(), err)
	}
	i.set(func() { i.refused, i.fails = "a2", 503 })
	if answer, err := n.ask(n.service, "GET /", "", cookie); !errors.Is(err, websession.ErrUnavailable) || lost(answer) {
		t.Errorf("revoked during an outage: %v, %v", answer.Header, err)
	}
	i.set(func() { i.fails = 401 })
	c.Advance(2 * time.Second)
	for range 2 {
		if answer, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "" || !lost(answer) {
			t.Errorf("ended: told %q, %v, %v", n.told(), answer.Header, err)
		}
	}
	if i.asked() != 3 {
		t.Errorf("asked %d times", i.asked())
	}
}

// A browser that leaves while its session is renewed must not lose the pair: its old refresh token is used up.
func TestRenewalIsFinished(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), clocktest.At(time.Now())
	s := websession.NewMemory(c.Now)
	n := newNode(t, i, s, c)
	cookie := n.signIn(t)
	hold := make(chan struct{})
	i.set(func() { i.hold = hold })
	c.Advance(1000 * time.Second)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		r.Header.Set("Cookie", strings.TrimPrefix(cookie, "Cookie: "))
		done <- n.service(httptest.NewRecorder(), r, &stage.Call{Path: "/"})
	}()
	for i.asked() == 0 {
		<-time.After(time.Millisecond)
	}
	leave()
	close(hold)
	must(t, <-done)
	other := newNode(t, i, s, c) // which has only what was kept
	if _, err := other.ask(other.service, "GET /", "", cookie); err != nil || other.told() != "Bearer a2" || i.asked() != 1 {
		t.Errorf("told %q after %d renewals, %v", other.told(), i.asked(), err)
	}
}

// failing is a store that can be cut off.
type failing struct {
	websession.Store
	off atomic.Bool
}

var errOff = errors.New("off")

func (f *failing) Get(ctx context.Context, id string) ([]byte, error) {
	if f.off.Load() {
		return nil, errOff
	}
	return f.Store.Get(ctx, id)
}

// While the store is down, open sessions go on and nothing is renewed, since other nodes would not learn of it.
func TestOutageOfTheStore(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), clocktest.At(time.Now())
	s := &failing{Store: websession.NewMemory(c.Now)}
	n, fresh := newNode(t, i, s, c), newNode(t, i, s, c)
	cookie := n.signIn(t)
	_, err := n.ask(n.service, "GET /", "", cookie)
	must(t, err)
	s.off.Store(true)
	c.Advance(700 * time.Second)
	if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a1" || i.asked() != 0 {
		t.Errorf("told %q, %d renewals, %v", n.told(), i.asked(), err)
	}
	if answer, err := fresh.ask(fresh.service, "GET /", "", cookie); !errors.Is(err, websession.ErrUnavailable) || lost(answer) {
		t.Errorf("a node that does not know the session: %v", err)
	}
	s.off.Store(false)
	c.Advance(2 * time.Second)
	if _, err := n.ask(n.service, "GET /", "", cookie); err != nil || n.told() != "Bearer a2" {
		t.Errorf("the store is back: told %q, %v", n.told(), err)
	}
}

// spy remembers what a store is given.
type spy struct {
	websession.Store
	got []string
}

func (s *spy) Create(ctx context.Context, id string, sealed []byte, lifetime time.Duration) error {
	s.got = append(s.got, id, string(sealed))
	return s.Store.Create(ctx, id, sealed, lifetime)
}

// Who reads the store must find neither cookies nor tokens, and who writes it must not be able to swap one person's session for another's.
func TestStoreLearnsNothing(t *testing.T) {
	t.Parallel()
	s := &spy{Store: websession.NewMemory(time.Now)}
	n := newNode(t, newIssuer(t), s, clocktest.At(time.Now()))
	kim, lee := n.signIn(t), n.signIn(t)
	for _, text := range s.got {
		for _, secret := range []string{strings.TrimPrefix(kim, "Cookie: "+name+"="), `"a1"`, `"r1"`, "access"} {
			if strings.Contains(text, secret) {
				t.Errorf("the store sees %q", secret)
			}
		}
	}
	must(t, s.Replace(t.Context(), s.got[0], 1, []byte(s.got[3]), time.Hour))
	if _, err := n.ask(n.service, "GET /", "", kim); !errors.Is(err, websession.ErrUnavailable) || n.told() != "" {
		t.Errorf("kim with lee's session: told %q, %v", n.told(), err)
	}
	if _, err := n.ask(n.service, "GET /", "", lee); err != nil || n.told() != "Bearer a2" {
		t.Errorf("lee: %v", err)
	}
}

// What a cookie costs beside the verification of its token.
func BenchmarkCookie(b *testing.B) {
	n := newNode(b, newIssuer(b), websession.NewMemory(time.Now), clocktest.At(time.Now()))
	cookie := strings.TrimPrefix(n.signIn(b), "Cookie: ")
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	c := &stage.Call{Path: "/"}
	b.ReportAllocs()
	for b.Loop() {
		r.Header = http.Header{"Cookie": {cookie}}
		if err := n.open(w, r, c); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever a browser sends as its cookie, it is nobody's unless the gateway gave it.
func FuzzCookie(f *testing.F) {
	n := newNode(f, newIssuer(f), websession.NewMemory(time.Now), clocktest.At(time.Now()))
	given := strings.TrimPrefix(n.signIn(f), "Cookie: ")
	for _, seed := range []string{"", given, name + "=" + strings.Repeat("A", 43), name + "=" + strings.Repeat("A", 42) + "B", given + ";" + given, given + "=", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := n.ask(n.service, "GET /", "", "Cookie: "+text); err != nil {
			t.Fatal(err)
		}
		if n.told() != "" && !strings.Contains(text, strings.TrimPrefix(given, name+"=")) {
			t.Errorf("%q is told %q", text, n.told())
		}
	})
}
