//go:build unix

package upstream

import (
	"io"
	"net"
	"syscall"

	sockets "github.com/sumunio/sumun/internal/httpd/socket"
)

// socket does an exchange's first steps with system calls of its own: look whether anything has arrived that nobody asked for, write
// the request, wait, read. net would try to read once more before it waits, though the answer cannot be there yet. It is used by one
// exchange at a time.
type socket struct {
	raw  syscall.RawConn
	into *conn
	look func(fd uintptr) bool
	turn func(fd uintptr) bool

	out     []byte
	begun   bool
	arrived bool
	sent    int
	err     error
	one     [1]byte
}

// newSocket returns nil where there is no socket.
func newSocket(of net.Conn, into *conn) *socket {
	c, ok := of.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw, into: into}
	s.look, s.turn = s.lookOnce, s.take
	return s
}

// fresh reports whether nothing has arrived: neither the end of the stream nor bytes.
func (s *socket) fresh() bool { return s.raw.Read(s.look) == nil && !s.arrived }

func (s *socket) lookOnce(fd uintptr) bool {
	_, err := sockets.Peek(fd, s.one[:])
	s.arrived = err != syscall.EAGAIN
	return true
}

// ask writes out and reads the beginning of what comes back into the connection's buffer, which is empty. It returns how much of out
// was written; when that is not all and there is no error, the socket is full and nothing was read.
func (s *socket) ask(out []byte) (sent int, err error) {
	s.out, s.begun, s.sent, s.err = out, false, 0, nil
	err = s.raw.Read(s.turn)
	s.out = nil
	if err == nil {
		err = s.err
	}
	return s.sent, err
}

// take is called by the runtime, which holds the socket for reading, once at first and then whenever there may be something to
// read. Since it is held before the request is written, no answer comes unnoticed.
func (s *socket) take(fd uintptr) (done bool) {
	if !s.begun {
		s.begun = true
		if s.into.reused && s.lookOnce(fd) && s.arrived {
			s.err = errNotFresh
			return true
		}
		n, err := sockets.Write(fd, s.out)
		if s.sent = n; err != nil && err != syscall.EAGAIN {
			s.err = err
		}
		return s.err != nil || s.sent < len(s.out)
	}
	c := s.into
	n, err := sockets.Read(fd, c.buf[c.end:])
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		s.err = err
	case n == 0:
		s.err = io.EOF
	default:
		c.end += n
	}
	return true
}
