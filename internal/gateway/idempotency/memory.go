package idempotency

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// MaxMemory bounds what a Memory keeps, in bytes. When it is reached, new claims fail: to forget an answer early would let its
// request happen twice.
const MaxMemory = 64 << 20

// recordSize is what a record takes beside its answer, about.
const recordSize = 400

// Memory is a store for one process. What it knows ends with it.
type Memory struct {
	clock func() time.Time

	mu      sync.Mutex
	records map[string]*record
	expiry  expiries
	size    int
}

type record struct {
	id, holder, fingerprint string
	lease                   time.Time // how long its holder is believed to be alive
	expires                 time.Time
	answer                  []byte
	answered                bool
	place                   int // in expiry
}

// NewMemory returns an empty store.
func NewMemory(clock func() time.Time) *Memory {
	return &Memory{clock: clock, records: map[string]*record{}}
}

// Claim implements Store.
func (m *Memory) Claim(_ context.Context, c Claim) (Outcome, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	m.sweep(now)
	switch r := m.records[c.ID]; {
	case r == nil:
	case r.fingerprint != c.Fingerprint:
		return Differs, nil, nil
	case r.answered:
		return Answered, r.answer, nil
	case now.Before(r.lease):
		return InUse, nil, nil
	case !c.Repeat:
		return Unknown, nil, nil
	default:
		m.drop(r)
	}
	if m.size+recordSize > MaxMemory {
		return 0, nil, ErrUnavailable
	}
	r := &record{id: c.ID, holder: c.Holder, fingerprint: c.Fingerprint, lease: now.Add(c.Lease), expires: now.Add(c.Keep)}
	m.records[c.ID] = r
	heap.Push(&m.expiry, r)
	m.size += recordSize
	return Claimed, nil, nil
}

// Renew implements Store.
func (m *Memory) Renew(_ context.Context, c Claim, alive bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.held(c); r != nil {
		r.lease = time.Time{}
		if alive {
			r.lease = m.clock().Add(c.Lease)
		}
	}
	return nil
}

// Keep implements Store. What there is no room for counts as answered, without its answer.
func (m *Memory) Keep(_ context.Context, c Claim, answer []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.held(c)
	if r == nil {
		return nil
	}
	if m.size+len(answer) > MaxMemory {
		answer = nil
	}
	r.answered, r.answer, r.expires = true, answer, m.clock().Add(c.Keep)
	m.size += len(answer)
	heap.Fix(&m.expiry, r.place)
	return nil
}

// Release implements Store.
func (m *Memory) Release(_ context.Context, c Claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.held(c); r != nil {
		m.drop(r)
	}
	return nil
}

// held returns the record of a claim that is still its holder's.
func (m *Memory) held(c Claim) *record {
	if r := m.records[c.ID]; r != nil && r.holder == c.Holder && !r.answered {
		return r
	}
	return nil
}

func (m *Memory) drop(r *record) {
	delete(m.records, r.id)
	heap.Remove(&m.expiry, r.place)
	m.size -= recordSize + len(r.answer)
}

// sweep forgets what has expired.
func (m *Memory) sweep(now time.Time) {
	for len(m.expiry) > 0 && !now.Before(m.expiry[0].expires) {
		m.drop(m.expiry[0])
	}
}

// expiries are records, the first to expire first.
type expiries []*record

// Len implements sort.Interface.
func (e expiries) Len() int { return len(e) }

// Less implements sort.Interface.
func (e expiries) Less(i, j int) bool { return e[i].expires.Before(e[j].expires) }

// Swap implements sort.Interface.
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].place, e[j].place = i, j
}

// Push implements heap.Interface.
func (e *expiries) Push(x any) {
	r := x.(*record)
	r.place = len(*e)
	*e = append(*e, r)
}

// Pop implements heap.Interface.
func (e *expiries) Pop() any {
	last := len(*e) - 1
	r := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return r
}
