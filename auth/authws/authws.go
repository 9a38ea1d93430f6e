// Package authws holds WebSockets to the token that opened them, whatever library carries them.
//
// It owns two things that a request does not need and a connection does: [Verify] finds the token of an upgrade request also
// where browsers have to put it, and [Guard] closes the connection when its session is revoked or its token expires, unless the
// client has sent a newer one.
//
// It promises that a connection does not outlive its token, and that nobody can go on with somebody else's. It refuses tokens in
// the address: addresses end up in logs.
//
// Everything is safe for use by several goroutines at once.
package authws

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/sumunio/sumun/auth"
)

// Protocol is what a browser, which cannot set headers on a WebSocket, puts before its token in the list of subprotocols:
//
//	new WebSocket(url, ["chat", "sumun.bearer." + token])
//
// The server chooses the other one; a client refuses an answer without any.
const Protocol = "sumun.bearer."

// CloseCode is the status with which a [Guard] closes: policy violation (RFC 6455 section 7.4.1). The reason is the code of the
// error, such as "auth.revoked".
const CloseCode = 1008

var (
	// ErrOther: the newer token is of another person, client or session than the connection.
	ErrOther = errors.New("authws: the token belongs to somebody else")
	// ErrClosed: the connection is being closed already.
	ErrClosed = errors.New("authws: the connection is being closed")
)

// Verify is [auth.Verifier.VerifyRequest] for an upgrade request, whose token is in the Authorization header or among the
// subprotocols. More than one is [auth.ErrRequest].
func Verify(v *auth.Verifier, r *http.Request) (*auth.Claims, error) {
	token, found := "", 0
	for _, list := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(list, ",") {
			if t, ok := strings.CutPrefix(strings.TrimSpace(name), Protocol); ok {
				token = t
				found++
			}
		}
	}
	if found == 0 {
		return v.VerifyRequest(r)
	}
	if found > 1 || len(r.Header["Authorization"]) > 0 {
		return nil, auth.ErrRequest
	}
	as := r.Clone(r.Context())
	as.Header.Set("Authorization", "Bearer "+token)
	return v.VerifyRequest(as)
}

// Guard closes one connection when its token is not good any more.
type Guard struct {
	verifier *auth.Verifier
	close    func(code int, reason string)

	mu     sync.Mutex
	claims *auth.Claims
	stop   func() bool
	over   bool
}

// NewGuard watches over a connection that was opened with these claims. It calls close once, from a goroutine that it shares
// with others: close sends the close frame and does not wait for an answer. There is no goroutine per connection. Call
// [Guard.Stop] when the connection ends by itself.
func NewGuard(v *auth.Verifier, c *auth.Claims, close func(code int, reason string)) *Guard {
	g := &Guard{verifier: v, close: close, claims: c}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop = v.Watch(c, func(err error) { g.end(c, err) })
	return g
}

// Claims returns those of the latest token.
func (g *Guard) Claims() *auth.Claims {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.claims
}

// end closes the connection, unless the claims are not its latest any more.
func (g *Guard) end(c *auth.Claims, err error) {
	g.mu.Lock()
	late := g.over || g.claims != c
	g.over = g.over || !late
	g.mu.Unlock()
	if late {
		return
	}
	_, _, code := auth.Challenge(err)
	g.close(CloseCode, code)
}

// Renew verifies a newer token that the client has sent over the connection, and lets the connection live as long as that one.
// It has to be of the same person, client and session. On any error the connection goes on with the token it had.
func (g *Guard) Renew(ctx context.Context, token string) (*auth.Claims, error) {
	c, err := g.verifier.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.claims
	switch {
	case g.over:
		return nil, ErrClosed
	case c.Subject != old.Subject || c.ClientID != old.ClientID || c.SessionID != old.SessionID:
		return nil, ErrOther
	case !c.ExpiresAt.After(old.ExpiresAt): // an older one, sent again
		return old, nil
	}
	g.stop()
	g.claims = c
	g.stop = g.verifier.Watch(c, func(err error) { g.end(c, err) })
	return c, nil
}

// Stop ends the guard. After it close is not called any more, though a call may be under way.
func (g *Guard) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.stop()
}
