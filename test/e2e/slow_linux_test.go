package e2e_test

import (
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Thousands who hold connections open and send a byte now and then cost the others nothing but memory, and of that a bounded amount.
func TestTenThousandSlowClients(t *testing.T) {
	const clients = 10_000
	perClient := int64(40 << 10)
	if raceEnabled {
		perClient *= 4 // the detector keeps a shadow of all memory
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur < clients+500 {
		if os.Getenv("CI") != "" {
			t.Fatalf("%d open files are allowed: raise the limit above %d", files.Cur, clients+500)
		}
		t.Skipf("%d open files are allowed: raise the limit above %d", files.Cur, clients+500)
	}
	s := sqliteStore(t).serve(t, append(quick(), "SUMUN_HTTP_READ_HEADER_TIMEOUT=60s", "SUMUN_HTTP_READ_TIMEOUT=60s")...)
	before := s.residentMemory(t)
	slow := make([]net.Conn, 0, clients)
	defer func() {
		for _, c := range slow {
			_ = c.Close()
		}
	}()
	for range clients {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
		if _, err := io.WriteString(c, "GET /shop/ HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
	}
	var worst time.Duration
	for i := range 200 {
		for _, c := range slow[i*clients/200 : (i+1)*clients/200] {
			if _, err := io.WriteString(c, "a"); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		s.send(t, "GET /.well-known/jwks.json", nil).want(t, 200)
		worst = max(worst, time.Since(began))
	}
	grown := s.residentMemory(t) - before
	t.Logf("%d slow clients: %d KiB each, the others waited %v at most", clients, grown/clients>>10, worst)
	if grown > clients*perClient {
		t.Errorf("%d MiB for %d slow clients", grown>>20, clients)
	}
	if worst > stormBound() {
		t.Errorf("somebody else waited %v", worst)
	}
}

// residentMemory is what the operating system says the process takes, in bytes.
func (s *server) residentMemory(t testing.TB) int64 {
	t.Helper()
	a, err := s.opsGet(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`).FindSubmatch(a.body)
	if match == nil {
		t.Fatal("the metrics do not say how much memory the process takes")
	}
	bytes, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(bytes)
}
