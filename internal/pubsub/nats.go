package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// natsTimeout bounds connecting to one server, and a write that does not get through.
	natsTimeout = 2 * time.Second
	// A connection that answers none of two pings is broken.
	natsPing = 5 * time.Second
	// Reconnecting begins after the first and slows down to the last, with a tenth of jitter.
	natsBackoffMin = 50 * time.Millisecond
	natsBackoffMax = 2 * time.Second
	// natsPending bounds what waits between the connection and the subscribers' own queues, which take it at once.
	natsPending = 8 << 20
)

// NATS is pub/sub over a NATS server, the embedded one or another. It is safe for concurrent use.
type NATS struct {
	*bus
	name   string
	server *server.Server // nil when it is another's
	conn   *nats.Conn

	mu   sync.Mutex
	subs map[string]*nats.Subscription // by channel
}

// OpenNATS starts the embedded server, if the configuration names no other, and connects. The caller closes it. An error says
// what an operator can do.
func OpenNATS(ctx context.Context, cfg Config, deps Deps) (_ *NATS, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &NATS{name: "the NATS inside this process", subs: map[string]*nats.Subscription{}}
	if n.bus, err = newBus(cfg, deps); err != nil {
		return nil, err
	}
	options, err := n.options(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.embedded() {
		var inMemory []nats.Option
		if n.server, inMemory, err = startServer(cfg.Cluster, deps.Log); err != nil {
			return nil, err
		}
		options = append(options, inMemory...)
	}
	n.conn, err = dial(ctx, cfg.URL.Reveal(), options)
	if err != nil {
		n.stopServer()
		return nil, n.explain(err)
	}
	n.metrics.connected.Set(1)
	n.bus.start(n)
	return n, nil
}

// dial connects, which knows no context.
func dial(ctx context.Context, url string, options []nats.Option) (*nats.Conn, error) {
	type result struct {
		conn *nats.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := nats.Connect(url, options...)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() { // ends when every server has been tried
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// options are how the connection behaves. Nothing is kept for later while there is none: it would arrive too late to matter,
// and subscribers learn of it by the gap.
func (n *NATS) options(cfg Config) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("sumun"), nats.Timeout(natsTimeout), nats.FlusherTimeout(natsTimeout),
		nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(natsBackoff), nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort(),
		nats.NoCallbacksAfterClientClose(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { n.connection(false, n.name, err) }),
		nats.ReconnectHandler(func(c *nats.Conn) { n.reconnected(c) }),
		nats.ClosedHandler(func(c *nats.Conn) { n.lost(c.LastError()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { n.failed(sub, err) }),
	}
	if cfg.embedded() {
		return options, nil
	}
	servers, err := parseURL(cfg.URL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("pubsub.url: %w", err)
	}
	n.name = hostNames(servers)
	if file := cfg.NATS.CredentialsFile; file != "" {
		options = append(options, nats.UserCredentials(file))
	}
	t, err := loadTLS("pubsub.nats", cfg.NATS.CAFile, cfg.NATS.CertFile, cfg.NATS.KeyFile)
	if err != nil {
		return nil, err
	}
	if t != nil {
		options = append(options, nats.Secure(t))
	}
	return options, nil
}

// natsBackoff is the wait before the nth round of attempts.
func natsBackoff(n int) time.Duration {
	wait := min(natsBackoffMax, natsBackoffMin<<min(max(n-1, 0), 10))
	return wait + rand.N(wait/10)
}

// Conn returns the connection, for others that speak NATS. It is not theirs to close.
func (n *NATS) Conn() *nats.Conn { return n.conn }

// Server returns the embedded server, nil when there is none. It is not the caller's to shut down.
func (n *NATS) Server() *server.Server { return n.server }

// Name says which NATS this is, for messages, without passwords.
func (n *NATS) Name() string { return n.name }

// Healthy reports whether the server answers, within a second. The error is ErrUnavailable.
func (n *NATS) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	if err := n.ask(ctx); err != nil {
		return ErrUnavailable.Wrap(n.explain(err))
	}
	return nil
}

// ask waits until the server has answered, and with it whatever was sent before. Without a connection it does not wait.
func (n *NATS) ask(ctx context.Context) error {
	if !n.conn.IsConnected() {
		return nats.ErrDisconnected
	}
	return n.conn.FlushWithContext(ctx)
}

// Close ends every subscription, waits for handlers that are running, lets what was published leave, and stops the embedded
// server.
func (n *NATS) Close() {
	n.bus.end()
	ctx, cancel := context.WithTimeout(context.Background(), publishWithin)
	defer cancel()
	_ = n.ask(ctx) // there may be no connection
	n.conn.Close()
	n.stopServer()
}

func (n *NATS) stopServer() {
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
}

func (n *NATS) send(channel string, data []byte) (<-chan error, error) {
	return nil, n.conn.Publish(channel, data)
}

func (n *NATS) listen(ctx context.Context, channel string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.conn.IsConnected() {
		return n.explain(nats.ErrDisconnected)
	}
	before := n.conn.LastError()
	sub, err := n.conn.Subscribe(channel, func(m *nats.Msg) { n.receive(m.Subject, m.Data) })
	if err != nil {
		return n.explain(err)
	}
	if err := sub.SetPendingLimits(-1, natsPending); err != nil {
		return errors.Join(err, sub.Unsubscribe())
	}
	// The server answers in order: a refusal has been seen when this has been answered.
	err = n.ask(ctx)
	if refused := n.conn.LastError(); err == nil && refused != before && errors.Is(refused, nats.ErrPermissionViolation) {
		err = refused
	}
	if err != nil {
		_ = sub.Unsubscribe() // the error to report is the first
		return n.explain(err)
	}
	n.subs[channel] = sub
	return nil
}

func (n *NATS) unlisten(_ context.Context, channel string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if sub := n.subs[channel]; sub != nil {
		_ = sub.Unsubscribe() // fails when the connection is closed, and all subscriptions with it
		delete(n.subs, channel)
	}
}

// reconnected runs when the client has sent its subscriptions again. Only after the server has answered does it know them.
func (n *NATS) reconnected(c *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), subscribeWithin)
	defer cancel()
	if err := c.FlushWithContext(ctx); err != nil {
		return // broken again; the next time will tell
	}
	n.connection(true, n.name, nil)
	n.interrupted()
}

// lost runs when the client has given up, which it does for what no waiting mends.
func (n *NATS) lost(err error) {
	n.metrics.connected.Set(0)
	n.log.Error("the connection to NATS is closed for good; restart this node", "through", n.name, "error", err)
}

// failed runs for what goes wrong beside a call.
func (n *NATS) failed(sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		n.overrun(sub.Subject)
		return
	}
	if errors.Is(err, nats.ErrPermissionViolation) {
		n.metrics.failed.Inc()
	}
	n.log.Error("NATS refuses", "through", n.name, "error", n.explain(err))
}

// explain says what an operator can do.
func (n *NATS) explain(err error) error {
	var network net.Error
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("pubsub: %s refuses: %w; check user, password or token in pubsub.url, or pubsub.nats.credentials_file", n.name, err)
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("pubsub: %s refuses: %w; let the user publish and subscribe to %s>", n.name, err, n.prefix)
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded):
		return fmt.Errorf("pubsub: %s does not answer: %w; check that it runs and that pubsub.url is right", n.name, err)
	}
	return fmt.Errorf("pubsub: %s: %w", n.name, err)
}
