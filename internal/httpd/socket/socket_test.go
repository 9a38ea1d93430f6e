package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd/socket"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if far, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// More than a socket has room for arrives whole, in both directions at once.
func TestMuchArrives(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	a, b := socket.New(near), socket.New(far)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	var all sync.WaitGroup
	for _, one := range []struct {
		c   *socket.Conn
		tcp *net.TCPConn
	}{{a, near}, {b, far}} {
		all.Go(func() {
			n, err := one.c.Write(sent)
			if err != nil || n != len(sent) {
				t.Errorf("wrote %d of %d: %v", n, len(sent), err)
			}
			_ = one.tcp.CloseWrite()
		})
		all.Go(func() {
			var got bytes.Buffer
			if _, err := got.ReadFrom(one.c); err != nil || !bytes.Equal(got.Bytes(), sent) {
				t.Errorf("read %d of %d: %v", got.Len(), len(sent), err)
			}
		})
	}
	all.Wait()
}

// A call that the scheduler is not told of must be short, or a client that asks for much would stop everybody.
func TestCallsAreShort(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	near, far := pair(t)
	go func() { _, _ = near.Write(make([]byte, 4*most)) }() // ends with the connection
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4*most)
	read := func(fd uintptr) bool {
		n, err := socket.Read(fd, p)
		if n > most || err != nil && err != syscall.EAGAIN {
			t.Errorf("%d bytes read at once, %v", n, err)
		}
		return err != syscall.EAGAIN
	}
	write := func(fd uintptr) bool {
		if n, err := socket.Write(fd, p); n > most || err != nil {
			t.Errorf("%d bytes written at once, %v", n, err)
		}
		return true
	}
	if err := errors.Join(raw.Read(read), raw.Write(write)); err != nil {
		t.Error(err)
	}
}

// A deadline, and closing, end a read that waits, and one that has passed ends reads and writes that do not: or a slow client would hold a
// goroutine for ever.
func TestDeadlinesAndClosing(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	c := socket.New(near)
	p := make([]byte, 10)
	_ = near.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that waits: %v", err)
	}
	if _, err := far.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	_ = near.SetDeadline(time.Unix(1, 0))
	if _, err := c.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after the deadline: %v", err)
	}
	if _, err := c.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after the deadline: %v", err)
	}
	_ = near.SetDeadline(time.Time{})
	if n, err := c.Read(p); err != nil || string(p[:n]) != "late" {
		t.Errorf("after the deadline was lifted: %q, %v", p[:n], err)
	}
	ended := make(chan error)
	go func() {
		_, err := c.Read(p)
		ended <- err
	}()
	_ = near.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read on a connection that is closed: %v", err)
	}
	if _, err := c.Write(p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write on a connection that is closed: %v", err)
	}
}

// The end of the stream is io.EOF, and a connection that was reset is an error as package net has it.
func TestEnds(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	c := socket.New(near)
	_ = far.CloseWrite()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the end: %d, %v", n, err)
	}
	near, far = pair(t)
	c = socket.New(near)
	_ = far.SetLinger(0)
	_ = far.Close()
	_, err := c.Read(make([]byte, 1))
	if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "read" || e.Addr == nil {
		t.Errorf("a reset: %v", err)
	}
	for range 10 { // the first may still go into the socket
		if _, err = c.Write([]byte("x")); err != nil {
			break
		}
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("a write after a reset: %v", err)
	}
}
