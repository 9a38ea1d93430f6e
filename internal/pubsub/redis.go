package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/internal/redisdb"
)

const (
	// Reconnecting begins after the first and slows down to the last, with a tenth of jitter.
	redisBackoffMin = 50 * time.Millisecond
	redisBackoffMax = 2 * time.Second
	// redisBatch bounds how many messages go to Redis at a time, redisQueue how many wait for their turn.
	redisBatch = 256
	redisQueue = 4096
)

// Redis is pub/sub over Redis: one connection of its own listens, and the shared ones publish. It is safe for concurrent use.
//
// On a Cluster a message reaches the subscribers of every node, and all messages on one channel go through the node that the
// channel's slot belongs to, which keeps their order. Redis disconnects a listener that does not read
// (client-output-buffer-limit pubsub), which is a gap.
//
// An ACL user needs +publish +subscribe +unsubscribe, and the channels &PREFIX.*.
type Redis struct {
	*bus
	db *redisdb.DB

	stop context.CancelFunc
	done chan struct{} // closed when the listening connection is

	deaf atomic.Pointer[error] // why this node does not listen, nil while it does; for those who do not wait for mu

	mu       sync.Mutex              // also held while the connection is made, or a subscription on it
	conn     rueidis.DedicatedClient // nil while there is none
	channels map[string]struct{}

	out     sync.Mutex
	queue   []outgoing
	writing bool
	closing bool
	writers sync.WaitGroup
}

// outgoing is a frame on its way to Redis.
type outgoing struct {
	channel, data string
	done          chan error // of capacity 1
}

// OpenRedis begins to listen. db is not closed with it, and must not be closed before it.
func OpenRedis(ctx context.Context, db *redisdb.DB, cfg Config, deps Deps) (*Redis, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, err := newBus(cfg, deps)
	if err != nil {
		return nil, err
	}
	r := &Redis{bus: b, db: db, done: make(chan struct{}), channels: map[string]struct{}{}}
	lost, hangUp, err := r.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("pubsub: %s: %w", db.Name(), err)
	}
	r.metrics.connected.Set(1)
	running, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.bus.start(r)
	go r.keepListening(running, lost, hangUp)
	return r, nil
}

// Name says which Redis this is, for messages, without a password.
func (r *Redis) Name() string { return r.db.Name() }

// Healthy reports whether Redis answers and this node listens. The error is ErrUnavailable.
func (r *Redis) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	if err := r.db.Ping(ctx); err != nil {
		return ErrUnavailable.Wrap(err)
	}
	if why := r.deaf.Load(); why != nil {
		return ErrUnavailable.Wrap(r.notListening(*why))
	}
	return nil
}

func (r *Redis) notListening(why error) error {
	return fmt.Errorf("%s: there is no connection that listens: %w", r.db.Name(), why)
}

// Close ends every subscription, waits for handlers that are running, and hangs up.
func (r *Redis) Close() {
	r.bus.end()
	r.out.Lock()
	r.closing = true
	r.out.Unlock()
	r.writers.Wait()
	r.stop()
	<-r.done
}

// connect makes a connection that listens to every channel. Whoever calls it hangs up, after an error is in lost or before.
func (r *Redis) connect(ctx context.Context) (lost <-chan error, hangUp func(), err error) {
	conn, release := r.db.Client().Dedicate()
	hangUp = func() {
		conn.Close() // not to be given to others: it is subscribed
		release()
	}
	lost = conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) { r.receive(m.Channel, []byte(m.Message)) },
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, subscribeWithin)
	defer cancel()
	err = conn.Do(ctx, conn.B().Ping().Build()).Error()
	for channel := range r.channels {
		if err == nil {
			err = conn.Do(ctx, conn.B().Subscribe().Channel(channel).Build()).Error()
		}
	}
	if err != nil {
		hangUp()
		return nil, nil, err
	}
	r.conn = conn
	r.deaf.Store(nil)
	return lost, hangUp, nil
}

// keepListening waits for the connection to break and makes another, until ctx ends.
func (r *Redis) keepListening(ctx context.Context, lost <-chan error, hangUp func()) {
	defer close(r.done)
	for {
		cause := errClosed
		select {
		case err := <-lost:
			cause = cmp.Or(err, io.EOF)
		case <-ctx.Done():
		}
		r.deaf.Store(&cause)
		r.mu.Lock()
		r.conn = nil
		r.mu.Unlock()
		hangUp()
		if ctx.Err() != nil {
			return
		}
		r.connection(false, r.db.Name(), cause)
		if lost, hangUp = r.reconnect(ctx); lost == nil {
			return
		}
		r.connection(true, r.db.Name(), nil)
		r.interrupted()
	}
}

// reconnect tries until it succeeds; when ctx ends first, lost is nil.
func (r *Redis) reconnect(ctx context.Context) (lost <-chan error, hangUp func()) {
	for wait := redisBackoffMin; ; wait = min(2*wait, redisBackoffMax) {
		lost, hangUp, err := r.connect(ctx)
		if err == nil {
			return lost, hangUp
		}
		r.deaf.Store(&err)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait + rand.N(wait/10)):
		}
	}
}

func (r *Redis) listen(ctx context.Context, channel string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		return r.notListening(*r.deaf.Load())
	}
	if err := r.conn.Do(ctx, r.conn.B().Subscribe().Channel(channel).Build()).Error(); err != nil {
		return fmt.Errorf("%s: %w", r.db.Name(), err)
	}
	r.channels[channel] = struct{}{}
	return nil
}

func (r *Redis) unlisten(ctx context.Context, channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.channels, channel)
	if r.conn != nil {
		_ = r.conn.Do(ctx, r.conn.B().Unsubscribe().Channel(channel).Build()).Error() // frames of no topic are dropped
	}
}

// send queues a frame. One goroutine at a time writes what is queued, all of it in one round trip: the order is kept, and many
// publishers do not wait for one another's answers.
func (r *Redis) send(channel string, data []byte) (<-chan error, error) {
	done := make(chan error, 1)
	r.out.Lock()
	defer r.out.Unlock()
	if r.closing {
		return nil, errClosed
	}
	if len(r.queue) >= redisQueue {
		return nil, errors.New("too many messages wait for Redis")
	}
	r.queue = append(r.queue, outgoing{channel, string(data), done})
	if !r.writing {
		r.writing = true
		r.writers.Go(r.write)
	}
	return done, nil
}

// write empties the queue.
func (r *Redis) write() {
	for {
		r.out.Lock()
		n := min(len(r.queue), redisBatch)
		batch := r.queue[:n:n]
		r.queue = r.queue[n:]
		if n == 0 {
			r.queue, r.writing = nil, false
			r.out.Unlock()
			return
		}
		r.out.Unlock()
		r.writeBatch(batch)
	}
}

func (r *Redis) writeBatch(batch []outgoing) {
	ctx, cancel := context.WithTimeout(context.Background(), publishWithin)
	defer cancel()
	client := r.db.Client()
	publishes := make([]rueidis.Completed, len(batch))
	for i, o := range batch {
		// As a key, the channel decides which node of a Cluster it goes through.
		publishes[i] = client.B().Arbitrary("PUBLISH").Keys(o.channel).Args(o.data).Build()
	}
	for i, result := range client.DoMulti(ctx, publishes...) {
		batch[i].done <- result.Error()
	}
}
