package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// half is a request of which only a part has been sent.
type half struct {
	net.Conn
	reader *bufio.Reader
}

// dial opens a connection and sends the beginning of a request.
func (s *server) dial(t testing.TB, beginning string) *half {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(startPatience)); err != nil {
		t.Fatal(err)
	}
	h := &half{conn, bufio.NewReader(conn)}
	h.send(t, beginning)
	return h
}

func (h *half) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(h, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads the next response.
func (h *half) answer(t testing.TB) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(h.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// beginSignUp sends a sign-up up to its body and returns once the program is reading that.
func (s *server) beginSignUp(t testing.TB) (h *half, rest string) {
	t.Helper()
	body := `{"email":"late@example.com"}`
	h = s.dial(t, fmt.Sprintf("POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\n\r\n", len(body)))
	if resp := h.answer(t); resp.StatusCode != http.StatusContinue {
		t.Fatalf("the program does not want the body: %s", resp.Status)
	}
	return h, body
}

// A deployment must not cost anybody their request: told to stop, the program fails its readiness first, lets requests in
// flight finish, and ends by itself.
func TestStop(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		s := st.serve(t, "SUMUN_DRAIN=700ms")
		s.awaitReady(t, true)
		h, rest := s.beginSignUp(t)
		s.signal(t, syscall.SIGTERM)
		s.awaitReady(t, false)
		s.send(t, "GET /.well-known/jwks.json", nil).want(t, 200) // the load balancer has not noticed yet
		s.awaitClosed(t)
		if !s.running() {
			t.Error("ended with a request in flight")
		}
		h.send(t, rest)
		if resp := h.answer(t); resp.StatusCode != http.StatusAccepted {
			t.Errorf("the request in flight: %s", resp.Status)
		}
		s.wait(t)
		if code := s.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("ended with %d", code)
		}
		// What was accepted in the last moment is still done, by whoever comes next.
		if _, err := st.serve(t).awaitToken(t.Context(), "late@example.com", "/sign-up/confirm"); err != nil {
			t.Error(err)
		}
	})
}

// An operator who cannot wait sends the signal again.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t)
	s.beginSignUp(t)
	s.signal(t, syscall.SIGTERM)
	s.awaitReady(t, false)
	s.signal(t, syscall.SIGTERM)
	s.wait(t)
	if s.cmd.ProcessState.Success() {
		t.Error("cutting a request is no success")
	}
}

func (s *server) awaitReady(t testing.TB, ready bool) {
	t.Helper()
	want := map[bool]int{true: 200, false: 503}[ready]
	if err := eventually(t.Context(), startPatience, "readiness", func(ctx context.Context) (bool, error) {
		a, err := s.opsGet(ctx, "/readyz")
		return a.status == want, err
	}); err != nil {
		t.Error(err)
	}
	if a, err := s.opsGet(t.Context(), "/livez"); err != nil || a.status != 200 {
		t.Errorf("livez: %d %v", a.status, err)
	}
}

// awaitClosed waits until the public listener accepts nothing more.
func (s *server) awaitClosed(t testing.TB) {
	t.Helper()
	if err := eventually(t.Context(), stopPatience, "the end of the listener", func(ctx context.Context) (bool, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(s.public, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil, nil
	}); err != nil {
		t.Error(err)
	}
}

// Clients that send a byte now and then must not hold connections for ever.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t, "SUMUN_HTTP_READ_HEADER_TIMEOUT=300ms", "SUMUN_HTTP_READ_TIMEOUT=900ms", "SUMUN_HTTP_IDLE_TIMEOUT=300ms")
	for name, beginning := range map[string]string{
		"nothing":     "",
		"slow header": "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"slow body":   "POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{\"email\":\"",
		"slow form":   "POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\na=",
		"idle":        "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := s.dial(t, beginning)
			dripping := make(chan struct{})
			go func() {
				defer close(dripping)
				ticker := time.NewTicker(50 * time.Millisecond)
				defer ticker.Stop()
				for range ticker.C {
					if name == "nothing" || name == "idle" {
						return
					}
					if _, err := io.WriteString(h, "a"); err != nil {
						return // cut
					}
				}
			}()
			began := time.Now()
			got, err := io.ReadAll(h.reader) // a reset is as good as an end
			took := time.Since(began)
			h.Close()
			<-dripping
			if took > 10*time.Second {
				t.Errorf("cut only after %v (%v): %s", took, err, got)
			}
			if strings.HasPrefix(name, "slow b") && len(got) > 0 && !strings.Contains(string(got), "request.body_unread") {
				t.Errorf("answered %s", got)
			}
		})
	}
}
