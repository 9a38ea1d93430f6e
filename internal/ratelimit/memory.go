package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

const (
	shards = 64
	// maxKeys bounds the keys in memory, and with them the memory: some 10 MiB.
	maxKeys = 1 << 18
	// pruned is how many kept keys are looked at whenever a new one is added: more than one, so that expired keys go faster
	// than new ones come.
	pruned = 4
)

// Memory is a limiter that counts in this process. It is safe for concurrent use.
//
// It keeps keys as 64-bit hashes under a secret seed. When there are more keys than it has room for, those go that are
// nearest to their full burst.
type Memory struct {
	clock  func() time.Time
	seed   maphash.Seed
	room   int // keys in a shard
	shards [shards]shard
}

type shard struct {
	mu       sync.Mutex
	arrivals map[uint64]int64 // key to its theoretical arrival time, see pace.take
	_        [48]byte         // keeps neighbours out of each other's cache lines
}

// NewMemory makes a limiter that goes by the given clock.
func NewMemory(clock func() time.Time) *Memory {
	m := &Memory{clock: clock, seed: maphash.MakeSeed(), room: maxKeys / shards}
	for i := range m.shards {
		m.shards[i].arrivals = map[uint64]int64{}
	}
	return m
}

// Take implements Limiter.
func (m *Memory) Take(ctx context.Context, policy Policy, key string) (Verdict, error) {
	if err := ctx.Err(); err != nil {
		return Verdict{}, err
	}
	p, err := policy.pace()
	if err != nil {
		return Verdict{}, err
	}
	id := m.hash(policy.Name, key)
	now := m.clock().UnixMicro()
	s := &m.shards[id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	arrival, known := s.arrivals[id]
	next, ahead, allowed := p.take(arrival, now)
	if !known {
		s.makeRoom(now, m.room)
	}
	s.arrivals[id] = next
	return p.verdict(ahead, allowed), nil
}

// hash is the key of a key. The name's length keeps ("a", "bc") and ("ab", "c") apart.
func (m *Memory) hash(name, key string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	_ = h.WriteByte(byte(len(name)))
	_, _ = h.WriteString(name)
	_, _ = h.WriteString(key)
	return h.Sum64()
}

// makeRoom is called before a key is added. A map is iterated over from a random place, so that in time every key is looked
// at.
func (s *shard) makeRoom(now int64, room int) {
	var nearest uint64
	earliest, seen := int64(0), 0
	for id, arrival := range s.arrivals {
		if arrival <= now {
			delete(s.arrivals, id)
		} else if earliest == 0 || arrival < earliest {
			nearest, earliest = id, arrival
		}
		if seen++; seen == pruned {
			break
		}
	}
	if len(s.arrivals) >= room {
		delete(s.arrivals, nearest)
	}
}
