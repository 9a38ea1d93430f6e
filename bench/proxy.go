package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	proxyRounds = 5
	answerSize  = 1 << 10 // bytes
	// forwardEnv makes this program a proxy, on the listener that is its file 3, to the URL behind the colon.
	forwardEnv = "SUMUN_BENCH_FORWARD"
)

// peer is a proxy that is compared with others.
type peer struct {
	name  string
	aim   string // of its ratio to the first, "" for none
	start func(*bench, context.Context, string) (*running, error)
}

// proxies pass on the same answers of the same nginx, without authentication. The first is what the others are compared with.
var proxies = []peer{
	{"nginx", "", (*bench).startNginxProxy},
	{"gateway/upstream", "above 0.70", forwarding("own")},
	{"ReverseProxy", "", forwarding("reverse")},
}

// forwarding is how this program is started as a proxy.
func forwarding(how string) func(*bench, context.Context, string) (*running, error) {
	return func(b *bench, ctx context.Context, to string) (*running, error) { return b.startForward(ctx, how, to) }
}

// running is a program under load.
type running struct {
	command *exec.Cmd
	url     string
	token   string // that requests carry, "" for none
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
		rounds, err := b.inTurns(ctx, proxies, all, origin, connections)
		if err != nil {
			return nil, err
		}
		results = append(results, compareProxies(fmt.Sprintf("proxy, %d connections", connections), proxies, rounds)...)
	}
	return results, nil
}

// inTurns puts load on one proxy after the other, again and again, every other time the other way round: who comes behind another route of
// the same program finds its memory at hand.
func (b *bench) inTurns(ctx context.Context, peers []peer, all []*running, origin *running, connections int) ([][]wrkRun, error) {
	rounds := make([][]wrkRun, len(all))
	for round := range proxyRounds {
		for i := range all {
			if round%2 == 1 {
				i = len(all) - 1 - i
			}
			one, err := b.wrk(ctx, all[i], origin, connections)
			if err != nil {
				return nil, fmt.Errorf("load %s: %w", peers[i].name, err)
			}
			rounds[i] = append(rounds[i], one)
		}
	}
	return rounds, nil
}

// compareProxies reports medians over rounds. The ratio by processor time leaves out what others did on the machine: it is what
// the ratio of the rates becomes when nobody else is there and all processors are busy.
func compareProxies(name string, peers []peer, rounds [][]wrkRun) (results []result) {
	over := func(i int, f func(wrkRun, wrkRun) float64) float64 {
		var values []float64
		for round := range rounds[i] {
			values = append(values, f(rounds[i][round], rounds[0][round]))
		}
		return median(values)
	}
	for i, p := range peers {
		results = append(results,
			result{name, p.name, over(i, func(r, _ wrkRun) float64 { return r.rate }), "requests/s", ""},
			result{name, p.name + ", processor time of the proxy", over(i, func(r, _ wrkRun) float64 { return 1e6 * r.proxy }), "us/request", ""})
		if i == 0 {
			continue
		}
		results = append(results,
			result{name, p.name + ", rate", over(i, func(r, nginx wrkRun) float64 { return r.rate / nginx.rate }), "of nginx", p.aim},
			result{name, p.name + ", by processor time of the proxy", over(i, func(r, nginx wrkRun) float64 { return nginx.proxy / r.proxy }), "of nginx", ""},
			result{name, p.name + ", by processor time of all", over(i, func(r, nginx wrkRun) float64 { return nginx.all / r.all }), "of nginx", p.aim})
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
	args := []string{"-t1", "-c" + strconv.Itoa(connections), "-d" + strconv.Itoa(seconds) + "s"}
	if to.token != "" {
		args = append(args, "-H", "Authorization: Bearer "+to.token)
	}
	c := exec.CommandContext(ctx, "wrk", append(args, to.url)...)
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

// withPeers are the benchmarks that need other programs, and are not part of "all".
func withPeers(name string) bool { return name == "proxy" || name == "gateway" || name == "provider" }
