package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A library registers itself with a token of the operator's, signs somebody in whom it knows by a name of its own, signs them out, and
// goes.
func TestOpenIDClientRegisters(t *testing.T) {
	t.Parallel()
	folder := demanded(t, nodeModules)
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
		cmd := exec.CommandContext(t.Context(), "node", "testdata/openid-register.mjs", folder, s.issuer, ticket.Token, callback)
		cmd.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b := s.newTab(t)
		var got struct {
			ID, Email, Sub, Left string
			Same, Before, After  bool
			Removed              int
		}
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if target, found := strings.CutPrefix(lines.Text(), "VISIT "); found {
				if _, err := io.WriteString(stdin, b.visit(target, "kim@example.com")+"\n"); err != nil {
					t.Fatal(err)
				}
			}
			if text, found := strings.CutPrefix(lines.Text(), "RESULT "); found {
				if err := json.Unmarshal([]byte(text), &got); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
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
