package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runAsProgram makes the test binary be the program, so that signals meet a process of its own.
const runAsProgram = "SUMUN_TEST_RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is Sumun in a process of its own.
type process struct {
	*exec.Cmd
	public, ops string // host:port
	stderr      bytes.Buffer
}

func start(t *testing.T, data string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // kills a process that hangs
	t.Cleanup(cancel)
	args = append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)
	p := &process{Cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	p.Env = append(os.Environ(), runAsProgram+"=1")
	p.Stderr = &p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	var banner strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		banner.WriteString(lines.Text() + "\n")
		if strings.Count(banner.String(), "\n\n") == 2 {
			break
		}
	}
	addresses := regexp.MustCompile(`(?s)listening on (\S+)\).*Operators' address +http://(\S+)`).FindStringSubmatch(banner.String())
	if addresses == nil {
		_ = p.Wait()
		t.Fatalf("no addresses in:\n%s%s", banner.String(), p.stderr.String())
	}
	p.public, p.ops = addresses[1], addresses[2]
	return p
}

// exit waits for the end and returns the exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	if err := p.Wait(); err != nil && p.ProcessState == nil {
		t.Error(err)
	}
	return p.ProcessState.ExitCode()
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// inFlight begins a sign-up and returns once the server waits for its body.
func (p *process) inFlight(t *testing.T) (finish func() int) {
	t.Helper()
	const body = `{"email":"kim@example.com"}`
	conn, err := net.Dial("tcp", p.public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r, err := http.NewRequest(http.MethodPost, "http://"+p.public+"/v1/users", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /v1/users HTTP/1.1\r\nHost: "+p.public+"\r\nContent-Type: application/json\r\n"+
		"Content-Length: 27\r\nExpect: 100-continue\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := answers.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() int {
		if _, err := io.WriteString(conn, body); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(answers, r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
}

// until asks again and again until the condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

func (p *process) ready() bool {
	response, err := http.Get("http://" + p.ops + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (p *process) accepts() bool {
	conn, err := net.Dial("tcp", p.public)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// A deployment must not cut anybody off: who is being served gets an answer, and who comes now is told to go elsewhere.
func TestSIGTERMFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	if !p.ready() {
		t.Error("not ready after the start")
	}
	finish := p.inFlight(t)
	p.signal(t, syscall.SIGTERM)
	until(t, "/readyz fails", func() bool { return !p.ready() })
	until(t, "nothing more is accepted", func() bool { return !p.accepts() })
	response, err := http.Get("http://" + p.ops + "/livez")
	if err != nil {
		t.Fatalf("operators cannot look at a process that stops: %v", err)
	}
	response.Body.Close()
	if status := finish(); status != http.StatusAccepted {
		t.Errorf("the request in flight was answered %d", status)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr.String())
	}
}

// Somebody who presses Ctrl-C twice has no patience.
func TestSecondSignalForces(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	p.inFlight(t)
	p.signal(t, syscall.SIGINT)
	until(t, "/readyz fails", func() bool { return !p.ready() })
	code := make(chan int)
	go func() { code <- p.exit(t) }()
	until(t, "the process ends", func() bool { return errors.Is(p.Process.Signal(syscall.SIGINT), os.ErrProcessDone) })
	if <-code == 0 {
		t.Error("exit code 0 although a request was cut")
	}
}

// kill -9 leaves nothing that keeps Sumun from starting again, and the keys are the same as before.
func TestStartsAgainAfterKill(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := start(t, data)
	keys := get(t, p.public+"/.well-known/jwks.json")
	if status := p.inFlight(t)(); status != http.StatusAccepted {
		t.Fatalf("sign-up was answered %d", status)
	}
	p.signal(t, syscall.SIGKILL)
	p.exit(t)

	again := start(t, data)
	if got := get(t, again.public+"/.well-known/jwks.json"); got != keys {
		t.Errorf("other keys after a kill:\n%s\n%s", got, keys)
	}
	again.signal(t, syscall.SIGTERM)
	if code := again.exit(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, again.stderr.String())
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get("http://" + url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
