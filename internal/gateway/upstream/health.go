package upstream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const warn = slog.LevelWarn

func attr(key, value string) slog.Attr { return slog.String(key, value) }

// run looks after the endpoints until ctx ends.
func (p *Pool) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { p.sweep(ctx) })
	for ctx.Err() == nil {
		changed := *p.endpoints.changed.Load()
		p.watch(ctx, p.endpoints.all(), changed)
	}
	return nil
}

// sweep closes idle connections.
func (p *Pool) sweep(ctx context.Context) {
	every := time.NewTicker(max(p.cfg.Connections.IdleTimeout/4, 10*time.Millisecond))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-every.C:
			for _, e := range p.endpoints.all() {
				e.closeIdle(now.Add(-p.cfg.Connections.IdleTimeout))
			}
		}
	}
}

// watch checks endpoints until they change or ctx ends.
func (p *Pool) watch(ctx context.Context, endpoints []*endpoint, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	if p.cfg.Health.Active.Path != "" {
		for _, e := range endpoints {
			all.Go(func() { p.check(ctx, e) })
		}
	}
	select {
	case <-changed:
	case <-ctx.Done():
	}
}

// check asks an endpoint again and again. It begins anywhere within an interval, so that not all are asked at once.
func (p *Pool) check(ctx context.Context, e *endpoint) {
	cfg := p.cfg.Health.Active
	wait := rand.N(cfg.Interval)
	var good, bad int
	for {
		if sleep(ctx, wait, time.Time{}) != nil {
			return
		}
		err := p.probe(ctx, e)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			good, bad = good+1, 0
			if good >= cfg.Healthy && e.down.CompareAndSwap(true, false) {
				p.log.InfoContext(ctx, "endpoint is back", "endpoint", e.address.text)
			}
		default:
			good, bad = 0, bad+1
			if bad >= cfg.Unhealthy && e.down.CompareAndSwap(false, true) {
				p.log.WarnContext(ctx, "endpoint is down", "endpoint", e.address.text, "error", err.Error())
			}
		}
		wait = cfg.Interval - cfg.Interval/10 + rand.N(cfg.Interval/5)
	}
}

// probe asks an endpoint how it is, on a connection of its own: that it accepts one is part of the answer.
func (p *Pool) probe(ctx context.Context, e *endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Health.Active.Timeout)
	defer cancel()
	host := p.cfg.Health.Active.Host
	if host == "" {
		host = e.address.name
	}
	status, err := 0, error(nil)
	if e.h2 != nil {
		status, err = e.probeHTTP2(ctx, p.cfg.Health.Active.Path, host)
	} else {
		status, err = p.probeHTTP1(ctx, e, host)
	}
	if err == nil && (status < 200 || status > 399) {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

func (p *Pool) probeHTTP1(ctx context.Context, e *endpoint, host string) (status int, err error) {
	c, err := p.dialer.dial(ctx, e.address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	c.wait.deadline = deadline
	defer context.AfterFunc(ctx, c.interrupt)()
	text := "GET " + p.cfg.Health.Active.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: sumun-health\r\nConnection: close\r\n\r\n"
	if _, err := c.write([]byte(text), c.wait); err != nil {
		return 0, err
	}
	block, err := c.readBlock(p.cfg.MaxHeader)
	if err == nil {
		err = parseHead(block, &c.in)
	}
	return c.in.status, err
}

func (e *endpoint) probeHTTP2(ctx context.Context, path, host string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url(path).String(), nil)
	if err != nil {
		return 0, err
	}
	r.URL, r.Host = e.url(path), host
	answer, err := e.h2.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	return answer.StatusCode, answer.Body.Close()
}
