package session

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// baggage is what a person takes along from one store to another: everything that a store knows and SQL's session_subjects
// does not. It has no marks: thefts are settled before the departure.
type baggage struct {
	sessions map[uuid.UUID]*carriedSession
	grants   map[uuid.UUID]*carriedGrant
}

func newBaggage() baggage {
	return baggage{sessions: map[uuid.UUID]*carriedSession{}, grants: map[uuid.UUID]*carriedGrant{}}
}

// closing is the end of a session or grant, and until when that is told to those who ask for it. The zero closing is of one
// that has not been ended.
type closing struct {
	at, keep time.Time
	reason   Reason
}

func (c closing) ended() bool { return c.reason != "" }

// carriedSessionCore is what a live session is in either store. What a new column or field says belongs here, or into
// carriedGrantCore; the tests of the move fail until it is.
type carriedSessionCore struct {
	class                           byte  // of its device
	seq                             int64 // intents at its start
	used, until, end, auth, created time.Time
	acr, client                     string
	amr                             []string
}

// carriedGrantCore is what a live grant is in either store.
type carriedGrantCore struct {
	generation                int64
	until, end, rotated, auth time.Time
	session                   uuid.UUID
	issuedEpoch               int64
	client, scope             string
	audience                  []string
}

// carriedSession is a session under way; of one that has been ended nothing counts but its closing and its cookie.
type carriedSession struct {
	carriedSessionCore
	device      Device
	cookieHash  []byte // as much as every store keeps; nil without cookie
	cookieUntil time.Time
	closing     closing
}

// carriedGrant is a grant under way; of one that has been ended nothing counts but its closing and its session.
type carriedGrant struct {
	carriedGrantCore
	device                    Device // of its last use
	thumbprint                string // of the key that it is bound to, or ""
	current, previous, sealed []byte // of hashes as much as every store keeps; nil where there is none
	closing                   closing
}

// living counts the sessions that have not been ended.
func (b baggage) living() (n int64) {
	for _, s := range b.sessions {
		if !s.closing.ended() {
			n++
		}
	}
	return n
}

// pack completes what SQL has no word for: a session is in use, and lives, as long as its cookie and its grants. What has expired
// stays behind, and so do the grants of a session that has been ended: it answers for them.
func (b baggage) pack(now time.Time) {
	for _, id := range slices.SortedFunc(maps.Keys(b.grants), func(x, y uuid.UUID) int { return bytes.Compare(y[:], x[:]) }) {
		g := b.grants[id]
		s := b.sessions[g.session]
		switch {
		case s == nil:
			delete(b.grants, id)
		case s.closing.ended():
			s.closing.keep = later(s.closing.keep, earlier(g.until, s.closing.at.Add(keepEnded)))
			delete(b.grants, id)
		case g.closing.ended():
			g.closing.keep = earlier(g.until, g.closing.at.Add(keepEnded))
		default:
			s.until, s.client = later(s.until, g.until), g.client // in the end that of the oldest grant
			if g.rotated.After(s.used) {
				s.used, s.device = g.rotated, g.device
			}
		}
	}
	maps.DeleteFunc(b.sessions, func(_ uuid.UUID, s *carriedSession) bool {
		if s.closing.ended() {
			return !s.closing.keep.After(now)
		}
		return !s.until.After(now) || !s.end.After(now)
	})
	maps.DeleteFunc(b.grants, func(_ uuid.UUID, g *carriedGrant) bool {
		return b.sessions[g.session] == nil || !g.until.After(now) || g.closing.ended() && !g.closing.keep.After(now)
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
