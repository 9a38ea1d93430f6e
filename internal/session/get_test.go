package session_test

import (
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/session"
)

func TestGet(t *testing.T) { onEach(t, []test{{"over HTTP", testHTTPGet}}) }

// The Location of a sign-in leads to the session, for its owner and for nobody else.
func testHTTPGet(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	h := n.serve(t)
	own, theirs := n.signIn(t, session.Start{Device: laptop}), n.signIn(t, session.Start{})
	c.Advance(time.Second)
	other := n.signIn(t, session.Start{Subject: own.Session.Subject, Device: laptop})
	type body struct {
		ID, Device, Address string
		Current             bool
	}
	for id, current := range map[string]bool{own.Session.ID: true, other.Session.ID: false} {
		got := decode[body](t, ask(t, h, "GET", "/v1/sessions/"+id, own.Tokens.Access, nil, ""), 200)
		if want := (body{id, "Chrome on Windows", "203.0.113.7", current}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	must(t, n.End(t.Context(), own.Session.Subject, other.Session.ID, session.EndedByOwner))
	for _, id := range []string{other.Session.ID, theirs.Session.ID, newSubject(), "x"} {
		wantProblem(t, ask(t, h, "GET", "/v1/sessions/"+id, own.Tokens.Access, nil, ""), session.ErrNotFound)
	}
	if r := ask(t, h, "GET", "/v1/sessions/"+own.Session.ID, "", nil, ""); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: status %d, header %v", r.StatusCode, r.Header)
	}
}
