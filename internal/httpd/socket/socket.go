// Package socket reads and writes TCP connections with system calls that the scheduler of Go is not told of.
//
// A system call that can block takes its processor away from the goroutine, so that another one can have it: the runtime notes when it
// begins and ends, and a thread of its own looks every 20 microseconds whether it lasts. The sockets of package net cannot block. A write to
// one takes about as long as that all the same, because the kernel does the network's work meanwhile, and under load processors are taken away
// and given back for nothing. A proxy of small answers spends a tenth of its time on it.
//
// It promises what net promises of reading and writing: deadlines and closing end both. It refuses everything else; the connection
// stays net's.
package socket

import (
	"io"
	"net"
	"os"
	"syscall"
)

// most is how much is read or written at once. A call keeps its processor, which a collection waits for: megabytes would take tens of
// milliseconds, and a client could ask for them on purpose.
const most = 64 << 10

// Conn reads and writes a connection. One goroutine may read and one may write at a time.
type Conn struct {
	tcp  *net.TCPConn
	raw  syscall.RawConn // nil where package net does everything
	in   turn
	out  turn
	give func(fd uintptr) bool
	take func(fd uintptr) bool
}

// turn is one read or write, whose function the runtime calls without arguments of ours.
type turn struct {
	p   []byte
	n   int
	err error
}

// New returns a Conn for a connection, which it does not own.
func New(tcp *net.TCPConn) *Conn {
	c := &Conn{tcp: tcp}
	if raw, err := tcp.SyscallConn(); err == nil && direct {
		c.raw = raw
		c.take, c.give = c.readOnce, c.writeOnce
	}
	return c
}

// Read implements io.Reader.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.tcp.Read(p)
	}
	c.in = turn{p: p}
	err := c.raw.Read(c.take)
	n, failed := c.in.n, c.in.err
	c.in = turn{}
	switch {
	case err != nil:
		return 0, err // it is closed, or too late
	case failed != nil:
		return 0, c.explain("read", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// readOnce reads what is there. The runtime calls it again when there may be something.
func (c *Conn) readOnce(fd uintptr) (done bool) {
	c.in.n, c.in.err = Read(fd, c.in.p)
	return c.in.err != syscall.EAGAIN
}

// Write implements io.Writer. What is long, or the socket has no room for, is net's to send.
func (c *Conn) Write(p []byte) (int, error) {
	if c.raw == nil || len(p) > most {
		return c.tcp.Write(p)
	}
	c.out = turn{p: p}
	err := c.raw.Write(c.give)
	n := c.out.n
	c.out = turn{}
	if err != nil || n == len(p) {
		return n, err
	}
	more, err := c.tcp.Write(p[n:])
	return n + more, err
}

// writeOnce leaves errors to net, which meets them again.
func (c *Conn) writeOnce(fd uintptr) (done bool) {
	c.out.n, _ = Write(fd, c.out.p)
	return true
}

func (c *Conn) explain(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.tcp.LocalAddr(), Addr: c.tcp.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
