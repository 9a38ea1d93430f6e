package e2e_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wantOneLine fails unless the command said, in exactly one line of its own on standard error, all of the words.
func wantOneLine(t testing.TB, name string, r result, code int, words ...string) {
	t.Helper()
	wantLines(t, name, r, code, 1, words...)
}

func wantLines(t testing.TB, name string, r result, code, lines int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit code %d, want %d", name, r.code, code)
	}
	if strings.Count(r.stderr, "\n") != lines || strings.Count(r.stderr, "sumun: ") != lines || strings.Contains(r.stderr, "goroutine") {
		t.Errorf("%s: want %d lines:\n%s", name, lines, r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("%s: %q is not said:\n%s", name, word, r.stderr)
		}
	}
	for _, secret := range []string{"hunter2", password} {
		if strings.Contains(r.stderr+r.stdout, secret) {
			t.Errorf("%s: a secret is shown:\n%s%s", name, r.stdout, r.stderr)
		}
	}
}

func write(t testing.TB, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePorts keep a start that should fail, and does not, from disturbing others.
var freePorts = []string{"--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}

// What was written wrong is said at once, all of it, before anything is made.
func TestMisuse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args  []string
		code  int
		lines int
		words []string
	}{
		"no command":      {nil, 2, 1, []string{"sumun --help"}},
		"unknown command": {[]string{"server"}, 2, 1, []string{"server"}},
		"unknown flag":    {[]string{"serve", "--lisen", "127.0.0.1:0"}, 2, 1, []string{"--lisen"}},
		"unknown module":  {append([]string{"serve", "identty"}, freePorts...), 2, 1, []string{"identty", "identity"}},
		"unknown variable": {append([]string{"serve", "SUMUN_LISTN=127.0.0.1:0"}, freePorts...), 1, 1,
			[]string{"SUMUN_LISTN", "SUMUN_LISTEN"}},
		"unknown key": {append([]string{"serve", "--config", write(t, "a.yaml", "listn: 127.0.0.1:0\n")}, freePorts...), 1, 1,
			[]string{"listn", "listen"}},
		"broken file": {append([]string{"serve", "--config", write(t, "b.yaml", "listen: [\n")}, freePorts...), 1, 1, []string{"b.yaml"}},
		"no file":     {append([]string{"serve", "--config", "/nowhere/sumun.yaml"}, freePorts...), 1, 1, []string{"/nowhere/sumun.yaml"}},
		"three faults": {append([]string{"serve", "SUMUN_TOKENS_LIFETIME=2d", "SUMUN_SESSIONS_LIMIT=0", "--issuer", "ftp://x"}, freePorts...),
			1, 3, []string{"tokens.lifetime", "sessions.limit", "issuer"}},
		"senseless database": {append([]string{"serve", "--database", "mysql://root:hunter2@localhost/x"}, freePorts...), 1, 1, []string{"database"}},
		"senseless redis":    {append([]string{"serve", "--redis", "http://:hunter2@localhost"}, freePorts...), 1, 1, []string{"redis"}},
		"senseless key":      {append([]string{"serve", "SUMUN_MASTER_KEY=hunter2"}, freePorts...), 1, 1, []string{"master"}},
		"missing flag":       {[]string{"user", "add", "--email", "a@example.com"}, 2, 1, []string{"--password-stdin"}},
		"nothing to rotate":  {[]string{"keys", "rotate"}, 1, 1, []string{"no database"}},
		"nothing to list":    {[]string{"user", "list"}, 1, 1, []string{"no database"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			r := command(t, "", append(test.args, "SUMUN_DATA="+data)...)
			wantLines(t, name, r, test.code, test.lines, test.words...)
			if _, err := os.Stat(data); err == nil {
				t.Errorf("the data folder was made: %v", snapshot(t, data))
			}
		})
	}
}

// What stands in the way of a start is named with its remedy, and nothing is left half-done: once it is out of the way, the
// same command works.
func TestObstacles(t *testing.T) {
	t.Parallel()
	file := write(t, "file", "neither a folder nor a database nor a key")
	taken := takenPort(t)
	for name, test := range map[string]struct {
		args  []string
		words []string
	}{
		"port in use":            {[]string{"--listen", taken}, []string{taken, "another program"}},
		"operators' port in use": {[]string{"--ops-listen", taken}, []string{taken, "ops_listen"}},
		"data folder is a file":  {[]string{"--data", file}, []string{file, "--data"}},
		"data folder in a file":  {[]string{"--data", filepath.Join(file, "data")}, []string{file, "--data"}},
		"data folder unwritable": {[]string{"--data", "/proc/self"}, []string{"/proc/self"}},
		"not a database":         {[]string{"--database", "sqlite:" + file}, []string{file, "not a SQLite database"}},
		"unreachable PostgreSQL": {[]string{"--database", "postgres://sumun:hunter2@127.0.0.1:1/sumun"}, []string{"127.0.0.1:1"}},
		"unreachable Redis":      {[]string{"--redis", "redis://:hunter2@127.0.0.1:1"}, []string{"127.0.0.1:1"}},
		"not a key":              {[]string{"SUMUN_MASTER_KEY_FILE=" + file}, []string{file, "master key"}},
		"not a certificate":      {[]string{"SUMUN_TLS_CERT_FILE=" + file, "SUMUN_TLS_KEY_FILE=" + file}, []string{file}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := sqliteStore(t)
			args := slices.Concat([]string{"serve", "--log-level", "error"}, freePorts)
			wantOneLine(t, name, st.before(t, "", args, test.args), 1, test.words...)
			st.serve(t)
		})
	}
}

// before is command with arguments of the test's after those of the store, so that they win.
func (st store) before(t testing.TB, stdin string, args, last []string) result {
	t.Helper()
	return command(t, stdin, slices.Concat(args, st.args, last)...)
}

func takenPort(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// snapshot lists the files below a folder with their sizes.
func snapshot(t testing.TB, folder string) (files []string) {
	t.Helper()
	if err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		files = append(files, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// A wrong master key must be named before anything is written under it; with the right one all is as it was.
func TestWrongMasterKey(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		st.addUser(t, "owner@example.com")
		wrong := []string{"SUMUN_MASTER_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
		for name, r := range map[string]result{
			"serve":       st.before(t, "", slices.Concat([]string{"serve", "--log-level", "error"}, freePorts), wrong),
			"user add":    st.before(t, password, []string{"user", "add", "--email", "x@example.com", "--password-stdin"}, wrong),
			"keys rotate": st.before(t, "", []string{"keys", "rotate"}, wrong),
		} {
			wantOneLine(t, name, r, 1, "master key")
		}
		s := st.serve(t)
		s.refresh(t, s.signIn(t, "owner@example.com").RefreshToken)
		if users := st.users(t); len(users) != 1 {
			t.Errorf("accounts: %v", users)
		}
	})
}

// A lost key file must not be replaced by a new one: that would look like a start and be the loss of everything sealed.
func TestLostMasterKey(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	key, aside := filepath.Join(st.args[1], "master.key"), filepath.Join(t.TempDir(), "aside")
	if err := os.Rename(key, aside); err != nil {
		t.Fatal(err)
	}
	r := st.command(t, "", append([]string{"serve", "--log-level", "error"}, freePorts...)...)
	wantOneLine(t, "lost key", r, 1, "master key", key)
	if _, err := os.Stat(key); err == nil {
		t.Fatal("another key was made in its place")
	}
	if err := os.Rename(aside, key); err != nil {
		t.Fatal(err)
	}
	st.serve(t).signIn(t, "owner@example.com")
}

// A damaged database is not touched: what can still be saved must stay.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	file := filepath.Join(st.args[1], "sumun.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(content []byte) []byte{
		"overwritten": func(c []byte) []byte { return append(c[:4096:4096], make([]byte, len(c)-4096)...) },
		"cut off":     func(c []byte) []byte { return c[:len(c)/3] },
		"no header":   func(c []byte) []byte { return append([]byte("garbage!garbage!"), c[16:]...) },
	} {
		damaged := damage(slices.Clone(whole))
		if err := os.WriteFile(file, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		r := st.command(t, "", append([]string{"serve", "--log-level", "error"}, freePorts...)...)
		wantOneLine(t, name, r, 1, file)
		after, err := os.ReadFile(file)
		if err != nil || string(after) != string(damaged) {
			t.Errorf("%s: the damaged file was written to (%v)", name, err)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	st.serve(t).signIn(t, "owner@example.com")
}
