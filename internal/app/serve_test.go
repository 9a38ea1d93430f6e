package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/app"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// call makes a JSON request and decodes the answer.
func call(t *testing.T, method, url, token, body string) (status int, header http.Header, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && strings.Contains(response.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%s %s: %v in %s", method, url, err, text)
		}
	}
	return response.StatusCode, response.Header, answer
}

// The main job, through the real program on every engine: an account signs in, calls an endpoint with the token, signs
// out, and the token is dead at once.
func TestServe(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		data := filepath.Join(t.TempDir(), "data")
		where := []string{"--data", data, "--database", db.Config().URL}
		s := serve(t, where...)
		add := append([]string{"user", "add", "--email", email, "--password-stdin", "--role", "admin", "--verified"}, where...)
		if r := run(t, password, add...); r.code != 0 {
			t.Fatalf("user add while the server runs: %s", r.stderr)
		}

		status, header, _ := call(t, "GET", s.public+"/v1/users/me", "", "")
		if status != 401 || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("without a token: %d %q", status, header.Get("WWW-Authenticate"))
		}
		status, header, _ = call(t, "GET", s.public+"/v1/users/me", "garbage", "")
		if status != 401 || !strings.Contains(header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("with garbage: %d %q", status, header.Get("WWW-Authenticate"))
		}

		status, _, signedIn := call(t, "POST", s.public+"/v1/sessions", "", `{"identifier":"`+email+`","password":"`+password+`"}`)
		token, _ := signedIn["access_token"].(string)
		if status != 201 || token == "" {
			t.Fatalf("sign in: %d %v", status, signedIn)
		}
		if status, _, me := call(t, "GET", s.public+"/v1/users/me", token, ""); status != 200 || me["email"] != email {
			t.Errorf("who am I: %d %v", status, me)
		}
		if status, _, _ := call(t, "DELETE", s.public+"/v1/sessions/current", token, ""); status != 204 {
			t.Errorf("sign out: %d", status)
		}
		if status, _, answer := call(t, "GET", s.public+"/v1/users/me", token, ""); status != 401 || answer["code"] != "auth.revoked" {
			t.Errorf("after signing out: %d %v", status, answer)
		}
		if status, _, answer := call(t, "GET", s.public+"/nowhere", "", ""); status != 404 {
			t.Errorf("an unknown page: %d %v", status, answer)
		}
	})
}

// Somebody who starts Sumun for the first time has nothing but what is printed.
func TestServeTellsWhereToGo(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := serve(t, "--data", data)
	if !strings.Contains(s.out.String(), "Data folder") || !strings.Contains(s.out.String(), data) {
		t.Errorf("the data folder is missing:\n%s", s.out)
	}
	setup := find(t, s.out.String(), `First administrator +(\S+)`)
	mailbox := find(t, s.out.String(), `Mailbox +(\S+)`)
	issuer := find(t, s.out.String(), `Public address +(\S+)`)
	if want := strings.Replace(s.public, "127.0.0.1", "localhost", 1); issuer != want {
		t.Errorf("the issuer is %s, want %s", issuer, want)
	}
	status, header, _ := call(t, "GET", mailbox[:strings.Index(mailbox, "?")], find(t, mailbox, `token=(\S+)`), "")
	if status != 200 || header.Get("Cache-Control") != "no-store" {
		t.Errorf("the mailbox answers %d", status)
	}
	for _, url := range []string{setup, s.ops + "/livez", s.ops + "/readyz", s.ops + "/metrics", s.public + "/openapi.json",
		s.public + "/docs", s.public + "/docs/errors"} {
		if status, _, _ := call(t, "GET", url, "", ""); status != 200 {
			t.Errorf("%s answers %d", url, status)
		}
	}
	if status, _, _ := call(t, "GET", s.ops+"/mailbox", "", ""); status == 200 {
		t.Error("the mailbox opens without its token")
	}
	if status, _, _ := call(t, "GET", s.public+"/metrics", "", ""); status != 404 {
		t.Errorf("the public can read metrics: %d", status)
	}
	for _, file := range []string{"", "master.key", "sumun.db"} {
		info, err := os.Stat(filepath.Join(data, file))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q is not for its owner only: %v %v", file, info.Mode(), err)
		}
	}
	if r := s.stop(); r.code != 0 || strings.Contains(r.stderr, "WARNING") {
		t.Errorf("stopped with %d:\n%s", r.code, r.stderr)
	}

	// With an administrator there is no link any more: it would be a door.
	if r := run(t, password, "user", "add", "--data", data, "--email", email, "--password-stdin", "--role", "admin", "--verified"); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if again := serve(t, "--data", data); strings.Contains(again.out.String(), "First administrator") {
		t.Errorf("a link for the first of several administrators:\n%s", again.out)
	}
}

// Several nodes count attempts together.
func TestServeWithRedis(t *testing.T) {
	t.Parallel()
	if !redisdbtest.Listed() {
		return // the limiter's own suite says so
	}
	s := serve(t, "--data", t.TempDir(), "--redis", os.Getenv(redisdbtest.Variable))
	if status, _, _ := call(t, "POST", s.public+"/v1/users", "", `{"email":"kim@example.com"}`); status != 202 {
		t.Errorf("sign up: %d", status)
	}
}

// Nodes tell each other news through whatever is configured, and stop in order.
func TestServeWithPubsub(t *testing.T) {
	t.Parallel()
	configs := map[string]string{
		"alone":   "{}",
		"cluster": "{cluster: {listen: '" + freePort(t) + "'}}",
	}
	if redisdbtest.Listed() {
		configs["redis"] = "{url: redis}"
	}
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--data", t.TempDir(), "--config", write(t, "sumun.yaml", "pubsub: "+config+"\n")}
			if name == "redis" {
				args = append(args, "--redis", os.Getenv(redisdbtest.Variable))
			}
			s := serve(t, args...)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ops+"/metrics", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if text, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(text), "sumun_pubsub_connected 1") {
				t.Errorf("the node does not count as connected: %v", err)
			}
			if r := s.stop(); r.code != 0 || strings.Contains(r.stderr, "WARN") || strings.Contains(r.stderr, "ERROR") {
				t.Errorf("it stops with %d:\n%s", r.code, r.stderr)
			}
		})
	}
}

func TestServeWarnsLoudly(t *testing.T) {
	t.Parallel()
	s := serve(t, "--data", t.TempDir(), "--listen", "0.0.0.0:0", "--ops-listen", "0.0.0.0:0", "--limits", "off",
		"--issuer", "http://id.example.com", "--log-level", "error")
	r := s.stop()
	for _, warning := range []string{"limits: off", "ops_listen:", "listen: 0.0.0.0:0 is plain HTTP", "issuer: http://id.example.com is plain HTTP", "mail.transport: mailbox"} {
		if !strings.Contains(r.stderr, "sumun: WARNING: "+warning) {
			t.Errorf("no warning %q:\n%s", warning, r.stderr)
		}
	}
	if strings.Contains(r.stdout, "Mailbox") {
		t.Errorf("the mailbox is open on a listener that others can reach:\n%s", r.stdout)
	}
}

// What cannot work must not half-start: one line, exit code 1.
func TestServeRefusesToStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not a folder, not a database, not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := takenPort(t)
	free := []string{"--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}
	for name, test := range map[string]struct {
		args func(data string) []string
		want []string
	}{
		"port in use": {func(data string) []string { return []string{"--data", data, "--listen", taken} },
			[]string{"listen on " + taken, "another program uses this port"}},
		"operators' port in use": {func(data string) []string { return []string{"--data", data, "--ops-listen", taken} },
			[]string{"listen on " + taken, "another program uses this port", "ops_listen"}},
		"data folder is a file": {func(string) []string { return []string{"--data", file} },
			[]string{"data folder " + file, "--data"}},
		"data folder in a file": {func(string) []string { return []string{"--data", filepath.Join(file, "data")} },
			[]string{"data folder " + file, "--data"}},
		"data folder that nobody can write to": {func(string) []string { return []string{"--data", "/proc/self"} },
			[]string{"/proc/self"}},
		"database is not one": {func(data string) []string { return []string{"--data", data, "--database", "sqlite:" + file} },
			[]string{file, "not a SQLite database"}},
		"database out of reach": {func(data string) []string {
			return []string{"--data", data, "--database", "postgres://nobody:hunter2@127.0.0.1:1/nothing"}
		}, []string{"127.0.0.1:1"}},
		"redis out of reach": {func(data string) []string { return []string{"--data", data, "--redis", "redis://:hunter2@127.0.0.1:1"} },
			[]string{"127.0.0.1:1"}},
		"NATS out of reach": {func(data string) []string {
			return []string{"--data", data, "--config", write(t, "sumun.yaml", "pubsub: {url: 'nats://sumun:hunter2@127.0.0.1:1'}\n")}
		}, []string{"nats://127.0.0.1:1", "pubsub.url"}},
		"cluster's port in use": {func(data string) []string {
			return []string{"--data", data, "--config", write(t, "sumun.yaml", "pubsub: {cluster: {listen: '"+taken+"'}}\n")}
		}, []string{"pubsub.cluster.listen", taken}},
		"master key is not one": {func(data string) []string {
			return []string{"--data", data, "--config", write(t, "sumun.yaml", "master_key_file: "+file+"\n")}
		}, []string{"master key", file}},
		"certificate is not one": {func(data string) []string {
			return []string{"--data", data, "--config", write(t, "sumun.yaml", "tls: {cert_file: "+file+", key_file: "+file+"}\n")}
		}, []string{file}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			r := run(t, "", append(append([]string{"serve", "--log-level", "error"}, free...), test.args(data)...)...)
			r.wantFault(t, 1, test.want...)
			if strings.Contains(r.stdout, "ready") || strings.Contains(r.stderr, "hunter2") {
				t.Errorf("got %+v", r)
			}
			if _, err := os.Stat(data); strings.Contains(name, "port in use") && !os.IsNotExist(err) {
				t.Errorf("it left a data folder: %v", err)
			}
		})
	}
}

// readiness asks /readyz at the moment the program says that it is ready.
type readiness struct {
	*output
	ops    string
	once   sync.Once
	status int
}

func (r *readiness) Write(p []byte) (int, error) {
	r.once.Do(func() {
		response, err := http.Get("http://" + r.ops + "/readyz")
		if err == nil {
			response.Body.Close()
			r.status = response.StatusCode
		}
	})
	return r.output.Write(p)
}

// Scripts wait for the banner, and go on as if everything answered.
func TestReadyIsSaidWhenItIs(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := &readiness{output: newOutput(), ops: freePort(t)}
	ended := make(chan int, 1)
	args := []string{"serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen", out.ops}
	go func() { ended <- app.Main(ctx, args, strings.NewReader(""), out, io.Discard, nil) }()
	select {
	case <-out.ready:
	case code := <-ended:
		t.Fatalf("serve ended with %d", code)
	}
	cancel()
	if code := <-ended; code != 0 || out.status != http.StatusOK {
		t.Errorf("exit code %d; at the banner /readyz answered %d", code, out.status)
	}
}

// A database that has gone without a word must not hold up anybody for long, and must sign nobody out.
func TestServeWithAFrozenDatabase(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		if db.Engine() == sqldb.SQLite {
			return // there is no connection that could freeze
		}
		p := sqldbtest.NewProxy(t, db.Config().URL)
		where := []string{"--data", t.TempDir(), "--database", p.URL, "--config", write(t, "sumun.yaml", "http: {request_timeout: 5s}\n")}
		s := serve(t, where...)
		if r := run(t, password, append([]string{"user", "add", "--email", email, "--password-stdin"}, where...)...); r.code != 0 {
			t.Fatal(r.stderr)
		}
		status, _, signedIn := call(t, "POST", s.public+"/v1/sessions", "", `{"identifier":"`+email+`","password":"`+password+`"}`)
		if status != 201 {
			t.Fatalf("sign in: %d %v", status, signedIn)
		}
		token, _ := signedIn["access_token"].(string)
		refresh, _ := signedIn["refresh_token"].(string)
		refreshed := func() (int, string, map[string]any) {
			status, header, answer := call(t, "POST", s.public+"/v1/sessions/refresh", "", `{"refresh_token":"`+refresh+`"}`)
			return status, header.Get("Retry-After"), answer
		}
		thaw := p.Freeze()
		defer thaw()
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if status, retry, answer := refreshed(); status != 503 || retry == "" || answer["code"] != "session.unavailable" {
				t.Errorf("refresh: %d, Retry-After %q, %v", status, retry, answer)
			}
		})
		wg.Go(func() {
			status, header, answer := call(t, "GET", s.public+"/v1/users/me", token, "")
			if status != 503 && status != 504 || header.Get("Retry-After") == "" {
				t.Errorf("who am I: %d %v %v", status, header, answer)
			}
		})
		wg.Go(func() {
			if status, _, _ := call(t, "GET", s.ops+"/readyz", "", ""); status != 503 {
				t.Errorf("/readyz: %d", status)
			}
		})
		wg.Wait()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("answers took %v", took)
		}
		thaw()
		if status, _, answer := refreshed(); status != 200 {
			t.Errorf("refresh afterwards: %d %v", status, answer)
		}
	})
}

// A wrong or lost master key must be named before anything is written under another one.
func TestServeWithTheWrongMasterKey(t *testing.T) {
	t.Parallel()
	data, other := installation(t), installation(t)
	for name, replace := range map[string]func(key string) error{
		"another": func(key string) error { return os.Rename(filepath.Join(other, "master.key"), key) },
		"lost":    os.Remove,
	} {
		if err := replace(filepath.Join(data, "master.key")); err != nil {
			t.Fatal(err)
		}
		r := run(t, "", "serve", "--data", data, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
		r.wantFault(t, 1, "master key", filepath.Join(data, "master.key"))
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if r := run(t, "", "config", "check", "--data", data); r.code != 1 || !strings.Contains(r.stdout, "FAULT  database") {
		t.Errorf("config check: %+v", r)
	}
}

func TestServeWithADamagedDatabase(t *testing.T) {
	t.Parallel()
	data := installation(t)
	file := filepath.Join(data, "sumun.db")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(content); i++ {
		content[i] = 0x55
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "serve", "--data", data, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	r.wantFault(t, 1, file, "backup")
}

// Known keys must go at once: every access token that they signed is refused, and nobody has to sign in again.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	data := installation(t)
	for _, args := range [][]string{
		nil, {"--now"}, {"--revoke-old"}, {"--kind", "pepper"}, {"--kind", "refresh"}, {"--kind", "opaque"}, {"--kind", "veil"}, {"--kind", "nonce"},
		{"--kind", "refresh", "--revoke-old"}, {"--kind", "nonce", "--revoke-old"}, {"--kind", "assertion", "--revoke-old"}, {"--kind", "opaque", "--revoke-old"},
	} {
		r := run(t, "", append([]string{"keys", "rotate", "--data", data}, args...)...)
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "rotated") && !strings.Contains(r.stdout, "withdrawn") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	s := serve(t, "--data", data)
	status, _, _ := call(t, "POST", s.public+"/v1/sessions", "", `{"identifier":"`+email+`","password":"`+password+`"}`)
	if status != 201 {
		t.Errorf("sign in after rotation: %d", status)
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
