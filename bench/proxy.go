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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

const (
	proxyRounds = 5
	answerSize  = 1 << 10 // bytes
	// forwardEnv makes this program a proxy, on the listener that is its file 3, to the URL behind the colon.
	forwardEnv = "SUMUN_BENCH_FORWARD"
)

// proxies pass on the same answers of the same nginx, without authentication. The first is what the others are compared with.
var proxies = []struct {
	name  string
	start func(*bench, context.Context, string) (*running, error)
}{
	{"nginx", (*bench).startNginxProxy},
	{"gateway/upstream", func(b *bench, ctx context.Context, to string) (*running, error) {
		return b.startForward(ctx, "own", to)
	}},
	{"ReverseProxy", func(b *bench, ctx context.Context, to string) (*running, error) {
		return b.startForward(ctx, "reverse", to)
	}},
}

// running is a program under load.
type running struct {
	command *exec.Cmd
	url     string
}

func (r *running) stop() {
	_ = r.command.Process.Signal(syscall.SIGTERM)
	_ = r.command.Wait() // a program that was ended reports just that
}

// proxy compares proxies in turns, so that whatever else the machine does hits all of them.
func (b *bench) proxy(ctx context.Context) (results []result, err error) {
	origin, err := b.startNginxOrigin(ctx)
	if err != nil {
		return nil, err
	}
	defer origin.stop()
	all := make([]*running, len(proxies))
	for i, p := range proxies {
		if all[i], err = p.start(b, ctx, origin.url); err != nil {
			return nil, fmt.Errorf("start %s: %w", p.name, err)
		}
		defer all[i].stop()
	}
	for _, connections := range []int{50, 200} {
		rounds := make([][]wrkRun, len(proxies))
		for range proxyRounds {
			for i, r := range all {
				one, err := b.wrk(ctx, r, origin, connections)
				if err != nil {
					return nil, fmt.Errorf("load %s: %w", proxies[i].name, err)
				}
				rounds[i] = append(rounds[i], one)
			}
		}
		results = append(results, compareProxies(connections, rounds)...)
	}
	return results, nil
}

// compareProxies reports medians over rounds. The ratio by processor time leaves out what others did on the machine: it is what
// the ratio of the rates becomes when nobody else is there and all processors are busy.
func compareProxies(connections int, rounds [][]wrkRun) (results []result) {
	name := fmt.Sprintf("proxy, %d connections", connections)
	over := func(i int, f func(wrkRun, wrkRun) float64) float64 {
		var values []float64
		for round := range rounds[i] {
			values = append(values, f(rounds[i][round], rounds[0][round]))
		}
		return median(values)
	}
	for i, p := range proxies {
		results = append(results,
			result{name, p.name, over(i, func(r, _ wrkRun) float64 { return r.rate }), "requests/s", ""},
			result{name, p.name + ", processor time of the proxy", over(i, func(r, _ wrkRun) float64 { return 1e6 * r.proxy }), "us/request", ""})
		if i == 0 {
			continue
		}
		aim := ""
		if p.name == "gateway/upstream" {
			aim = "above 0.70"
		}
		results = append(results,
			result{name, p.name + ", rate", over(i, func(r, nginx wrkRun) float64 { return r.rate / nginx.rate }), "of nginx", ""},
			result{name, p.name + ", by processor time of all", over(i, func(r, nginx wrkRun) float64 { return nginx.all / r.all }), "of nginx", aim})
	}
	return results
}

// wrkRun is one round: requests a second, and processor seconds for each, of the proxy and of load, proxy and origin together.
type wrkRun struct{ rate, proxy, all float64 }

var wrkTotal = regexp.MustCompile(`(\d+) requests in`)

// wrk puts load on a proxy. A request that fails, fails the run.
func (b *bench) wrk(ctx context.Context, to, origin *running, connections int) (wrkRun, error) {
	proxy, rest := processCPU(to.command.Process.Pid), processCPU(origin.command.Process.Pid)
	seconds := max(1, int(b.duration.Seconds())/proxyRounds)
	c := exec.CommandContext(ctx, "wrk", "-t1", "-c"+strconv.Itoa(connections), "-d"+strconv.Itoa(seconds)+"s", to.url)
	began := time.Now()
	out, err := c.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return wrkRun{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	match := wrkTotal.FindSubmatch(out)
	if match == nil || bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		return wrkRun{}, fmt.Errorf("requests failed: %s", out)
	}
	requests, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil || requests == 0 {
		return wrkRun{}, fmt.Errorf("no requests: %s", out)
	}
	proxy = processCPU(to.command.Process.Pid) - proxy
	rest = processCPU(origin.command.Process.Pid) - rest + (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	return wrkRun{rate: requests / took.Seconds(), proxy: proxy / requests, all: (proxy + rest) / requests}, nil
}

// processCPU is the processor time of a process and its children in seconds, from /proc; 0 where the system does not tell.
func processCPU(pid int) (seconds float64) {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	text, _ := os.ReadFile(filepath.Join(folder, "stat"))
	_, after, _ := strings.Cut(string(text), ") ") // behind the name, which may hold anything
	if fields := strings.Fields(after); len(fields) > 12 {
		for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
			ticks, _ := strconv.ParseFloat(field, 64)
			seconds += ticks / 100
		}
	}
	children, _ := os.ReadFile(filepath.Join(folder, "task", strconv.Itoa(pid), "children"))
	for _, child := range strings.Fields(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			seconds += processCPU(n)
		}
	}
	return seconds
}

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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxFrame, workers, folder, servers(address)), 0o600); err != nil {
		return nil, err
	}
	return launch(ctx, exec.CommandContext(ctx, "nginx", "-p", folder, "-c", file, "-e", "stderr"), address)
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
	r := &running{c, "http://" + address}
	for range 200 {
		answer, err := http.Get(r.url)
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
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

// withPeers are the benchmarks that need other programs, and are not part of "all".
func withPeers(name string) bool { return slices.Contains([]string{"proxy"}, name) }
