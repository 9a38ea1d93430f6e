package pubsub

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// The first beat follows this long after a message, each later one after twice as long.
	firstBeat = time.Second
	slowest   = time.Minute
	// maxStreams bounds on how many subjects a node keeps count of what it published. Beyond it the count of one that has been
	// quiet is forgotten: should its last message have been lost, nobody notices.
	maxStreams = 4096
)

// stream is what this node publishes on one subject. Its number is random, so that a restarted node is another publisher.
type stream struct {
	channel string
	id      uint64
	lastAt  atomic.Int64 // when the last message was sent, in nanoseconds since the bus began

	mu   sync.Mutex // held while a frame is numbered and handed over, so that numbers leave in order
	seq  uint64
	wait time.Duration // from the beat before to the next
	beat time.Duration // when the next one is due, since the bus began
}

// publish numbers a message and hands it to the link.
func (s *stream) publish(b *bus, payload []byte) (<-chan error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := b.uptime()
	quiet := now - time.Duration(s.lastAt.Swap(int64(now)))
	s.seq++
	s.wait = firstBeat
	s.beat = now + s.wait
	return b.link.send(s.channel, frame{kindMessage, s.id, s.seq, quiet, payload}.encode())
}

// repeat sends a beat if one is due.
func (s *stream) repeat(b *bus) (<-chan error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := b.uptime()
	if s.seq == 0 || now < s.beat {
		return nil, nil
	}
	s.wait = min(2*s.wait, slowest)
	s.beat = now + s.wait
	quiet := now - time.Duration(s.lastAt.Load())
	return b.link.send(s.channel, frame{kind: kindBeat, stream: s.id, seq: s.seq, quiet: quiet}.encode())
}

// hurry makes the beats begin anew: the last one did not leave.
func (s *stream) hurry(b *bus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = firstBeat
	s.beat = b.uptime() + s.wait
}

// streams is what this node publishes.
type streams struct {
	mu        sync.Mutex
	byChannel map[string]*stream
}

func (s *streams) of(channel string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byChannel[channel]
	if one == nil {
		if len(s.byChannel) >= maxStreams {
			s.forgetOne()
		}
		one = &stream{channel: channel, id: rand.Uint64()}
		s.byChannel[channel] = one
	}
	return one
}

// forgetOne removes the quietest of a few: a map is ranged over in random order.
func (s *streams) forgetOne() {
	const sample = 16
	quietest, at, seen := "", int64(math.MaxInt64), 0
	for channel, one := range s.byChannel {
		if t := one.lastAt.Load(); t < at {
			quietest, at = channel, t
		}
		if seen++; seen == sample {
			break
		}
	}
	delete(s.byChannel, quietest)
}

func (s *streams) all() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*stream, 0, len(s.byChannel))
	for _, one := range s.byChannel {
		list = append(list, one)
	}
	return list
}

// keepBeating sends the beats that are due, until ctx ends.
func (b *bus) keepBeating(ctx context.Context) {
	ticker := time.NewTicker(firstBeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.beatAll(ctx)
		}
	}
}

func (b *bus) beatAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	type sent struct {
		by   *stream
		done <-chan error
	}
	var waiting []sent
	for _, s := range b.streams.all() {
		done, err := s.repeat(b)
		if err != nil {
			s.hurry(b)
		} else if done != nil {
			waiting = append(waiting, sent{s, done})
		}
	}
	for _, w := range waiting {
		if await(ctx, w.done) != nil {
			w.by.hurry(b)
		}
	}
}

// await waits for what became of a frame.
func await(ctx context.Context, done <-chan error) error {
	if done == nil {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
