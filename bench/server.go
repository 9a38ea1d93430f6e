package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	startWithin = 30 * time.Second
	stopWithin  = 20 * time.Second
	password    = "four lakes under a paper moon"
)

// installation is what a server keeps: a data folder and, on PostgreSQL, a database of its own.
type installation struct {
	binary   string
	module   string // "" for all
	data     string
	database string       // "" for the SQLite file in the data folder
	redis    *redisServer // nil where sessions are in the database
	env      []string
	remove   func() error
	accounts int // that users has made
}

// install makes an installation that has never been started. Settings are environment variables such as SUMUN_LOG_LEVEL=warn;
// those of the caller's own environment have no effect.
func (b *bench) install(ctx context.Context, settings ...string) (*installation, error) {
	data, err := os.MkdirTemp(b.folder, "data-")
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SUMUN_") })
	in := &installation{binary: b.binary, module: b.module, data: data, env: append(env, settings...)}
	var undo []func() error
	in.remove = func() (err error) {
		for _, one := range undo {
			err = errors.Join(err, one())
		}
		return errors.Join(err, os.RemoveAll(data))
	}
	if in.redis, err = b.startRedis(ctx); err != nil {
		return nil, err
	}
	if in.redis != nil {
		undo = append(undo, in.redis.stop)
		in.env = append(in.env, "SUMUN_REDIS="+in.redis.url)
	}
	if b.database == "" {
		return in, nil
	}
	u, err := url.Parse(b.database)
	if err != nil {
		return nil, errors.Join(errors.New("--database: not a valid URL"), in.remove())
	}
	name := "sumun_bench_" + strings.ToLower(rand.Text()[:12])
	if err := administer(ctx, b.database, "CREATE DATABASE "+name); err != nil {
		return nil, errors.Join(err, in.remove())
	}
	u.Path = "/" + name
	in.database = u.String()
	undo = append(undo, func() error {
		return administer(context.WithoutCancel(ctx), b.database, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return in, nil
}

// administer runs one statement on the database that the user named.
func administer(ctx context.Context, database, statement string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cfg := sqldb.DefaultConfig()
	cfg.URL = database
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.Writer().ExecContext(ctx, statement)
	return err
}

func (in *installation) command(args ...string) *exec.Cmd {
	args = append(args, "--data", in.data)
	if in.database != "" {
		args = append(args, "--database", in.database)
	}
	c := exec.Command(in.binary, args...)
	c.Env = in.env
	return c
}

// addAccount makes an account with the password of all benchmarks.
func (in *installation) addAccount(email string) error {
	c := in.command("user", "add", "--email", email, "--password-stdin", "--verified")
	c.Stdin = strings.NewReader(password)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("sumun user add: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// server is a running sumun.
type server struct {
	public, ops string // host:port
	command     *exec.Cmd
	readyAfter  time.Duration
	end         func() // ends the process and waits for that
	conns       []net.Conn
	redis       *redisServer // where it keeps sessions, if it does
}

func (s *server) stop() {
	for _, c := range s.conns {
		_ = c.Close() // all has been read
	}
	s.end()
}

// serve starts the program and returns when it is ready. Its log goes to a file in the data folder, at the default level.
func (in *installation) serve(ctx context.Context) (*server, error) {
	args := []string{"--limits", "off"}
	if in.module != "" {
		args = append(args, in.module)
	}
	return in.serveWith(ctx, "log", args...)
}

// serveWith starts the program with arguments of the caller's and a log of that name.
func (in *installation) serveWith(ctx context.Context, log string, args ...string) (*server, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &server{public: ports[0], ops: ports[1], redis: in.redis}
	s.command = in.command(append([]string{"serve", "--listen", s.public, "--ops-listen", s.ops}, args...)...)
	return s, s.launch(ctx, s.command, filepath.Join(in.data, log))
}

// launch starts the process of a server, which ends with ctx or by stop, and returns when it is ready.
func (s *server) launch(ctx context.Context, c *exec.Cmd, log string) error {
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	began := time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // told to stop, or what went wrong is in the log
	}()
	interrupt := context.AfterFunc(ctx, func() { _ = c.Process.Signal(os.Interrupt) }) // it may have ended
	s.end = func() {
		interrupt()
		_ = c.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(stopWithin):
			_ = c.Process.Kill()
			<-ended
		}
	}
	if err := s.untilReady(ctx, ended); err != nil {
		s.stop()
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%w; the server said:\n%s", err, text)
	}
	s.readyAfter = time.Since(began)
	return nil
}

// freePorts returns addresses that nobody listens on.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// untilReady asks /readyz every millisecond.
func (s *server) untilReady(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	every := time.NewTicker(time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ended:
			return errors.New("the server has ended")
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w", ctx.Err())
		case <-every.C:
		}
		if s.get(ctx, "/readyz", io.Discard) == nil {
			return nil
		}
	}
}

// get copies what the operators' listener answers.
func (s *server) get(ctx context.Context, path string, into io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, answer.Status)
	}
	_, err = io.Copy(into, answer.Body)
	return err
}

// metric reads a metric, named with its labels if it has any.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	var text bytes.Buffer
	if err := s.get(ctx, "/metrics", &text); err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(&text); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("the server has no metric %s", name)
}
