package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

const nginxFrame = `daemon off; worker_processes %d; error_log stderr crit; pid %s/pid;
events { worker_connections 4096; }
http {
	access_log off; keepalive_requests 1000000000;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	%[3]s
}
`

func (b *bench) startNginxOrigin(ctx context.Context) (*running, error) {
	return b.startNginx(ctx, 1, func(address string) string {
		return fmt.Sprintf(`server { listen %s backlog=4096; location / { default_type text/plain; return 200 "%s"; } }`,
			address, strings.Repeat("a", answerSize))
	})
}

func (b *bench) startNginxProxy(ctx context.Context, to string) (*running, error) {
	return b.startNginx(ctx, 2, func(address string) string {
		return fmt.Sprintf(`upstream origin { server %s; keepalive 256; keepalive_requests 1000000000; }
	server { listen %s backlog=4096; location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; } }`,
			strings.TrimPrefix(to, "http://"), address)
	})
}

// startNginx starts nginx from its binary, with a configuration and a folder of its own, on a free port.
func (b *bench) startNginx(ctx context.Context, workers int, servers func(address string) string) (*running, error) {
	folder, err := os.MkdirTemp(b.folder, "nginx-")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	address := ports[0]
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxFrame, workers, folder, servers(address)), 0o600); err != nil {
		return nil, err
	}
	return launch(ctx, exec.CommandContext(ctx, "nginx", "-p", folder, "-c", file, "-e", "stderr"), address)
}

// startHAProxy starts HAProxy, which verifies every token with the key in the file.
func (b *bench) startHAProxy(ctx context.Context, to, algorithm, keyFile, token string) (*running, error) {
	r, err := b.startConfigured(ctx, func(address string) string {
		return fmt.Sprintf(`global
	nbthread 2
	maxconn 4096
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	http-reuse always
frontend front
	bind %s
	http-request set-var(txn.bearer) http_auth_bearer
	http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
	http-request deny unless { var(txn.alg) -m str %s }
	http-request deny unless { var(txn.bearer),jwt_verify(txn.alg,"%s") -m int 1 }
	default_backend origin
backend origin
	server origin %s
`, address, algorithm, keyFile, strings.TrimPrefix(to, "http://"))
	}, "haproxy", "-db", "-f")
	if err == nil {
		r.token = token
	}
	return r, err
}

// startCaddy starts Caddy, which verifies nothing.
func (b *bench) startCaddy(ctx context.Context, to string) (*running, error) {
	return b.startConfigured(ctx, func(address string) string {
		return fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tstorage file_system %s\n}\nhttp://%s {\n\treverse_proxy %s\n}\n", b.folder, address,
			strings.TrimPrefix(to, "http://"))
	}, "caddy", "run", "--adapter", "caddyfile", "--config")
}

// startConfigured starts a program on a free port, with a configuration file as its last argument.
func (b *bench) startConfigured(ctx context.Context, text func(address string) string, program string, args ...string) (*running, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(b.folder, program+"-")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(text(ports[0]))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return launch(ctx, exec.CommandContext(ctx, program, append(args, f.Name())...), ports[0])
}

// startForward starts this program as a proxy.
func (b *bench) startForward(ctx context.Context, how, to string) (*running, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	c := exec.CommandContext(ctx, own)
	c.Env = append(os.Environ(), forwardEnv+"="+how+":"+to)
	c.ExtraFiles = []*os.File{file}
	return launch(ctx, c, l.Addr().String())
}

// launch starts a program and waits until it answers.
func launch(ctx context.Context, c *exec.Cmd, address string) (*running, error) {
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	if err := c.Start(); err != nil {
		return nil, err
	}
	r := &running{command: c, url: "http://" + address}
	for range 200 {
		answer, err := http.Get(r.url)
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode < http.StatusInternalServerError { // some want a token
				return r, nil
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			break
		}
	}
	r.stop()
	return nil, fmt.Errorf("it does not answer: %s", &said)
}

// forward is the proxy that this program becomes when told so through forwardEnv.
func forward(ctx context.Context, what string) error {
	how, to, _ := strings.Cut(what, ":")
	handler, err := forwarder(how, to)
	if err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func forwarder(how, to string) (http.Handler, error) {
	if how == "reverse" {
		u, err := url.Parse(to)
		if err != nil {
			return nil, err
		}
		p := httputil.NewSingleHostReverseProxy(u)
		p.Transport = &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
		p.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		return p, nil
	}
	cfg := upstream.DefaultConfig()
	cfg.Name, cfg.Endpoints = "origin", []upstream.Endpoint{{URL: to}}
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Forward(w, r, upstream.Options{}) != nil {
			w.WriteHeader(http.StatusBadGateway)
		}
	}), nil
}
