package app_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// Whoever mistypes the name of an installation must not get a second one, with other keys, in its place.
func TestCommandsThatLookMakeNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		for _, command := range []string{
			"user list", "user disable kim@example.com", "user enable kim@example.com", "user release kim@example.com", "keys rotate", "keys rotate --kind pepper",
			"apikey list", "apikey revoke aaaaaaaaaaaaaaaa", "apikey add --client a --name b",
			"keys reseal",
		} {
			data := filepath.Join(t.TempDir(), "data")
			r := run(t, "", append(strings.Fields(command), "--data", data, "--database", db.Config().URL)...)
			r.wantFault(t, 1, "lacks tables of this version", "sumun migrate")
			if _, err := os.Stat(data); !os.IsNotExist(err) {
				t.Errorf("%s made a data folder: %v", command, err)
			}
		}
		var tables int
		query := `SELECT count(*) FROM sqlite_schema`
		if db.Engine() == sqldb.PostgreSQL {
			query = `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()`
		}
		if err := db.Reader().QueryRowContext(t.Context(), query).Scan(&tables); err != nil || tables != 0 {
			t.Errorf("%d tables were made, %v", tables, err)
		}
	})
}

// An installation that keeps nothing on disk needs no folder for a command to look at it.
func TestCommandsThatLookNeedNoFolder(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return // it is a file in a folder
		}
		key := make([]byte, 32)
		rand.Read(key)
		env := []string{"SUMUN_MASTER_KEY=" + base64.StdEncoding.EncodeToString(key), "SUMUN_DATABASE=" + db.Config().URL,
			"SUMUN_DATA=" + filepath.Join(t.TempDir(), "data")}
		for _, command := range []string{
			"migrate", "user add --password-stdin --email " + email, "user list", "user disable " + email, "user enable " + email,
			"keys rotate", "keys reseal",
		} {
			if r := runEnv(t, env, password, strings.Fields(command)...); r.code != 0 || r.stderr != "" {
				t.Errorf("%s: %+v", command, r)
			}
		}
		if _, err := os.Stat(strings.TrimPrefix(env[2], "SUMUN_DATA=")); !os.IsNotExist(err) {
			t.Errorf("a data folder was made: %v", err)
		}
	})
}

// A refused password must leave nothing behind, and be explained in words that its owner understands.
func TestUserAddRefusesThePasswordFirst(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	r := run(t, "aaaaaaa", "user", "add", "--data", data, "--email", "kim@example.com", "--password-stdin")
	r.wantFault(t, 1, "sumun: the password is refused: Use at least 8 characters. Use something that is hard to guess")
	for _, code := range []string{"identity.", "password.", "password: "} {
		if strings.Contains(r.stderr, code) {
			t.Errorf("it speaks of %q:\n%s", code, r.stderr)
		}
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("a data folder was made: %v", err)
	}
}

// What is told of a fault is for people: codes are for programs.
func TestFaultsAreToldInWords(t *testing.T) {
	t.Parallel()
	r := run(t, password, "user", "add", "--data", installation(t), "--email", email, "--password-stdin")
	r.wantFault(t, 1, "account with this address")
	if strings.Contains(r.stderr, "identity.") {
		t.Errorf("a code is told:\n%s", r.stderr)
	}
}

// A master key that others have seen must be replaceable without losing what it sealed.
func TestKeysReseal(t *testing.T) {
	t.Parallel()
	data := installation(t)
	if r := run(t, "", "keys", "rotate", "--data", data); r.code != 0 {
		t.Fatal(r.stderr)
	}
	oldKey, newKey := filepath.Join(data, "master.key"), filepath.Join(t.TempDir(), "new.key")
	key := make([]byte, 32)
	rand.Read(key)
	if err := os.WriteFile(newKey, []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(master, previous string) string {
		return write(t, "sumun.yaml", fmt.Sprintf("data: %s\nmaster_key_file: %s\nkeyring: {previous_key_files: [%s]}\n", data, master, previous))
	}
	listed := func(config string) result { return run(t, "", "user", "list", "--config", config) }
	listed(config(newKey, "")).wantFault(t, 1, "master key")

	both := config(newKey, oldKey)
	first := run(t, "", "keys", "reseal", "--config", both)
	if first.code != 0 || !strings.HasPrefix(first.stdout, "1 signing keys and ") || strings.Contains(first.stdout, "and 0 other") {
		t.Errorf("got %+v", first)
	}
	if again := run(t, "", "keys", "reseal", "--config", both); !strings.HasPrefix(again.stdout, "0 signing keys and 0 other values") {
		t.Errorf("once more: %+v", again)
	}
	if r := listed(config(newKey, "")); r.code != 0 || !strings.Contains(r.stdout, email) {
		t.Errorf("with the new key alone: %+v", r)
	}
	listed(config(oldKey, "")).wantFault(t, 1, "master key")

	s := serve(t, "--config", config(newKey, ""))
	status, _, answer := call(t, "POST", s.public+"/v1/sessions", "", `{"identifier":"`+email+`","password":"`+password+`"}`)
	if status != 201 {
		t.Errorf("sign in with the new master key: %d %v", status, answer)
	}
}
