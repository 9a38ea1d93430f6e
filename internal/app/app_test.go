package app_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/app"
)

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a command to its end, without any environment.
func run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return runEnv(t, nil, stdin, args...)
}

func runEnv(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := app.Main(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr, env)
	return result{code, stdout.String(), stderr.String()}
}

// wantFault fails unless the command said in exactly one line what is wrong, in these words.
func (r result) wantFault(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "sumun: ") {
		t.Errorf("stderr is not one line of ours:\n%s", r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("stderr does not say %q:\n%s", word, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine") {
		t.Errorf("stderr holds a stack trace:\n%s", r.stderr)
	}
}

// server is Sumun, serving in this process.
type server struct {
	public, ops string // base URLs
	out         *output
	stop        func() result
}

// serve starts Sumun on free ports and waits until it is ready. It is stopped at the end of the test, and then must have
// ended well.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, stderr := newOutput(), newOutput()
	ended := make(chan int, 1)
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)
	go func() { ended <- app.Main(ctx, args, strings.NewReader(""), out, stderr, nil) }()
	s := &server{out: out}
	s.stop = sync.OnceValue(func() result {
		cancel()
		return result{<-ended, out.String(), stderr.String()}
	})
	select {
	case <-out.ready:
	case code := <-ended:
		ended <- code
		t.Fatalf("serve ended with %d:\n%s", code, stderr.String())
	case <-time.After(30 * time.Second):
		t.Fatalf("serve is not ready:\n%s%s", out.String(), stderr.String())
	}
	t.Cleanup(func() {
		if r := s.stop(); r.code != 0 {
			t.Errorf("serve ended with %d:\n%s", r.code, r.stderr)
		}
	})
	s.public = "http://" + find(t, out.String(), `listening on (\S+)\)`)
	s.ops = find(t, out.String(), `Operators' address +(\S+)`)
	return s
}

func find(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("nothing matches %s in:\n%s", pattern, text)
	}
	return match[1]
}

// output is a writer that tells when the banner is complete.
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

var _ io.Writer = (*output)(nil)

// installation makes a data folder with an administrator.
func installation(t *testing.T) (data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	r := run(t, password+"\n", "user", "add", "--data", data, "--email", email, "--password-stdin", "--role", "admin", "--verified")
	if r.code != 0 {
		t.Fatalf("user add: %s", r.stderr)
	}
	return data
}

const (
	email    = "kim@example.com"
	password = "correct horse battery staple"
)

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// takenPort is an address that another program listens on.
func takenPort(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
