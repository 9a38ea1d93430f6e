package settings_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/app/settings"
	"github.com/sumunio/sumun/internal/keyring"
)

type limit struct {
	Free  int           `yaml:"free" doc:"Attempts that cost nothing."`
	Delay time.Duration `yaml:"delay"`
}

type server struct {
	Listen string   `yaml:"listen"`
	Hosts  []string `yaml:"hosts"`
	Body   int64    `yaml:"max_body"`
}

type sample struct {
	Listen   string         `yaml:"listen" doc:"Where the public is served."`
	Verbose  bool           `yaml:"verbose"`
	Jitter   float64        `yaml:"jitter"`
	Lifetime time.Duration  `yaml:"lifetime"`
	Password keyring.Secret `yaml:"password"`
	HTTP     server         `yaml:"http" omit:"listen=listen" doc:"The public server."`
	Limit    limit          `yaml:"limit"`
	hidden   string
}

func defaults() sample {
	return sample{
		Listen: "127.0.0.1:8080", Jitter: 0.05, Lifetime: 15 * time.Minute,
		HTTP: server{Hosts: []string{"a.example"}, Body: 1 << 20}, Limit: limit{Free: 4, Delay: time.Second}, hidden: "x",
	}
}

func schema(t *testing.T) *settings.Schema {
	t.Helper()
	s, err := settings.Of(defaults())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A deployment overrides the file by the environment and the environment by a flag; anything else surprises at night.
func TestLoadPrecedence(t *testing.T) {
	t.Parallel()
	file := write(t, "sumun.yaml", "listen: file:1\nlifetime: 1h\njitter: 0.1\nhttp:\n  hosts: [b.example, c.example]\n  max_body: 2_048\nlimit:\n")
	got := defaults()
	values, err := schema(t).Load(&got, settings.Sources{
		File:  file,
		Env:   []string{"SUMUN_LISTEN=env:2", "SUMUN_LIFETIME=30d", "SUMUN_LIMIT_FREE=9", "PATH=/bin", "SUMUN_VERBOSE="},
		Flags: map[string]string{"listen": "flag:3", "verbose": "on"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Listen, want.Lifetime, want.Jitter, want.Verbose = "flag:3", 30*24*time.Hour, 0.1, true
	want.HTTP.Hosts, want.HTTP.Body, want.Limit.Free = []string{"b.example", "c.example"}, 2048, 9
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for name, origin := range map[string]string{
		"listen": "--listen", "lifetime": "SUMUN_LIFETIME", "jitter": "sumun.yaml:3", "http.hosts": "sumun.yaml:5", "limit.delay": "",
	} {
		if values.Origin(name) != origin {
			t.Errorf("%s comes from %q, want %q", name, values.Origin(name), origin)
		}
	}
}

// An operator who mistypes five things must learn of five, each with its place and its remedy, not of one per restart.
func TestLoadReportsEveryFault(t *testing.T) {
	t.Parallel()
	file := write(t, "sumun.yaml", "lisen: x\nlifetime: 15 minutes\nhttp:\n  max_bodi: 3\n  hosts: a, b\nlimit: 3\nbody:\n  a: b\n  max_body: 1\njitter: [1, 2]\n")
	got := defaults()
	_, err := schema(t).Load(&got, settings.Sources{
		File:  file,
		Env:   []string{"SUMUN_LISTN=x", "SUMUN_LIMIT_FREE=many", "SUMUN_ENTIRELY_DIFFERENT=1"},
		Flags: map[string]string{"verbose": "maybe"},
	})
	want := []string{
		`lisen (sumun.yaml:1): is not a known key; did you mean listen?`,
		`http.max_bodi (sumun.yaml:4): is not a known key; did you mean http.max_body?`,
		`limit (sumun.yaml:6): holds keys of its own; write them indented below it, as ` + "`key: value`",
		`body (sumun.yaml:7): is not a known key; remove it (` + "`sumun config default`" + ` lists every key)`,
		`lifetime (sumun.yaml:2): "15 minutes" is not a duration; write a number with its unit, such as 500ms, 10s, 15m, 12h or 30d`,
		`jitter (sumun.yaml:10): takes a single value, not a list`,
		`SUMUN_ENTIRELY_DIFFERENT: is not a known variable; remove it (` + "`sumun config default`" + ` lists every key)`,
		`SUMUN_LISTN: is not a known variable; did you mean SUMUN_LISTEN?`,
		`limit.free (SUMUN_LIMIT_FREE): "many" is not a whole number in range; write digits only`,
		`verbose (--verbose): "maybe" is neither true nor false; write one of the two`,
	}
	var have []string
	for _, fault := range settings.Flatten(err) {
		have = append(have, fault.Error())
	}
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\n\nwant:\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func TestLoadRefusesFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, want string }{
		"syntax":        {"listen: [a\n", "sumun.yaml:1: not YAML"},
		"duplicate":     {"listen: a\nlisten: b\n", "sumun.yaml:2: not YAML"},
		"two documents": {"listen: a\n---\nlisten: b\n", "sumun.yaml:3: a second document; keep everything in one"},
		"a list":        {"- a\n", "sumun.yaml:1: holds keys of its own"},
		"an alias":      {"listen: &a b\n", "listen (sumun.yaml:1): holds text; write it out as a plain value"},
		"nested list":   {"http:\n  hosts: [[a]]\n", "http.hosts (sumun.yaml:2): holds list of text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := defaults()
			_, err := schema(t).Load(&got, settings.Sources{File: write(t, "sumun.yaml", test.content)})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that begins with %q", err, test.want)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		got := defaults()
		_, err := schema(t).Load(&got, settings.Sources{File: filepath.Join(t.TempDir(), "none.yaml")})
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want a missing file", err)
		}
	})
}

// An empty file is a configuration of defaults: the first thing a person writes is often only comments.
func TestLoadEmptyFiles(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "\n\n", "# nothing yet\n", "---\n", "http:\nlisten:\n", "\ufefflisten: 127.0.0.1:8080\n"} {
		got := defaults()
		if _, err := schema(t).Load(&got, settings.Sources{File: write(t, "sumun.yaml", content)}); err != nil {
			t.Errorf("%q: %v", content, err)
		}
		if !reflect.DeepEqual(got, defaults()) {
			t.Errorf("%q changed the defaults to %+v", content, got)
		}
	}
}

// Secrets are mounted as files, and must never be shown: not in a message, not in the default file, not in the reference.
func TestSecrets(t *testing.T) {
	t.Parallel()
	path := write(t, "password", "hunter2\n")
	for _, src := range []settings.Sources{
		{Env: []string{"SUMUN_PASSWORD_FILE=" + path}},
		{File: write(t, "sumun.yaml", "password: other\n"), Env: []string{"SUMUN_PASSWORD_FILE=" + path}},
		{File: write(t, "sumun.yaml", "password_file: "+path+"\n")},
		{File: write(t, "sumun.yaml", "password: hunter2\n")},
	} {
		got := defaults()
		if _, err := schema(t).Load(&got, src); err != nil || string(got.Password) != "hunter2" {
			t.Errorf("%+v: got %q, %v", src, string(got.Password), err)
		}
	}
	got := defaults()
	_, err := schema(t).Load(&got, settings.Sources{Env: []string{"SUMUN_PASSWORD=hunter2", "SUMUN_PASSWORD_FILE=" + path}})
	if err == nil || !strings.Contains(err.Error(), "keep one of the two") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret given twice: %v", err)
	}
	_, err = schema(t).Load(&got, settings.Sources{Env: []string{"SUMUN_PASSWORD_FILE=" + path + "x"}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a secret in a missing file: %v", err)
	}
	withSecret := defaults()
	withSecret.Password = "hunter2"
	s, err := settings.Of(withSecret)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errors.Join(s.WriteYAML(&b), s.WriteMarkdown(&b)); err != nil || strings.Contains(b.String(), "hunter2") {
		t.Errorf("the secret is shown (%v):\n%s", err, b.String())
	}
}

// Kubernetes puts variables of its own into every container; a Service called sumun must not keep Sumun from starting.
func TestLoadIgnoresServiceVariables(t *testing.T) {
	t.Parallel()
	got := defaults()
	_, err := schema(t).Load(&got, settings.Sources{Env: []string{
		"SUMUN_SERVICE_HOST=10.0.0.1", "SUMUN_SERVICE_PORT=80", "SUMUN_SERVICE_PORT_HTTP=80", "SUMUN_PORT=tcp://10.0.0.1:80",
		"SUMUN_PORT_80_TCP=tcp://10.0.0.1:80", "SUMUN_GATEWAY_PORT_80_TCP_ADDR=10.0.0.1", "SUMUN_TEST_POSTGRES=x", "SUMUN_CONFIG=x",
	}})
	if err != nil {
		t.Error(err)
	}
	if _, err := schema(t).Load(&got, settings.Sources{Env: []string{"SUMUN_MAIL_PROT=25"}}); err == nil {
		t.Error("a mistyped port is ignored")
	}
}

// What `sumun config default` prints is where people start: it must load, and mean the defaults.
func TestDefaultFileLoadsBack(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := schema(t).WriteYAML(&b); err != nil {
		t.Fatal(err)
	}
	var got sample
	if _, err := schema(t).Load(&got, settings.Sources{File: write(t, "sumun.yaml", b.String())}); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	got.hidden = "x"
	if !reflect.DeepEqual(got, defaults()) {
		t.Errorf("loads back as %+v\n%s", got, b.String())
	}
	if !strings.Contains(b.String(), "# Attempts that cost nothing.\n  free: 4\n") {
		t.Errorf("the documentation is missing:\n%s", b.String())
	}
}

func TestAttribute(t *testing.T) {
	t.Parallel()
	got := defaults()
	values, err := schema(t).Load(&got, settings.Sources{Env: []string{"SUMUN_LIMIT_FREE=0", "SUMUN_LISTEN=nowhere"}})
	if err != nil {
		t.Fatal(err)
	}
	joined := errors.Join(
		errors.New("free: 0 is below 1; people mistype"), nil,
		errors.Join(errors.New("delay: 0s is too short"), fmt.Errorf("dealy: %w", errors.New("is not ours"))),
		fmt.Errorf("two causes: %w, %w", errors.New("a"), errors.New("b")),
	)
	var have []string
	for _, fault := range values.Attribute("limit", joined) {
		have = append(have, fault.Error())
	}
	want := []string{
		"limit.free (SUMUN_LIMIT_FREE): 0 is below 1; people mistype", "limit.delay: 0s is too short",
		"limit: dealy: is not ours", "limit: two causes: a, b",
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("got %q\nwant %q", have, want)
	}
	for section, fault := range map[string]string{"http": "listen: no port", "": "listen: no port"} {
		for _, got := range values.Attribute(section, errors.New(fault)) {
			if want := "listen (SUMUN_LISTEN): no port"; got.Error() != want {
				t.Errorf("section %q: got %q, want %q", section, got, want)
			}
		}
	}
}

// A field that cannot be written must fail when the program is tested, not when somebody tries to set it.
func TestOfRefuses(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]any{
		"a map": struct {
			M map[string]string `yaml:"m"`
		}{},
		"no tag": struct{ A string }{},
		"one variable twice": struct {
			A string `yaml:"http_listen"`
			B server `yaml:"http"`
		}{},
		"no struct": 3,
	} {
		if _, err := settings.Of(bad); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzLoadFile(f *testing.F) {
	for _, seed := range []string{"", "listen: a", "http:\n  hosts: [a, b]\n", "a: &b c\nd: *b\n<<: *b\n", "? a\n: b\n", "- - -", "listen: |\n  x\n", "!!x y: z"} {
		f.Add(seed)
	}
	s, err := settings.Of(defaults())
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "sumun.yaml")
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := defaults()
		_, err := s.Load(&got, settings.Sources{File: path})
		for _, fault := range settings.Flatten(err) {
			if strings.Contains(fault.Error(), "\n") {
				t.Errorf("a fault of several lines: %q", fault)
			}
		}
	})
}
