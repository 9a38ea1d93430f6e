package session_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
)

var cookies = httpd.Cookies{Secure: true}

func TestHTTP(t *testing.T) {
	onEach(t, []test{
		{"refresh by body", testHTTPRefreshByBody},
		{"refresh by cookie", testHTTPRefreshByCookie},
		{"outage keeps the cookie", testHTTPOutageKeepsTheCookie},
		{"list", testHTTPList},
		{"end", testHTTPEnd},
	})
}

// serve mounts the operations as the program does: what declares the bearer scheme gets verified claims.
func (n *node) serve(tb testing.TB) http.Handler {
	mux := http.NewServeMux()
	api := httpd.NewAPI(mux, httpd.APIConfig{Title: "test", Version: "1"})
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		if len(ctx.Operation().Security) == 0 {
			next(ctx)
			return
		}
		_, raw, _ := strings.Cut(ctx.Header("Authorization"), " ")
		claims, err := n.verifier.Verify(ctx.Context(), raw)
		if err != nil {
			httpd.Refuse(api, ctx, fault.New(fault.Unauthenticated, "test.unauthenticated", "No."))
			return
		}
		next(huma.WithContext(ctx, auth.NewContext(ctx.Context(), claims)))
	})
	n.MountAPI(api, cookies)
	return httpd.Chain(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), httpd.DefaultConfig())(mux)
}

// ask sends a request; bearer, cookie and body may be empty.
func ask(tb testing.TB, h http.Handler, method, path, bearer string, cookie *http.Cookie, body string) *http.Response {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	if cookie != nil {
		r.AddCookie(cookie)
	}
	r.Header.Set("User-Agent", laptop.UserAgent)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func decode[T any](tb testing.TB, r *http.Response, status int) (v T) {
	tb.Helper()
	if r.StatusCode != status {
		tb.Fatalf("status %d, want %d", r.StatusCode, status)
	}
	must(tb, json.NewDecoder(r.Body).Decode(&v))
	return v
}

func wantProblem(tb testing.TB, r *http.Response, want *fault.Fault) {
	tb.Helper()
	if got := decode[fault.Problem](tb, r, want.Status()); got.Code != want.Code() {
		tb.Errorf("code %q, want %q", got.Code, want.Code())
	}
}

func refreshBody(token string) string { return `{"refresh_token":"` + token + `"}` }

func testHTTPRefreshByBody(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	h := n.serve(t)
	started := n.signIn(t, session.Start{})
	r := ask(t, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody(started.Tokens.Refresh))
	answer := decode[session.TokenAnswer](t, r, 200)
	n.claims(t, answer.AccessToken)
	if answer.SessionID != started.Session.ID || answer.TokenType != "Bearer" || answer.RefreshToken == "" ||
		answer.ExpiresIn < 14*60 || answer.RefreshExpiresIn != 7*24*3600 {
		t.Errorf("answer = %+v", answer)
	}
	if r.Header.Get("Cache-Control") != "no-store" || len(r.Cookies()) != 0 {
		t.Errorf("header = %v", r.Header)
	}
	n.refresh(t, answer.RefreshToken)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody("x")), session.ErrInvalidGrant)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, ""), session.ErrInvalidGrant)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, "{}"), session.ErrInvalidGrant)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody(started.Tokens.Refresh)), session.ErrEnded)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", nil, refreshBody(answer.RefreshToken)), session.ErrEnded)
}

func testHTTPRefreshByCookie(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	h := n.serve(t)
	started := n.signIn(t, session.Start{})
	cookie := cookies.RefreshCookie(started.Tokens.Refresh, time.Hour)
	wantProblem(t, ask(t, h, "POST", "/v1/sessions/refresh", "", cookie, refreshBody(started.Tokens.Refresh)), session.ErrTwoTokens)

	r := ask(t, h, "POST", "/v1/sessions/refresh", "", cookie, "")
	if answer := decode[session.TokenAnswer](t, r, 200); answer.RefreshToken != "" || answer.AccessToken == "" {
		t.Errorf("answer = %+v, want no refresh token where scripts can read it", answer)
	}
	set := r.Cookies()
	if len(set) != 1 || set[0].Name != "__Secure-sumun_refresh" || !set[0].HttpOnly || !set[0].Secure ||
		set[0].SameSite != http.SameSiteStrictMode || set[0].Path != "/v1/sessions" || set[0].MaxAge != 7*24*3600 {
		t.Fatalf("cookies = %v", set)
	}
	must(t, n.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	for name, value := range map[string]string{"ended": set[0].Value, "garbage": "x"} {
		r := ask(t, h, "POST", "/v1/sessions/refresh", "", cookies.RefreshCookie(value, time.Hour), "")
		if set := r.Cookies(); r.StatusCode != 401 || len(set) != 1 || set[0].MaxAge != -1 || set[0].Name != cookies.Refresh() {
			t.Errorf("%s: status %d, cookies %v; want the cookie cleared", name, r.StatusCode, set)
		}
	}
}

// A browser must not be signed out by our outage.
func testHTTPOutageKeepsTheCookie(t *testing.T, p *place) {
	own := p.again(t)
	n, _ := alone(t, own, session.DefaultConfig())
	h := n.serve(t)
	cookie := cookies.RefreshCookie(n.signIn(t, session.Start{}).Tokens.Refresh, time.Hour)
	own.close(t)
	r := ask(t, h, "POST", "/v1/sessions/refresh", "", cookie, "")
	if len(r.Cookies()) != 0 || r.Header.Get("Retry-After") == "" {
		t.Errorf("header = %v, want Retry-After and no cookie", r.Header)
	}
	wantProblem(t, r, session.ErrUnavailable)
}

func testHTTPList(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	h := n.serve(t)
	started := n.signIn(t, session.Start{Device: laptop})
	for range 2 {
		c.Advance(time.Second)
		n.signIn(t, session.Start{Subject: started.Session.Subject, Device: laptop})
	}
	type page struct {
		Items []struct {
			ID, Device, Address string
			Current             bool
		} `json:"items"`
		Next string `json:"next_cursor"`
	}
	first := decode[page](t, ask(t, h, "GET", "/v1/sessions?limit=2", started.Tokens.Access, nil, ""), 200)
	last := decode[page](t, ask(t, h, "GET", "/v1/sessions?limit=2&cursor="+first.Next, started.Tokens.Access, nil, ""), 200)
	if len(first.Items) != 2 || len(last.Items) != 1 || last.Next != "" {
		t.Fatalf("pages = %+v, %+v", first, last)
	}
	one := last.Items[0]
	if one.ID != started.Session.ID || !one.Current || one.Device != "Chrome on Windows" || one.Address != "203.0.113.7" || first.Items[0].Current {
		t.Errorf("pages = %+v, %+v", first, last)
	}
	wantProblem(t, ask(t, h, "GET", "/v1/sessions?cursor=x", started.Tokens.Access, nil, ""), session.ErrCursor)
	if r := ask(t, h, "GET", "/v1/sessions", "", nil, ""); r.StatusCode != 401 {
		t.Errorf("without a token: status %d", r.StatusCode)
	}
}

func testHTTPEnd(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	h := n.serve(t)
	subject := newSubject()
	current := n.signIn(t, session.Start{Subject: subject})
	one, other, theirs := n.signIn(t, session.Start{Subject: subject}), n.signIn(t, session.Start{Subject: subject}), n.signIn(t, session.Start{})
	end := func(path string, cookie *http.Cookie) *http.Response {
		return ask(t, h, "DELETE", path, current.Tokens.Access, cookie, "")
	}
	wantEnded := func(s session.Started, want bool) {
		t.Helper()
		_, err := n.verifier.Verify(t.Context(), s.Tokens.Access)
		if (err != nil) != want {
			t.Errorf("ended = %v (%v), want %v", err != nil, err, want)
		}
	}
	if r := end("/v1/sessions/"+one.Session.ID, nil); r.StatusCode != 204 {
		t.Errorf("end one: status %d", r.StatusCode)
	}
	wantEnded(one, true)
	wantEnded(other, false)
	wantProblem(t, end("/v1/sessions/"+one.Session.ID, nil), session.ErrNotFound)
	wantProblem(t, end("/v1/sessions/"+theirs.Session.ID, nil), session.ErrNotFound)
	wantProblem(t, end("/v1/sessions/x", nil), session.ErrNotFound)
	if r := end("/v1/sessions", nil); r.StatusCode != 204 {
		t.Errorf("end others: status %d", r.StatusCode)
	}
	wantEnded(other, true)
	wantEnded(theirs, false)
	wantEnded(current, false)

	events, _, err := audit.New(audit.DefaultConfig(), time.Now).List(t.Context(), p.db.Reader(), subject, "", 0)
	must(t, err)
	for _, e := range events {
		if e.Actor != subject || e.Origin.UserAgent != laptop.UserAgent || !e.Origin.Address.IsValid() {
			t.Errorf("%s was done by %q from %v", e.Action, e.Actor, e.Origin)
		}
	}
	if len(events) != 2 {
		t.Errorf("%d events in the trail, want 2", len(events))
	}

	r := end("/v1/sessions/current", cookies.RefreshCookie(current.Tokens.Refresh, time.Hour))
	if set := r.Cookies(); r.StatusCode != 204 || len(set) != 1 || set[0].Name != cookies.Refresh() || set[0].MaxAge != -1 {
		t.Errorf("sign out: status %d, cookies %v", r.StatusCode, set)
	}
	wantEnded(current, true)

	// Signing out through the API leaves the session of our own pages alone, unless it is that one.
	current = n.signIn(t, session.Start{Subject: subject})
	_, page := n.openPage(t, subject)
	if r := end("/v1/sessions/"+current.Session.ID, cookies.SessionCookie(page, time.Hour)); r.StatusCode != 204 || len(r.Cookies()) != 0 {
		t.Errorf("sign out beside a page: status %d, cookies %v", r.StatusCode, r.Cookies())
	}
}
