package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"time"

	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/sqldb"
)

// attempts counts password attempts in buckets that leak: each attempt fills one unit, and one drains every Forget. A key is
// what the attempts are aimed at or come from, hashed: the table holds no address in the clear and treats accounts that exist
// and those that do not alike.
//
// An attempt on an account is counted before it is made (take), so that a thousand at once pass no more often than one after
// the other, and given back unless the password was wrong. Those of a network are counted afterwards: behind one address
// there may be thousands of people with the right password, and how many can be wrong at once the gate of package password
// bounds.
//
// Invariant: of a full bucket's attempts, however many at once, Free+1 pass without a wait, and beyond LockAfter one
// per LockFor.
type attempts struct {
	db    *sqldb.DB
	clock func() time.Time
	off   bool
}

// attemptKey names one bucket.
type attemptKey []byte

func newAttemptKey(kind string, parts ...string) attemptKey {
	h := sha256.New()
	h.Write([]byte(kind))
	for _, p := range parts {
		h.Write([]byte{0})
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// accountKey is the bucket of attempts on whoever has an identifier.
func accountKey(identifier string) attemptKey { return newAttemptKey("account", identifier) }

// networkKey is the bucket of an IPv4 address, or of the /64 that an IPv6 customer is given.
func networkKey(addr netip.Addr) attemptKey { return newAttemptKey("network", ratelimit.Network(addr)) }

// One statement decides and counts: of two at once the second sees the first's count. drained_at is when the bucket will be
// empty, so (drained_at - now) / Forget, rounded up, is how full it is.
const takeAttempt = `INSERT INTO attempts (subject, drained_at, next_at)
	VALUES ($1, CAST($2 AS BIGINT) + CAST($3 AS BIGINT), CAST($2 AS BIGINT))
	ON CONFLICT (subject) DO UPDATE SET
		drained_at = CASE WHEN attempts.drained_at > $2 THEN attempts.drained_at ELSE $2 END + $3,
		next_at = $2 + CASE
			WHEN attempts.drained_at <= $2 OR (attempts.drained_at - $2 + $3 - 1) / $3 < CAST($4 AS BIGINT) THEN 0
			WHEN (attempts.drained_at - $2 + $3 - 1) / $3 + 1 >= CAST($5 AS BIGINT) THEN CAST($6 AS BIGINT)
			ELSE CAST($7 AS BIGINT) << CAST((attempts.drained_at - $2 + $3 - 1) / $3 - $4 AS INTEGER) END
	WHERE attempts.next_at <= $2
	RETURNING (drained_at - $2 + $3 - 1) / $3, next_at`

const nextAttempt = `SELECT next_at FROM attempts WHERE subject = $1`

// taken is an attempt that was counted.
type taken struct {
	key   attemptKey
	limit AttemptLimit
	count int64
	next  int64 // when the next may be made, microseconds
}

// locks reports whether this is the attempt that locked the bucket.
func (t taken) locks() bool { return t.count == int64(t.limit.LockAfter) }

// take counts one attempt on key, or answers ErrTooManyAttempts with the time to wait and counts nothing.
func (a *attempts) take(ctx context.Context, key attemptKey, limit AttemptLimit) (taken, error) {
	t := taken{key: key, limit: limit}
	if a.off {
		return t, nil
	}
	now := a.clock()
	scan := func(r sqldb.Row) (taken, error) { return t, r.Scan(&t.count, &t.next) }
	_, err := sqldb.One(ctx, a.db.Writer(), scan, takeAttempt, []byte(key), sqldb.Micros(now), limit.Forget.Microseconds(),
		limit.Free, limit.LockAfter, limit.LockFor.Microseconds(), limit.Delay.Microseconds())
	if errors.Is(err, sqldb.ErrNotFound) {
		return t, a.refused(ctx, key, now)
	}
	return t, err
}

// check answers what take would, and counts nothing.
func (a *attempts) check(ctx context.Context, key attemptKey) error {
	if a.off {
		return nil
	}
	return a.refused(ctx, key, a.clock())
}

// refused answers ErrTooManyAttempts while the bucket asks for a wait.
func (a *attempts) refused(ctx context.Context, key attemptKey, now time.Time) error {
	next, err := sqldb.One(ctx, a.db.Writer(), scanCount, nextAttempt, []byte(key))
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if wait := sqldb.Time(next).Sub(now); wait > 0 {
		return ErrTooManyAttempts.After(wait)
	}
	return nil
}

const (
	emptyBucket = `DELETE FROM attempts WHERE subject = $1`
	// The wait that the attempt caused goes with it, unless another attempt has caused a longer one since.
	returnAttempt = `UPDATE attempts SET drained_at = drained_at - $1,
		next_at = CASE WHEN next_at = $2 THEN CAST($3 AS BIGINT) ELSE next_at END WHERE subject = $4`
	// No bucket asks for a wait after it is empty: Validate sees to it that a full one takes longer to drain than a lock lasts.
	sweepAttempts = `DELETE FROM attempts WHERE subject IN
		(SELECT subject FROM attempts WHERE drained_at <= $1 ORDER BY drained_at LIMIT 500)`
)

// empty starts a key over, after the right password.
func (a *attempts) empty(ctx context.Context, q sqldb.Queryer, keys ...attemptKey) error {
	if a.off {
		return nil
	}
	for _, key := range keys {
		if _, err := q.ExecContext(ctx, emptyBucket, []byte(key)); err != nil {
			return err
		}
	}
	return nil
}

// giveBack undoes take for an attempt that was not a wrong password.
func (a *attempts) giveBack(ctx context.Context, t taken) error {
	if a.off {
		return nil
	}
	_, err := a.db.Writer().ExecContext(ctx, returnAttempt, t.limit.Forget.Microseconds(), t.next, sqldb.Micros(a.clock()), []byte(t.key))
	return err
}
