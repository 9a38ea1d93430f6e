package upstream

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	ringPoints = 100  // of an endpoint on the ring, per unit of weight
	ringLimit  = 1e5  // points in all
	loadFactor = 1.25 // an endpoint gets at most so many times its share under consistent hashing
)

// endpointSet is the endpoints of a pool. It is read without a lock and replaced as a whole.
type endpointSet struct {
	current atomic.Pointer[snapshot]
	mu      sync.Mutex // of whoever replaces it
	changed atomic.Pointer[chan struct{}]
}

// snapshot is one state of the set. It does not change but for turn.
type snapshot struct {
	endpoints []*endpoint
	balance   Balance
	weight    int         // of all
	order     []*endpoint // round-robin: every endpoint as often as it weighs, spread evenly
	ring      []point     // consistent hashing, ascending
	turn      atomic.Uint64
}

type point struct {
	hash uint64
	e    *endpoint
}

// visited is the endpoints that a request has been to.
type visited struct{ list []*endpoint }

func (v *visited) has(e *endpoint) bool { return slices.Contains(v.list, e) }

func (v *visited) add(e *endpoint) { v.list = append(v.list, e) }

func (s *endpointSet) all() []*endpoint { return s.current.Load().endpoints }

// replace swaps the set. Those who wait for a change are told.
func (s *endpointSet) replace(next func(before []*endpoint) ([]*endpoint, error), b Balance) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before []*endpoint
	if old := s.current.Load(); old != nil {
		before = old.endpoints
	}
	after, err := next(before)
	if err != nil {
		return err
	}
	s.current.Store(newSnapshot(after, b))
	for _, e := range before {
		if !slices.Contains(after, e) {
			e.remove()
		}
	}
	again := make(chan struct{})
	if waiting := s.changed.Swap(&again); waiting != nil {
		close(*waiting)
	}
	return nil
}

func newSnapshot(endpoints []*endpoint, b Balance) *snapshot {
	s := &snapshot{endpoints: endpoints, balance: b}
	for _, e := range endpoints {
		s.weight += e.weight
	}
	switch b {
	case BalanceHash:
		s.ring = newRing(endpoints, s.weight)
	case BalanceRoundRobin:
		s.order = interleave(endpoints, s.weight)
	}
	s.turn.Store(rand.Uint64N(1 << 32)) // many gateways do not all begin with the same endpoint
	return s
}

// interleave spreads endpoints evenly by weight, as nginx does ("smooth weighted round-robin").
func interleave(endpoints []*endpoint, weight int) []*endpoint {
	order := make([]*endpoint, 0, weight)
	credit := make([]int, len(endpoints))
	for range weight {
		best := 0
		for i, e := range endpoints {
			credit[i] += e.weight
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= weight
		order = append(order, endpoints[best])
	}
	return order
}

// newRing places endpoints on a ring by what they are called, so that a change moves no more keys than it must, on every
// gateway alike.
func newRing(endpoints []*endpoint, weight int) []point {
	each := ringPoints
	if weight*each > ringLimit {
		each = max(1, ringLimit/weight)
	}
	var ring []point
	for _, e := range endpoints {
		for i := range each * e.weight {
			ring = append(ring, point{hashText(e.address.text + "#" + strconv.Itoa(i)), e})
		}
	}
	slices.SortFunc(ring, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	return ring
}

func hashText(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// pick chooses an endpoint that is in use, preferably one that the request has not been to, and notes that it goes there now.
func (s *endpointSet) pick(key string, tried *visited, now time.Time) (*endpoint, bool) {
	set := s.current.Load()
	e := set.choose(key, func(e *endpoint) bool { return e.usable(now) && !tried.has(e) })
	if e == nil {
		e = set.choose(key, func(e *endpoint) bool { return e.usable(now) })
	}
	if e == nil {
		return nil, false
	}
	if len(set.endpoints) > 1 {
		tried.add(e)
	}
	return e, true
}

// usable reports whether requests go to e.
func (e *endpoint) usable(now time.Time) bool { return !e.down.Load() && !e.outlier.ejected(now) }

func (s *snapshot) choose(key string, may func(*endpoint) bool) *endpoint {
	switch {
	case len(s.endpoints) == 0:
		return nil
	case len(s.endpoints) == 1:
		if e := s.endpoints[0]; may(e) {
			return e
		}
		return nil
	case s.balance == BalanceLeastConnections:
		return s.leastBusy(may)
	case s.balance == BalanceHash:
		if key == "" {
			return s.leastBusy(may)
		}
		return s.byHash(key, may)
	}
	start := s.turn.Add(1)
	for i := range uint64(len(s.order)) {
		if e := s.order[(start+i)%uint64(len(s.order))]; may(e) {
			return e
		}
	}
	return nil
}

// leastBusy returns the endpoint with the least in flight by weight. It begins anywhere, so that equals share.
func (s *snapshot) leastBusy(may func(*endpoint) bool) (best *endpoint) {
	start := int(s.turn.Add(1) % uint64(len(s.endpoints)))
	var least int64
	for i := range s.endpoints {
		e := s.endpoints[(start+i)%len(s.endpoints)]
		if !may(e) {
			continue
		}
		busy := e.inFlight.Load()
		if best == nil || busy*int64(best.weight) < least*int64(e.weight) {
			best, least = e, busy
		}
	}
	return best
}

// byHash returns the endpoint after key on the ring that has less than its share of what is in flight ("Consistent Hashing with
// Bounded Loads", Mirrokni et al.).
func (s *snapshot) byHash(key string, may func(*endpoint) bool) (fallback *endpoint) {
	var total int64 = 1
	for _, e := range s.endpoints {
		total += e.inFlight.Load()
	}
	h := hashText(key)
	start, _ := slices.BinarySearchFunc(s.ring, h, func(p point, h uint64) int { return cmp.Compare(p.hash, h) })
	for i := range s.ring {
		e := s.ring[(start+i)%len(s.ring)].e
		if !may(e) {
			continue
		}
		if share := loadFactor * float64(total) * float64(e.weight) / float64(s.weight); float64(e.inFlight.Load()) < share {
			return e
		}
		if fallback == nil {
			fallback = e
		}
	}
	return fallback
}
