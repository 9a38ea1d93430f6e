//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// peeker looks at a socket without waiting and without taking anything from it. The function it returns is not safe for
// concurrent use.
func peeker(c net.Conn) func() bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	var one [1]byte
	var arrived bool
	look := func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		arrived = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR
		return true
	}
	return func() bool { return raw.Read(look) != nil || arrived }
}
