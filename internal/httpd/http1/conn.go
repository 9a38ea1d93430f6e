package http1

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd/socket"
)

const (
	inSize  = 8 << 10                // of the buffer that a head must fit into
	maxSkip = 256 << 10              // bytes of an unread body that are read so that the connection can be used again
	linger  = 500 * time.Millisecond // after the last answer, for a client that is sending
)

// past is the deadline that ends a read.
var past = time.Unix(1, 0)

// A connection is waiting for a request, serving one, or retired: nothing more begins on it.
const (
	waiting int32 = iota
	serving
	retired
)

// conn is a connection. Its own goroutine reads and serves one request after the other.
type conn struct {
	server *Server
	tcp    *net.TCPConn
	socket *socket.Conn // of tcp
	ctx    context.Context
	remote string
	state  atomic.Int32

	in              []byte // in[start:end] has been read and not been used
	start, end      int
	readBy, writeBy time.Time // deadlines of the socket
	watch           watch
}

func newConn(s *Server, tcp *net.TCPConn) *conn {
	c := &conn{server: s, tcp: tcp, socket: socket.New(tcp), remote: tcp.RemoteAddr().String(), in: make([]byte, inSize)}
	c.ctx = context.WithValue(s.base, http.LocalAddrContextKey, tcp.LocalAddr())
	c.watch.init(c)
	return c
}

// retire closes the connection if it waits for a request, and makes sure that none begins.
func (c *conn) retire() {
	if c.state.Swap(retired) == waiting {
		_ = c.tcp.Close()
	}
}

// serve ends with the connection, or when it has been handed over.
func (c *conn) serve() {
	odd := false // and net/http's
	defer func() {
		if !odd {
			_ = c.tcp.Close()
		}
		c.server.forget(c)
	}()
	patience := c.server.headTimeout // for the first request of a connection
	for posted := false; ; {
		head, came, err := c.readHead(patience)
		if err != nil {
			return
		}
		x := &response{conn: c}
		x.ctx.Context = c.ctx
		r := new(http.Request).WithContext(&x.ctx)
		if !parse(r, head) {
			odd = true
			c.handOver(posted)
			return
		}
		c.start += len(head)
		posted, patience = r.Method == http.MethodPost, c.server.idleTimeout
		if !c.answer(x, r, came) || !c.state.CompareAndSwap(serving, waiting) {
			return
		}
	}
}

// readHead reads as far as the end of a head. It returns "" where that is not plain: the buffer is too small for it, or a line ends
// in another way than in CRLF. came is when its first byte was seen.
func (c *conn) readHead(patience time.Duration) (head string, came time.Time, err error) {
	scanned := 0
	if c.start == c.end {
		c.start, c.end = 0, 0
		c.setReadBy(within(c.readBy, time.Now(), patience))
		if err := c.fill(); err != nil {
			return "", came, err
		}
	}
	if !c.state.CompareAndSwap(waiting, serving) {
		return "", came, net.ErrClosed
	}
	came = time.Now()
	for {
		text := c.in[c.start:c.end]
		if i := bytes.Index(text[scanned:], []byte("\r\n\r\n")); i >= 0 {
			return string(text[:scanned+i+4]), came, nil
		}
		if bareLF(text) {
			return "", came, nil
		}
		scanned = max(0, len(text)-3)
		if c.makeRoom(); c.end == len(c.in) {
			return "", came, nil
		}
		c.setReadBy(after(came, c.server.headTimeout))
		if err := c.fill(); err != nil {
			return "", came, err
		}
	}
}

func bareLF(text []byte) bool {
	return bytes.Count(text, []byte("\n")) != bytes.Count(text, []byte("\r\n"))
}

// makeRoom moves what has not been used to the front of a full buffer.
func (c *conn) makeRoom() {
	if c.start > 0 && c.end == len(c.in) {
		c.start, c.end = 0, copy(c.in, c.in[c.start:c.end])
	}
}

// fill reads once, behind what is there.
func (c *conn) fill() error {
	n, err := c.socket.Read(c.in[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// read reads what follows the head.
func (c *conn) read(p []byte) (int, error) {
	if c.start < c.end {
		n := copy(p, c.in[c.start:c.end])
		c.start += n
		return n, nil
	}
	return c.socket.Read(p)
}

// unread puts back a byte that came behind what is there. Its room is that of the head that has been used.
func (c *conn) unread(b byte) {
	c.makeRoom()
	c.in[c.end] = b
	c.end++
}

// after is the deadline d after from, which there is none of unless d is positive.
func after(from time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return from.Add(d)
}

// within is a deadline d after from, or up to an eighth later: by, which is set already, if it can be, as moving a deadline takes longer
// than comparing two.
func within(by, from time.Time, d time.Duration) time.Time {
	if d > 0 && !by.Before(from.Add(d)) && !by.After(from.Add(d+d/8)) {
		return by
	}
	return after(from, d+d/8)
}

func (c *conn) setReadBy(t time.Time) {
	if t != c.readBy {
		c.readBy = t
		_ = c.tcp.SetReadDeadline(t) // fails on a closed connection only, as reads do
	}
}

func (c *conn) setWriteBy(t time.Time) {
	if t != c.writeBy {
		c.writeBy = t
		_ = c.tcp.SetWriteDeadline(t)
	}
}

// handOver leaves the connection to net/http, which reads again what has been read here. It knows of no request before, behind which
// some clients send an empty line if it was a POST (RFC 9112, section 2.2).
func (c *conn) handOver(posted bool) {
	read := c.in[c.start:c.end]
	if posted {
		front := read[:min(len(read), 4)] // as much as net/http bears
		read = read[len(front)-len(bytes.TrimLeft(front, "\r\n")):]
	}
	_ = c.tcp.SetDeadline(time.Time{})
	c.server.rest.give(&resumed{TCPConn: c.tcp, read: bytes.Clone(read)})
}

// answer serves a request. It reports whether another one may follow.
func (c *conn) answer(x *response, r *http.Request, came time.Time) (again bool) {
	defer x.ctx.cancel()
	cfg := c.server.net
	c.setWriteBy(within(c.writeBy, came, cfg.WriteTimeout))
	r.RemoteAddr = c.remote
	x.header, x.head, x.close = make(http.Header, 8+moreFields), r.Method == http.MethodHead, r.Close
	x.body.conn, x.body.ctx, x.body.left = c, &x.ctx, r.ContentLength
	if r.ContentLength > 0 {
		r.Body = &x.body
		if int64(c.end-c.start) < r.ContentLength {
			c.setReadBy(after(came, cfg.ReadTimeout))
		}
	}
	room := buffers.Get().(*[outSize]byte)
	x.out = room[:0]
	defer func() { // also when the handler ends this goroutine
		x.release() // for those that it has left behind
		buffers.Put(room)
	}()
	if c.call(x, r) {
		return false
	}
	x.end()
	if !x.body.skip() {
		c.leave()
		return false
	}
	return !x.close && x.err == nil
}

// call runs the handler. A panic cuts the connection, and is reported unless that is all it means.
func (c *conn) call(x *response, r *http.Request) (panicked bool) {
	c.watch.begin(x)
	defer func() {
		c.watch.end()
		x.body.end()
		if r.MultipartForm != nil {
			_ = r.MultipartForm.RemoveAll()
		}
		if v := recover(); v != nil {
			panicked = true
			if v != http.ErrAbortHandler {
				c.server.net.ErrorLog.Printf("http: panic serving %s: %v\n%s", c.remote, v, debug.Stack())
			}
		}
	}()
	c.server.net.Handler.ServeHTTP(x, r)
	return false
}

// leave lets a client that is sending still read its answer, which closing the connection at once could destroy.
func (c *conn) leave() {
	_ = c.tcp.CloseWrite()
	_ = c.tcp.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.Copy(io.Discard, c.tcp)
}

// buffers are for answers, while their requests are being served.
var buffers = sync.Pool{New: func() any { return new([outSize]byte) }}

// resumed is a connection of which something has been read.
type resumed struct {
	*net.TCPConn
	read []byte
}

// Read implements io.Reader.
func (c *resumed) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		if c.read = c.read[n:]; len(c.read) == 0 {
			c.read = nil
		}
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo implements io.WriterTo.
func (c *resumed) WriteTo(w io.Writer) (n int64, err error) {
	if len(c.read) > 0 {
		wrote, err := w.Write(c.read)
		if c.read = c.read[wrote:]; err != nil {
			return int64(wrote), err
		}
		n = int64(wrote)
	}
	more, err := c.TCPConn.WriteTo(w)
	return n + more, err
}
