package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// A library registers itself with a token of the operator's, signs somebody in whom it knows by a name of its own, signs them out, and
// goes.
func TestOpenIDClientRegisters(t *testing.T) {
	t.Parallel()
	demanded(t, nodeModules)
	eachStore(t, func(t *testing.T, st store) {
		const callback, open = "http://127.0.0.1:9/cb", "SUMUN_OAUTH_REGISTRATION=true"
		wantOneLine(t, "while it is off", st.command(t, "", "client", "registration-token", "add"), 1)
		made := st.command(t, "", "client", "registration-token", "add", "--scope", "openid", "--scope", "email", "--json", open)
		var ticket struct {
			ID    string `json:"id"`
			Token string `json:"initial_access_token"`
		}
		if made.code != 0 || json.Unmarshal([]byte(made.stdout), &ticket) != nil || ticket.Token == "" {
			t.Fatalf("registration-token add: %+v", made)
		}
		if r := st.command(t, "", "client", "registration-token", "list"); r.code != 0 || !strings.Contains(r.stdout, ticket.ID) || strings.Contains(r.stdout, ticket.Token) {
			t.Errorf("registration-token list: %+v", r)
		}
		st.addUser(t, "kim@example.com", "--name", "Kim")
		s := st.serve(t, open)
		var got struct {
			ID, Email, Sub, Left string
			Same, Before, After  bool
			Removed              int
		}
		s.signInByLibrary(t, "kim@example.com", &got, "openid-register.mjs", ticket.Token, callback)
		user := st.command(t, "", "user", "list", "--json")
		if got.Email != "kim@example.com" || got.Sub == "" || strings.Contains(user.stdout, got.Sub) || !got.Same || !got.Before || got.After || got.Left != "left" || got.Removed != 204 {
			t.Errorf("got %+v of %s", got, user.stdout)
		}
		wantOneLine(t, "it has gone", st.command(t, "", "client", "show", got.ID), 1)
		if r := st.command(t, "", "client", "registration-token", "remove", ticket.ID); r.code != 0 {
			t.Errorf("registration-token remove: %+v", r)
		}
	})
}
