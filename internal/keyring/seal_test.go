package keyring_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
)

const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func setup(t testing.TB) *keyring.Keyring {
	t.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(t.TempDir(), "test.db")
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := sqldb.Migrate(t.Context(), db, keyring.Migrations); err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), db, keyring.Config{MasterKey: key}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal(t *testing.T) {
	t.Parallel()
	k := setup(t)
	for _, plain := range []string{"", "x", strings.Repeat("long", 5000)} {
		sealed, err := k.Seal("letter", []byte(plain))
		if err != nil || len(sealed) != len(plain)+keyring.Overhead {
			t.Fatalf("%d bytes, %v", len(sealed), err)
		}
		if got, err := k.Unseal("letter", sealed); string(got) != plain || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		again, err := k.Seal("letter", []byte(plain))
		if err != nil || bytes.Equal(sealed, again) {
			t.Errorf("the same value twice shows that it is the same, %v", err)
		}
		// A value copied to another place, where the program would take it for something else.
		if _, err := k.Unseal("letters", sealed); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("opened for another purpose: %v", err)
		}
	}
	sealed, err := k.Seal("letter", []byte("dear"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Unseal("letter", bad); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("changed byte %d: %v", i, err)
		}
		if _, err := k.Unseal("letter", sealed[:i]); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}

func FuzzUnseal(f *testing.F) {
	k := setup(f)
	sealed, err := k.Seal("letter", []byte("dear"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := k.Unseal("letter", data)
		if err == nil && string(plain) == "dear" {
			return // the seed, which every fuzzing process seals for itself
		}
		if !errors.Is(err, keyring.ErrSealed) || plain != nil {
			t.Errorf("opened %x: %q, %v", data, plain, err)
		}
		_ = k.Stale(data)
	})
}

// A secret that shows up in a log is one that everybody who reads logs has.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	type config struct {
		Password keyring.Secret
		Key      keyring.Key
	}
	c := config{"hunter2", keyring.Key{ID: 3, Secret: []byte("hunter2")}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10.3s"} {
		fmt.Fprintf(&out, verb+"\n", c.Password)
		fmt.Fprintf(&out, verb+"\n", c.Key)
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", &c)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("start", "password", c.Password, "key", c.Key, "config", c)
	}
	asJSON, err := json.Marshal(c.Password)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(map[string]keyring.Secret{"password": c.Password})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(asJSON)
	out.Write(asYAML)
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), fmt.Sprint([]byte("hunter2")), "aHVudGVyMg"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in %s", leak, out.String())
		}
	}
	var back struct{ Password keyring.Secret }
	if err := yaml.Unmarshal([]byte("password: hunter2"), &back); err != nil || back.Password.Reveal() != "hunter2" {
		t.Errorf("read from YAML: %v, %v", back.Password == "hunter2", err)
	}
	if keyring.Secret("").String() != "" {
		t.Error("an empty secret looks like one that is set")
	}
}

func BenchmarkCurrent(b *testing.B) {
	k := setup(b)
	for b.Loop() {
		if _, err := k.Current(b.Context(), "pepper"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k := setup(b)
	plain := make([]byte, 64)
	for b.Loop() {
		if _, err := k.Seal("letter", plain); err != nil {
			b.Fatal(err)
		}
	}
}
