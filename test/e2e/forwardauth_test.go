package e2e_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These name the programs of proxies. Without one, its test has nothing to try.
const (
	nginxVariable = "SUMUN_TEST_NGINX"
	caddyVariable = "SUMUN_TEST_CADDY"
)

const proxiedRoutes = `http:
  trusted_proxies: [127.0.0.1/32]
gateway:
  upstreams:
    - name: shop
      elsewhere: true
  routes:
    - name: shop
      paths: [/shop/]
      upstream: shop
      identity_headers: true
      forward: none
    - name: admin
      paths: [/admin/]
      upstream: shop
      identity_headers: true
      forward: none
      roles: [admin]
    - name: few
      paths: [/few]
      upstream: shop
      forward: none
      limits: [{by: address, rate: 1, per: 1h}]
`

// proxy is somebody's proxy that asks Sumun.
type proxy struct {
	*server
	sumun *server
}

// throughProxy starts Sumun and a proxy by its example, whose addresses are exchanged for free ones.
func throughProxy(t *testing.T, example string, start func(t *testing.T, text string) *exec.Cmd) proxy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sumun.yaml")
	if err := os.WriteFile(file, []byte(proxiedRoutes), 0o600); err != nil {
		t.Fatal(err)
	}
	questions, front := freeAddress(t), freeAddress(t)
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	s := st.serve(t, "--config", file, "SUMUN_GATEWAY_FORWARD_AUTH_LISTEN="+questions)
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "forward-auth", example))
	if err != nil {
		t.Fatal(err)
	}
	cmd := start(t, strings.NewReplacer("127.0.0.1:8000", strings.TrimPrefix(behind(t).URL, "http://"),
		"127.0.0.1:8082", questions, "127.0.0.1:8088", front).Replace(string(text)))
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = orphanless()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	err = eventually(t.Context(), 20*time.Second, "the proxy listens", func(ctx context.Context) (bool, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", front)
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	before := *s
	before.public = "http://" + front
	return proxy{&before, s}
}

// judges tries what holds behind every proxy.
func (p proxy) judges(t *testing.T) {
	t.Helper()
	one := p.sumun.signIn(t, "owner@example.com")
	me := p.sumun.send(t, "GET /v1/users/me", nil, bearer(one.AccessToken)).want(t, 200)
	var person struct{ ID string }
	me.decode(t, &person)
	a := p.send(t, "GET /shop/cart?x=1", nil, bearer(one.AccessToken)).want(t, 200)
	if want := `GET /shop/cart?x=1 for "` + person.ID + `", token ""`; string(a.body) != want || person.ID == "" {
		t.Errorf("the service was told %s, want %s", a.body, want)
	}
	if a := p.send(t, "GET /shop/cart", nil); a.status != 401 || !strings.HasPrefix(a.header.Get("Www-Authenticate"), "Bearer ") {
		t.Errorf("a stranger gets %d %v", a.status, a.header)
	}
	token := bearer(one.AccessToken)
	for _, tc := range []struct {
		request string
		header  option
		status  int
	}{
		{"GET /admin/", token, 403},
		{"GET /nowhere", token, 404},
		{"GET /v1/users/me", token, 404},
		{"GET /shop/", header("X-Sumun-Subject", "root"), 400},
		{"GET /admin/", header("X-Original-Uri", "/shop/"), 403},
		{"GET /admin/", header("X-Forwarded-Uri", "/shop/"), 403},
		{"GET /shop/", header("X-Http-Method-Override", "DELETE"), 400},
	} {
		if a := p.send(t, tc.request, nil, token, tc.header); a.status != tc.status {
			t.Errorf("%s: %d, want %d", tc.request, a.status, tc.status)
		}
	}
	p.send(t, "GET /few", nil, token).want(t, 200)
	if a := p.send(t, "GET /few", nil, token); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("too many: %d %v", a.status, a.header)
	}
	for _, path := range []string{"/shop/../admin/", "/shop/..%2fadmin/", "//admin/", "/shop/#/../../admin/", "/shop/%2e%2e/admin/", "/shop;/../admin/"} {
		if status := p.raw(t, path, one.AccessToken); !strings.HasPrefix(status, "HTTP/1.1 40") {
			t.Errorf("%s: %s", path, status)
		}
	}
	p.sumun.send(t, "DELETE /v1/sessions/current", nil, token).want(t, 204)
	err := eventually(t.Context(), 5*time.Second, "refused after signing out", func(ctx context.Context) (bool, error) {
		a, err := p.try(ctx, "GET /shop/", nil, token)
		return a.status == 401, err
	})
	if err != nil {
		t.Error(err)
	}
}

// raw asks for a path letter by letter, and returns the status line.
func (p proxy) raw(t *testing.T, path, token string) string {
	t.Helper()
	var d net.Dialer
	host := strings.TrimPrefix(p.public, "http://")
	conn, err := d.DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	n, _ := conn.Read(answer)
	line, _, _ := strings.Cut(string(answer[:n]), "\r\n")
	return line
}

// Who keeps nginx loses none of what the gateway promises: nobody gets by who should not, and services know who calls.
func TestForwardAuthOfNginx(t *testing.T) {
	t.Parallel()
	demanded(t, nginxVariable)
	throughProxy(t, "nginx.conf", nginxWith).judges(t)
}

// nginxWith is an nginx with that text in its http block.
func nginxWith(t *testing.T, text string) *exec.Cmd {
	t.Helper()
	folder := t.TempDir()
	main := "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr error;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += kind + "_temp_path " + folder + ";\n"
	}
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, []byte(main+text+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.Command(os.Getenv(nginxVariable), "-p", folder, "-c", file, "-e", "stderr")
}

// The same for Caddy.
func TestForwardAuthOfCaddy(t *testing.T) {
	t.Parallel()
	program := demanded(t, caddyVariable)
	throughProxy(t, "Caddyfile", func(t *testing.T, text string) *exec.Cmd {
		folder := t.TempDir()
		file := filepath.Join(folder, "Caddyfile")
		if err := os.WriteFile(file, []byte("{\n\tadmin off\n}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
		return cmd
	}).judges(t)
}
