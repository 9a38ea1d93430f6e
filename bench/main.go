// Command bench measures the real program from outside.
//
//	go run ./bench [flags] [start|memory|sign-in|refresh|compare|storm|population|revoke|proxy|gateway|provider|all]
//
// It builds sumun, starts it as a process of its own on free loopback ports, with a fresh data folder and without rate limits,
// and drives it over HTTP. Load generator, server and database share the processors of one machine: what the generator
// took of them is part of the report. --database postgres://... makes databases of its own on that server and drops them
// afterwards; without it, the server keeps everything in SQLite. --redis redis-server starts that program and keeps sessions
// there; compare and population need it. A request that fails, fails the run.
//
// proxy compares what the gateway passes requests on with to nginx and to net/http/httputil, all of them without authentication. It
// needs nginx, wrk and Linux, and is not part of all. gateway compares the program itself, with authentication, with these, with HAProxy that
// verifies the same tokens, and with Caddy; it needs those two as well.
//
// It refuses to judge: aims are printed beside the numbers, and a number that misses its aim is not an error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	database string
	redis    string
	binary   string
	profile  string
	module   string
	modules  string
	zitadel  string
	duration time.Duration
	clients  int
	sessions int
	people   int
	rate     float64
	json     bool
	which    string

	impatient bool
}

// bench is one run. Its folder holds the program and the data folders of the servers.
type bench struct {
	options
	folder string
}

// benchmarks in the order of "all".
var benchmarks = []struct {
	name string
	run  func(*bench, context.Context) ([]result, error)

	needsRedis bool
}{
	{"start", (*bench).start, false},
	{"memory", (*bench).memory, false},
	{"sign-in", (*bench).signIn, false},
	{"refresh", (*bench).refresh, false},
	{"compare", (*bench).compareBare, true},
	{"storm", (*bench).storm, false},
	{"population", (*bench).population, true},
	{"revoke", (*bench).revoke, false},
	{"proxy", (*bench).proxy, false},
	{"gateway", (*bench).gateway, false},
	{"provider", (*bench).provider, true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if what, ok := os.LookupEnv(forwardEnv); ok {
		err = forward(ctx, what)
	} else if len(os.Args) > 1 && os.Args[1] == bareRole {
		err = serveBare(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run measures what args ask for and writes the report. Everything it started and made is gone when it returns.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "sumun-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	b := &bench{options: o, folder: folder}
	if b.binary == "" && b.which != "proxy" {
		if err := b.build(ctx, stderr); err != nil {
			return err
		}
	}
	report := report{Machine: describeMachine(), Database: b.engine()}
	for _, one := range benchmarks {
		if b.which != one.name && (b.which != "all" || withPeers(one.name) || one.needsRedis && b.redis == "") {
			continue
		}
		fmt.Fprintf(stderr, "measuring %s on %s\n", one.name, b.engine())
		results, err := one.run(b, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		report.Results = append(report.Results, results...)
	}
	report.Machine.LoadAfter = loadAverage()
	if b.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	return report.table(stdout)
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{which: "all"}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench [flags] [start|memory|sign-in|refresh|compare|storm|population|revoke|proxy|gateway|provider|all]")
		f.PrintDefaults()
	}
	f.StringVar(&o.database, "database", "", "`URL` of a PostgreSQL database whose user may create others; SQLite without it")
	f.StringVar(&o.redis, "redis", "", "`PROGRAM` such as redis-server, to start for the sessions; in the database without it")
	f.StringVar(&o.binary, "binary", "", "`FILE` to measure instead of building ./cmd/sumun")
	f.StringVar(&o.profile, "profile", "", "`FILE` for a CPU profile of the server during refresh; FILE.allocs gets its allocations")
	f.StringVar(&o.module, "module", "", "`NAME` of the one module to serve, such as identity, without the gateway before it; all without it")
	f.StringVar(&o.modules, "node-modules", os.Getenv("SUMUN_BENCH_NODE_MODULES"), "`FOLDER` in which provider finds oidc-provider and ioredis; npm installs them without it")
	f.StringVar(&o.zitadel, "zitadel", "v3.47.5", "`VERSION` of zitadel/oidc whose example server provider builds; none when empty")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "of each measurement under load")
	f.IntVar(&o.clients, "clients", 64, "virtual users of refresh, each with a connection of its own")
	f.IntVar(&o.sessions, "sessions", 512, "sessions that they take turns through, so many in all")
	f.IntVar(&o.people, "people", 1_000_000, "the most people of population, each with a session")
	f.Float64Var(&o.rate, "rate", 0, "refreshes a second, however long they take (open loop); 0: each user waits for its answer (closed loop)")
	f.BoolVar(&o.impatient, "impatient", false, "people of a storm come back at once when they are turned away")
	f.BoolVar(&o.json, "json", false, "report as JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if rest := f.Args(); len(rest) > 0 {
		o.which = rest[0]
		if err := f.Parse(rest[1:]); err != nil { // flags may also follow
			return o, err
		}
	}
	return o, o.validate(f.NArg())
}

func (o options) validate(left int) error {
	names := []string{"all"}
	needsRedis := false
	for _, one := range benchmarks {
		names = append(names, one.name)
		needsRedis = needsRedis || one.needsRedis && one.name == o.which
	}
	switch {
	case needsRedis && o.redis == "":
		return fmt.Errorf("%s: name the program with --redis, such as --redis redis-server", o.which)
	case left > 0 || !slices.Contains(names, o.which):
		return fmt.Errorf("name one of %s", strings.Join(names, ", "))
	case o.duration <= 0, o.clients < 1, o.people < 1, o.rate < 0:
		return errors.New("--duration, --clients and --people must be positive, and --rate not negative")
	case o.sessions < o.clients:
		return fmt.Errorf("--sessions: %d are too few for %d clients", o.sessions, o.clients)
	case o.database != "" && !strings.HasPrefix(o.database, "postgres"):
		return errors.New("--database: give a postgres:// URL, or nothing for SQLite")
	}
	return nil
}

func (o options) engine() string {
	engine := "SQLite"
	if o.database != "" {
		engine = "PostgreSQL"
	}
	if o.redis != "" {
		engine += " and Redis"
	}
	return engine
}

func (b *bench) build(ctx context.Context, stderr io.Writer) error {
	b.binary = filepath.Join(b.folder, "sumun")
	c := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/sumunio/sumun/cmd/sumun")
	c.Stderr = stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("build sumun: %w", err)
	}
	return nil
}
