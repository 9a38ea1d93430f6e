package auth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
)

// endpoint is a token endpoint without a network.
type endpoint struct {
	mu    sync.Mutex
	asked int
	reply func(n int, r *http.Request) (int, string)
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	e.mu.Lock()
	e.asked++
	n := e.asked
	e.mu.Unlock()
	status, body := e.reply(n, r)
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	return answerOf(r, status, nil, io.NopCloser(strings.NewReader(body))), nil
}

func (e *endpoint) source(t *testing.T) *auth.ClientCredentials {
	t.Helper()
	c, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{
		Issuer: issuer, ID: "shop api", Secret: "s:e%cret", Client: &http.Client{Transport: e},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func granted(n int) (int, string) {
	return 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":900}`, n)
}

// A service that renews too late loses its feed; one that renews too often is a load.
func TestClientCredentialsRenewInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{reply: func(n int, r *http.Request) (int, string) {
			id, secret, _ := r.BasicAuth()
			body, _ := io.ReadAll(r.Body)
			if id != "shop+api" || secret != "s%3Ae%25cret" || r.URL.Path != "/oauth/token" ||
				string(body) != "grant_type=client_credentials&scope=revocations%3Aread" {
				t.Errorf("asked with %s %s %s %s", id, secret, r.URL, body)
			}
			return granted(n)
		}}
		c := e.source(t)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustGet(t, c, "token-1") })
		}
		wg.Wait()
		time.Sleep(9 * time.Minute)
		mustGet(t, c, "token-1")
		time.Sleep(2 * time.Minute)
		mustGet(t, c, "token-2")
		c.Refused("token-1")
		mustGet(t, c, "token-2")
		c.Refused("token-2")
		mustGet(t, c, "token-3")
		if e.asked != 3 {
			t.Errorf("asked %d times", e.asked)
		}
	})
}

func mustGet(t *testing.T, c *auth.ClientCredentials, want string) {
	t.Helper()
	if got, err := c.Token(t.Context()); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// While the issuer is down the old token is used as long as it lives; an answer that is none changes nothing; a secret is never told.
func TestClientCredentialsWhileTheIssuerIsDown(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]func() (int, string){
		"refused":       func() (int, string) { return 0, "" },
		"unavailable":   func() (int, string) { return 503, "later" },
		"wrong secret":  func() (int, string) { return 401, `{"error":"invalid_client"}` },
		"not JSON":      func() (int, string) { return 200, "<html>" },
		"another type":  func() (int, string) { return 200, `{"access_token":"x","token_type":"mac","expires_in":900}` },
		"no token":      func() (int, string) { return 200, `{"token_type":"bearer"}` },
		"a line break":  func() (int, string) { return 200, `{"access_token":"a\r\nb","token_type":"bearer"}` },
		"an empty body": func() (int, string) { return 200, "" },
	} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{reply: func(n int, _ *http.Request) (int, string) {
				if n == 1 {
					return granted(n)
				}
				return reply()
			}}
			c := e.source(t)
			mustGet(t, c, "token-1")
			time.Sleep(11 * time.Minute)
			mustGet(t, c, "token-1")
			time.Sleep(4 * time.Minute)
			got, err := c.Token(t.Context())
			if err == nil || got != "" {
				t.Errorf("%s: got %q after its time", name, got)
			}
			if err != nil && strings.Contains(err.Error(), "cret") {
				t.Errorf("%s: the secret is told: %v", name, err)
			}
		})
	}
}

func TestNewClientCredentialsNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{Issuer: "http://id.example"})
	if err == nil || !strings.Contains(err.Error(), "https://") || !strings.Contains(err.Error(), "Secret") {
		t.Errorf("got %v", err)
	}
}
