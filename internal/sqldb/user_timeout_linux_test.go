package sqldb_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Without it, a statement sent to a server that has lost its power waits for a quarter of an hour.
func TestConnectionsHaveAUserTimeout(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, err := sqldb.PostgreSQLConfig("postgres://sumun@" + l.Addr().String() + "/shop")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := cfg.DialFunc(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string][3]int{
		"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, 18, 15000},
		"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
		"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
	} {
		got := 0
		if cerr := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), option[0], option[1]) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if got != option[2] {
			t.Errorf("%s is %d, want %d", name, got, option[2])
		}
	}
}
