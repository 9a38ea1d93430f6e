package app_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whoever mistypes a command must learn what was meant, on one line, and scripts must see an exit code.
func TestMisuse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no command":       {nil, 2, "sumun --help"},
		"unknown command":  {[]string{"sevre"}, 2, "unexpected argument sevre"},
		"unknown flag":     {[]string{"serve", "--lisen", "x"}, 2, "did you mean \"--listen\"?; see `sumun serve --help`"},
		"flag without":     {[]string{"serve", "--listen"}, 2, "--listen"},
		"unknown module":   {[]string{"serve", "bogus"}, 2, `there is no module "bogus"; there is: identity`},
		"no address":       {[]string{"user", "add", "--password-stdin"}, 2, "--email"},
		"no password flag": {[]string{"user", "add", "--email", "a@example.com"}, 2, "--password-stdin"},
		"unknown kind":     {[]string{"keys", "rotate", "--kind", "x"}, 2, "signing"},
		"contradiction":    {[]string{"keys", "rotate", "--kind", "pepper", "--now"}, 2, "leave it out"},
		"no way back":      {[]string{"keys", "rotate", "--kind", "pepper", "--revoke-old"}, 2, "no password could be verified any more; leave --revoke-old out"},
		"nothing to gain":  {[]string{"keys", "rotate", "--kind", "veil", "--revoke-old"}, 2, "they authenticate nothing"},
		"of a minute":      {[]string{"keys", "rotate", "--kind", "assertion"}, 2, "add --revoke-old"},
		"no client keys":   {[]string{"client", "add", "--name", "A", "--self-signed"}, 2, "--self-signed needs --keys"},
		"two proofs":       {[]string{"client", "add", "--name", "A", "--public", "--tls-subject-dn", "CN=a"}, 2, "leave it out"},
		"keys and names":   {[]string{"client", "add", "--name", "A", "--keys", "f", "--tls-san-dns", "a.example"}, 2, "choose one"},
		"no duration":      {[]string{"apikey", "add", "--client", "a", "--name", "b", "--expires-in", "7 days"}, 2, `"7 days" is not a duration; write`},
		"too many days":    {[]string{"apikey", "add", "--client", "a", "--name", "b", "--expires-in", "99999d"}, 2, `"99999d" is too long; write at most`},
		"more than fits":   {[]string{"apikey", "add", "--client", "a", "--name", "b", "--expires-in", "65535d2000000h"}, 2, "is too long; write at most"},
		"less than a day":  {[]string{"apikey", "add", "--client", "a", "--name", "b", "--expires-in", "1d-12h"}, 2, "is not a duration; write"},
		"no config file":   {[]string{"serve", "--config", "/does/not/exist.yaml"}, 1, "sumun config default > /does/not/exist.yaml"},
		"listen nowhere":   {[]string{"serve", "--listen", "8080"}, 1, "listen (--listen): \"8080\""},
		"same port twice":  {[]string{"serve", "--listen", "127.0.0.1:1", "--ops-listen", "127.0.0.1:1"}, 1, "ops_listen (--ops-listen)"},
		"issuer with path": {[]string{"serve", "--issuer", "https://example.com/id"}, 1, "issuer (--issuer)"},
		"database":         {[]string{"serve", "--database", "mysql://u:hunter2@h/d"}, 1, "database (--database)"},
		"redis":            {[]string{"serve", "--redis", "memcached://u:hunter2@h"}, 1, "redis (--redis)"},
		"log level":        {[]string{"serve", "--log-level", "loud"}, 1, "write debug, info, warn or error"},
		"list nothing":     {[]string{"user", "list", "--data", "/does/not/exist"}, 1, "there is no database /does/not/exist/sumun.db"},
		"rotate nothing":   {[]string{"keys", "rotate", "--data", "/does/not/exist"}, 1, "there is no database"},
		"status nothing":   {[]string{"migrate", "--status", "--data", "/does/not/exist"}, 1, "there is no database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, "", test.args...)
			r.wantFault(t, test.code, test.want)
			if strings.Contains(r.stderr, "hunter2") {
				t.Errorf("a password is shown: %s", r.stderr)
			}
		})
	}
}

// A flag takes what the configuration takes: whoever writes a week as 7d there writes it so here.
func TestDurationsInDays(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for days, want := range map[string]int{"7d": 7, "1d12h": 1, "48h": 2} {
		r := runEnv(t, []string{"SUMUN_DATA=" + folder, "SUMUN_OAUTH_REGISTRATION=true"}, "",
			"client", "registration-token", "add", "--expires-in", days, "--json")
		var token struct {
			CreatedAt time.Time `json:"created_at"`
			ExpiresAt time.Time `json:"expires_at"`
		}
		if err := json.Unmarshal([]byte(r.stdout), &token); err != nil {
			t.Fatalf("%s: %+v", days, r)
		}
		if got := int(token.ExpiresAt.Sub(token.CreatedAt).Hours()) / 24; got != want {
			t.Errorf("%s is %d days, want %d", days, got, want)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "serve", "migrate", "config", "config default", "config check", "user", "user add", "user list", "keys rotate", "keys reseal", "sessions move", "sessions status", "version"} {
		r := run(t, "", append(strings.Fields(command), "--help")...)
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Usage: sumun "+command) {
			t.Errorf("%s --help ended with %d: %s%s", command, r.code, r.stderr, r.stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if r := run(t, "", "version"); r.code != 0 || !strings.HasPrefix(r.stdout, "sumun ") || !strings.Contains(r.stdout, "go1.") {
		t.Errorf("got %+v", r)
	}
}

// One restart must tell of all mistakes, whichever layer they were made in and whichever package finds them.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sumun.yaml")
	content := "sessions:\n  idle: 1s\nmail:\n  transport: pigeon\n  smtp:\n    pasword: x\npasswords:\n  policy:\n    min_length: 4\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runEnv(t, []string{"SUMUN_CONFIG=" + file, "SUMUN_TOKENS_LIFETIME=2h", "SUMUN_TOKENS_LIVETIME=2h", "SUMUN_MASTER_KEY=hunter2"},
		"", "serve", "--limits", "maybe")
	if r.code != 1 {
		t.Errorf("exit code %d", r.code)
	}
	for _, want := range []string{
		"mail.smtp.pasword (sumun.yaml:6): is not a known key; did you mean mail.smtp.password?",
		"SUMUN_TOKENS_LIVETIME: is not a known variable; did you mean SUMUN_TOKENS_LIFETIME?",
		`limits (--limits): "maybe" is not accepted: write on or off`,
		"master_key (SUMUN_MASTER_KEY): ",
		"tokens.lifetime (SUMUN_TOKENS_LIFETIME): ",
		"sessions.idle (sumun.yaml:2): ",
		"passwords.policy.min_length (sumun.yaml:9): ",
		"mail.transport (sumun.yaml:4): ",
	} {
		if !strings.Contains(r.stderr, "sumun: "+want) {
			t.Errorf("not reported: %s", want)
		}
	}
	if n := strings.Count(r.stderr, "\n"); n != 8 || strings.Contains(r.stderr, "hunter2") {
		t.Errorf("%d lines, want 8, none with the secret:\n%s", n, r.stderr)
	}
}

func TestDefaultConfigIsAccepted(t *testing.T) {
	t.Parallel()
	defaults := run(t, "", "config", "default")
	if defaults.code != 0 {
		t.Fatal(defaults.stderr)
	}
	folder := t.TempDir()
	file := filepath.Join(folder, "sumun.yaml")
	if err := os.WriteFile(file, []byte(defaults.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "config", "check", "--config", file, "--data", filepath.Join(folder, "data"),
		"--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	if r.code != 0 || strings.Contains(r.stdout, "FAULT") {
		t.Errorf("ended with %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	if want := "bound to the client's key when it proves one; proofs are for addresses under http"; !strings.Contains(r.stdout, want) {
		t.Errorf("the check does not say %q:\n%s", want, r.stdout)
	}
	if _, err := os.Stat(filepath.Join(folder, "data")); !os.IsNotExist(err) {
		t.Error("a check made the data folder")
	}
}

// A bus that cannot be must be named before anything starts.
func TestConfigCheckOfPubsub(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ env, want string }{
		"no redis":    {"SUMUN_PUBSUB_URL=redis", "pubsub.url"},
		"nonsense":    {"SUMUN_PUBSUB_URL=hunter2", "pubsub.url"},
		"unreachable": {"SUMUN_PUBSUB_URL=nats://sumun:hunter2@127.0.0.1:1", "FAULT  pubsub "},
		"no secret":   {"SUMUN_PUBSUB_CLUSTER_LISTEN=0.0.0.0:6222", "pubsub.cluster.secret"},
	} {
		r := runEnv(t, []string{test.env}, "", "config", "check", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
		if r.code == 0 || !strings.Contains(r.stdout+r.stderr, test.want) || strings.Contains(r.stdout+r.stderr, "hunter2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestConfigCheckFindsWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	taken := takenPort(t)
	r := runEnv(t, []string{"SUMUN_MAIL_TRANSPORT=smtp", "SUMUN_MAIL_SMTP_HOST=127.0.0.1", "SUMUN_MAIL_SMTP_PORT=1", "SUMUN_MAIL_FROM=id@example.com"}, "",
		"config", "check", "--data", t.TempDir(), "--listen", taken, "--ops-listen", "127.0.0.1:0",
		"--database", "postgres://nobody:hunter2@127.0.0.1:1/nothing", "--issuer", "http://id.example.com")
	if r.code != 1 {
		t.Errorf("exit code %d", r.code)
	}
	for _, what := range []string{"database", "mail", "listen"} {
		if !strings.Contains(r.stdout, "FAULT  "+what+" ") {
			t.Errorf("%s is not at fault", what)
		}
	}
	if strings.Count(r.stdout, "FAULT") != 3 || strings.Contains(r.stdout+r.stderr, "hunter2") {
		t.Errorf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
	if !strings.Contains(r.stdout, "warn   issuer: http://id.example.com is plain HTTP") {
		t.Errorf("no warning about plain HTTP:\n%s", r.stdout)
	}
}

// What serve would stumble over, or refuse everybody for, is found before.
func TestConfigCheckFindsWhoCannotVouch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "sumun.yaml")
	if err := os.WriteFile(file, []byte(`
tls: {client_certificates: {ca_file: nowhere.pem}}
directory:
  servers:
    - {name: corp, urls: ["ldap://127.0.0.1:1"], start_tls: false, bind_dn: cn=sumun, bind_password: hunter2, base_dn: dc=example, domains: [example.com]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "config", "check", "--config", file, "--data", dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	for _, what := range []string{"FAULT  clients ", "nowhere.pem", "FAULT  directories ", "corp", "connection refused"} {
		if r.code != 1 || !strings.Contains(r.stdout, what) || strings.Contains(r.stdout+r.stderr, "hunter2") {
			t.Errorf("%q is not said, exit code %d:\n%s%s", what, r.code, r.stdout, r.stderr)
		}
	}
}

// Behind a proxy that is not named, everybody shares its address: one person's wrong passwords would lock out all.
func TestProxyThatIsNotNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settings []string
		warned   bool
	}{
		"behind a proxy":       {[]string{"SUMUN_ISSUER=https://id.example.com", "SUMUN_LISTEN=127.0.0.1:0"}, true},
		"on another machine":   {[]string{"SUMUN_ISSUER=https://id.example.com", "SUMUN_LISTEN=0.0.0.0:0"}, true},
		"named":                {[]string{"SUMUN_ISSUER=https://id.example.com", "SUMUN_LISTEN=127.0.0.1:0", "SUMUN_HTTP_TRUSTED_PROXIES=127.0.0.1/32"}, false},
		"without a proxy":      {[]string{"SUMUN_ISSUER=https://id.example.com", "SUMUN_LISTEN=0.0.0.0:0", "SUMUN_TLS_ACME_HOSTS=id.example.com"}, false},
		"tried on one machine": {[]string{"SUMUN_LISTEN=127.0.0.1:0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := append([]string{"SUMUN_DATA=" + filepath.Join(t.TempDir(), "data"), "SUMUN_OPS_LISTEN=127.0.0.1:0"},
				test.settings...)
			r := runEnv(t, env, "", "config", "check")
			if warned := strings.Contains(r.stdout, "warn   http.trusted_proxies: empty"); warned != test.warned || r.code != 0 {
				t.Errorf("warned is %v, exit code %d:\n%s%s", warned, r.code, r.stdout, r.stderr)
			}
		})
	}
}

func TestUserAdd(t *testing.T) {
	t.Parallel()
	data := installation(t)
	t.Run("listed", func(t *testing.T) {
		r := run(t, "", "user", "list", "--data", data, "--json")
		var account struct {
			Email string
			Roles []string
		}
		if err := json.Unmarshal([]byte(r.stdout), &account); err != nil || account.Email != email || len(account.Roles) != 1 {
			t.Errorf("got %+v, %v", r, err)
		}
		if r := run(t, "", "user", "list", "--data", data); !strings.Contains(r.stdout, email) || r.code != 0 {
			t.Errorf("got %+v", r)
		}
	})
	for name, test := range map[string]struct{ email, stdin, want string }{
		"no password":       {"lee@example.com", "\n", "no password on standard input"},
		"endless password":  {"lee@example.com", strings.Repeat("x", 5000), "more than 4096 bytes"},
		"weak password":     {"lee@example.com", "12345678", "password"},
		"no address":        {"lee", password, "mail address"},
		"address is taken":  {email, password, "account with this address"},
		"several passwords": {"lee@example.com", "short\n" + password + "\n", "password"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, test.stdin, "user", "add", "--data", data, "--email", test.email, "--password-stdin")
			r.wantFault(t, 1, test.want)
		})
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	if r := run(t, "", "migrate", "--data", data); r.code != 0 || !strings.Contains(r.stdout, "is up to date") {
		t.Fatalf("got %+v", r)
	}
	if r := run(t, "", "migrate", "--data", data, "--status"); r.code != 0 || !strings.Contains(r.stdout, "0 pending") {
		t.Errorf("got %+v", r)
	}
}
