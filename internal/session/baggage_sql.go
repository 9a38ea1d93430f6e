package session

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

// A session that leaves SQL is deleted: a refresh that waits for its row finds none, and asks where its person lives. A theft that
// has not been settled keeps everybody here until it is.
const (
	takeGrants = `DELETE FROM session_grants WHERE session_id IN (SELECT id FROM sessions WHERE subject = $1)
		RETURNING id, session_id, client_id, scope, audience, auth_time, issued_epoch, generation, current_hash, previous_hash,
			successor_sealed, idle_expires_at, expires_at, refreshed_at, address, user_agent, status, end_reason, ended_at, thumbprint`
	takeSessions = `DELETE FROM sessions WHERE subject = $1
		RETURNING id, user_agent, address, amr, acr, auth_time, created_at, last_used_at, cookie_hash, idle_expires_at, expires_at,
			ended_at, end_reason`

	putSession = `INSERT INTO sessions (id, subject, label, user_agent, address, amr, acr, auth_time, created_at, last_used_at,
			cookie_hash, idle_expires_at, expires_at, ended_at, end_reason, purge_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`
	putGrant = `INSERT INTO session_grants (id, session_id, subject, client_id, scope, audience, roles, epoch, auth_time, acr,
			amr, issued_epoch, generation, current_hash, previous_hash, successor_sealed, window_until, idle_expires_at, expires_at,
			refreshed_at, address, user_agent, status, end_reason, ended_at, outcome, purge_at, thumbprint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, '',
			$26, $27)`
)

// unsettledError names a theft that has to be settled before its owner can move.
type unsettledError struct{ mark mark }

func (*unsettledError) Error() string { return "a theft has not been settled" }

// take removes everything about a person who is locked, and returns it.
func (s sqlStore) take(ctx context.Context, tx sqldb.Tx, subject string, now time.Time) (baggage, error) {
	b := newBaggage()
	_, err := sqldb.All(ctx, tx, func(r sqldb.Row) (struct{}, error) {
		id, g, status, err := scanCarriedGrant(r)
		if err == nil && status == "theft" {
			err = &unsettledError{mark{grant: id, subject: subject}}
		}
		b.grants[id] = g
		return struct{}{}, err
	}, takeGrants, subject)
	if err != nil {
		return baggage{}, err
	}
	_, err = sqldb.All(ctx, tx, func(r sqldb.Row) (struct{}, error) {
		id, one, err := scanCarriedSession(r)
		b.sessions[id] = one
		return struct{}{}, err
	}, takeSessions, subject)
	b.pack(now)
	return b, err
}

func scanCarriedGrant(r sqldb.Row) (id uuid.UUID, g *carriedGrant, status string, err error) {
	var (
		idText, session, audience, address, userAgent string
		auth, until, end, rotated, ended              int64
	)
	g = &carriedGrant{}
	err = r.Scan(&idText, &session, &g.client, &g.scope, &audience, &auth, &g.issuedEpoch, &g.generation, &g.current, &g.previous,
		&g.sealed, &until, &end, &rotated, &address, &userAgent, &status, &g.closing.reason, &ended,
		&g.thumbprint)
	if err != nil {
		return id, g, status, err
	}
	g.auth, g.until, g.end, g.rotated = sqldb.Time(auth), sqldb.Time(until), sqldb.Time(end), sqldb.Time(rotated)
	g.closing.at = sqldb.Time(ended)
	g.current, g.previous = beginning(g.current, tokenHash), beginning(g.previous, tokenHash)
	from, err := parseAddress(address)
	g.device = NewDevice(userAgent, from)
	var errs [3]error
	g.audience, errs[0] = decodeList(audience)
	g.session, errs[1] = uuid.Parse(session)
	id, errs[2] = uuid.Parse(idText)
	return id, g, status, errors.Join(append(errs[:], err)...)
}

func scanCarriedSession(r sqldb.Row) (id uuid.UUID, s *carriedSession, err error) {
	var (
		idText, address, userAgent, amr              string
		auth, created, used, cookieUntil, end, ended int64
	)
	s = &carriedSession{}
	err = r.Scan(&idText, &userAgent, &address, &amr, &s.acr, &auth, &created, &used, &s.cookieHash, &cookieUntil, &end, &ended,
		&s.closing.reason)
	if err != nil {
		return id, s, err
	}
	s.class, s.client = deviceClass(userAgent), FirstParty
	s.auth, s.created, s.used, s.end = sqldb.Time(auth), sqldb.Time(created), sqldb.Time(used), sqldb.Time(end)
	s.until, s.cookieUntil, s.cookieHash = sqldb.Time(cookieUntil), sqldb.Time(cookieUntil), beginning(s.cookieHash, cookieHash)
	s.closing.at = sqldb.Time(ended)
	s.closing.keep = earlier(s.cookieUntil, s.closing.at.Add(keepEnded))
	from, err := parseAddress(address)
	s.device = NewDevice(userAgent, from)
	var errs [2]error
	s.amr, errs[0] = decodeList(amr)
	id, errs[1] = uuid.Parse(idText)
	return id, s, errors.Join(append(errs[:], err)...)
}

// beginning is what Redis keeps of a hash.
func beginning(hash []byte, n int) []byte {
	if len(hash) < n {
		return nil
	}
	return hash[:n:n]
}

// put writes what a person brings, who is locked.
func (s sqlStore) put(ctx context.Context, tx sqldb.Tx, subject string, p person, b baggage) error {
	roles := "[]"
	if p.roles != nil {
		roles = *p.roles
	}
	for id, one := range b.sessions {
		until, purge := one.cookieUntil, purgeAt(one.until)
		if one.closing.ended() {
			purge = purgeAt(one.closing.keep)
		}
		_, err := tx.ExecContext(ctx, putSession, id.String(), subject, one.device.Label, one.device.UserAgent,
			addressText(one.device.Address), encodeList(one.amr), one.acr, sqldb.Micros(one.auth), sqldb.Micros(one.created),
			sqldb.Micros(one.used), one.cookieHash, sqldb.Micros(until), sqldb.Micros(one.end), sqldb.Micros(one.closing.at),
			string(one.closing.reason), purge)
		if err != nil {
			return err
		}
	}
	for id, g := range b.grants {
		one := b.sessions[g.session]
		status, until, end := "live", g.until, g.end
		var window int64
		if g.previous != nil {
			window = sqldb.Micros(g.rotated.Add(s.cfg.Window))
		}
		if g.closing.ended() {
			status, until, end, g.current = "ended", g.closing.keep, g.closing.keep, []byte{}
		}
		_, err := tx.ExecContext(ctx, putGrant, id.String(), g.session.String(), subject, g.client, g.scope, encodeList(g.audience),
			roles, p.epoch, sqldb.Micros(g.auth), one.acr, encodeList(one.amr), g.issuedEpoch, g.generation, g.current, g.previous,
			g.sealed, window, sqldb.Micros(until), sqldb.Micros(end), sqldb.Micros(g.rotated), addressText(one.device.Address),
			one.device.UserAgent, status, string(g.closing.reason), sqldb.Micros(g.closing.at), purgeAt(until), g.thumbprint)
		if err != nil {
			return err
		}
	}
	return nil
}
