package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A breaker opens after so many failures in a row, and stays open so long; then one attempt decides.
const (
	breakAfter = 5
	breakFor   = 10 * time.Second
)

// pool is a directory's own lane: so many connections at most, each used by one sign-in at a time.
type pool struct {
	cfg     Server
	tls     *tls.Config
	timeout time.Duration
	clock   func() time.Time
	log     *slog.Logger
	lane    chan struct{}
	idle    chan connection

	mu       sync.Mutex // guards what follows
	failures int
	closed   time.Time // when somebody may try again
	first    int       // the server to try first
}

// connection is one to a directory, and what is below it, whose deadline bounds every answer.
type connection struct {
	*ldap.Conn
	raw net.Conn
}

func newPool(cfg Server, t *tls.Config, timeout time.Duration, clock func() time.Time, log *slog.Logger) *pool {
	return &pool{cfg: cfg, tls: t, timeout: timeout, clock: clock, log: log,
		lane: make(chan struct{}, cfg.Connections), idle: make(chan connection, cfg.Connections)}
}

// with runs ask on a connection, until the context's deadline. A connection that was kept and turns out dead is replaced once.
func (p *pool) with(ctx context.Context, ask func(*ldap.Conn) error) error {
	if !p.admits() {
		return ErrUnavailable.Wrap(errors.New("it failed too often just now"))
	}
	select {
	case p.lane <- struct{}{}:
		defer func() { <-p.lane }()
	case <-ctx.Done():
		return ErrUnavailable.Wrap(errors.New("all connections are in use"))
	}
	// Who hangs up now says nothing about the directory, and must not count against it.
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	c, kept, err := p.get(ctx)
	if err == nil {
		err = p.use(ctx, c, ask)
		if kept && errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			if c, err = p.dial(ctx); err == nil {
				err = p.use(ctx, c, ask)
			}
		}
	}
	p.count(ctx, err)
	return err
}

func (p *pool) use(ctx context.Context, c connection, ask func(*ldap.Conn) error) error {
	deadline, _ := ctx.Deadline()
	if err := c.raw.SetDeadline(deadline); err != nil {
		c.Close()
		return ErrUnavailable.Wrap(err)
	}
	err := ask(c.Conn)
	if errors.Is(err, ErrUnavailable) || c.raw.SetDeadline(time.Time{}) != nil {
		c.Close()
		return err
	}
	select {
	case p.idle <- c:
	default:
		c.Close()
	}
	return err
}

// get returns a connection that was kept, or a new one.
func (p *pool) get(ctx context.Context) (c connection, kept bool, err error) {
	for {
		select {
		case c := <-p.idle:
			if !c.IsClosing() {
				return c, true, nil
			}
		default:
			c, err := p.dial(ctx)
			return c, false, err
		}
	}
}

// dial connects to the first server that answers, from the one that did last.
func (p *pool) dial(ctx context.Context) (connection, error) {
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	var errs []error
	n := len(p.cfg.URLs)
	for i := range n {
		c, err := p.dialOne(ctx, p.cfg.URLs[(first+i)%n], p.timeout/time.Duration(n))
		if err == nil {
			p.mu.Lock()
			p.first = (first + i) % n
			p.mu.Unlock()
			return c, nil
		}
		errs = append(errs, err)
	}
	return connection{}, ErrUnavailable.Wrap(errors.Join(errs...))
}

func (p *pool) dialOne(ctx context.Context, address string, patience time.Duration) (connection, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return connection{}, err
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return connection{}, err
	}
	t := p.tls.Clone()
	t.ServerName = host
	if u.Scheme == "ldaps" {
		encrypted := tls.Client(raw, t)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			raw.Close()
			return connection{}, err
		}
		return p.start(encrypted, raw, true), nil
	}
	c := p.start(raw, raw, false)
	if !p.cfg.StartTLS {
		return c, nil
	}
	deadline, _ := ctx.Deadline()
	if err = raw.SetDeadline(deadline); err == nil {
		err = c.StartTLS(t)
	}
	if err != nil {
		c.Close()
		return connection{}, err
	}
	return c, nil
}

func (p *pool) start(over, raw net.Conn, encrypted bool) connection {
	c := ldap.NewConn(over, encrypted)
	c.SetTimeout(p.timeout)
	c.Start()
	return connection{c, raw}
}

// close ends the connections that nobody uses.
func (p *pool) close() {
	for {
		select {
		case c := <-p.idle:
			c.Close()
		default:
			return
		}
	}
}

// admits reports whether the directory is to be asked.
func (p *pool) admits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failures < breakAfter {
		return true
	}
	now := p.clock()
	if now.Before(p.closed) {
		return false
	}
	p.closed = now.Add(breakFor) // for all but this one
	return true
}

// count notes how an attempt ended. After an outage the next server is tried first.
func (p *pool) count(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, ErrUnavailable) {
		p.failures = 0
		return
	}
	p.failures++
	p.first = (p.first + 1) % len(p.cfg.URLs)
	if p.failures == breakAfter {
		p.closed = p.clock().Add(breakFor)
		p.log.WarnContext(ctx, "a directory does not answer, and is left alone for a while", "directory", p.cfg.Name, "for", breakFor, "error", err)
	}
}
