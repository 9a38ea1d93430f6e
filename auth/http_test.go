package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

func TestTokenOfARequest(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		headers []string
		want    string
		err     error
	}{
		"bearer":       {[]string{"Bearer a.b-c_d~e+f/g=="}, "a.b-c_d~e+f/g==", nil},
		"lower case":   {[]string{"bearer abc"}, "abc", nil},
		"more spaces":  {[]string{"Bearer  abc "}, "abc", nil},
		"none":         {nil, "", auth.ErrMissing},
		"other scheme": {[]string{"Basic YTpi"}, "", auth.ErrMissing},
		"empty":        {[]string{"Bearer"}, "", auth.ErrRequest},
		"two tokens":   {[]string{"Bearer a b"}, "", auth.ErrRequest},
		"two headers":  {[]string{"Bearer a", "Bearer b"}, "", auth.ErrRequest},
		"line break":   {[]string{"Bearer a\r\nb"}, "", auth.ErrRequest},
		"only padding": {[]string{"Bearer =="}, "", auth.ErrRequest},
	} {
		r := httptest.NewRequest(http.MethodGet, "/?access_token=in-the-address", nil)
		r.Header["Authorization"] = row.headers
		got, err := auth.Token(r)
		if got != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: got %q, %v; want %q, %v", name, got, err, row.want, row.err)
		}
	}
}

// FuzzToken: what a stranger puts into the header is a token with the alphabet of one, or an error of ours.
func FuzzToken(f *testing.F) {
	f.Add("Bearer a.b-c_d~e+f/g==", "")
	f.Add("bearer \t=", "Bearer x")
	f.Add("Basic YTpi\r\nX: y", "")
	alphabet := regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)
	f.Fuzz(func(t *testing.T, first, second string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = []string{first}
		if second != "" {
			r.Header["Authorization"] = []string{first, second}
		}
		token, err := auth.Token(r)
		switch {
		case err == nil && second != "":
			t.Fatalf("%q taken from two headers", token)
		case err == nil && (!alphabet.MatchString(token) || !strings.HasSuffix(strings.TrimRight(first, " "), token)):
			t.Fatalf("%q is taken for the token of %q", token, first)
		case err != nil && (token != "" || !errors.Is(err, auth.ErrMissing) && !errors.Is(err, auth.ErrRequest)):
			t.Fatalf("%q: %q, %v", first, token, err)
		}
	})
}

// A client can only do the right thing (refresh, sign in, wait) when the answer tells it which.
func TestMiddleware(t *testing.T) {
	t.Parallel()
	revocations := auth.NewRevocationSet(func() time.Time { return now })
	revocations.Add(auth.Revocation{
		Kind: auth.RevokeSession, ID: auth.RevocationHash(auth.RevokeSession, "ended"), Until: now.Add(time.Hour),
	})
	v := newVerifier(t, func(c *auth.Config) { c.Revocations = revocations })
	handler := v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, auth.FromContext(r.Context()).Subject)
	}))
	for name, row := range map[string]struct {
		authorization, header, code string
		status                      int
	}{
		"valid": {"Bearer " + token{}.sign(t), "", "", 200},
		"none":  {"", `Bearer realm="sumun"`, "auth.missing", 401},
		"malformed request": {"Bearer", `Bearer realm="sumun", error="invalid_request", ` +
			`error_description="Send exactly one Authorization header with one bearer token."`, "auth.request", 400},
		"expired": {"Bearer " + token{claims: map[string]any{"exp": 1}}.sign(t), `Bearer realm="sumun", ` +
			`error="invalid_token", error_description="The access token has expired."`, "auth.expired", 401},
		"revoked": {"Bearer " + token{claims: map[string]any{"sid": "ended"}}.sign(t), `Bearer realm="sumun", ` +
			`error="invalid_token", error_description="The access token has been revoked."`, "auth.revoked", 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			if row.authorization != "" {
				r.Header.Set("Authorization", row.authorization)
			}
			handler.ServeHTTP(w, r)
			if got := w.Header().Get("WWW-Authenticate"); w.Code != row.status || got != row.header {
				t.Errorf("got %d %s\nwant %d %s", w.Code, got, row.status, row.header)
			}
			if row.status == 200 {
				if w.Body.String() != "alice" {
					t.Errorf("the handler saw %q", w.Body)
				}
				return
			}
			var problem struct {
				Status int
				Code   string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
				t.Fatal(err)
			}
			if problem.Status != row.status || problem.Code != row.code || w.Header().Get("Cache-Control") != "no-store" ||
				w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("problem %s, headers %v", w.Body, w.Header())
			}
		})
	}
}

func TestMiddlewareWithoutKeys(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Keys = failing{errors.New("down")} })
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+token{}.sign(t))
	v.Middleware(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}

func TestChallengeOfOtherErrors(t *testing.T) {
	t.Parallel()
	if status, header, code := auth.Challenge(errors.New("disk full")); status != 500 || header != "" || code != "internal" {
		t.Errorf("got %d %q %q", status, header, code)
	}
	if status, _, code := auth.Challenge(fmt.Errorf("orders: %w", auth.ErrExpired)); status != 401 || code != "auth.expired" {
		t.Errorf("wrapped: got %d %q", status, code)
	}
}

// Somebody at an unlocked screen must not be able to change the password.
func TestRequireRecent(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		claims *auth.Claims
		ok     bool
	}{
		"just now":       {&auth.Claims{AuthTime: now}, true},
		"at the limit":   {&auth.Claims{AuthTime: now.Add(-5 * time.Minute)}, true},
		"too long ago":   {&auth.Claims{AuthTime: now.Add(-5*time.Minute - time.Second)}, false},
		"no person":      {&auth.Claims{}, false},
		"nobody at all":  {nil, false},
		"slightly ahead": {&auth.Claims{AuthTime: now.Add(time.Second)}, true},
	} {
		err := auth.RequireRecent(row.claims, 5*time.Minute, now)
		if (err == nil) != row.ok || err != nil && !errors.Is(err, auth.ErrStepUp) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
