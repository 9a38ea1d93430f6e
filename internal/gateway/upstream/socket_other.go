//go:build !unix

package upstream

import "net"

// socket exists on Unix only; elsewhere net does everything, and idle connections are not looked at.
type socket struct{}

func newSocket(net.Conn, *conn) *socket { return nil }

func (s *socket) fresh() bool { return true }

func (s *socket) ask([]byte) (int, error) { return 0, nil }
