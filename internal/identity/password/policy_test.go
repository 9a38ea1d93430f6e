package password_test

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/identity/password"
)

func openPolicy(t testing.TB, change func(*password.PolicyConfig)) *password.Policy {
	t.Helper()
	cfg := password.DefaultConfig().Policy
	if change != nil {
		change(&cfg)
	}
	p, err := password.OpenPolicy(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func codes(violations []password.Violation) string {
	var list []string
	for _, v := range violations {
		list = append(list, strings.TrimPrefix(v.Code, "password."))
	}
	return strings.Join(list, " ")
}

var sumin = password.Person{Email: "sumin.kim@example.com", UserName: "suminn", Name: "김수민"}

func TestNIST(t *testing.T) {
	t.Parallel()
	p := openPolicy(t, nil)
	for pw, want := range map[string]string{
		"river lamp 72":                                         "",
		"한글로 지은 비밀번호":                                           "",
		"annual harvest moon":                                   "",
		"ALL CAPITALS WITHOUT REST":                             "", // no composition rules
		strings.Repeat("correct horse battery ", 11) + "staple": "",
		"":                            "too_short guessable",
		"x7!kQ2p":                     "too_short",
		"password1":                   "guessable",
		"12345678":                    "guessable",
		"qwertyuiop":                  "guessable",
		"Passw0rd!":                   "guessable",
		"aaaaaaaaaaaaaaaa":            "guessable",
		"sumin.kim@example.com":       "guessable personal",
		"Suminn-2024":                 "guessable personal",
		"김수민김수민김수민":                   "personal",
		"P@$$w0rd!1234567":            "guessable",
		"river lamp\x00 72":           "bad_characters",
		"river lamp\n72":              "bad_characters",
		"river lamp \xff 72":          "bad_characters",
		strings.Repeat("ab3 ", 65):    "too_long",
		strings.Repeat("한글 비번", 1000): "too_long",
	} {
		if got := codes(p.Check(pw, sumin)); got != want {
			t.Errorf("%q breaks %q, want %q", pw, got, want)
		}
	}
}

func TestKISA(t *testing.T) {
	t.Parallel()
	p := openPolicy(t, func(c *password.PolicyConfig) { c.Rules = password.RulesKISA })
	for pw, want := range map[string]string{
		"Lamp-72x":          "", // three kinds, 8 characters
		"riverlamp-":        "", // two kinds, 10 characters
		"강남lamp92":          "", // Hangul counts as a kind of its own
		"river-lam":         "classes",
		"riverlampriver":    "classes",
		"Lamp-7x":           "too_short classes",
		"Lamp-abc72":        "runs",
		"Lamp-CBA72":        "runs",
		"Lamp-321x":         "runs",
		"Lamp-qWe72":        "runs",
		"Lamp-lkj72":        "runs",
		"Lamp-890x":         "runs",
		"Laaamp-72":         "runs",
		"Lamp-xyz72":        "runs",
		"x-Suminn-72":       "personal",
		"x-Sumin.Kim-72":    "personal",
		"72김수민-Lx":          "personal",
		"72-김-Lamp":         "", // a single syllable is no name
		"89:;<=>?@Ab7Lkx":   "",
		"9:Lamp-/0z":        "", // next to each other in ASCII only
		"river\tLamp-72":    "bad_characters",
		"Password-Kim-1974": "",
	} {
		if got := codes(p.Check(pw, sumin)); got != want {
			t.Errorf("%q breaks %q, want %q", pw, got, want)
		}
	}
}

func TestStrengthIsConfigurable(t *testing.T) {
	t.Parallel()
	lax := openPolicy(t, func(c *password.PolicyConfig) { c.MinScore = 0 })
	if got := codes(lax.Check("password1", sumin)); got != "" {
		t.Errorf("with min_score 0 it breaks %q", got)
	}
	long := openPolicy(t, func(c *password.PolicyConfig) { c.MinLength = 15 })
	if got := codes(long.Check("river lamp 72", sumin)); got != "too_short" {
		t.Errorf("with min_length 15 it breaks %q", got)
	}
}

// TestRulesAreShownFirst: a person reads the rules before choosing, and after a refusal reads the same words.
func TestRulesAreShownFirst(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]string{
		password.RulesNIST: "too_short too_long bad_characters guessable personal",
		password.RulesKISA: "too_short too_long bad_characters classes runs personal",
	} {
		p := openPolicy(t, func(c *password.PolicyConfig) { c.Rules = rules })
		if got := codes(p.Rules()); got != want {
			t.Errorf("%s shows %q, want %q", rules, got, want)
		}
		for _, r := range p.Rules() {
			if r.Message() == "" || strings.ContainsAny(r.Message(), "{}") {
				t.Errorf("%s reads %q", r.Code, r.Message())
			}
		}
	}
	p := openPolicy(t, nil)
	broken := p.Check("short", sumin)[0]
	f := broken.Field("password")
	if f.Name != "password" || f.Code != password.TooShort || f.Message != "Use at least 8 characters." {
		t.Errorf("field %+v", f)
	}
	if !slices.Equal(broken.Args, []any{"min", 8}) {
		t.Errorf("arguments %v", broken.Args)
	}
}

var adversarial = []string{
	"2%1{{a727{3<1t8e+{(ad<%d!|2!$@3<1t!ia!ilo$oed+24ss55bb73$![db5(0",
	"c7!z1cz40!![$+1a3606%8ltb+7e|{{8o{oz7|d47<+!32d%32s!c7a6@1<%c@do",
	"1[|!|oar|b!s6r|ot|6e[i61bea!l|!161nt!6lo1li66be1oes6!!r!i[|!116[",
}

func TestCheckIsBounded(t *testing.T) {
	t.Parallel()
	p := openPolicy(t, nil)
	if got := codes(p.Check(strings.Repeat("aB1!", 1<<18), sumin)); got != "too_long" {
		t.Errorf("a megabyte breaks %q", got)
	}
	// Whoever may choose a password must not be able to occupy a processor with it: estimated naively, each of these takes
	// seconds.
	long := strings.Repeat("김 수 민 ", 1000)
	began := time.Now()
	for _, pw := range adversarial {
		p.Check(pw, password.Person{Email: long, UserName: long, Name: long})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("they took %v", took)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	if err := password.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	cfg := password.Config{
		Algorithm:   "md5",
		Enabled:     []string{"crypt"},
		FailureTime: -1,
		Gate:        password.GateConfig{Concurrency: -1, Queue: -1},
		Policy:      password.PolicyConfig{Rules: "none", MinLength: 4, MaxLength: 20, MinScore: 5, BreachedFile: "/nowhere/list"},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, key := range []string{
		"algorithm:", "enabled:", "failure_time:", "gate.concurrency:", "gate.queue:", "gate.wait:", "policy.rules:", "policy.min_length:",
		"policy.max_length:", "policy.min_score:", "policy.breached_file:",
	} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not reported in:\n%v", key, err)
		}
	}
	for name, change := range map[string]func(*password.Config){
		"argon2id.memory":   func(c *password.Config) { c.Argon2id.Memory = 1024 },
		"argon2id:":         func(c *password.Config) { c.Argon2id.Time = 0 },
		"pbkdf2_iterations": func(c *password.Config) { c.Algorithm, c.PBKDF2Iterations = password.PBKDF2SHA512, 1000 },
		"enabled":           func(c *password.Config) { c.Enabled = []string{password.Bcrypt} },
		"policy.min_length": func(c *password.Config) { c.Policy.MinLength, c.Policy.MaxLength = 100, 64 },
	} {
		cfg := password.DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p := openPolicy(b, nil)
	for name, pw := range map[string]string{
		"usual": "river lamp 72", "longest": strings.Repeat("aB1!dict", 32), "worst": adversarial[0],
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Check(pw, sumin)
			}
		})
	}
}

// A disk that fails under the list must be told of, and not by filling the log while everybody signs up.
func TestTroubleWithTheBreachedListIsToldInMeasure(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hashes.txt")
	if err := os.WriteFile(path, fmt.Appendf(nil, "%X:1\n", sha1.Sum([]byte("river lamp 72"))), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := password.DefaultConfig().Policy
	cfg.BreachedFile = path
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p, err := password.OpenPolicy(cfg, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if got := codes(p.Check("river lamp 72", sumin)); got != "breached" {
			t.Errorf("got %q", got)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		for minute := 1; minute <= 3; minute++ {
			for range 50 {
				if got := codes(p.Check("river lamp 72", sumin)); got != "" {
					t.Errorf("nobody can choose a password: %q", got)
				}
			}
			if got := strings.Count(log.String(), "level=ERROR"); got != minute {
				t.Errorf("told %d times in %d minutes", got, minute)
			}
			time.Sleep(time.Minute)
		}
	})
}

// FuzzCheck: whatever somebody types for a password, and calls themselves, gets a verdict.
func FuzzCheck(f *testing.F) {
	f.Add("river lamp 72", "kim@example.com", "suminn", "김수민")
	f.Add("\xff\x00\u00a0"+strings.Repeat("é", 600), "@", "", "\u0301")
	f.Add(strings.Repeat("aB1!", 2000), strings.Repeat("x", 5000), "aB1!", "a B 1")
	policies := map[string]*password.Policy{
		"nist": openPolicy(f, nil),
		"kisa": openPolicy(f, func(c *password.PolicyConfig) { c.Rules = password.RulesKISA }),
	}
	f.Fuzz(func(t *testing.T, pw, email, userName, name string) {
		person := password.Person{Email: email, UserName: userName, Name: name}
		for rules, p := range policies {
			broken := p.Check(pw, person)
			seen := map[string]bool{}
			for _, v := range broken {
				if v.Message() == "" || strings.Contains(v.Message(), "{") || seen[v.Code] {
					t.Fatalf("%s: %q is told as %q", rules, v.Code, v.Message())
				}
				seen[v.Code] = true
			}
			switch {
			case len(pw) < 8 && !seen[password.TooShort]:
				t.Fatalf("%s: %q is long enough", rules, pw)
			case len(pw) > 4*password.MaxBytes && !seen[password.TooLong]:
				t.Fatalf("%s: %d bytes are short enough", rules, len(pw))
			case !utf8.ValidString(pw) && len(broken) == 0:
				t.Fatalf("%s: %q is accepted", rules, pw)
			}
		}
	})
}
