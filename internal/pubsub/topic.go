package pubsub

import (
	"sync"
	"time"
)

const (
	// A publisher that has not been heard of for so long, several beats, is gone.
	publisherGone = 3 * slowest
	// maxPublishers bounds how many are followed on a subject.
	maxPublishers = 4096
)

// topic is a subject that has subscribers on this node.
type topic struct {
	mu   sync.Mutex
	subs []*subscription
	// owed is since when messages are: the start of the subscription, or the last gap that was told of.
	owed time.Time
	// seen is what has been heard of each publisher.
	seen map[uint64]heard
}

type heard struct {
	seq uint64
	at  time.Time
}

// take follows a frame, and gives its message, if it is one and in its order, to the subscribers. It reports what it did.
func (t *topic) take(f frame, now time.Time) (message bool, gaps int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.seen[f.stream].seq
	before := f.seq // the last message that should have been seen by now
	if f.kind == kindMessage {
		before--
		if f.seq <= last {
			return false, 0 // late: its absence has been told of
		}
	}
	if !t.room(f.stream, now) || last < before && f.quiet <= now.Sub(t.owed) {
		gaps = t.gap(now)
	}
	t.seen[f.stream] = heard{max(last, f.seq), now}
	if f.kind == kindMessage {
		for _, s := range t.subs {
			gaps += s.push(f.payload)
		}
	}
	return f.kind == kindMessage, gaps
}

// room makes sure that one more publisher can be followed, and reports whether none had to be forgotten for it that may
// still be there.
func (t *topic) room(stream uint64, now time.Time) bool {
	if _, known := t.seen[stream]; known || len(t.seen) < maxPublishers {
		return true
	}
	for id, h := range t.seen {
		if now.Sub(h.at) > publisherGone {
			delete(t.seen, id)
		}
	}
	if len(t.seen) < maxPublishers {
		return true
	}
	clear(t.seen)
	return false
}

// gap tells the subscribers, and forgives what was missed so far. The caller holds the mutex.
func (t *topic) gap(now time.Time) (told int) {
	t.owed = now
	for _, s := range t.subs {
		s.miss()
	}
	return len(t.subs)
}
