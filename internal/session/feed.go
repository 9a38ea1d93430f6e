package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	raiseFeed = `UPDATE revocation_feed SET seq = seq + $1 WHERE id = 1
		RETURNING seq, COALESCE(CAST($2 AS BIGINT), (SELECT now FROM session_clock))`
	// The last entry seen is read again: if it is no longer there, or is another one, the database is not the one it was.
	readFeed = `SELECT seq, kind, hash, epoch, keep_until FROM revocations WHERE seq >= $1 ORDER BY seq`
)

// pollEvery is how soon a node learns what another has revoked, when nobody wakes it.
const pollEvery = 250 * time.Millisecond

// feedInsert is how many entries one statement writes. Databases bound the parameters of a statement, and SQLite looks for each
// among all before it.
const feedInsert = 100

// A revocation must be kept until the last access token that it could concern is dead everywhere. Say that it is written at t by
// the clock of the database. The last such token was issued by a node whose clock was up to maxSkew ahead, to a request that had
// read the session before and was answered up to slowAnswer later, so it expires by t + slowAnswer + maxSkew + its lifetime. A
// verifier accepts it for its leeway longer, and if its clock is behind, for maxSkew more. It may start so late, and read the feed
// from a node that forgets by its own clock, maxSkew early. So the invariant is
//
//	revocationLifetime >= slowAnswer + lifetime + leeway + 3 maxSkew
//
// with the longest lifetime that can be configured, not the one that is, so that lowering it opens no gap, and the most leeway
// that auth allows. Entries are deleted by the clock of the database.
const (
	maxSkew            = 30 * time.Second // of any clock from any other; what auth and this package are tested with
	maxLeeway          = 5 * time.Minute  // auth.Config.Leeway
	slowAnswer         = time.Minute      // a request ends long before: httpd.Config.RequestTimeout
	revocationLifetime = slowAnswer + MaxAccessLifetime + maxLeeway + 3*maxSkew
)

// entry is a revocation with its place in the feed.
type entry struct {
	seq int64
	auth.Revocation
}

// feed is the revocations of all nodes in SQL, and what this node has seen of them.
type feed struct {
	db      *sqldb.DB
	clock   func() time.Time
	told    func() any
	keys    func(context.Context) error // reads the keys, of tokens and of every other purpose
	revoked *auth.RevocationSet
	journal *journal
	wakes   wakes
	untold  atomic.Bool // this node has appended since it last had the others told

	turn    chan struct{} // of size 1: full while somebody reads it
	last    entry         // whose turn it is may touch it
	keysDue bool          // there may be withdrawn keys that this node still knows; whose turn it is may touch it
	freshAt atomic.Int64  // microseconds
}

func newFeed(deps Deps) *feed {
	return &feed{
		db: deps.DB, clock: deps.Clock, told: deps.told, revoked: auth.NewRevocationSet(deps.Clock),
		keys: func(ctx context.Context) error {
			return errors.Join(deps.Keyring.Reload(ctx), deps.Tokens.Reload(ctx))
		},
		journal: newJournal(), wakes: newWakes(),
		turn: make(chan struct{}, 1),
	}
}

// append appends revocations to the feed in the caller's transaction, those of their aliases included, and returns them with the time until which they are
// kept. The counter's row stays locked until the commit, which makes numbers appear in order: a reader that has seen one has
// seen all before it.
func (f *feed) append(ctx context.Context, tx sqldb.Tx, revocations ...auth.Revocation) ([]auth.Revocation, error) {
	revocations, err := withAliases(ctx, tx, revocations)
	if err != nil {
		return nil, err
	}
	var last, now int64
	_, err = sqldb.One(ctx, tx, func(r sqldb.Row) (struct{}, error) { return struct{}{}, r.Scan(&last, &now) }, raiseFeed,
		len(revocations), f.told())
	if err != nil {
		return nil, fmt.Errorf("raise feed: %w", err)
	}
	until := sqldb.Time(now).Add(revocationLifetime)
	first := last - int64(len(revocations)) + 1
	for i := range revocations {
		revocations[i].Until = until
	}
	for some := range slices.Chunk(revocations, feedInsert) {
		if err := insertRevocations(ctx, tx, first, some); err != nil {
			return nil, fmt.Errorf("write feed: %w", err)
		}
		first += int64(len(some))
	}
	f.untold.Store(true)
	return revocations, nil
}

// insertRevocations writes revocations that are numbered from first on.
func insertRevocations(ctx context.Context, tx sqldb.Tx, first int64, revocations []auth.Revocation) error {
	var insert strings.Builder
	insert.WriteString(`INSERT INTO revocations (seq, kind, hash, epoch, keep_until) VALUES `)
	args := make([]any, 0, 5*len(revocations))
	for i, r := range revocations {
		if i > 0 {
			insert.WriteString(", ")
		}
		n := len(args)
		fmt.Fprintf(&insert, "($%d, $%d, $%d, $%d, $%d)", n+1, n+2, n+3, n+4, n+5)
		args = append(args, first+int64(i), string(r.Kind), r.ID[:], r.Epoch, sqldb.Micros(r.Until))
	}
	_, err := tx.ExecContext(ctx, insert.String(), args...)
	return err
}

// committed adds revocations that this node has written to its set, and has the other nodes told.
func (f *feed) committed(revocations []auth.Revocation) {
	f.revoked.Add(revocations...)
	if len(revocations) > 0 {
		f.tell()
	}
}

// apply is pull for who may have written what is new. That a poll was faster, or that the feed cannot be read just now, does not
// keep the other nodes from being told.
func (f *feed) apply(ctx context.Context) error {
	grown, err := f.pull(ctx)
	if grown || f.untold.Load() {
		f.tell()
	}
	return err
}

// tell has the other nodes told that the feed has grown, and this node's own readers.
func (f *feed) tell() {
	f.untold.Store(false)
	f.wakes.grown()
}

// pull adds to the set what is new in the feed, and reports whether anything was. When the last entry seen has gone, it was
// swept, or the database was restored or failed over to a copy that lacks it and its number may be another's by now: then the
// feed is read from its beginning. Entries already in the set stay: what was revoked does not come back to life.
func (f *feed) pull(ctx context.Context) (grown bool, err error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("wait for the feed: %w", context.Cause(ctx))
	}
	defer func() { <-f.turn }()
	at := f.clock()
	entries, err := sqldb.All(ctx, f.db.Reader(), scanEntry, readFeed, f.last.seq)
	if err != nil {
		return false, err
	}
	anew := f.last.seq > 0 && (len(entries) == 0 || entries[0] != f.last)
	switch {
	case anew:
		if entries, err = sqldb.All(ctx, f.db.Reader(), scanEntry, readFeed, 0); err != nil {
			return false, err
		}
		f.last = entry{}
	case f.last.seq > 0:
		entries = entries[1:]
	}
	for _, e := range entries {
		f.revoked.Add(e.Revocation)
		f.last = e
	}
	f.freshAt.Store(sqldb.Micros(at))
	f.journal.add(entries, anew, at)
	// Where the feed is read anew, the entry that told of a key may have been swept.
	f.keysDue = f.keysDue || anew || slices.ContainsFunc(entries, func(e entry) bool { return e.Kind == auth.RevokeKey })
	return len(entries) > 0, f.replaceKeys(ctx)
}

// replaceKeys makes this node forget keys that were withdrawn: what it makes with them would be refused, and what others make with them must
// be, also when the feed no longer says so. Where the keys cannot be read, they are with the next look at the feed.
func (f *feed) replaceKeys(ctx context.Context) error {
	if !f.keysDue {
		return nil
	}
	if err := f.keys(ctx); err != nil {
		return err
	}
	f.keysDue = false
	return nil
}

// RevocationsAge is how long ago this node last read what has been revoked; zero before it first did.
func (s *Service) RevocationsAge() time.Duration { return s.feed.age() }

// age is how long ago this node last read the feed; zero before it first did.
func (f *feed) age() time.Duration {
	fresh := f.freshAt.Load()
	if fresh == 0 {
		return 0
	}
	return f.clock().Sub(sqldb.Time(fresh))
}

func scanEntry(r sqldb.Row) (e entry, err error) {
	var (
		hash  []byte
		until int64
	)
	if err := r.Scan(&e.seq, &e.Kind, &hash, &e.Epoch, &until); err != nil {
		return entry{}, err
	}
	if copy(e.ID[:], hash) != len(e.ID) {
		return entry{}, fmt.Errorf("revocation %d is damaged", e.seq)
	}
	e.Until = sqldb.Time(until)
	return e, nil
}

func scanInt64(r sqldb.Row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}
