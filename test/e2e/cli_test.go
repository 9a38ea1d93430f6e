package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Operators add people from scripts, whether the server runs or not.
func TestUserCommands(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		st.addUser(t, "before@example.com", "--role", "admin", "--name", "김관리", "--user-name", "keeper")
		s := st.serve(t)
		if s.setupLink != "" {
			t.Error("a door for a first administrator stands open beside the administrator")
		}
		st.addUser(t, "meanwhile@example.com")
		for _, who := range []string{"before@example.com", "keeper", "meanwhile@example.com"} {
			s.signIn(t, who)
		}
		admin := s.me(t, s.signIn(t, "keeper").AccessToken)
		if !slices.Contains(admin.Roles, "admin") || admin.Name != "김관리" || !admin.EmailVerified {
			t.Errorf("added as %+v", admin)
		}
		if got := st.users(t); !slices.Equal(got, []string{"before@example.com", "meanwhile@example.com"}) {
			t.Errorf("user list: %v", got)
		}
		table := st.command(t, "", "user", "list")
		if !strings.Contains(table.stdout, "keeper") || !strings.Contains(table.stdout, "meanwhile@example.com") {
			t.Errorf("user list: %+v", table)
		}
		add := []string{"user", "add", "--password-stdin", "--email"}
		for name, r := range map[string]result{
			"taken address":  st.command(t, password, append(add, "Before@example.com")...),
			"no address":     st.command(t, password, append(add, "nobody")...),
			"weak password":  st.command(t, "password1", append(add, "weak@example.com")...),
			"no password":    st.command(t, "", append(add, "none@example.com")...),
			"taken name":     st.command(t, password, append(add, "x@example.com", "--user-name", "KEEPER")...),
			"senseless role": st.command(t, password, append(add, "y@example.com", "--role", "God Mode")...),
		} {
			wantOneLine(t, name, r, 1)
		}
	})
}

// Commands for operators, beside a server that runs.
func TestOperatorCommands(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		fresh := st.command(t, "", "config", "check", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
		if fresh.code != 0 || strings.Contains(fresh.stdout, "FAULT") {
			t.Errorf("config check before the first start: %+v", fresh)
		}
		st.addUser(t, "owner@example.com")
		s := st.serve(t)
		got := s.signIn(t, "owner@example.com")
		if r := st.command(t, "", "migrate"); r.code != 0 || !strings.Contains(r.stdout, "up to date") {
			t.Errorf("migrate: %+v", r)
		}
		if r := st.command(t, "", "migrate", "--status"); r.code != 0 || !strings.Contains(r.stdout, "0 pending") {
			t.Errorf("migrate --status: %+v", r)
		}
		for _, args := range [][]string{{"--kind", "pepper"}, {"--kind", "refresh"}, {"--now"}} {
			if r := st.command(t, "", append([]string{"keys", "rotate"}, args...)...); r.code != 0 || r.stderr != "" {
				t.Errorf("keys rotate %v: %+v", args, r)
			}
		}
		for _, node := range []*server{s, st.serve(t, "--issuer", s.issuer)} { // one that runs, one that starts now
			node.me(t, got.AccessToken)
			got = node.refresh(t, got.RefreshToken)
			node.me(t, node.signIn(t, "owner@example.com").AccessToken)
		}

		check := st.command(t, "", "config", "check", "--listen", strings.TrimPrefix(s.public, "http://"), "--ops-listen", "127.0.0.1:0")
		wantOneLine(t, "config check of a taken port", check, 1)
		if !strings.Contains(check.stdout, "FAULT  listen") || !strings.Contains(check.stdout, "ok     database") {
			t.Errorf("config check: %s", check.stdout)
		}
	})
}

// What is printed can be used as it is.
func TestConfigDefaultIsAConfiguration(t *testing.T) {
	t.Parallel()
	r := command(t, "", "config", "default")
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	file := filepath.Join(t.TempDir(), "sumun.yaml")
	if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	sqliteStore(t).serve(t, "--config", file)
	sqliteStore(t).serve(t, "SUMUN_CONFIG="+file)
}

// Every command explains itself.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--help"}, {"serve", "--help"}, {"migrate", "--help"}, {"config", "default", "--help"}, {"config", "check", "--help"},
		{"user", "add", "--help"}, {"user", "list", "--help"}, {"keys", "rotate", "--help"}, {"client", "add", "--help"},
		{"client", "rotate-secret", "--help"}, {"client", "registration-token", "add", "--help"}, {"version", "--help"},
	} {
		if r := command(t, "", args...); r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Usage: sumun") {
			t.Errorf("sumun %v: %+v", args, r)
		}
	}
	if r := command(t, "", "version"); r.code != 0 || !strings.HasPrefix(r.stdout, "sumun ") {
		t.Errorf("version: %+v", r)
	}
}

// The first five minutes: nothing is configured, and it starts, quickly, with a link for the administrator and a mailbox
// that opens for nobody else.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		s := st.serve(t)
		t.Logf("ready after %v", s.startup)
		if s.startup > 10*time.Second {
			t.Errorf("ready only after %v", s.startup)
		}
		if s.setupLink == "" || s.mailboxToken == "" {
			t.Fatalf("no links:\n%s", s.stdout)
		}
		for name, options := range map[string][]option{"nothing": nil, "a guess": {bearer("AAAAAAAAAAAAAAAAAAAAAAAAAA")}} {
			if a, err := s.opsGet(t.Context(), "/mailbox/messages.json", options...); err != nil || a.status != 403 {
				t.Errorf("the mailbox opens with %s: %d %v", name, a.status, err)
			}
		}
		rebound := option(func(r *http.Request) { r.Host = "evil.example" })
		for _, path := range []string{"/metrics", "/mailbox", "/debug/pprof/"} {
			if a, err := s.opsGet(t.Context(), path, rebound, bearer(s.mailboxToken)); err != nil || a.status < 400 {
				t.Errorf("%s answers to another site's name: %d %v", path, a.status, err)
			}
			s.send(t, "GET "+path, nil).want(t, 404)
		}
		metrics, err := s.opsGet(t.Context(), "/metrics")
		if err != nil || !strings.Contains(string(metrics.body), "go_goroutines") || !strings.Contains(string(metrics.body), "sumun_") {
			t.Errorf("metrics: %v %s", err, metrics.body)
		}
	})
}

// Somebody who gets at one link must not become administrator twice.
func TestFirstAdministrator(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	s := st.serve(t)
	link := strings.TrimPrefix(s.setupLink, s.issuer)
	page := s.send(t, "GET "+link, nil).want(t, 200)
	if !strings.Contains(string(page.body), "new_password") {
		t.Errorf("set-up page: %s", page.body)
	}
	_, token, _ := strings.Cut(link, "token=")
	form := header("Content-Type", "application/x-www-form-urlencoded")
	fields := "token=" + token + "&name=Admin&new_password=" + strings.ReplaceAll(password, " ", "+") + "&email="
	s.send(t, "POST /setup", fields+"first@example.com", form).want(t, 303)
	s.send(t, "POST /setup", fields+"second@example.com", form).want(t, 410)
	if me := s.me(t, s.signIn(t, "first@example.com").AccessToken); !slices.Contains(me.Roles, "admin") {
		t.Errorf("the first administrator is %+v", me)
	}
}
