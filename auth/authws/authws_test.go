package authws_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
	"github.com/sumunio/sumun/auth/authws"
)

func upgrade(authorization string, protocols ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/socket", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for _, p := range protocols {
		r.Header.Add("Sec-WebSocket-Protocol", p)
	}
	return r
}

// Browsers can open a socket, and nobody can slip a second token past a proxy that looks at the first.
func TestVerify(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	v, token := issuer.Verifier(), issuer.Token()
	for name, row := range map[string]struct {
		r    *http.Request
		want error
	}{
		"header":             {upgrade("Bearer " + token), nil},
		"browser":            {upgrade("", "chat, sumun.bearer."+token), nil},
		"browser, two lines": {upgrade("", "chat", "sumun.bearer."+token), nil},
		"both":               {upgrade("Bearer "+token, "sumun.bearer."+token), auth.ErrRequest},
		"two":                {upgrade("", "sumun.bearer."+token, "sumun.bearer."+token), auth.ErrRequest},
		"none":               {upgrade("", "chat"), auth.ErrMissing},
		"empty":              {upgrade("", "sumun.bearer."), auth.ErrRequest},
		"nonsense":           {upgrade("", "sumun.bearer.x"), auth.ErrMalformed},
		"in the address":     {httptest.NewRequest(http.MethodGet, "/?access_token="+token, nil), auth.ErrMissing},
	} {
		if c, err := authws.Verify(v, row.r); !errors.Is(err, row.want) || (err == nil) != (c != nil) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

type closed struct {
	code   int
	reason string
}

func guard(t *testing.T, issuer *authtest.Issuer, v *auth.Verifier, token string) (*authws.Guard, chan closed) {
	t.Helper()
	c, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan closed, 8)
	g := authws.NewGuard(v, c, func(code int, reason string) { ends <- closed{code, reason} })
	t.Cleanup(g.Stop)
	return g, ends
}

func ended(t *testing.T, ends chan closed) closed {
	t.Helper()
	select {
	case c := <-ends:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("the connection stays open")
		return closed{}
	}
}

// An ended session's socket is closed, and only that one.
func TestGuardClosesOnRevocation(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	v := issuer.Verifier()
	_, a := guard(t, issuer, v, issuer.Token(authtest.WithSession("a")))
	_, b := guard(t, issuer, v, issuer.Token(authtest.WithSession("b")))
	stopped, c := guard(t, issuer, v, issuer.Token(authtest.WithSession("a")))
	stopped.Stop()
	issuer.RevokeSession("a")
	if got := ended(t, a); got != (closed{authws.CloseCode, "auth.revoked"}) {
		t.Errorf("closed with %v", got)
	}
	if len(b)+len(c) != 0 {
		t.Error("others were closed as well")
	}
}

// A chat that lasts longer than a token goes on with the next one, of the same session only.
func TestGuardRenew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testGuardRenew)
}

func testGuardRenew(t *testing.T) {
	issuer := authtest.New(t)
	v := issuer.Verifier()
	g, ends := guard(t, issuer, v, issuer.Token())
	_, forgetful := guard(t, issuer, v, issuer.Token())
	time.Sleep(10 * time.Minute)
	for name, token := range map[string]string{
		"another person":  issuer.Token(authtest.WithSubject("bob")),
		"another session": issuer.Token(authtest.WithSession("other")),
		"another client":  issuer.Token(func(c *auth.Claims) { c.ClientID = "other" }),
	} {
		if _, err := g.Renew(t.Context(), token); !errors.Is(err, authws.ErrOther) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.Renew(t.Context(), "x.y.z"); !errors.Is(err, auth.ErrMalformed) {
		t.Errorf("nonsense: %v", err)
	}
	next := issuer.Token()
	if _, err := g.Renew(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Minute)
	if got := ended(t, forgetful); got.reason != "auth.expired" {
		t.Errorf("who sent no newer token: %v", got)
	}
	if len(ends) != 0 {
		t.Fatalf("closed with %v although renewed", <-ends)
	}
	issuer.RevokeSession("session-1")
	if got := ended(t, ends); got.reason != "auth.revoked" {
		t.Errorf("closed with %v", got)
	}
	if _, err := g.Renew(t.Context(), issuer.Token()); err == nil {
		t.Error("a closed connection was renewed")
	}
}

// However many renew, revoke and stop at once, a connection is closed at most once, and never left open.
func TestGuardUnderContention(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	v := issuer.Verifier()
	for n := range 50 {
		session := fmt.Sprint("s", n)
		var closes atomic.Int32
		first, err := v.Verify(t.Context(), issuer.Token(authtest.WithSession(session)))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		g := authws.NewGuard(v, first, func(int, string) {
			if closes.Add(1) == 1 {
				close(done)
			}
		})
		var wg sync.WaitGroup
		for i := range 4 {
			token := issuer.Token(authtest.WithSession(session), func(c *auth.Claims) { c.ExpiresAt = c.ExpiresAt.Add(time.Duration(i) * time.Minute) })
			wg.Go(func() { _, _ = g.Renew(t.Context(), token) })
		}
		wg.Go(func() { issuer.RevokeSession(session) })
		wg.Wait()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection stays open")
		}
		g.Stop()
		if closes.Load() != 1 {
			t.Errorf("closed %d times", closes.Load())
		}
	}
}

// A socket's life with any library: verify, upgrade, guard, stop.
func ExampleNewGuard() {
	issuer := authtest.New(new(testing.T))
	verifier := issuer.Verifier()
	claims, err := authws.Verify(verifier, upgrade("", "chat, sumun.bearer."+issuer.Token()))
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan struct{})
	guard := authws.NewGuard(verifier, claims, func(code int, reason string) {
		fmt.Println("close frame:", code, reason) // conn.WriteControl, ws.Close, ...
		close(done)
	})
	defer guard.Stop()

	issuer.RevokeSession(claims.SessionID)
	<-done
	// Output: close frame: 1008 auth.revoked
}
