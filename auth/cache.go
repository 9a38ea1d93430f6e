package auth

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Cache remembers which tokens have been verified, so that a signature is checked once and not on every request. It decides how
// many, and for how long; it cannot make a token good: whatever it returns, the [Verifier] checks that it is this very token,
// within its lifetime, not revoked, and that its key is still published.
//
// Only tokens that passed verification are put in, so that strangers cannot push others' out. Methods are called by several
// goroutines at once.
type Cache interface {
	// Get returns what was put in for token, or nil.
	Get(token string, now time.Time) *Verified
	// Put keeps v for token if it likes. now is what the verifier's clock says.
	Put(token string, v *Verified, now time.Time)
}

// Verified is a token that a [Verifier] has verified. Only verifiers make them.
type Verified struct {
	verifier *Verifier
	token    string
	claims   *Claims
	key      Key
	who      revocable
	expires  time.Time // with leeway

	cleanAt atomic.Int64 // the revocation set's additions when the token was last looked for in it, plus one
	keySeen atomic.Int64 // Unix second at which its key was last found published
}

// Expires returns when the token stops being accepted. Keeping it longer is of no use.
func (v *Verified) Expires() time.Time { return v.expires }

// Eviction says which token a full [TokenCache] forgets for a new one.
type Eviction int

// The ways to choose. Tokens whose time is over always go first.
const (
	EvictLeastRecent Eviction = iota // the one whose last use is longest ago
	EvictOldest                      // the one that was put in first
	EvictSoonest                     // the one that expires first
)

const (
	defaultCacheSize = 1 << 14
	maxCacheSize     = 1 << 24
	ways             = 8
	useResolution    = 100 * time.Millisecond // uses closer together are one: a hot token's memory is not written each time
)

// CacheConfig bounds a [TokenCache].
type CacheConfig struct {
	// Size is how many tokens are kept. Zero: 16,384; it is rounded up to a power of two. An entry takes some 2 KB.
	Size int
	// TTL forgets a token so long after it was verified, even if it lives on. Zero: when it expires.
	TTL time.Duration
	// Idle forgets a token that has not been used for so long. Zero: never for that reason.
	Idle time.Duration
	// Evict chooses what makes room. Zero: the least recently used.
	Evict Eviction
}

// TokenCache is the [Cache] of this package. Reading takes no lock. A token may lie in either of two sets of eight, which a keyed
// hash of the whole of it chooses; a full pair makes room within itself, so that "least recently used" is of those sixteen.
// Tokens are compared whole.
type TokenCache struct {
	cfg  CacheConfig
	seed maphash.Seed
	mask uint64
	sets []cacheSet
	mu   sync.Mutex // writers
}

// cacheSet has a part of each slot's hash beside it, so that a look at the wrong slot does not touch its memory. A tag may
// belong to the slot before or after: it saves a look, and decides nothing.
type cacheSet struct {
	tags  [ways]atomic.Uint32
	slots [ways]atomic.Pointer[slot]
}

type slot struct {
	token string
	value *Verified
	put   time.Time
	used  atomic.Int64 // Unix nanoseconds
}

// NewTokenCache returns an empty cache. Sizes and times that make no sense are taken as zero, or as the largest possible.
func NewTokenCache(cfg CacheConfig) *TokenCache {
	if cfg.Size <= 0 {
		cfg.Size = defaultCacheSize
	}
	size := max(2*ways, 1<<bits.Len(uint(min(cfg.Size, maxCacheSize)-1)))
	return &TokenCache{cfg: cfg, seed: maphash.MakeSeed(), mask: uint64(size/ways - 1), sets: make([]cacheSet, size/ways)}
}

// place returns the two sets in which a token may lie, and its tag.
func (c *TokenCache) place(token string) (pair [2]*cacheSet, tag uint32) {
	hash := maphash.String(c.seed, token)
	first, second := hash&c.mask, hash>>24&c.mask
	if first == second {
		second ^= 1
	}
	return [2]*cacheSet{&c.sets[first], &c.sets[second]}, uint32(hash >> 32)
}

// Get is part of [Cache].
func (c *TokenCache) Get(token string, now time.Time) *Verified {
	pair, tag := c.place(token)
	for _, set := range pair {
		for i := range set.tags {
			if set.tags[i].Load() != tag {
				continue
			}
			s := set.slots[i].Load()
			if s == nil || s.token != token {
				continue
			}
			if c.over(s, now) {
				return nil
			}
			if n := now.UnixNano(); n-s.used.Load() > int64(useResolution) {
				s.used.Store(n)
			}
			return s.value
		}
	}
	return nil
}

// Put is part of [Cache].
func (c *TokenCache) Put(token string, v *Verified, now time.Time) {
	s := &slot{token: token, value: v, put: now}
	s.used.Store(now.UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, tag := c.place(token)
	set, i := c.room(pair, token, now)
	set.tags[i].Store(tag)
	set.slots[i].Store(s)
}

// room returns the slot for a token: the one where it lies, or the one that makes room first.
func (c *TokenCache) room(pair [2]*cacheSet, token string, now time.Time) (set *cacheSet, slot int) {
	first := int64(math.MaxInt64)
	for _, candidate := range pair {
		for i := range candidate.slots {
			old := candidate.slots[i].Load()
			if old != nil && old.token == token {
				return candidate, i
			}
			if rank := c.rank(old, now); rank < first {
				set, slot, first = candidate, i, rank
			}
		}
	}
	return set, slot
}

// Len returns how many tokens are in the cache, including those whose time is over.
func (c *TokenCache) Len() int {
	n := 0
	for i := range c.sets {
		for j := range c.sets[i].slots {
			if c.sets[i].slots[j].Load() != nil {
				n++
			}
		}
	}
	return n
}

func (c *TokenCache) over(s *slot, now time.Time) bool {
	return !now.Before(s.value.expires) ||
		c.cfg.TTL > 0 && now.Sub(s.put) >= c.cfg.TTL ||
		c.cfg.Idle > 0 && now.UnixNano()-s.used.Load() >= int64(c.cfg.Idle)
}

// rank orders who makes room: the lowest first.
func (c *TokenCache) rank(s *slot, now time.Time) int64 {
	switch {
	case s == nil:
		return math.MinInt64
	case c.over(s, now):
		return math.MinInt64 + 1
	case c.cfg.Evict == EvictOldest:
		return s.put.UnixNano()
	case c.cfg.Evict == EvictSoonest:
		return s.value.expires.UnixNano()
	}
	return s.used.Load()
}

// NoCache is the [Cache] that keeps nothing: every verification checks the signature.
type NoCache struct{}

// Get is part of [Cache].
func (NoCache) Get(string, time.Time) *Verified { return nil }

// Put is part of [Cache].
func (NoCache) Put(string, *Verified, time.Time) {}
