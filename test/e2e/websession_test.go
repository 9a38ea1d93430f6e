package e2e_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// cookieRoutes is an application whose browsers have cookies; %s is its service.
const cookieRoutes = `gateway:
  upstreams:
    - name: shop
      audience: https://shop.example
      endpoints: [{url: %s}]
  routes:
    - name: shop-session
      paths: [/v1/sessions, /v1/sessions/, /v1/sessions/refresh]
      upstream: sumun
      authentication: upstream
      session: cookie
    - name: shop
      paths: [/shop/]
      upstream: shop
      session: cookie
      forward: exchange
    - name: pay
      paths: [/pay]
      methods: [POST]
      upstream: shop
      session: cookie
      critical: true
      introspect: true
`

// tokenRoute shows which access token is behind a cookie.
const tokenRoute = `    - name: token
      paths: [/token]
      upstream: shop
      session: cookie
      forward: token
`

// serveCookies starts Sumun with an application in front of which it keeps sessions.
func (st store) serveCookies(t *testing.T, service string, more ...string) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sumun.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(cookieRoutes, "%s", service, 1)+tokenRoute), 0o600); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat(quick(), []string{"--config", file}, more)
	if st.split {
		return st.serve(t, args...)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	issuer := "http://localhost:" + port
	client := st.addClient(t, gatewayClient(issuer)...)
	return st.serve(t, append(args, "--listen", address, "--issuer", issuer,
		"SUMUN_GATEWAY_FEED_CLIENT_ID="+client.ID, "SUMUN_GATEWAY_FEED_CLIENT_SECRET="+client.Secret)...)
}

// enter signs a browser in and returns its cookie.
func (s *server) enter(t testing.TB, identifier string) option {
	t.Helper()
	a := s.send(t, "POST /v1/sessions", credentials(identifier, password), header("Sec-Fetch-Site", "same-origin")).want(t, 201)
	if body := string(a.body); strings.Contains(body, "token") || strings.Contains(strings.Join(a.header["Set-Cookie"], ""), "refresh") {
		t.Errorf("the browser gets %s %v", body, a.header["Set-Cookie"])
	}
	for _, line := range a.header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == "__Host-sumun_gateway" {
			return header("Cookie", c.Name+"="+c.Value)
		}
	}
	t.Fatalf("no cookie: %v", a.header)
	return nil
}

// An application in the browser signs people in and calls services without ever seeing a token; the service gets one that is good there
// alone; and whoever is signed out elsewhere is out here at once.
func TestBrowserWithoutTokens(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Told", r.Header.Get("Authorization"))
			w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
		}))
		t.Cleanup(service.Close)
		s := st.serveCookies(t, service.URL)
		st.addUser(t, "owner@example.com")
		cookie := s.enter(t, "owner@example.com")
		a := s.send(t, "GET /shop/", nil, cookie).want(t, 200)
		told, _ := strings.CutPrefix(a.header.Get("X-Told"), "Bearer ")
		v, err := auth.New(auth.Config{Issuer: s.issuer, Audience: "https://shop.example"})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := v.Verify(t.Context(), told)
		if err != nil || len(claims.Audience) != 1 || a.header.Get("X-Cookie") != "" {
			t.Errorf("the service is told %q (%v), cookie %q", told, err, a.header.Get("X-Cookie"))
		}
		if again := s.send(t, "GET /shop/", nil, cookie).want(t, 200); again.header.Get("X-Told") != a.header.Get("X-Told") {
			t.Error("exchanged for each request")
		}
		s.send(t, "GET /v1/sessions/current", nil, bearer(told)).wantProblem(t, 401, "auth.audience")
		s.send(t, "POST /pay", nil, cookie).want(t, 200)
		s.send(t, "POST /pay", nil, cookie, header("Origin", "https://evil.example")).wantProblem(t, 403, "request.cross_origin")
		s.send(t, "POST /v1/sessions/refresh", map[string]string{}, cookie).want(t, 404)
		s.send(t, "POST /v1/sessions", credentials("owner@example.com", "wrong")).want(t, 401)
		other := s.enter(t, "owner@example.com")
		s.send(t, "DELETE /v1/sessions", nil, other).want(t, 204) // all but its own
		err = eventually(t.Context(), 5*time.Second, "signed out elsewhere", func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, "GET /shop/", nil, cookie)
			return a.status == 401 && strings.Contains(strings.Join(a.header["Set-Cookie"], ""), "__Host-sumun_gateway=;"), err
		})
		if err != nil {
			t.Error(err)
		}
		if a := s.send(t, "DELETE /v1/sessions/current", nil, other).want(t, 204); !strings.Contains(a.header.Get("Set-Cookie"), "__Host-sumun_gateway=;") {
			t.Errorf("signed out, and the browser keeps its cookie: %v", a.header)
		}
		s.send(t, "GET /shop/", nil, other).wantProblem(t, 401, "auth.missing")
	})
}

// While identity is down, browsers go on, and only what needs its word is refused.
func TestBrowserDuringAnOutage(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.split = true
	st.addUser(t, "owner@example.com")
	s := st.serveCookies(t, behind(t).URL)
	cookie := s.enter(t, "owner@example.com")
	s.send(t, "GET /shop/", nil, cookie).want(t, 200)
	s.send(t, "POST /pay", nil, cookie).want(t, 200)
	s.identity.kill(t)
	for range 20 {
		s.send(t, "GET /shop/", nil, cookie).want(t, 200)
	}
	s.send(t, "POST /pay", nil, cookie).wantProblem(t, 503, "gateway.identity_unavailable")
}

// Tokens are renewed behind the browser's back, and not before two thirds of their life, which identity would take for theft here.
func TestRenewalBehindTheCookie(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		s := st.serveCookies(t, behind(t).URL, "SUMUN_TOKENS_LIFETIME=1m", "SUMUN_TOKENS_JITTER=0", "SUMUN_SESSIONS_EARLY_REFRESH=revoke")
		st.addUser(t, "owner@example.com")
		cookie := s.enter(t, "owner@example.com")
		first := string(s.send(t, "GET /token", nil, cookie).want(t, 200).body)
		err := eventually(t.Context(), 55*time.Second, "renewed", func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, "GET /token", nil, cookie)
			if err == nil && a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
			return string(a.body) != first, err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.send(t, "DELETE /v1/sessions/current", nil, cookie).want(t, 204)
	})
}
