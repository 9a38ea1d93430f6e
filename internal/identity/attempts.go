package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

// attempts counts password attempts before they are made, so that a thousand at once pass no more often than one after
// the other. A key is what the attempt is aimed at or comes from, hashed: the table holds no address in the clear and
// treats accounts that exist and those that do not alike.
//
// Invariant: between two resets of a key at most Free attempts pass at once, and after LockAfter at most one per LockFor.
type attempts struct {
	db    *sqldb.DB
	clock func() time.Time
	off   bool
}

// attemptKey names one counter.
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

// networkKey counts an IPv4 address, or the /64 that an IPv6 customer is given.
func networkKey(addr netip.Addr) attemptKey {
	if addr.Is6() && !addr.Is4In6() {
		if p, err := addr.Prefix(64); err == nil {
			return newAttemptKey("network", p.String())
		}
	}
	return newAttemptKey("network", addr.Unmap().String())
}

// One statement decides and counts: of two at once the second sees the first's count.
const takeAttempt = `INSERT INTO attempts (subject, count, next_at, expires_at)
	VALUES ($1, 1, CAST($2 AS BIGINT), CAST($3 AS BIGINT))
	ON CONFLICT (subject) DO UPDATE SET
		count = CASE WHEN attempts.expires_at <= $2 THEN 1 ELSE attempts.count + 1 END,
		next_at = $2 + CASE
			WHEN attempts.expires_at <= $2 OR attempts.count < $4 THEN 0
			WHEN attempts.count + 1 >= $5 THEN CAST($6 AS BIGINT)
			ELSE CAST($7 AS BIGINT) << (attempts.count - $4) END,
		expires_at = $3
	WHERE attempts.next_at <= $2 OR attempts.expires_at <= $2
	RETURNING count, next_at`

const nextAttempt = `SELECT next_at FROM attempts WHERE subject = $1`

// take counts one attempt on key. It returns the count, or ErrTooManyAttempts with the time to wait.
func (a *attempts) take(ctx context.Context, key attemptKey, limit AttemptLimit) (int, error) {
	if a.off {
		return 0, nil
	}
	now := a.clock()
	type counted struct {
		count int
		next  int64
	}
	scan := func(r sqldb.Row) (c counted, err error) { return c, r.Scan(&c.count, &c.next) }
	forgotten := now.Add(limit.LockFor + limit.Forget)
	c, err := sqldb.One(ctx, a.db.Writer(), scan, takeAttempt, []byte(key), sqldb.Micros(now), sqldb.Micros(forgotten),
		limit.Free, limit.LockAfter, limit.LockFor.Microseconds(), limit.Delay.Microseconds())
	if err == nil {
		return c.count, nil
	}
	if !errors.Is(err, sqldb.ErrNotFound) {
		return 0, err
	}
	wait := limit.Delay
	scanNext := func(r sqldb.Row) (us int64, err error) { return us, r.Scan(&us) }
	if next, err := sqldb.One(ctx, a.db.Writer(), scanNext, nextAttempt, []byte(key)); err == nil {
		wait = max(sqldb.Time(next).Sub(now), time.Second)
	}
	return 0, ErrTooManyAttempts.After(wait)
}

const (
	resetAttempts = `DELETE FROM attempts WHERE subject = $1`
	// A success gives its own attempt back, but no more: otherwise a guesser with one account of their own could
	// start over at will.
	returnAttempt = `UPDATE attempts SET count = count - 1, next_at = $1 WHERE subject = $2 AND count > 0`
	sweepAttempts = `DELETE FROM attempts WHERE subject IN
		(SELECT subject FROM attempts WHERE expires_at <= $1 ORDER BY expires_at LIMIT 500)`
)

// reset starts a key over, after the right password.
func (a *attempts) reset(ctx context.Context, q sqldb.Queryer, key attemptKey) error {
	if a.off {
		return nil
	}
	_, err := q.ExecContext(ctx, resetAttempts, []byte(key))
	return err
}

// giveBack takes back the one attempt that turned out right.
func (a *attempts) giveBack(ctx context.Context, q sqldb.Queryer, key attemptKey) error {
	if a.off {
		return nil
	}
	_, err := q.ExecContext(ctx, returnAttempt, sqldb.Micros(a.clock()), []byte(key))
	return err
}
