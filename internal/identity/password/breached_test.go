package password_test

import (
	"crypto/sha1" //nolint:gosec // as in the published lists
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/identity/password"
)

func write(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "breached")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// hibp is n passwords "breached password <i>" as the published lists have them.
func hibp(n int, format, end string) string {
	var lines []string
	for i := range n {
		sum := sha1.Sum(fmt.Appendf(nil, "breached password %d", i))
		lines = append(lines, fmt.Sprintf(format, sum, i*i))
	}
	slices.Sort(lines)
	return strings.Join(lines, end) + end
}

func TestBreachedPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	const n = 3000
	var plain strings.Builder
	for i := range n {
		fmt.Fprintf(&plain, "breached password %d\n", i)
	}
	for name, content := range map[string]string{
		"plain":            plain.String(),
		"plain, Windows":   strings.ReplaceAll(plain.String(), "\n", "\r\n"),
		"hashes, counts":   hibp(n, "%X:%d", "\r\n"),
		"hashes":           hibp(n, "%[1]X", "\n"),
		"hashes, no end":   strings.TrimSuffix(hibp(n, "%X:%d", "\n"), "\n"),
		"hashes, in lower": hibp(n, "%x:%d", "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := openPolicy(t, func(c *password.PolicyConfig) { c.MinScore, c.BreachedFile = 0, write(t, content) })
			if rules := codes(p.Rules()); !strings.HasSuffix(rules, "breached") {
				t.Errorf("the rules shown are %q", rules)
			}
			for i := 0; i < n; i += 17 {
				if got := codes(p.Check(fmt.Sprintf("breached password %d", i), sumin)); got != "breached" {
					t.Fatalf("password %d breaks %q, want breached", i, got)
				}
			}
			for i := range 100 {
				if got := codes(p.Check(fmt.Sprintf("unknown password %d", i), sumin)); got != "" {
					t.Fatalf("an unknown password breaks %q", got)
				}
			}
		})
	}
}

func TestSmallestHashedList(t *testing.T) {
	t.Parallel()
	p := openPolicy(t, func(c *password.PolicyConfig) { c.MinScore, c.BreachedFile = 0, write(t, hibp(1, "%X:%d", "\n")) })
	if got := codes(p.Check("breached password 0", sumin)); got != "breached" {
		t.Errorf("the only password breaks %q", got)
	}
	if got := codes(p.Check("breached password 1", sumin)); got != "" {
		t.Errorf("another password breaks %q", got)
	}
}

func TestUnusableListsAreNamed(t *testing.T) {
	t.Parallel()
	sorted := strings.SplitAfter(hibp(500, "%X:%d", "\n"), "\n")
	reversed := slices.Clone(sorted)
	slices.Reverse(reversed)
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, []byte("password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 33<<20); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, want string }{
		"missing":      {"/nowhere/list", "cannot be read (no such file or directory)"},
		"a folder":     {t.TempDir(), "is not a file"},
		"empty":        {write(t, ""), "is empty"},
		"blank":        {write(t, "\n\n\n"), "is empty"},
		"binary":       {write(t, "PK\x03\x04\x00\x00\x00\n"), "is not a text file"},
		"one line":     {write(t, strings.Repeat("x", 1<<20)), "is not a list of passwords"},
		"too large":    {large, "has 33 MiB"},
		"not in order": {write(t, strings.Join(reversed, "")), "is not sorted"},
		"cut off":      {write(t, strings.Join(sorted[:400], "")+sorted[400][:30]), "is damaged"},
		"mixed":        {write(t, strings.Join(sorted, "")+strings.Repeat("hello there\n", 3000)), "is damaged"},
	} {
		cfg := password.DefaultConfig()
		cfg.Policy.BreachedFile = c.file
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.file) ||
			strings.Count(err.Error(), "\n") != 0 {
			t.Errorf("%s: %v, want one line with %q and the file", name, err, c.want)
		}
	}
}

// FuzzBreachedFile: whatever the file holds, it is refused or searched, in bounded time and without a panic.
func FuzzBreachedFile(f *testing.F) {
	f.Add([]byte("password\nletmein\n"), "password")
	f.Add([]byte(hibp(20, "%X:%d", "\n")), "breached password 3")
	f.Add([]byte(strings.Repeat("A", 40)+":\n"), "")
	f.Add([]byte(strings.Repeat("A", 40)+strings.Repeat(":", 300)), "x")
	f.Fuzz(func(t *testing.T, content []byte, pw string) {
		cfg := password.DefaultConfig().Policy
		cfg.BreachedFile = write(t, string(content))
		p, err := password.OpenPolicy(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		p.Check(pw, password.Person{Email: pw, UserName: pw, Name: pw})
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
