package keyring_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var migrations = []sqldb.Migrations{keyring.Migrations}

func inFolder(t *testing.T) keyring.Config {
	t.Helper()
	cfg := keyring.DefaultConfig()
	cfg.MasterKeyFile = filepath.Join(t.TempDir(), "master.key")
	return cfg
}

func open(t *testing.T, db *sqldb.DB, cfg keyring.Config, c *clocktest.Clock) *keyring.Keyring {
	t.Helper()
	k, err := keyring.Open(t.Context(), db, cfg, c.Now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func writeKey(t *testing.T, name string, fill byte) {
	t.Helper()
	text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32)) + "\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The first start of a fleet: all nodes want a master key and a pepper at the same moment.
func TestNodesAgreeOnFirstStart(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		nodes := []*sqldb.DB{db, sqldbtest.Reopen(t, db)}
		rings := make([]*keyring.Keyring, 8)
		errs := make([]error, 16)
		var wg sync.WaitGroup
		for i := range rings {
			wg.Go(func() { rings[i], errs[i] = keyring.Open(t.Context(), nodes[i%2], cfg, c.Now) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		keys := make([]keyring.Key, 16)
		for i := range keys {
			wg.Go(func() { keys[i], errs[i] = rings[i%2].Current(t.Context(), "pepper") })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if key.ID != 1 || len(key.Secret) != 32 || !bytes.Equal(key.Secret, keys[0].Secret) {
				t.Fatalf("the nodes use different keys: %v", keys)
			}
		}
		if other, err := rings[3].Current(t.Context(), "mac"); err != nil || bytes.Equal(other.Secret, keys[0].Secret) {
			t.Errorf("two purposes share a key, %v", err)
		}
		left, err := filepath.Glob(cfg.MasterKeyFile + "*")
		if err != nil || !slices.Equal(left, []string{cfg.MasterKeyFile}) {
			t.Errorf("files left: %q, %v", left, err)
		}
		if info, err := os.Stat(cfg.MasterKeyFile); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("master key file: %v, %v", info.Mode(), err)
		}
	})
}

// A token whose MAC was made a moment ago on one node must verify on all others, also while strangers make ids up.
func TestRotationIsKnownBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		here, there := open(t, db, cfg, c), open(t, sqldbtest.Reopen(t, db), cfg, c)
		current := func(k *keyring.Keyring) uint32 {
			t.Helper()
			key, err := k.Current(t.Context(), "mac")
			if err != nil {
				t.Fatal(err)
			}
			return key.ID
		}
		if a, b := current(here), current(there); a != 1 || b != 1 {
			t.Fatalf("first keys are %d and %d", a, b)
		}
		rotated, err := here.Rotate(t.Context(), "mac")
		if err != nil || rotated.ID != 2 {
			t.Fatalf("rotated to %v, %v", rotated, err)
		}
		if a, b := current(here), current(there); a != 1 || b != 1 {
			t.Errorf("%d and %d are in use, but not every node can know the new key yet", a, b)
		}
		c.Advance(time.Minute)
		if a, b := current(here), current(there); a != 2 || b != 2 {
			t.Errorf("a minute later %d and %d are in use", a, b)
		}
		for _, k := range []*keyring.Keyring{here, there} {
			key, err := k.ByID(t.Context(), "mac", 2)
			if err != nil || !bytes.Equal(key.Secret, rotated.Secret) {
				t.Errorf("the new key: %v, %v", key, err)
			}
			if key, err := k.ByID(t.Context(), "mac", 1); err != nil || key.ID != 1 {
				t.Errorf("the old key: %v, %v", key, err)
			}
			if _, err := k.ByID(t.Context(), "mac", 99); !errors.Is(err, keyring.ErrUnknownKey) {
				t.Errorf("an invented key: %v", err)
			}
		}
		if _, err := here.Rotate(t.Context(), "mac"); err != nil {
			t.Fatal(err)
		}
		c.Advance(2 * time.Second)
		if key, err := there.ByID(t.Context(), "mac", 3); err != nil || key.ID != 3 {
			t.Errorf("a key this node has not heard of: %v, %v", key, err)
		}
	})
}

func TestConcurrentRotations(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		nodes := []*keyring.Keyring{open(t, db, cfg, c), open(t, sqldbtest.Reopen(t, db), cfg, c)}
		var wg sync.WaitGroup
		ids, errs := make([]uint32, 8), make([]error, 8)
		for i := range ids {
			wg.Go(func() {
				key, err := nodes[i%2].Rotate(t.Context(), "mac")
				ids[i], errs[i] = key.ID, err
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		if !slices.Equal(ids, []uint32{1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Errorf("keys %v", ids)
		}
	})
}

// Sign-in must not stop because the database does, as long as memory has what it needs.
func TestKnownKeysOutliveTheDatabase(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		own := sqldbtest.Reopen(t, db)
		k := open(t, own, inFolder(t), c)
		before, err := k.Current(t.Context(), "pepper")
		if err != nil {
			t.Fatal(err)
		}
		if err := own.Close(); err != nil {
			t.Fatal(err)
		}
		c.Advance(time.Hour)
		for range 2 {
			after, err := k.Current(t.Context(), "pepper")
			if err != nil || !bytes.Equal(after.Secret, before.Secret) {
				t.Errorf("got %v, %v", after, err)
			}
		}
		if _, err := k.ByID(t.Context(), "pepper", 7); err == nil || errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("without the database nobody can say that a key does not exist, but: %v", err)
		}
	})
}

func TestReplacingTheMasterKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		dir, c := t.TempDir(), clocktest.Noon()
		oldFile, newFile := filepath.Join(dir, "old.key"), filepath.Join(dir, "new.key")
		writeKey(t, oldFile, 1)
		writeKey(t, newFile, 2)
		before := open(t, db, keyring.Config{MasterKeyFile: oldFile, PreviousKeyFiles: []string{newFile}}, c)
		pepper, err := before.Current(t.Context(), "pepper")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := before.Seal("letter", []byte("dear"))
		if err != nil || before.Stale(sealed) {
			t.Fatalf("sealed under the current key: stale %t, %v", before.Stale(sealed), err)
		}

		both := keyring.Config{MasterKeyFile: newFile, PreviousKeyFiles: []string{oldFile}}
		after := open(t, sqldbtest.Reopen(t, db), both, c)
		if plain, err := after.Unseal("letter", sealed); string(plain) != "dear" || err != nil || !after.Stale(sealed) {
			t.Errorf("a value of the old master key: %q, %v, stale %t", plain, err, after.Stale(sealed))
		}
		for _, want := range []int{2, 0} { // the pepper and the check value, then nothing more
			if n, err := after.Reseal(t.Context()); n != want || err != nil {
				t.Errorf("resealed %d values, %v, want %d", n, err, want)
			}
		}
		if _, err := before.Rotate(t.Context(), "pepper"); err != nil {
			t.Errorf("a node on the old master key, while all know both: %v", err)
		}
		if n, err := after.Reseal(t.Context()); n != 1 || err != nil {
			t.Errorf("resealed %d values, %v, want 1", n, err)
		}

		alone := open(t, sqldbtest.Reopen(t, db), keyring.Config{MasterKeyFile: newFile}, c)
		if key, err := alone.Current(t.Context(), "pepper"); err != nil || !bytes.Equal(key.Secret, pepper.Secret) {
			t.Errorf("pepper after the old master key is gone: %v, %v", key, err)
		}
		if _, err := alone.Unseal("letter", sealed); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("a value of a master key that is gone: %v", err)
		}
		_, err = keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: oldFile}, c.Now)
		wantLine(t, err, oldFile, "was sealed with master key", "previous_key_files")
	})
}

func wantLine(t *testing.T, err error, want ...string) {
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
}

// A new master key for a database that has one already would make everything in it unreadable.
func TestLostMasterKeyIsNotReplaced(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		open(t, db, cfg, c)
		text, err := os.ReadFile(cfg.MasterKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cfg.MasterKeyFile); err != nil {
			t.Fatal(err)
		}
		_, err = keyring.Open(t.Context(), db, cfg, c.Now)
		wantLine(t, err, cfg.MasterKeyFile, "was sealed with master key", "restore", "SUMUN_MASTER_KEY")
		if _, err := os.Stat(cfg.MasterKeyFile); err == nil {
			t.Error("a new file was made")
		}
		// The key itself is enough, in either alphabet of base64.
		key := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(string(text))
		open(t, db, keyring.Config{MasterKey: keyring.Secret(key)}, c)
	})
}

func TestMasterKeyFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		tests := []struct {
			name, text string
			mode       os.FileMode
			want       string
		}{
			{"empty", "", 0o600, "damaged"},
			{"short", good[:20], 0o600, "15 bytes"},
			{"long", good + good, 0o600, "damaged"},
			{"garbled", "!" + good[1:], 0o600, "not base64"},
			{"huge", strings.Repeat("A", 1<<20), 0o600, "damaged"},
			{"readable by all", good, 0o604, "chmod 600"},
			{"writable by the group", good, 0o620, "chmod 600"},
		}
		for _, tt := range tests {
			if runtime.GOOS == "windows" && tt.mode != 0o600 {
				continue
			}
			name := filepath.Join(t.TempDir(), "master.key")
			if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, tt.mode); err != nil {
				t.Fatal(err)
			}
			for _, cfg := range []keyring.Config{
				{MasterKeyFile: name, Create: true},
				{MasterKey: keyring.Secret(good), PreviousKeyFiles: []string{name}},
			} {
				_, err := keyring.Open(t.Context(), db, cfg, time.Now)
				wantLine(t, err, name, tt.want)
				if strings.Contains(fmt.Sprint(err), good[:20]) {
					t.Errorf("%s: the key is told", tt.name)
				}
			}
		}
		missing := filepath.Join(t.TempDir(), "master.key")
		_, err := keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: missing}, time.Now)
		wantLine(t, err, missing, "does not exist", "/dev/urandom")
		_, err = keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: t.TempDir()}, time.Now)
		wantLine(t, err, "is not a file")
		_, err = keyring.Open(t.Context(), db, keyring.Config{MasterKey: "hunter2"}, time.Now)
		wantLine(t, err, "master_key: ")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the key is told: %v", err)
		}
	})
}

func TestConfigFaultsAreAllTold(t *testing.T) {
	t.Parallel()
	err := keyring.Config{PreviousKeyFiles: []string{""}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "master_key_file:") || !strings.Contains(err.Error(), "previous_key_files:") {
		t.Errorf("got %v", err)
	}
}
