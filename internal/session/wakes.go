package session

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// Wakes carries word between nodes that the feed has grown. It is a hint: whatever it loses, the next poll finds.
type Wakes interface {
	// Publish sends a message to every node that has subscribed, this one included.
	Publish(ctx context.Context, subject string, payload []byte) error
	// Subscribe calls message for each of them, and gap when some may have been missed, until stop has returned.
	Subscribe(ctx context.Context, subject string, message func(payload []byte), gap func()) (stop func(), err error)
}

const (
	wakeSubject = "session.revoked"
	// wakePause is the least time between two reads of the feed that wakes cause on a node, and between two wakes that a node
	// sends: under a storm of revocations one read finds many.
	wakePause = 5 * time.Millisecond
	// subscribeEvery is how soon a subscription that could not be made is tried again.
	subscribeEvery = time.Second
)

// wakes is a node's part in it.
type wakes struct {
	self string        // what it sends, so that it does not wake itself
	tell chan struct{} // that this node has written to the feed; of capacity 1
	read chan struct{} // that some node has; of capacity 1
}

func newWakes() wakes {
	return wakes{self: rand.Text(), tell: make(chan struct{}, 1), read: make(chan struct{}, 1)}
}

// grown has the other nodes told that this one has written to the feed, and has it read here, for who follows it from here. It
// does not wait: who revokes is not held up by it.
func (w wakes) grown() {
	signal(w.tell)
	signal(w.read)
}

// heard takes a wake.
func (w wakes) heard(payload []byte) {
	if string(payload) != w.self {
		signal(w.read)
	}
}

func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default: // whoever takes what is in there already will see this as well
	}
}

// exchangeWakes tells the other nodes and listens to them, and reads the feed at once when it has grown, until ctx ends.
func (s *Service) exchangeWakes(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		whenever(ctx, s.feed.wakes.read, func() {
			_ = s.follow(ctx) // where it fails, so does the poll, which says so
		})
	})
	if s.deps.Wakes != nil {
		wg.Go(func() {
			whenever(ctx, s.feed.wakes.tell, func() {
				// Where it fails, whoever carries it says so, and the other nodes poll.
				_ = s.deps.Wakes.Publish(ctx, wakeSubject, []byte(s.feed.wakes.self))
			})
		})
		wg.Go(func() { s.listenForWakes(ctx) })
	}
	wg.Wait()
}

// listenForWakes subscribes, as soon as that is possible, until ctx ends.
func (s *Service) listenForWakes(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		stop, err := s.deps.Wakes.Subscribe(ctx, wakeSubject, s.feed.wakes.heard, func() { signal(s.feed.wakes.read) })
		if err == nil {
			signal(s.feed.wakes.read) // for what came before
			<-ctx.Done()
			stop()
			return
		}
		if !told && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "no word of other nodes' revocations; polling", "every", pollEvery, "error", err)
			told = true
		}
		pause(ctx, subscribeEvery)
	}
}

// whenever runs do after every signal, with a pause in between, until ctx ends.
func whenever(ctx context.Context, signals <-chan struct{}, do func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			do()
			pause(ctx, wakePause)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
