package oidc_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/oidc"
)

// enrol registers a client that gets tokens for itself.
func (n *node) enrol(t testing.TB, token string) said {
	t.Helper()
	return n.register(t, "POST", "/oauth/register", token, `{"grant_types":["client_credentials"],"scope":"reports"}`).said(t, 201)
}

var machines = oidc.NewInitialToken{Scope: "reports", Grants: []string{"client_credentials"}, Uses: 100}

// there reports whether there is a client.
func (n *node) there(t testing.TB, id string) bool {
	t.Helper()
	_, err := n.Client(t.Context(), id)
	if err != nil && !errors.Is(err, oidc.ErrClientUnknown) {
		t.Fatal(err)
	}
	return err == nil
}

// pass lets time pass in which a node would have changed its keys.
func (n *node) pass(t testing.TB, d time.Duration) {
	t.Helper()
	n.clock.Advance(d)
	must(t, n.tokens.Load(t.Context()))
}

// A script registers a client at each of its starts and uses one of them: the others go away, and what is used, or was registered by an
// operator, stays for ever.
func TestUnusedRegistrations(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		token := n.initial(t, machines)
		ask := func(c said) answer { return n.post(t, "/oauth/token", credentialsForm, basic(c.ID, c.Secret)) }
		idle, used, changed, disabled := n.enrol(t, token), n.enrol(t, token), n.enrol(t, token), n.enrol(t, token)
		if *idle.Expires != 0 {
			t.Errorf("a secret that expires at %d would be given up by libraries although the client is used", *idle.Expires)
		}
		n.add(t, "billing", machine)
		ask(used).token(t)
		n.post(t, "/oauth/token", credentialsForm, basic(idle.ID, "wrong")).refused(t, 401, "invalid_client")
		must(t, n.Disable(t.Context(), disabled.ID))

		n.clock.Advance(20 * 24 * time.Hour)
		body := `{"client_id":"` + changed.ID + `","grant_types":["client_credentials"],"scope":"reports","client_name":"Reports"}`
		n.register(t, "PUT", strings.TrimPrefix(changed.Address, issuer), changed.Token, body).said(t, 200)
		n.Sweep(t.Context())
		if !n.there(t, idle.ID) {
			t.Error("removed before its time")
		}
		n.pass(t, 11*24*time.Hour)
		n.Sweep(t.Context())
		for name, row := range map[string]struct {
			id    string
			stays bool
		}{
			"never used": {idle.ID, false}, "used": {used.ID, true}, "changed itself": {changed.ID, true},
			"disabled by an operator": {disabled.ID, true}, "an operator's": {"billing", true},
		} {
			if n.there(t, row.id) != row.stays {
				t.Errorf("%s: stays %v, want %v", name, !row.stays, row.stays)
			}
		}
		ask(idle).refused(t, 401, "invalid_client")
		n.register(t, "GET", strings.TrimPrefix(idle.Address, issuer), idle.Token, "").refused(t, 401, "invalid_token")
		ask(used).token(t)
		n.pass(t, 20*24*time.Hour)
		n.Sweep(t.Context())
		if n.there(t, changed.ID) {
			t.Error("changed itself long ago, and stays")
		}
		if !n.there(t, used.ID) {
			t.Error("used once, and gone")
		}
	})
}

// An operator who wants none of it turns it off.
func TestUnusedRegistrationsMayStay(t *testing.T) {
	onEachWith(t, func(c *oidc.Config) { letIn(c); c.UnusedRegistrations = 0 }, func(t *testing.T, n *node) {
		idle := n.enrol(t, n.initial(t, machines))
		n.clock.Advance(1000 * 24 * time.Hour)
		n.Sweep(t.Context())
		if !n.there(t, idle.ID) {
			t.Error("gone")
		}
	})
	cfg := oidc.DefaultConfig()
	cfg.UnusedRegistrations = time.Minute
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "unused_registrations") {
		t.Errorf("a minute: %v", err)
	}
}

// A program is used for the first time at the very moment when it is removed: it stays with a token that works, or is gone with one that
// does not.
func TestFirstUseRacesTheRemoval(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		token := n.initial(t, machines)
		var all []said
		for range 16 {
			all = append(all, n.enrol(t, token))
		}
		n.pass(t, 31*24*time.Hour)
		answers := make([]answer, len(all))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { n.Sweep(t.Context()) })
		}
		for i, c := range all {
			wg.Go(func() { answers[i] = n.post(t, "/oauth/token", credentialsForm, basic(c.ID, c.Secret)) })
		}
		wg.Wait()
		n.Sweep(t.Context())
		must(t, n.sessions.Apply(t.Context()))
		for i, c := range all {
			works := false
			if answers[i].status == 200 {
				_, err := n.verifier.Verify(t.Context(), answers[i].token(t).AccessToken)
				works = err == nil
				if err != nil && !errors.Is(err, auth.ErrRevoked) {
					t.Error(err)
				}
			}
			if there := n.there(t, c.ID); there != works {
				t.Errorf("client there %v, token works %v", there, works)
			}
		}
	})
}
