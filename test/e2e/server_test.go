package e2e_test

import (
	"bytes"
	"context"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startPatience = 60 * time.Second // other tests want the processors too
	stopPatience  = 60 * time.Second
)

// server is the program, serving.
type server struct {
	public, ops  string // base URLs of the listeners
	issuer       string
	mailboxToken string // "" without a development mailbox
	setupLink    string // "" when there is an administrator
	startup      time.Duration

	identity   *server // behind a gateway that is a process of its own; nil otherwise
	gatewayOps string  // the operators' listener of that gateway
	arguments  []string

	client         *http.Client
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{} // closed once the process has gone
	failures       bool          // errors in its log are what the test is about
}

// serve starts the program on free ports and waits until it is ready. Arguments that begin with SUMUN_ are put into its
// environment. It is told to stop at the end of the test, and must then have ended well, without an error in its log.
func serve(t testing.TB, args ...string) *server {
	t.Helper()
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)
	began := time.Now()
	s := launch(t, args...)
	select {
	case <-s.stdout.ready:
	case <-s.ended:
		t.Fatalf("serve ended: %v\n%s%s", s.cmd.ProcessState, s.stdout, s.stderr)
	case <-time.After(startPatience):
		t.Fatalf("serve is not ready:\n%s%s", s.stdout, s.stderr)
	}
	s.startup, s.arguments = time.Since(began), args[1:]
	s.readBanner(t)
	return s
}

// launch starts the program and returns at once.
func launch(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{})}
	flags, env := split(args)
	s.cmd = exec.Command(binary, flags...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = environment(env...), s.stdout, s.stderr
	s.cmd.SysProcAttr = orphanless()
	s.client = &http.Client{
		Timeout:   60 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // ProcessState tells
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.stop(t)
		s.client.CloseIdleConnections()
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.public, s.stderr.tail())
		}
	})
	return s
}

// split separates settings for the environment from arguments.
func split(args []string) (flags, env []string) {
	for _, a := range args {
		if strings.HasPrefix(a, "SUMUN_") {
			env = append(env, a)
		} else {
			flags = append(flags, a)
		}
	}
	return flags, env
}

// readBanner learns where to go from what was printed, as a person would.
func (s *server) readBanner(t testing.TB) {
	t.Helper()
	banner := s.stdout.String()
	read := func(pattern string) string {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(banner); m != nil {
			return m[1]
		}
		return ""
	}
	s.issuer = read(`Public address +(\S+) \(`)
	s.public = "http://" + read(`listening on (\S+)\)`)
	s.ops = read(`Operators' address +(\S+)`)
	s.mailboxToken = read(`Mailbox +\S+/mailbox\?token=(\S+)`)
	s.setupLink = read(`First administrator +(\S+)`)
	if s.issuer == "" || s.public == "http://" || s.ops == "" {
		t.Fatalf("the banner does not say where to go:\n%s", banner)
	}
}

// running reports whether the process is still there.
func (s *server) running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process, by its handle.
func (s *server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Errorf("send %v: %v", sig, err)
	}
}

// stop tells the process to stop and waits for it, unless it has gone. It must end well.
func (s *server) stop(t testing.TB) {
	t.Helper()
	if !s.running() {
		return
	}
	s.signal(t, syscall.SIGTERM)
	s.wait(t)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("ended with %d, want 0:\n%s", code, s.stderr.tail())
	}
	s.checkLog(t)
}

// kill ends the process as a power cut would, and waits until it has gone.
func (s *server) kill(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	s.wait(t)
	s.checkLog(t)
}

func (s *server) wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(stopPatience):
		_ = s.cmd.Process.Kill()
		<-s.ended
		t.Errorf("did not end by itself:\n%s", s.stderr.tail())
	}
}

// checkLog fails on what a human would have to act on.
func (s *server) checkLog(t testing.TB) {
	t.Helper()
	for line := range strings.Lines(s.stderr.String()) {
		alarm := strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "panic:") || strings.Contains(line, "DATA RACE")
		if alarm && !s.failures {
			t.Errorf("in the log: %s", clip(line))
		}
	}
}

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// command runs a command of the program to its end.
func command(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	flags, env := split(args)
	cmd := exec.CommandContext(ctx, binary, flags...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Env, cmd.SysProcAttr = environment(env...), orphanless()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("sumun %v did not end:\n%s%s", flags, stdout.String(), stderr.String())
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// output collects what a process writes, and tells when its banner is complete.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	once  sync.Once
	ready chan struct{}
}

func newOutput() *output { return &output{ready: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if text := o.text.String(); strings.HasPrefix(text, "Sumun is ready.") && strings.Count(text, "\n\n") == 2 {
		o.once.Do(func() { close(o.ready) })
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// tail is the last lines of a long text, which is where the reason is.
func (o *output) tail() string {
	lines := strings.SplitAfter(o.String(), "\n")
	lines = lines[max(0, len(lines)-40):]
	for i := range lines {
		lines[i] = clip(lines[i])
	}
	return strings.Join(lines, "")
}

// clip shortens a line that holds a stack trace.
func clip(line string) string {
	if len(line) <= 600 {
		return line
	}
	return line[:600] + "...\n"
}
