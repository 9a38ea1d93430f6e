package mail

import (
	"context"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

// claim is a letter that this node may deliver. attempt, a count that every claim raises, is also the fencing token: whoever
// finds another value has lost the letter to a later claim and leaves it alone, unless it has delivered it.
type claim struct {
	Letter         // without Data, which attempt decodes, so that a damaged row harms no other
	data    string // JSON
	attempt int64
}

const insertLetterSQL = `INSERT INTO mail_letters (id, kind, address, account, locale, data, created_at, next_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

func insertLetter(ctx context.Context, db sqldb.Queryer, l Letter, data string) error {
	at := sqldb.Micros(l.CreatedAt)
	_, err := db.ExecContext(ctx, insertLetterSQL, l.ID, l.Kind, l.Address, l.Account, l.Locale, data, at, at)
	return err
}

// A claim lasts until claimed_until, so the letters of a node that died become due again. On PostgreSQL nodes pass
// over what another one is claiming at the moment, instead of waiting for each other (ARRAY: the sub-select must run
// only once, as every run locks more rows); SQLite has one writer at a time.
const (
	claimSQLite = `UPDATE mail_letters SET claimed_until = $1, attempts = attempts + 1
		WHERE id IN (SELECT id FROM mail_letters
			WHERE next_at <= $2 AND claimed_until <= $2 AND parked_at = 0
			ORDER BY next_at, id LIMIT $3)
		RETURNING id, kind, address, account, locale, data, created_at, attempts`
	claimPostgreSQL = `UPDATE mail_letters SET claimed_until = $1, attempts = attempts + 1
		WHERE id = ANY (ARRAY(SELECT id FROM mail_letters
			WHERE next_at <= $2 AND claimed_until <= $2 AND parked_at = 0
			ORDER BY next_at, id LIMIT $3 FOR UPDATE SKIP LOCKED))
		RETURNING id, kind, address, account, locale, data, created_at, attempts`
)

// claim is not cancelled half-way: a claim that nobody knows of would hold its letters back until it expires.
func (q *Queue) claim(ctx context.Context, limit int) ([]claim, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	query := claimSQLite
	if q.db.Engine() == sqldb.PostgreSQL {
		query = claimPostgreSQL
	}
	now := q.clock()
	claimed, err := sqldb.All(ctx, q.db.Writer(), scanClaim, query, sqldb.Micros(now.Add(claimTime)), sqldb.Micros(now), limit)
	if err != nil {
		return nil, fmt.Errorf("claim letters: %w", err)
	}
	return claimed, nil
}

func scanClaim(row sqldb.Row) (claim, error) {
	var (
		c  claim
		at int64
	)
	err := row.Scan(&c.ID, &c.Kind, &c.Address, &c.Account, &c.Locale, &c.data, &at, &c.attempt)
	c.CreatedAt = sqldb.Time(at)
	return c, err
}

const (
	removeLetter = `DELETE FROM mail_letters WHERE id = $1`
	retryLetter  = `UPDATE mail_letters SET next_at = $1, claimed_until = 0, last_error = $2
		WHERE id = $3 AND attempts = $4`
	parkLetter = `UPDATE mail_letters SET parked_at = $1, claimed_until = 0, last_error = $2
		WHERE id = $3 AND attempts = $4`
	sweepParked = `DELETE FROM mail_letters
		WHERE id IN (SELECT id FROM mail_letters WHERE parked_at > 0 AND parked_at <= $1 LIMIT $2)`
	countLetters = `SELECT COALESCE(SUM(CASE WHEN parked_at = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN parked_at > 0 THEN 1 ELSE 0 END), 0) FROM mail_letters`
)

func (q *Queue) remove(ctx context.Context, c claim) error {
	_, err := q.db.Writer().ExecContext(ctx, removeLetter, c.ID)
	return err
}

func (q *Queue) retry(ctx context.Context, c claim, at time.Time, text string) error {
	_, err := q.db.Writer().ExecContext(ctx, retryLetter, sqldb.Micros(at), text, c.ID, c.attempt)
	return err
}

func (q *Queue) park(ctx context.Context, c claim, at time.Time, text string) error {
	_, err := q.db.Writer().ExecContext(ctx, parkLetter, sqldb.Micros(at), text, c.ID, c.attempt)
	return err
}

func (q *Queue) sweep(ctx context.Context) error {
	_, err := sqldb.Sweep(ctx, q.db, sweepParked, sqldb.Micros(q.clock().Add(-parkedFor)), 500)
	return err
}

func (q *Queue) count(ctx context.Context) (waiting, parked int64, err error) {
	type counts struct{ waiting, parked int64 }
	c, err := sqldb.One(ctx, q.db.Reader(), func(row sqldb.Row) (c counts, err error) {
		return c, row.Scan(&c.waiting, &c.parked)
	}, countLetters)
	return c.waiting, c.parked, err
}
