// Package replay owns that what may be used once is used once: DPoP proofs, client assertions, whatever a client names by an id
// and signs.
//
// It promises that of all who present an id within its time, at once or on different nodes, one is told that it is the first;
// that an answer is given only when the store has taken the id down; and that ids go away by themselves.
//
// It refuses to guess: while the store cannot be reached the answer is ErrUnavailable, and whoever asked accepts nothing.
//
// Redis may lose what it acknowledged last, in a failover or a crash without appendfsync always: then an id of the last
// moments could be used once more, by somebody who has all else that the request must bring. SQL loses nothing.
package replay

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// ErrUnavailable answers while nobody can say whether an id was used. The same request may come again, with a new id.
var ErrUnavailable = fault.New(fault.Unavailable, "replay.unavailable", "This cannot be checked right now. Please try again.").
	After(time.Second)

// Store remembers ids. *SQL and *Redis are stores.
type Store interface {
	// Once reports whether id is new, and remembers it for the time given: as long as it would be accepted elsewhere, by the
	// clock of any node. An error is ErrUnavailable, or that the context has ended.
	Once(ctx context.Context, id string, keep time.Duration) (first bool, err error)
}

// Scoped returns a store with ids of its own in another one.
func Scoped(s Store, name string) Store { return scope{s, name} }

type scope struct {
	store Store
	name  string
}

func (s scope) Once(ctx context.Context, id string, keep time.Duration) (bool, error) {
	return s.store.Once(ctx, s.name+"\x00"+id, keep)
}

// patience bounds an answer: whoever asks has a request in hand.
const patience = 2 * time.Second

// digest is what is kept of an id, which can be long and is anybody's choice.
func digest(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:]
}

// failed is what an error of the store means to who asked.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrUnavailable.Wrap(err)
}
