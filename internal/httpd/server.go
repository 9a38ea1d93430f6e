package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

// Server serves one handler on one listener, and on a second one the challenges of an ACME authority where that is asked for.
type Server struct {
	cfg       Config
	handler   http.Handler
	log       *slog.Logger
	endpoints []*endpoint   // the main one first; empty before Listen
	draining  chan struct{} // closed when requests in flight are to finish
}

// endpoint is a bound listener and what serves it.
type endpoint struct {
	server   httpServer
	listener net.Listener
}

// httpServer is *http.Server, or what serves plain requests in front of it.
type httpServer interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
	Close() error
}

// encrypted is an http.Server that speaks TLS.
type encrypted struct{ *http.Server }

// Serve implements httpServer.
func (s encrypted) Serve(l net.Listener) error { return s.ServeTLS(l, "", "") }

// NewServer returns a server that is not listening yet. It fails only when cfg is not valid.
func NewServer(cfg Config, h http.Handler, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, handler: h, log: log, draining: make(chan struct{})}, nil
}

// Listen loads certificates and binds the addresses, so that mistakes show before anything is announced. Connections wait
// until Run. It must not be called twice.
func (s *Server) Listen(ctx context.Context) error {
	main := s.newHTTPServer(s.handler)
	var challenges http.Handler
	switch t := s.cfg.TLS; {
	case t.ACME.enabled():
		m := acmeManager(t.ACME)
		main.TLSConfig = m.TLSConfig()
		main.TLSConfig.MinVersion = tls.VersionTLS12
		challenges = m.HTTPHandler(nil)
	case t.Enabled():
		c, err := fileTLS(t, s.log)
		if err != nil {
			return err
		}
		main.TLSConfig = c
	}
	if main.TLSConfig != nil {
		s.cfg.TLS.ClientCertificates.ask(main.TLSConfig)
	}
	if err := s.bind(ctx, s.cfg.Listen, main); err != nil {
		return err
	}
	if s.cfg.TLS.ACME.HTTPListen == "" {
		return nil
	}
	return s.bind(ctx, s.cfg.TLS.ACME.HTTPListen, s.newHTTPServer(challenges))
}

func (s *Server) newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(serverLog{s.log.Handler()}, slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), drainingKey{}, s.draining)
		},
	}
}

type drainingKey struct{}

// Draining returns a channel that is closed when the server that got the request stops: what would last ends itself then, and
// its client finds another server. Outside of a Server it is nil, which never is.
func Draining(ctx context.Context) <-chan struct{} {
	draining, _ := ctx.Value(drainingKey{}).(chan struct{})
	return draining
}

// bind listens on address for server. When it fails, everything bound so far is closed.
func (s *Server) bind(ctx context.Context, address string, server *http.Server) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		for _, e := range s.endpoints {
			_ = e.listener.Close()
		}
		s.endpoints = nil
		return listenError(address, err)
	}
	e := &endpoint{listener: l, server: http1.New(server)}
	if server.TLSConfig != nil {
		e.server = encrypted{server}
	}
	s.endpoints = append(s.endpoints, e)
	return nil
}

// listenError says what to do about the usual reasons.
func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: another program uses this port; stop it, or choose another address", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not permitted; choose a port above 1023, or grant CAP_NET_BIND_SERVICE", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine does not have that address; choose one of its own, or 0.0.0.0", address)
	default:
		return fmt.Errorf("listen on %s: %w", address, err)
	}
}

// Addr returns the address the server is bound to, as host:port; "" before Listen.
func (s *Server) Addr() string {
	if len(s.endpoints) == 0 {
		return ""
	}
	return s.endpoints[0].listener.Addr().String()
}

// Close gives back what Listen has bound, where Run never came to it.
func (s *Server) Close() error {
	var errs []error
	for _, e := range s.endpoints {
		if err := e.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then accepts nothing more, lets requests in flight finish for at most ShutdownGrace, cuts those
// that remain, and returns nil. It listens first if Listen has not been called. An error means that a listener broke. It must
// not be called twice.
func (s *Server) Run(ctx context.Context) error {
	if len(s.endpoints) == 0 {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	served := make(chan error, len(s.endpoints))
	for _, e := range s.endpoints {
		go func() { served <- e.serve() }()
	}
	running := len(s.endpoints)
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-served:
		running--
	}
	s.shutdown(context.WithoutCancel(ctx))
	for ; running > 0; running-- {
		failure = errors.Join(failure, <-served)
	}
	return failure
}

func (e *endpoint) serve() error {
	err := e.server.Serve(e.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", e.listener.Addr(), err)
}

func (s *Server) shutdown(ctx context.Context) {
	close(s.draining)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownGrace)
	defer cancel()
	for _, e := range s.endpoints {
		if err := e.server.Shutdown(ctx); err != nil {
			s.log.WarnContext(ctx, "requests cut at shutdown", "listener", e.listener.Addr().String(), "error", err.Error())
			_ = e.server.Close()
		}
	}
}

// serverLog receives what net/http has to say. Failed handshakes are everyday noise on a public port.
type serverLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (h serverLog) Handle(ctx context.Context, r slog.Record) error {
	event := slog.NewRecord(r.Time, r.Level, "http server", 0)
	if strings.Contains(r.Message, "TLS handshake error") {
		event.Level = slog.LevelDebug
	}
	if !h.Enabled(ctx, event.Level) {
		return nil
	}
	event.AddAttrs(slog.String("error", r.Message))
	return h.Handler.Handle(ctx, event)
}
