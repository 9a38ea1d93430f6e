package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

func openURL(t *testing.T, dsn string) (*sqldb.DB, error) {
	t.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = dsn
	db, err := sqldb.Open(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = db.Close() })
	}
	return db, err
}

// An operator reads one line and knows what to do. A password must never be in it.
func checkLine(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not mention %q", err, w)
		}
	}
	if strings.ContainsRune(err.Error(), '\n') {
		t.Errorf("more than one line: %q", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is told: %q", err)
	}
}

func TestSQLiteFileBelongsToItsOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // has no such permissions
	}
	path := filepath.Join(t.TempDir(), "new folder", "50% of?#.db")
	db, err := openURL(t, "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqldb.Migrate(t.Context(), db, counters...); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

func TestSQLiteSettings(t *testing.T) {
	t.Parallel()
	for _, sync := range []sqldb.Synchronous{sqldb.SynchronousNormal, sqldb.SynchronousFull} {
		cfg := sqldb.DefaultConfig()
		cfg.URL, cfg.Synchronous = "sqlite:"+filepath.Join(t.TempDir(), "test.db"), sync
		db, err := sqldb.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		level := map[sqldb.Synchronous]string{sqldb.SynchronousNormal: "1", sqldb.SynchronousFull: "2"}[sync]
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": level, "foreign_keys": "1", "query_only": "0"} {
			var got string
			if err := db.Writer().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %q, %v, want %q", pragma, got, err, want)
			}
		}
		if _, err := db.Reader().ExecContext(t.Context(), "CREATE TABLE t (id BIGINT)"); !errors.Is(err, sqldb.ErrReadOnly) {
			t.Errorf("the reader wrote: %v", err)
		}
	}
}

func TestSQLiteThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(file, []byte(strings.Repeat("Dear Sir or Madam, ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		want []string
		is   error
	}{
		"folder":         {dir, []string{dir, "name a file"}, nil},
		"below a file":   {filepath.Join(file, "x.db"), []string{file, "choose a folder"}, nil},
		"something else": {file, []string{file, "not a SQLite database", "restore"}, sqldb.ErrDamaged},
	}
	for name, tt := range tests {
		_, err := openURL(t, "sqlite:"+tt.path)
		checkLine(t, err, tt.want...)
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v is not %v", name, err, tt.is)
		}
	}
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "Dear Sir") {
		t.Error("the file of somebody else was changed")
	}
}

func TestSQLiteDamagedWhileRunning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := openURL(t, "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqldb.Migrate(t.Context(), db, counters...); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("?", 4096*8)), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = openURL(t, "sqlite:"+path); err == nil {
		_, err = db.Writer().ExecContext(t.Context(), add, 1, "a")
	}
	checkLine(t, err, "restore")
	if !errors.Is(err, sqldb.ErrDamaged) {
		t.Errorf("%v is not ErrDamaged", err)
	}
}

func TestSQLiteFull(t *testing.T) {
	t.Parallel()
	db, err := openURL(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sqldb.Migrate(t.Context(), db, counters...); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Writer().ExecContext(t.Context(), `PRAGMA max_page_count = 1`); err != nil { // at least what is in use
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx sqldb.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO counters (name, n) VALUES ($1, 1)`, strings.Repeat("x", 100_000))
		return err
	})
	checkLine(t, err, "free space")
	if !errors.Is(err, sqldb.ErrFull) {
		t.Errorf("%v is not ErrFull", err)
	}
	counter(t, db.Reader(), "a")
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openURL(t, "postgres://sumun:hunter2@"+addr+"/shop")
	checkLine(t, err, addr, `"shop"`, "refused", "check that the server runs")
	if !errors.Is(err, sqldb.ErrUnreachable) {
		t.Errorf("%v is not ErrUnreachable", err)
	}
}

// A server that accepts and says nothing must not hold up the start for ever.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cfg := sqldb.DefaultConfig()
	cfg.URL = "postgres://sumun:hunter2@" + l.Addr().String() + "/shop"
	_, err = sqldb.Open(ctx, cfg)
	checkLine(t, err, l.Addr().String())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not the deadline", err)
	}
}

func TestPostgreSQLRefuses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return
		}
		u, err := url.Parse(db.Config().URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("sumun_nobody", "hunter2")
		_, err = openURL(t, u.String())
		checkLine(t, err, u.Host, `"sumun_nobody"`, "check user and password")

		u, _ = url.Parse(db.Config().URL)
		u.Path = "/sumun_nowhere"
		_, err = openURL(t, u.String())
		checkLine(t, err, u.Host, `"sumun_nowhere"`, "createdb")

		var name string
		if err := db.Reader().QueryRowContext(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != "sumun" {
			t.Errorf("application_name is %q, %v", name, err)
		}
	})
}

func TestPing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, counters, func(t *testing.T, db *sqldb.DB) {
		if err := db.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := db.Ping(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ping after its context: %v", err)
		}
	})
}

func TestConfigFaultsAreAllTold(t *testing.T) {
	t.Parallel()
	err := sqldb.Config{URL: "mysql://root:hunter2@db/x", MaxConns: -1, Synchronous: "off"}.Validate()
	for _, want := range []string{"url:", "sqlite:PATH", "max_conns: -1", "synchronous: \"off\"", "normal or full"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
	if strings.Contains(fmt.Sprint(err), "hunter2") {
		t.Errorf("the password is told: %q", err)
	}
}

func FuzzConfigURL(f *testing.F) {
	for _, seed := range []string{
		"", "sqlite:", "sqlite:a.db", "sqlite::memory:", "postgres://u:hunter2@h/d", "postgres://u:hunter2@h:x/d",
		"postgres://u:p/hunter2@h/d", "postgres://u:%zzhunter2@h/d", "postgresql://h:5432/d?sslmode=hunter2", "hunter2",
		"postgres://h/d?password=hunter2", "postgres://hunter2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		cfg := sqldb.DefaultConfig()
		cfg.URL = raw
		err := cfg.Validate()
		if strings.HasPrefix(raw, "sqlite:") {
			return // has no password
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is told: %q", err)
		}
		u, parseErr := url.Parse(raw)
		if err == nil && (parseErr != nil || u.Host == "") {
			t.Errorf("%q was accepted", raw)
		}
		if err == nil && u.User != nil {
			if password, _ := u.User.Password(); len(password) > 5 && strings.Contains(cfg.Redacted(), password) &&
				!strings.Contains(u.Host+u.Path, password) {
				t.Errorf("%q tells the password", cfg.Redacted())
			}
		}
	})
}
