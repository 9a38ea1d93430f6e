package session

import (
	"context"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	findBrowser = `SELECT s.subject, u.roles, u.epoch, s.label, s.user_agent, s.address, s.amr, s.acr, s.auth_time, s.created_at,
			s.last_used_at, s.idle_expires_at, s.cookie_hash, s.ended_at <> 0, s.end_reason,
			COALESCE(CAST($1 AS BIGINT), (SELECT now FROM session_clock))
		FROM sessions s JOIN session_subjects u ON u.subject = s.subject
		WHERE s.id = $2`

	slideBrowser = `UPDATE sessions SET last_used_at = $1, purge_at = $2,
			idle_expires_at = CASE WHEN expires_at < $3 THEN expires_at ELSE $3 END
		WHERE id = $4 AND ended_at = 0 AND last_used_at <= $5`

	reauthenticateSession = `UPDATE sessions SET auth_time = $1, last_used_at = $1,
			cookie_hash = CASE WHEN cookie_hash IS NOT NULL THEN $2 ELSE cookie_hash END
		WHERE id = $3 AND subject = $4 AND ended_at = 0 AND expires_at > $1
		RETURNING cookie_hash IS NOT NULL`
	reauthenticateGrants = `UPDATE session_grants SET auth_time = $1 WHERE session_id = $2 AND client_id = $3 AND status = 'live'`
)

const (
	// slideEvery is how often the use of a cookie is written down.
	slideEvery = time.Minute
	// slideTimeout bounds that write, which no request should notice.
	slideTimeout = 500 * time.Millisecond
)

func (s sqlStore) page(ctx context.Context, c cookie) (Session, error) {
	b, err := sqldb.One(ctx, s.deps.DB.Reader(), scanBrowser, findBrowser, s.deps.told(), c.session.String())
	if errors.Is(err, sqldb.ErrNotFound) {
		return Session{}, errUnknown
	}
	if err != nil {
		return Session{}, unavailable(err)
	}
	b.session.ID = c.session.String()
	switch {
	case !c.matches(b.cookieHash):
		return Session{}, ErrInvalidCookie
	case b.ended:
		return Session{}, b.endReason.ended()
	case !b.session.ExpiresAt.After(b.now):
		return Session{}, ErrInvalidCookie
	case b.now.Sub(b.session.LastUsedAt) >= slideEvery:
		s.slide(ctx, b.session.ID, b.now)
	}
	return b.session, nil
}

// slide writes down that a session is in use.
func (s sqlStore) slide(ctx context.Context, id string, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, slideTimeout)
	defer cancel()
	idle := now.Add(s.cfg.Idle)
	_, err := s.deps.DB.Writer().ExecContext(ctx, slideBrowser, sqldb.Micros(now), purgeAt(idle), sqldb.Micros(idle), id,
		sqldb.Micros(now.Add(-slideEvery)))
	if err != nil {
		s.deps.Log.WarnContext(ctx, "use of a session is not written down", "session", id, "error", err)
	}
}

func (s sqlStore) prove(ctx context.Context, tx sqldb.Tx, p *proof) (finish, error) {
	person, err := s.lockSubject(ctx, tx, p.subject, nil)
	if err != nil {
		return nil, err
	}
	p.cookie = newCookie(person.routing, p.id)
	now := sqldb.Micros(person.now)
	p.hasCookie, err = sqldb.One(ctx, tx, func(r sqldb.Row) (has bool, err error) {
		err = r.Scan(&has)
		return has, err
	}, reauthenticateSession, now, p.cookie.hash(), p.id.String(), p.subject)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, reauthenticateGrants, now, p.id.String(), FirstParty)
	return finished, err
}

// browser is a session's row as its cookie finds it.
type browser struct {
	session    Session
	cookieHash []byte
	ended      bool
	endReason  Reason
	now        time.Time
}

func scanBrowser(r sqldb.Row) (b browser, err error) {
	var (
		roles                         *string
		address, amr                  string
		authTime, created, used, idle int64
		now                           int64
	)
	one := &b.session
	err = r.Scan(&one.Subject, &roles, &one.Epoch, &one.Device.Label, &one.Device.UserAgent, &address, &amr, &one.ACR, &authTime,
		&created, &used, &idle, &b.cookieHash, &b.ended, &b.endReason, &now)
	if err != nil {
		return browser{}, err
	}
	one.AuthTime, one.CreatedAt, one.LastUsedAt, one.ExpiresAt = sqldb.Time(authTime), sqldb.Time(created), sqldb.Time(used), sqldb.Time(idle)
	b.now = sqldb.Time(now)
	return b, one.decode(roles, address, amr)
}
