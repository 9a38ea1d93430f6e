package reference_test

import (
	"bytes"
	"context"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/app"
)

// patience is how long the program may take to start: other tests want the processors too.
const patience = time.Minute

// server is `sumun serve`, in this process.
type server struct {
	address string // of the public listener
	issuer  string
	mailbox string // link with its token
}

// serve starts the program on free ports, with a data folder of its own, and waits until it is ready. It is told to stop at
// the end of the test, and must then end well.
func serve(t *testing.T, flags ...string) server {
	t.Helper()
	args := append([]string{"serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, flags...)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var stdout, stderr output
	ready := make(chan struct{})
	stdout.announced = sync.OnceFunc(func() { close(ready) })
	ended := make(chan int, 1)
	go func() { ended <- app.Main(ctx, args, bytes.NewReader(nil), &stdout, &stderr, nil) }()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("serve ended with exit code %d:\n%s", code, stderr.String())
		}
	})
	select {
	case <-ready:
	case code := <-ended:
		ended <- code
		t.Fatalf("serve ended:\n%s", stderr.String())
	case <-time.After(patience):
		t.Fatalf("serve is not ready:\n%s%s", stdout.String(), stderr.String())
	}
	banner := stdout.String()
	return server{
		address: found(t, banner, `\(listening on ([^)]+)\)`),
		issuer:  found(t, banner, `Public address +(\S+)`),
		mailbox: found(t, banner, `Mailbox +(\S+)`),
	}
}

// found returns what the group of a pattern matched.
func found(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no %s in:\n%s", pattern, text)
	}
	return match[1]
}

// output collects what the program prints. The blank line after where to go announces that it is ready.
type output struct {
	mu        sync.Mutex
	text      bytes.Buffer
	announced func() // nil: nobody waits
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.announced != nil && bytes.Contains(o.text.Bytes(), []byte("Database")) && bytes.HasSuffix(o.text.Bytes(), []byte("\n\n")) {
		o.announced()
	}
	return len(p), nil
}

// String implements fmt.Stringer.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
