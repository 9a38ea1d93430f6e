package pubsub

import (
	"sync"
)

// subscription is one subscriber's queue and the goroutine that empties it.
type subscription struct {
	message func(payload []byte)
	gap     func()
	guard   func(call func()) // survives a panic in a handler

	mu    sync.Mutex
	queue []item
	bytes int // of the payloads in queue
	ended bool
	wake  chan struct{} // of capacity 1
	done  chan struct{} // closed when the goroutine has ended
}

// item is a message, or a gap in its place among them.
type item struct {
	payload []byte
	gap     bool
}

func newSubscription(message func([]byte), gap func(), guard func(func())) *subscription {
	return &subscription{
		message: message, gap: gap, guard: guard, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// push queues a message. When the queue is full the message is lost, and a gap takes its place: it returns how many gaps that
// makes.
func (s *subscription) push(payload []byte) (gaps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxPending || s.bytes+len(payload) > maxPendingBytes {
		if s.append(item{gap: true}) {
			return 1
		}
		return 0
	}
	s.bytes += len(payload)
	s.append(item{payload: payload})
	return 0
}

// miss queues a gap.
func (s *subscription) miss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(item{gap: true})
}

// append queues an item, unless it is a gap right after another. The caller holds the mutex.
func (s *subscription) append(i item) bool {
	if n := len(s.queue); s.ended || i.gap && n > 0 && s.queue[n-1].gap {
		return false
	}
	s.queue = append(s.queue, i)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// deliver calls the handlers, one item at a time, until the subscription ends.
func (s *subscription) deliver() {
	defer close(s.done)
	for {
		i, more := s.next()
		if !more {
			return
		}
		if i.gap {
			s.guard(s.gap)
		} else {
			s.guard(func() { s.message(i.payload) })
		}
	}
}

// next waits for an item. It returns false once the subscription has ended.
func (s *subscription) next() (item, bool) {
	for {
		s.mu.Lock()
		if s.ended {
			s.mu.Unlock()
			return item{}, false
		}
		if len(s.queue) > 0 {
			i := s.queue[0]
			s.queue[0] = item{} // so that it can be collected
			s.queue = s.queue[1:]
			s.bytes -= len(i.payload)
			s.mu.Unlock()
			return i, true
		}
		s.mu.Unlock()
		<-s.wake
	}
}

// end drops what is queued.
func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.queue = true, nil
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
