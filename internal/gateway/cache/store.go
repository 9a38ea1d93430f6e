package cache

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Store keeps answers. Routes share one, which lives as long as the process. It is safe for concurrent use.
type Store struct {
	resources *otter.Cache[string, *resource]
	// epochs count the changes of resources, several of which share a counter: an answer that was asked for before the last change
	// is not given out any more.
	epochs [1 << 12]atomic.Uint64
	// alone says, in Unix nanoseconds, until when requests for resources whose answers cannot be kept do not wait for each other.
	alone [1 << 12]atomic.Int64
	seed  maphash.Seed

	mu      sync.Mutex
	flights map[string]*flight
	group   sync.WaitGroup // of revalidations that nobody waits for
}

// resource is the answers to one key: variants, the latest first. It does not change.
type resource struct{ variants []*entry }

// maxVariants bounds the variants of a resource.
const maxVariants = 16

// NewStore returns a store that keeps at most so many bytes.
func NewStore(bytes int64) (*Store, error) {
	resources, err := otter.New(&otter.Options[string, *resource]{
		MaximumWeight: uint64(bytes),
		Weigher: func(key string, r *resource) uint32 {
			n := len(key) + 128
			for _, e := range r.variants {
				n += e.size()
			}
			return uint32(min(n, math.MaxUint32))
		},
		Executor: func(work func()) { work() },
	})
	if err != nil {
		return nil, err
	}
	return &Store{resources: resources, seed: maphash.MakeSeed(), flights: map[string]*flight{}}, nil
}

// Wait returns when no revalidation is under way.
func (s *Store) Wait() { s.group.Wait() }

// epoch counts the changes of a resource, named by host, path and query.
func (s *Store) epoch(uri string) *atomic.Uint64 {
	return &s.epochs[maphash.String(s.seed, uri)%uint64(len(s.epochs))]
}

// rest is how long it is believed that an answer cannot be kept.
const rest = 10 * time.Second

// hurry notes that to wait for the answer to a key was in vain.
func (s *Store) hurry(key string, now time.Time) {
	s.alone[maphash.String(s.seed, key)%uint64(len(s.alone))].Store(now.Add(rest).UnixNano())
}

// hurries reports whether to wait is believed to be in vain.
func (s *Store) hurries(key string, now time.Time) bool {
	return now.UnixNano() < s.alone[maphash.String(s.seed, key)%uint64(len(s.alone))].Load()
}

// find returns the answer to a request, fresh or stale. known is false where there is none to any request like it.
func (s *Store) find(r *request) (e *entry, known bool) {
	res, known := s.resources.GetIfPresent(r.key)
	if !known {
		return nil, false
	}
	for _, e := range res.variants {
		if e.matches(r) {
			return e, true
		}
	}
	return nil, true
}

// put keeps an answer in the place of its like.
func (s *Store) put(key string, e *entry) {
	s.resources.Compute(key, func(old *resource, found bool) (*resource, otter.ComputeOp) {
		next := &resource{variants: []*entry{e}}
		if found {
			for _, other := range old.variants {
				if len(next.variants) < maxVariants && other.epoch == e.epoch && !other.sameVariant(e) {
					next.variants = append(next.variants, other)
				}
			}
		}
		return next, otter.WriteOp
	})
}

// flight is a request for something that others want as well.
type flight struct {
	landed chan struct{} // closed when there is a result
	once   sync.Once
	// got is the answer where it may be kept; err is the failure that holds for all. Neither: everybody asks for themselves.
	got *entry
	err error
}

// land tells the others. Only the first call counts.
func (f *flight) land(got *entry, err error) {
	f.once.Do(func() {
		f.got, f.err = got, err
		close(f.landed)
	})
}

// join returns the flight for a key, and whether the caller is the one who asks.
func (s *Store) join(key string) (f *flight, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.flights[key]; f != nil {
		return f, false
	}
	f = &flight{landed: make(chan struct{})}
	s.flights[key] = f
	return f, true
}

// leave ends a flight, at the latest without a result.
func (s *Store) leave(key string, f *flight) {
	f.land(nil, nil)
	s.mu.Lock()
	delete(s.flights, key)
	s.mu.Unlock()
}
