package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	// publishWithin and subscribeWithin bound what the caller's context does not.
	publishWithin   = time.Second
	subscribeWithin = 5 * time.Second
)

// link is what NATS and Redis differ in. It hands frames that arrive to bus.receive, on any goroutine.
type link interface {
	// send hands a frame over without waiting for the network. Frames on one channel that are handed over one after another
	// leave in that order. What became of it arrives in done, unless done is nil.
	send(channel string, data []byte) (done <-chan error, err error)
	// listen subscribes, and returns once the server has confirmed it.
	listen(ctx context.Context, channel string) error
	// unlisten undoes listen. It may fail in silence: frames that nobody subscribed to are dropped.
	unlisten(ctx context.Context, channel string)
}

// bus is what NATS and Redis have in common.
type bus struct {
	prefix  string
	clock   func() time.Time
	log     *slog.Logger
	metrics *metrics
	link    link
	began   time.Time
	streams streams

	changing sync.Mutex // one subscription is made or ended at a time
	mu       sync.RWMutex
	topics   map[string]*topic // by channel
	closed   bool

	stopBeats context.CancelFunc
	running   sync.WaitGroup
}

func newBus(cfg Config, deps Deps) (*bus, error) {
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	return &bus{
		prefix: cfg.Prefix + ".", clock: deps.Clock, log: deps.Log, metrics: m, began: deps.Clock(),
		streams: streams{byChannel: map[string]*stream{}}, topics: map[string]*topic{},
	}, nil
}

// start begins to send beats.
func (b *bus) start(l link) {
	b.link = l
	ctx, cancel := context.WithCancel(context.Background())
	b.stopBeats = cancel
	b.running.Go(func() { b.keepBeating(ctx) })
}

func (b *bus) uptime() time.Duration { return b.clock().Sub(b.began) }

// Publish sends a message to every present subscriber of the subject, this node's included. It returns once the message is
// handed over, which is no proof that it arrived, or within a second ErrUnavailable. A message that was not handed over, or
// of which that is not known, is a gap to its subscribers as soon as they can be told, so the publisher need not try again.
//
// A subject is made of words of a-z, 0-9, _ and - with dots between them (ErrSubject); the payload has at most MaxPayload bytes
// (ErrTooLarge) and may be reused afterwards. Messages that one goroutine publishes keep their order.
func (b *bus) Publish(ctx context.Context, subject string, payload []byte) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	if len(payload) > MaxPayload {
		return ErrTooLarge.Wrap(fmt.Errorf("%s: %d bytes", subject, len(payload)))
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	b.mu.RLock()
	closed := b.closed
	b.mu.RUnlock()
	if closed {
		return ErrUnavailable.Wrap(errClosed)
	}
	bounded, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	done, err := b.streams.of(b.prefix+subject).publish(b, payload)
	if err == nil {
		err = await(bounded, done)
	}
	if err == nil {
		b.metrics.published.Inc()
		return nil
	}
	b.metrics.failed.Inc()
	if ctx.Err() != nil {
		return fmt.Errorf("publish: %w", ctx.Err())
	}
	return ErrUnavailable.Wrap(fmt.Errorf("publish: %w", err))
}

var errClosed = errors.New("it is closed")

// Subscribe calls message for every message on the subject from now on, and gap when some may have been missed. Whoever must
// not miss anything reads the whole once Subscribe has returned, and again at every gap. It fails with ErrUnavailable when the
// server cannot be asked; later interruptions mend themselves and are gaps.
//
// The handlers of one subscription are called one after the other, a gap in its place among the messages, and must not block
// for long: a subscriber that falls behind by more than 4096 messages or 4 MiB loses the newest, which is a gap. A payload may
// be kept and must not be changed. A panic is logged and survived.
//
// stop ends the subscription: once it has returned, no handler is running and none is called. It must not be called by a
// handler, for which it would wait. It may be called twice.
func (b *bus) Subscribe(ctx context.Context, subject string, message func(payload []byte), gap func()) (stop func(), err error) {
	if err := checkSubject(subject); err != nil {
		return nil, err
	}
	channel := b.prefix + subject
	s := newSubscription(message, gap, func(call func()) { b.guard(subject, call) })
	b.changing.Lock()
	defer b.changing.Unlock()
	if err := b.join(ctx, channel, s); err != nil {
		return nil, err
	}
	b.running.Go(s.deliver)
	return sync.OnceFunc(func() {
		s.end()
		b.leave(channel, s)
		<-s.done
	}), nil
}

// join adds a subscription to its topic, which it makes if need be.
func (b *bus) join(ctx context.Context, channel string, s *subscription) error {
	b.mu.Lock()
	t, known := b.topics[channel]
	closed := b.closed
	if !known && !closed {
		t = &topic{owed: b.clock(), seen: map[uint64]heard{}}
		b.topics[channel] = t
	}
	b.mu.Unlock()
	if closed {
		return ErrUnavailable.Wrap(errClosed)
	}
	t.mu.Lock()
	t.subs = append(t.subs, s)
	t.mu.Unlock()
	if known {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, subscribeWithin)
	defer cancel()
	err := b.link.listen(bounded, channel)
	if err == nil {
		return nil
	}
	b.mu.Lock()
	delete(b.topics, channel)
	b.mu.Unlock()
	if ctx.Err() != nil {
		return fmt.Errorf("subscribe: %w", ctx.Err())
	}
	return ErrUnavailable.Wrap(fmt.Errorf("subscribe: %w", err))
}

// leave removes a subscription, and its topic with the last one.
func (b *bus) leave(channel string, s *subscription) {
	b.changing.Lock()
	defer b.changing.Unlock()
	b.mu.Lock()
	t := b.topics[channel]
	b.mu.Unlock()
	if t == nil {
		return // the bus has been closed
	}
	t.mu.Lock()
	t.subs = slices.DeleteFunc(t.subs, func(other *subscription) bool { return other == s })
	last := len(t.subs) == 0
	t.mu.Unlock()
	if !last {
		return
	}
	b.mu.Lock()
	delete(b.topics, channel)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), subscribeWithin)
	defer cancel()
	b.link.unlisten(ctx, channel)
}

// receive takes a frame that arrived. It does not block, and keeps data.
func (b *bus) receive(channel string, data []byte) {
	b.mu.RLock()
	t := b.topics[channel]
	b.mu.RUnlock()
	if t == nil {
		return
	}
	f, err := parseFrame(data)
	if err != nil {
		b.metrics.unreadable.Inc()
		return
	}
	message, gaps := t.take(f, b.clock())
	if message {
		b.metrics.received.Inc()
	}
	b.countGaps(gapMissing, gaps)
}

// interrupted tells every subscriber that it may have missed something. The link calls it once it listens again.
func (b *bus) interrupted() {
	b.mu.RLock()
	defer b.mu.RUnlock()
	now := b.clock()
	for _, t := range b.topics {
		t.mu.Lock()
		told := t.gap(now)
		t.mu.Unlock()
		b.countGaps(gapConnection, told)
	}
}

// overrun tells the subscribers of one channel.
func (b *bus) overrun(channel string) {
	b.mu.RLock()
	t := b.topics[channel]
	b.mu.RUnlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	told := t.gap(b.clock())
	t.mu.Unlock()
	b.countGaps(gapMissing, told)
}

func (b *bus) countGaps(cause string, n int) {
	if n > 0 {
		b.metrics.gaps.WithLabelValues(cause).Add(float64(n))
	}
}

// guard calls a handler. What it does wrong is its own loss.
func (b *bus) guard(subject string, call func()) {
	defer func() {
		if p := recover(); p != nil {
			b.metrics.panics.Inc()
			b.log.Error("subscriber panicked", "subject", subject, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	call()
}

// end stops the beats and every subscription, and waits for handlers that are running.
func (b *bus) end() {
	b.changing.Lock() // whoever is subscribing has either finished or will be refused
	b.mu.Lock()
	b.closed = true
	topics := b.topics
	b.topics = map[string]*topic{}
	b.mu.Unlock()
	b.changing.Unlock()
	for _, t := range topics {
		t.mu.Lock()
		for _, s := range t.subs {
			s.end()
		}
		t.mu.Unlock()
	}
	b.stopBeats()
	b.running.Wait()
}

// connection notes whether this node can be reached, and logs the changes.
func (b *bus) connection(up bool, name string, cause error) {
	if up {
		b.metrics.connected.Set(1)
		b.log.Info("nodes can be reached again", "through", name)
		return
	}
	b.metrics.connected.Set(0)
	b.log.Warn("other nodes cannot be reached; trying again", "through", name, "error", cause)
}
