package e2e_test

import (
	"net/http"
	"strings"
	"testing"
)

// A single-page application keeps its refresh token where scripts cannot read it, and other sites cannot use it.
func TestCookieTransport(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const email = "browser@example.com"
		st.addUser(t, email)
		s := st.serve(t)
		body := credentials(email, password)
		body["transport"] = "cookie"
		a := s.send(t, "POST /v1/sessions", body, header("Origin", s.public)).want(t, 201)
		var got tokens
		a.decode(t, &got)
		if got.RefreshToken != "" || got.DeviceToken != "" || got.AccessToken == "" {
			t.Errorf("the body holds what belongs in cookies: %s", a.body)
		}
		cookie := wantCookie(t, a, "__Secure-sumun_refresh", "/v1/sessions", http.SameSiteStrictMode)
		wantCookie(t, a, "__Host-sumun_device", "/", http.SameSiteLaxMode)

		next := refreshByCookie(t, s, cookie)
		foreignSites(t, s, next)
		s.send(t, "POST /v1/sessions/refresh", map[string]string{"refresh_token": "x"}, withCookie(next)).
			wantProblem(t, 400, "session.two_tokens")

		out := s.send(t, "DELETE /v1/sessions/current", nil, bearer(got.AccessToken), withCookie(next)).want(t, 204)
		if c := cookieOf(out, cookie.Name); c == nil || c.MaxAge >= 0 || c.Value != "" || c.Path != "/v1/sessions" {
			t.Errorf("signing out leaves the cookie: %v", out.header["Set-Cookie"])
		}
		dead := s.send(t, "POST /v1/sessions/refresh", nil, withCookie(next), header("Origin", s.public))
		dead.wantProblem(t, 401, "session.ended")
		if c := cookieOf(dead, cookie.Name); c == nil || c.MaxAge >= 0 {
			t.Errorf("a dead cookie stays: %v", dead.header["Set-Cookie"])
		}
	})
}

func refreshByCookie(t *testing.T, s *server, cookie *http.Cookie) *http.Cookie {
	t.Helper()
	a := s.send(t, "POST /v1/sessions/refresh", nil, withCookie(cookie), header("Origin", s.public), header("Sec-Fetch-Site", "same-origin")).
		want(t, 200)
	var got tokens
	a.decode(t, &got)
	next := wantCookie(t, a, cookie.Name, "/v1/sessions", http.SameSiteStrictMode)
	if got.RefreshToken != "" || next.Value == cookie.Value || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("refresh by cookie: %s %v", a.body, a.header)
	}
	s.me(t, got.AccessToken)
	return next
}

// foreignSites sends what a browser would send for a page of another site.
func foreignSites(t *testing.T, s *server, cookie *http.Cookie) {
	t.Helper()
	signIn := credentials("browser@example.com", password)
	signIn["transport"] = "cookie"
	for name, options := range map[string][]option{
		"fetch metadata": {header("Sec-Fetch-Site", "cross-site")},
		"same site":      {header("Sec-Fetch-Site", "same-site"), header("Origin", "https://evil.localhost")},
		"origin alone":   {header("Origin", "https://evil.example")},
		"null origin":    {header("Origin", "null")},
	} {
		for request, body := range map[string]any{
			"POST /v1/sessions/refresh": nil, "POST /v1/sessions": signIn, "POST /sign-in": nil, "POST /sign-out": nil,
			"POST /account/delete": nil,
		} {
			a := s.send(t, request, body, append(options, withCookie(cookie))...).want(t, 403)
			if len(a.header["Set-Cookie"]) > 0 {
				t.Errorf("%s, %s: sets a cookie: %v", name, request, a.header)
			}
		}
	}
	preflight := s.send(t, "OPTIONS /v1/sessions/refresh", nil, header("Origin", "https://evil.example"),
		header("Access-Control-Request-Method", "POST"))
	if preflight.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("other origins may read answers: %v", preflight.header)
	}
}

func withCookie(c *http.Cookie) option {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value}) }
}

func cookieOf(a answer, name string) *http.Cookie {
	for _, line := range a.header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == name {
			return c
		}
	}
	return nil
}

func wantCookie(t *testing.T, a answer, name, path string, site http.SameSite) *http.Cookie {
	t.Helper()
	c := cookieOf(a, name)
	switch {
	case c == nil || c.Value == "":
		t.Fatalf("no cookie %s in %v", name, a.header["Set-Cookie"])
	case !c.HttpOnly, !c.Secure, c.SameSite != site, c.Path != path, c.Domain != "", c.MaxAge <= 0:
		t.Errorf("cookie %s has other attributes: %s", name, strings.Join(a.header["Set-Cookie"], "\n"))
	}
	return c
}
