package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway/oauth"
)

// identity answers as the identity module does.
type identity struct {
	*httptest.Server
	asked  atomic.Int64
	status atomic.Int64  // of every answer; 0 for a good one
	body   atomic.Value  // instead of the good one; nil for that
	hang   chan struct{} // answers wait until it is closed
}

func newIdentity(t testing.TB) *identity {
	i := &identity{hang: make(chan struct{})}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := i.asked.Add(1)
		<-i.hang
		id, secret, _ := r.BasicAuth()
		if status := i.status.Load(); status != 0 {
			w.WriteHeader(int(status))
			fmt.Fprint(w, `{"error":"invalid_target"}`)
			return
		}
		if body, there := i.body.Load().(string); there {
			fmt.Fprint(w, body)
			return
		}
		switch {
		case id != "gate%3Away" || secret != "s+%2F": // RFC 6749, section 2.3.1
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/oauth/introspect":
			fmt.Fprintf(w, `{"active":%t}`, r.FormValue("token") == "good")
		case r.FormValue("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange" &&
			r.FormValue("subject_token_type") == "urn:ietf:params:oauth:token-type:access_token":
			fmt.Fprintf(w, `{"access_token":"%s for %s, %d","token_type":"Bearer","expires_in":300}`, r.FormValue("subject_token"), r.FormValue("audience"), n)
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *identity) client(clock func() time.Time) *oauth.Client {
	return oauth.New(oauth.Config{HTTP: i.Client(), URL: i.URL, ID: "gate:way", Secret: "s /", Clock: clock})
}

// On a route that moves money nothing but identity's own yes lets anybody through.
func TestIntrospect(t *testing.T) {
	t.Parallel()
	i := newIdentity(t)
	close(i.hang)
	c := i.client(time.Now)
	for range 2 {
		if err := c.Introspect(t.Context(), "good"); err != nil {
			t.Error(err)
		}
	}
	if i.asked.Load() != 2 {
		t.Errorf("asked %d times for two requests", i.asked.Load())
	}
	if err := c.Introspect(t.Context(), "revoked"); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	for _, body := range []string{"", "[]", `{"active":"true"}`, `{"active":1}`, `<html>`} {
		i.body.Store(body)
		if err := c.Introspect(t.Context(), "good"); err == nil {
			t.Errorf("%q lets through", body)
		}
	}
	for _, status := range []int{401, 403, 404, 429, 500, 503} {
		i.status.Store(int64(status))
		if err := c.Introspect(t.Context(), "good"); !errors.Is(err, oauth.ErrUnavailable) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// An identity module that hangs must not take the gateway's requests with it.
func TestDeadline(t *testing.T) {
	t.Parallel()
	i := newIdentity(t)
	defer close(i.hang)
	begin := time.Now()
	if err := i.client(time.Now).Introspect(t.Context(), "good"); !errors.Is(err, oauth.ErrUnavailable) || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

// However many requests a person makes, one token is exchanged for each service, until shortly before its end; and nobody gets another's.
func TestExchangedOnce(t *testing.T) {
	t.Parallel()
	i := newIdentity(t)
	begin := time.Now()
	var passed atomic.Int64
	c := i.client(func() time.Time { return begin.Add(time.Duration(passed.Load())) })
	ask := func(token, audience, want string) {
		t.Helper()
		got, err := c.Authorization(t.Context(), token, audience)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s for %s: %q, %v; want %q", token, audience, got, err, want)
		}
	}
	gone, leave := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for n := range 64 {
		group.Go(func() {
			if n > 0 {
				ask("kim", "a", "Bearer kim for a, 1")
			} else if _, err := c.Authorization(gone, "kim", "a"); err != nil && !errors.Is(err, oauth.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	for i.asked.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	leave() // whoever asked first does not take the answer from the others
	close(i.hang)
	group.Wait()
	ask("kim", "b", "Bearer kim for b, 2")
	ask("lee", "a", "Bearer lee for a, 3")
	passed.Store(int64(290*time.Second - 1))
	ask("kim", "a", "Bearer kim for a, 1")
	passed.Store(int64(290 * time.Second))
	ask("kim", "a", "Bearer kim for a, 4")
}

// Without a token for the service nothing is sent to it, and the operator can tell an outage from a mistake in the configuration.
func TestNoExchange(t *testing.T) {
	t.Parallel()
	i := newIdentity(t)
	close(i.hang)
	c := i.client(time.Now)
	for status, want := range map[int64]error{400: oauth.ErrExchange, 401: oauth.ErrExchange, 429: oauth.ErrUnavailable, 500: oauth.ErrUnavailable, 503: oauth.ErrUnavailable} {
		i.status.Store(status)
		if got, err := c.Authorization(t.Context(), "kim", "a"); !errors.Is(err, want) || got != nil {
			t.Errorf("%d: %q, %v", status, got, err)
		}
	}
	i.status.Store(0)
	for _, body := range []string{`{}`, `{"access_token":"x","token_type":"DPoP","expires_in":300}`, `x`} {
		i.body.Store(body)
		if got, err := c.Authorization(t.Context(), "kim", "a"); err == nil || got != nil {
			t.Errorf("%s: %q", body, got)
		}
	}
}
