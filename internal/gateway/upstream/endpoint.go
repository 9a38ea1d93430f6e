package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// endpoint is one address of a service. It outlives changes of the set it is in, for as long as it is in flight.
type endpoint struct {
	pool     *Pool
	address  address
	weight   int
	inFlight atomic.Int64
	down     atomic.Bool // by health checks
	outlier  outlier
	h2       *http.Transport // nil for HTTP/1.1

	mu      sync.Mutex
	idle    []*conn // the one used last is last
	removed bool    // no connection is kept any more
}

// address is where an endpoint listens.
type address struct {
	text    string // as configured
	network string // tcp or unix
	dial    string // host:port or path
	name    string // for TLS
	tls     bool
}

// parseAddress parses http://host:port, https://host:port or unix:/path.
func parseAddress(text string) (address, error) {
	a := address{text: text, network: "tcp"}
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		a.network, a.dial, a.name = "unix", path, "localhost"
		if !strings.HasPrefix(path, "/") {
			return a, errors.New("it is no absolute path; write it like unix:/run/app.sock")
		}
		return a, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return a, errors.New("it is no address of a service; write it like http://10.0.0.1:8080, https://app.internal or unix:/run/app.sock")
	}
	a.tls, a.name = u.Scheme == "https", u.Hostname()
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[a.tls]
	}
	a.dial = net.JoinHostPort(a.name, port)
	return a, nil
}

// connect returns a connection: an idle one, unless anew is asked for, or one that it makes.
func (e *endpoint) connect(ctx context.Context, p *Pool, anew bool) (*conn, *failure) {
	for !anew {
		c := e.takeIdle()
		if c == nil {
			break
		}
		if c.usable(p.cfg.Connections.IdleTimeout) {
			return c, nil
		}
		_ = c.Close()
		e.gone(c)
	}
	c, err := p.dialer.dial(ctx, e.address)
	if err != nil {
		f := classify(ctx, err)
		if f.reason != canceled && f.reason != timedOut {
			f.reason = unreachable
		}
		f.unsent = true
		return nil, f
	}
	p.metrics.opened.Inc()
	p.metrics.connections.Inc()
	return c, nil
}

func (e *endpoint) takeIdle() *conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.idle)
	if n == 0 {
		return nil
	}
	c := e.idle[n-1]
	e.idle[n-1] = nil
	e.idle = e.idle[:n-1]
	return c
}

// keep keeps a connection for the next exchange, unless there are enough of them or the endpoint has been removed.
func (e *endpoint) keep(c *conn) {
	e.mu.Lock()
	room := !e.removed && len(e.idle) < e.pool.cfg.Connections.MaxIdle
	if room {
		e.idle = append(e.idle, c)
	}
	e.mu.Unlock()
	if !room {
		_ = c.Close()
		e.gone(c)
	}
}

// gone notes that a connection has been closed.
func (e *endpoint) gone(*conn) { e.pool.metrics.connections.Dec() }

// closeIdle closes the connections that have not been used since.
func (e *endpoint) closeIdle(since time.Time) {
	e.mu.Lock()
	n, _ := slices.BinarySearchFunc(e.idle, since, func(c *conn, t time.Time) int { return c.idle.Compare(t) })
	old := slices.Clone(e.idle[:n])
	e.idle = slices.Delete(e.idle, 0, n)
	e.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
		e.gone(c)
	}
}

// remove lets what is in flight finish and keeps no connection after it.
func (e *endpoint) remove() {
	e.mu.Lock()
	e.removed = true
	e.mu.Unlock()
	e.closeIdle(time.Now().Add(time.Hour))
	if e.h2 != nil {
		e.h2.CloseIdleConnections()
	}
}

// note tells the passive health check how an exchange went.
func (e *endpoint) note(good bool) {
	if good {
		e.outlier.succeed()
		return
	}
	e.pool.metrics.attemptFailures.Inc()
	if e.outlier.fail(time.Now()) {
		e.pool.eject(e)
	}
}

// SetEndpoints replaces the endpoints. Those that stay keep their connections and what is known about them; those that go
// finish what is in flight. It fails, and changes nothing, when an endpoint is not valid.
func (p *Pool) SetEndpoints(list []Endpoint) error {
	if err := validateEndpoints(list); err != nil {
		return err
	}
	return p.endpoints.replace(func(before []*endpoint) ([]*endpoint, error) {
		after := make([]*endpoint, 0, len(list))
		for _, one := range list {
			a, err := parseAddress(one.URL)
			if err != nil {
				return nil, fmt.Errorf("endpoint %q: %w", one.URL, err)
			}
			i := slices.IndexFunc(before, func(e *endpoint) bool { return e.address == a && e.weight == max(1, one.Weight) })
			if i >= 0 {
				after = append(after, before[i])
				continue
			}
			e := &endpoint{pool: p, address: a, weight: max(1, one.Weight)}
			e.outlier.init(p.cfg.Health.Passive)
			if p.cfg.Protocol == ProtocolHTTP2 {
				e.h2 = newHTTP2(p.dialer, a, &p.cfg)
			}
			after = append(after, e)
		}
		return after, nil
	}, p.cfg.Balance)
}

// drain lets go of all connections that nobody uses.
func (p *Pool) drain() {
	for _, e := range p.endpoints.all() {
		e.remove()
	}
}
