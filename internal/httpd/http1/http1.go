// Package http1 serves plain HTTP/1.1 requests, which nearly all of a gateway's are, for about half of what net/http takes for them,
// and leaves everything else to net/http.
//
// A request is plain when its head is complete within 8 KiB and there is one way to read it: an origin-form target, fields without
// continuation lines or strange bytes, exactly one Host, a body whose Content-Length tells its end, no Upgrade, Expect or
// Transfer-Encoding. On the first other request the connection goes to net/http, with what has been read of it, and stays there: what
// is odd, malformed or hostile is refused by a parser that the world has tested, and this package has nothing to interpret.
//
// It promises that handlers cannot tell the difference, but for four: Hijack is not supported, as nobody may upgrade a plain request; a
// client that leaves is noticed a tenth of a second after its request began, or two, or later; a deadline that passes ends the read, and not the
// context; and http.MaxBytesReader leaves it to the size of what is left of a body whether the connection closes. A response that is over
// refuses everything.
package http1

import (
	"cmp"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is an http.Server that serves plain requests of unencrypted connections itself.
type Server struct {
	net  *http.Server // settings, handler, and whoever serves what is not plain
	rest *handover
	base context.Context // of every request

	headTimeout, idleTimeout time.Duration

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	empty    chan struct{} // closed when draining and the last connection has gone
	draining atomic.Bool
}

// New returns a server with the handler and the settings of s, whose methods must not be called any more. Its hooks on connections hear
// of those only that net/http serves.
func New(s *http.Server) *Server {
	s.ErrorLog = cmp.Or(s.ErrorLog, log.Default())
	return &Server{
		net: s, conns: map[*conn]struct{}{}, empty: make(chan struct{}),
		headTimeout: cmp.Or(s.ReadHeaderTimeout, s.ReadTimeout), idleTimeout: cmp.Or(s.IdleTimeout, s.ReadTimeout),
	}
}

// Serve accepts connections until Shutdown or Close, and then returns http.ErrServerClosed. It must be called once.
func (s *Server) Serve(l net.Listener) error {
	s.base = context.Background()
	if s.net.BaseContext != nil {
		s.base = s.net.BaseContext(l)
	}
	s.base = context.WithValue(s.base, http.ServerContextKey, s.net)
	s.rest = newHandover(l.Addr())
	s.mu.Lock()
	s.listener = l
	over := s.draining.Load()
	s.mu.Unlock()
	if over {
		_ = l.Close()
		return http.ErrServerClosed
	}
	rest := make(chan error, 1)
	go func() { rest <- s.net.Serve(s.rest) }()
	err := s.accept(l)
	if !s.draining.Load() {
		_ = s.net.Close()
		<-rest
		return err
	}
	<-rest
	return http.ErrServerClosed
}

// accept starts to serve what comes. Running out of file descriptors passes.
func (s *Server) accept(l net.Listener) error {
	const least, most = 5 * time.Millisecond, time.Second
	for delay := least; ; {
		c, err := l.Accept()
		if err == nil {
			delay = least
			s.start(c)
			continue
		}
		if s.draining.Load() {
			return http.ErrServerClosed
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		s.net.ErrorLog.Printf("http: Accept error: %v; retrying in %v", err, delay)
		time.Sleep(delay)
		delay = min(2*delay, most)
	}
}

// start serves a connection, by its own goroutine.
func (s *Server) start(socket net.Conn) {
	tcp, ok := socket.(*net.TCPConn)
	if !ok {
		s.rest.give(socket)
		return
	}
	c := newConn(s, tcp)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		_ = tcp.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	go c.serve()
}

// forget is called once by every connection, when this package has done with it.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.draining.Load() && len(s.conns) == 0 {
		close(s.empty)
	}
}

// stop accepts nothing more, and closes the connections that wait for a request.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Swap(true) {
		return
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if len(s.conns) == 0 {
		close(s.empty)
	}
	for c := range s.conns {
		c.retire()
	}
}

// Shutdown stops to accept, closes idle connections, and waits until the requests in flight have been answered, or ctx ends: then
// it returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.net.SetKeepAlivesEnabled(false)
	s.stop()
	select {
	case <-s.empty: // from now on nothing is handed over
		return s.net.Shutdown(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts everything.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.tcp.Close()
	}
	s.mu.Unlock()
	return s.net.Close()
}

// handover is the listener from which net/http gets connections.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands a connection over, or closes it when nobody takes any more.
func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }
