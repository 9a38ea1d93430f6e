package auth

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
)

// RevocationKind is what a [Revocation] withdraws.
type RevocationKind string

// The kinds of revocation. Subject and client carry an epoch: tokens with a lower one are dead, tokens issued since
// live. The others are final.
const (
	RevokeSession RevocationKind = "session" // by sid
	RevokeGrant   RevocationKind = "grant"   // one client's share in a session, by the claim gid, or by [GrantID] where there is none
	RevokeToken   RevocationKind = "token"   // by jti
	RevokeSubject RevocationKind = "subject" // by sub and epoch
	RevokeClient  RevocationKind = "client"  // by client_id and client epoch
	RevokeKey     RevocationKind = "key"     // by kid
)

// Revocation withdraws something before its time.
type Revocation struct {
	Kind  RevocationKind
	ID    [32]byte // of [RevocationHash]
	Epoch int64    // subject and client only
	// Until is when the last token that this could concern is dead anyway.
	Until time.Time
}

// RevocationHash returns the id under which a revocation travels and is kept: SHA-256 of the kind, a zero byte and the
// id, so that a feed tells nobody who signed out.
func RevocationHash(kind RevocationKind, id string) [32]byte {
	var buffer [128]byte
	b := append(buffer[:0], kind...)
	b = append(b, 0)
	return sha256.Sum256(append(b, id...))
}

// GrantID names a client's grant within a session, as far as an access token shows it.
func GrantID(sessionID, clientID string) string { return sessionID + " " + clientID }

// revocable is everything by which one token could be revoked, hashed once.
type revocable struct {
	named [ownNames]revocableName
	n     int
	more  []revocableName // of clients that it came through
}

// ownNames is how many names a token has by itself.
const ownNames = 6

type revocableName struct {
	id    [32]byte
	epoch int64 // an entry of a higher one kills the token; -1 for final kinds, whose entries have 0
}

func newRevocable(c *Claims) (r revocable) {
	r.add(RevokeSubject, c.Subject, c.Epoch)
	if c.SessionID != "" {
		r.add(RevokeSession, c.SessionID, -1)
	}
	switch {
	case c.GrantID != "":
		r.add(RevokeGrant, c.GrantID, -1)
	case c.SessionID != "":
		r.add(RevokeGrant, GrantID(c.SessionID, c.ClientID), -1)
	}
	if c.ID != "" {
		r.add(RevokeToken, c.ID, -1)
	}
	r.add(RevokeClient, c.ClientID, c.ClientEpoch)
	r.add(RevokeKey, c.KeyID, -1)
	for _, party := range c.Through {
		r.more = append(r.more, revocableName{RevocationHash(RevokeClient, party.ClientID), party.ClientEpoch})
	}
	return r
}

func (r *revocable) add(kind RevocationKind, id string, epoch int64) {
	r.named[r.n].id, r.named[r.n].epoch = RevocationHash(kind, id), epoch
	r.n++
}

// RevocationSet is an exact set of revocations. Reading takes no lock and does not wait for writers; adding costs the
// same whatever the size of the set. Entries leave it once their time is over.
type RevocationSet struct {
	clock   func() time.Time
	entries sync.Map // [32]byte -> revoked
	size    atomic.Int64
	// additions grows after entries were added and before Add returns: a token that was not revoked at one number is not
	// revoked for as long as the number stays.
	additions atomic.Int64
	watchers  watchers

	mu      sync.Mutex           // writers
	buckets map[int64][][32]byte // ids by the minute after which they may go
	pruned  int64                // minute up to which buckets are empty
}

// revoked is the value of an entry. until is in Unix microseconds.
type revoked struct{ epoch, until int64 }

// NewRevocationSet returns an empty set. A nil clock is time.Now.
func NewRevocationSet(clock func() time.Time) *RevocationSet {
	if clock == nil {
		clock = time.Now
	}
	return &RevocationSet{clock: clock, buckets: make(map[int64][][32]byte)}
}

// Add puts revocations into the set. Adding one that is there already keeps the higher epoch and the later time, so
// that repeated and re-ordered deliveries do no harm. When Add returns, every later [RevocationSet.Revoked] sees them, and
// who watches what they concern is being told.
func (s *RevocationSet) Add(revocations ...Revocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	now := s.clock().UnixMicro()
	for _, r := range revocations {
		entry := revoked{epoch: r.Epoch, until: r.Until.UnixMicro()}
		if entry.until <= now {
			continue
		}
		filed := int64(-1)
		if old, there := s.entries.Load(r.ID); there {
			o := old.(revoked)
			filed = bucket(o.until)
			entry = revoked{epoch: max(o.epoch, entry.epoch), until: max(o.until, entry.until)}
		} else {
			s.size.Add(1)
		}
		s.entries.Store(r.ID, entry)
		if b := bucket(entry.until); b != filed {
			s.buckets[b] = append(s.buckets[b], r.ID)
		}
	}
	s.additions.Add(1)
	s.watchers.tell(s, revocations)
}

// Revoked reports whether a token with these claims has been revoked.
func (s *RevocationSet) Revoked(c *Claims) bool {
	if s.size.Load() == 0 {
		return false
	}
	r := newRevocable(c)
	return s.has(&r, s.clock())
}

// has reports whether a living entry concerns r.
func (s *RevocationSet) has(r *revocable, now time.Time) bool {
	if s.size.Load() == 0 {
		return false
	}
	for i := range r.named[:r.n] {
		if s.hasName(&r.named[i], now) {
			return true
		}
	}
	for i := range r.more {
		if s.hasName(&r.more[i], now) {
			return true
		}
	}
	return false
}

func (s *RevocationSet) hasName(name *revocableName, now time.Time) bool {
	value, there := s.entries.Load(name.id)
	if !there {
		return false
	}
	entry := value.(revoked)
	return name.epoch < entry.epoch && now.UnixMicro() < entry.until
}

// Len returns the number of entries, including those whose time ended within the last minute.
func (s *RevocationSet) Len() int { return int(s.size.Load()) }

// Prune drops the entries whose time is over. Add does it too; calling Prune now and then frees memory in a set to
// which nothing is added any more.
func (s *RevocationSet) Prune() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
}

// prune looks at the buckets once a minute, and only at ids in those that are over.
func (s *RevocationSet) prune() {
	now := s.clock()
	minute := bucket(now.UnixMicro()) - 1
	if minute <= s.pruned {
		return
	}
	s.pruned = minute
	for b, ids := range s.buckets {
		if b > minute {
			continue
		}
		for _, id := range ids {
			value, there := s.entries.Load(id)
			if there && value.(revoked).until <= now.UnixMicro() {
				s.entries.Delete(id)
				s.size.Add(-1)
			}
		}
		delete(s.buckets, b)
	}
}

func bucket(micros int64) int64 { return micros / time.Minute.Microseconds() }
