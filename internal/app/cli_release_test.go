package app_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// Operators who take a directory out of the configuration hear at the start whom that locks out, and find out there how to let them in.
func TestUserRelease(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		where := []string{"--data", filepath.Join(t.TempDir(), "data"), "--database", db.Config().URL}
		command := func(stdin string, args ...string) result { return run(t, stdin, append(args, where...)...) }
		if r := command(password, "user", "add", "--email", email, "--password-stdin"); r.code != 0 {
			t.Fatal(r.stderr)
		}
		command("", "user", "release", email).wantFault(t, 1, email, "belongs to no directory")
		const hand = `UPDATE accounts SET directory = 'corp', directory_subject = 's', directory_login = 'kim', password_hash = ''`
		if _, err := db.Writer().ExecContext(t.Context(), hand); err != nil {
			t.Fatal(err)
		}
		s := serve(t, where...)
		r := s.stop()
		for _, want := range []string{"level=WARN", "directory=corp accounts=1", "sumun user release"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("the start does not say %q:\n%s", want, r.stderr)
			}
		}
		var account struct{ Directory string }
		if r := command("", "user", "list", "--json"); json.Unmarshal([]byte(r.stdout), &account) != nil || account.Directory != "corp" {
			t.Errorf("the list does not say whose the account is: %+v", r)
		}
		want := email + " is released from corp, and is sent a link to choose a password\n"
		if r := command("", "user", "release", email); r.code != 0 || r.stdout != want {
			t.Errorf("got %+v", r)
		}
		r = command("", "user", "release", "nobody@example.com", email) // of several, each is answered
		if r.code != 1 || strings.Count(r.stderr, "\n") != 2 || !strings.Contains(r.stderr, "nobody@example.com: ") {
			t.Errorf("got %+v", r)
		}
	})
}
