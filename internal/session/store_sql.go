package session

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

// sqlStore keeps sessions in SQL, next to everything else: the caller's transaction is all it needs.
type sqlStore struct {
	common
	refreshes *sqldb.Gather[decision]
}

func newSQLStore(c common) sqlStore {
	return sqlStore{c, sqldb.NewGather(c.deps.DB, scanDecision, rotateGrant)}
}

const (
	insertSession = `INSERT INTO sessions (id, subject, label, user_agent, address, amr, acr, auth_time, created_at, last_used_at,
			cookie_hash, idle_expires_at, expires_at, ended_at, end_reason, purge_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, 0, '', $13)`

	insertGrant = `INSERT INTO session_grants (id, session_id, subject, client_id, scope, audience, roles, epoch, auth_time, acr,
			amr, issued_epoch, generation, current_hash, window_until, idle_expires_at, expires_at, refreshed_at, address, user_agent,
			status, end_reason, ended_at, outcome, purge_at, thumbprint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $8, 0, $12, 0, $13, $14, $15, $16, $17, 'live', '', 0, '', $18, $19)`

	setSubjectRoles = `UPDATE session_subjects SET roles = $1, epoch = $2 WHERE subject = $3`
	setGrantRoles   = `UPDATE session_grants SET roles = $1, epoch = $2
		WHERE status = 'live' AND session_id IN (SELECT id FROM sessions WHERE subject = $3)`

	endSessions = `UPDATE sessions SET ended_at = $1, end_reason = $2, purge_at = CASE WHEN purge_at < $3 THEN purge_at ELSE $3 END
		WHERE subject = $4 AND ended_at = 0 AND ($5 = '' OR id = $5) AND id <> $6
		RETURNING id`
	overtake = `UPDATE session_subjects SET seq = seq + 1, ended_seq = seq + 1 WHERE subject = $1`
	// A grant that is marked as stolen keeps its mark until that has been settled.
	endGrants = `UPDATE session_grants
		SET status = 'ended', ended_at = $1, end_reason = $2, purge_at = CASE WHEN purge_at < $3 THEN purge_at ELSE $3 END
		WHERE status = 'live' AND session_id IN (
			SELECT id FROM sessions WHERE subject = $4 AND ($5 = '' OR id = $5) AND id <> $6)`

	liveSessions = `SELECT s.id, s.subject, u.roles, u.epoch, s.label, s.user_agent, s.address, s.amr, s.acr, s.auth_time,
			s.created_at, s.last_used_at, s.idle_expires_at, g.refreshed_at, g.idle_expires_at, g.user_agent, g.address,
			g.client_id
		FROM (SELECT COALESCE(CAST($1 AS BIGINT), (SELECT now FROM session_clock)) AS now) AS c
		JOIN sessions s ON s.expires_at > c.now
		JOIN session_subjects u ON u.subject = s.subject
		LEFT JOIN session_grants g ON g.session_id = s.id AND g.status = 'live' AND g.idle_expires_at > c.now
		WHERE s.subject = $2 AND s.ended_at = 0 AND (g.id IS NOT NULL OR s.idle_expires_at > c.now)`
)

func (s sqlStore) start(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
	roles := encodeList(o.start.Roles)
	// From here on, whatever else starts or ends sessions of this person waits.
	p, err := s.lockSubject(ctx, tx, o.start.Subject, &roles)
	if err != nil {
		return nil, err
	}
	if err := o.admit(s.cfg, p); err != nil {
		return nil, err
	}
	if err := s.growable(ctx, tx, o); err != nil {
		return nil, err
	}
	full, err := s.open(ctx, tx, o)
	if err != nil {
		return nil, err
	}
	if full {
		return func(ctx context.Context) error { return s.refused(ctx, o, ErrLimitReached) }, nil
	}
	return finished, nil
}

// growable refuses a session that is to grow out of one which is not live. The person is locked: it stays as it is.
func (s sqlStore) growable(ctx context.Context, tx sqldb.Tx, o *opening) error {
	if o.start.From == "" {
		return nil
	}
	_, _, err := s.attachable(ctx, tx, o.start.From, o)
	return err
}

// open brings the session to life unless it is to be refused, as there are too many.
func (s sqlStore) open(ctx context.Context, tx sqldb.Tx, o *opening) (full bool, err error) {
	if full, err = s.makeRoom(ctx, tx, o); full || err != nil {
		return full, err
	}
	return false, s.insert(ctx, tx, o)
}

// makeRoom ends the least recently used sessions until one more fits below the limits, or reports that it is to be refused.
func (s sqlStore) makeRoom(ctx context.Context, tx sqldb.Tx, o *opening) (full bool, err error) {
	live, err := s.liveIn(ctx, tx, o.start.Subject, sqldb.Micros(o.now))
	if err != nil {
		return false, err
	}
	slices.Reverse(live) // the oldest use first
	ids, full := excess(s.cfg.quotas(o.start, o.session.Roles), live)
	for _, id := range ids {
		e := ending{subject: o.start.Subject, only: id, reason: LimitReached, action: "session.limit"}
		if _, _, err := s.endIn(ctx, tx, e); err != nil {
			return false, err
		}
	}
	return full, nil
}

// insert writes the session, and its first grant unless it is of our own pages.
func (s sqlStore) insert(ctx context.Context, tx sqldb.Tx, o *opening) error {
	var cookieHash []byte
	var cookieIdle time.Time
	if o.start.Page {
		cookieHash, cookieIdle = o.cookie.hash(), o.idle
	}
	one, start := o.session, o.start
	_, err := tx.ExecContext(ctx, insertSession, one.ID, start.Subject, start.Device.Label, start.Device.UserAgent,
		addressText(start.Device.Address), encodeList(start.AMR), start.ACR, sqldb.Micros(one.AuthTime), sqldb.Micros(o.now),
		cookieHash, sqldb.Micros(cookieIdle), sqldb.Micros(o.end), purgeAt(o.idle))
	if err != nil || start.Page {
		return err
	}
	return s.insertGrant(ctx, tx, o)
}

// insertGrant writes the grant of a session that is there.
func (s sqlStore) insertGrant(ctx context.Context, tx sqldb.Tx, o *opening) error {
	one, start := o.session, o.start
	_, err := tx.ExecContext(ctx, insertGrant, o.grantID.String(), one.ID, one.Subject, start.ClientID, start.Scope,
		encodeList(start.Audience), *o.person.roles, one.Epoch, sqldb.Micros(one.AuthTime), one.ACR, encodeList(one.AMR),
		o.refresh.hash(), sqldb.Micros(o.idle), sqldb.Micros(o.end), sqldb.Micros(o.now),
		addressText(one.Device.Address), one.Device.UserAgent, purgeAt(o.idle), start.binding())
	return err
}

func (s sqlStore) live(ctx context.Context, subject string) ([]Session, error) {
	live, err := s.liveIn(ctx, s.deps.DB.Reader(), subject, s.deps.told())
	if err == nil && len(live) == 0 {
		err = errUnknown
	}
	return live, err
}

// liveIn returns the sessions that are live at a time in microseconds; nil is now.
func (s sqlStore) liveIn(ctx context.Context, q sqldb.Queryer, subject string, at any) ([]Session, error) {
	rows, err := sqldb.All(ctx, q, scanLive, liveSessions, at, subject)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]Session, len(rows)) // one row per grant
	for _, row := range rows {
		one, seen := byID[row.ID]
		if !seen || row.LastUsedAt.After(one.LastUsedAt) {
			one.Device, one.LastUsedAt = row.Device, row.LastUsedAt
		}
		row.Device, row.LastUsedAt = one.Device, one.LastUsedAt
		row.clients = append(one.clients, row.clients...)
		if seen && one.ExpiresAt.After(row.ExpiresAt) {
			row.ExpiresAt = one.ExpiresAt
		}
		byID[row.ID] = row
	}
	live := slices.Collect(maps.Values(byID))
	sortByUse(live)
	return live, nil
}

// scanLive reads a session together with one of its grants, if it has any; the later use of the two counts.
func scanLive(r sqldb.Row) (Session, error) {
	var (
		one                           Session
		roles                         *string
		address, amr                  string
		authTime, created, used, idle int64
		grantUsed, grantIdle          *int64
		grantUserAgent, grantAddress  *string
		client                        *string
	)
	err := r.Scan(&one.ID, &one.Subject, &roles, &one.Epoch, &one.Device.Label, &one.Device.UserAgent, &address, &amr, &one.ACR,
		&authTime, &created, &used, &idle, &grantUsed, &grantIdle, &grantUserAgent, &grantAddress,
		&client)
	if err != nil {
		return Session{}, err
	}
	one.clients = []string{FirstParty}
	if grantUsed != nil {
		one.clients[0] = *client
		idle = max(idle, *grantIdle)
		if *grantUsed > used {
			used, address, one.Device.UserAgent = *grantUsed, *grantAddress, *grantUserAgent
			one.Device.Label = DeviceLabel(*grantUserAgent)
		}
	}
	one.AuthTime, one.CreatedAt, one.LastUsedAt, one.ExpiresAt = sqldb.Time(authTime), sqldb.Time(created), sqldb.Time(used), sqldb.Time(idle)
	return one, one.decode(roles, address, amr)
}

// decode fills in what is not stored as it is.
func (one *Session) decode(roles *string, address, amr string) (err error) {
	if roles != nil {
		if one.Roles, err = decodeList(*roles); err != nil {
			return err
		}
	}
	if one.AMR, err = decodeList(amr); err != nil {
		return err
	}
	one.Device.Address, err = parseAddress(address)
	return err
}

func (s sqlStore) setRolesTx(ctx context.Context, tx sqldb.Tx, subject, roles string) error {
	person, err := s.lockSubject(ctx, tx, subject, nil)
	if err != nil {
		return err
	}
	if person.roles != nil && *person.roles == roles {
		return nil
	}
	epoch := person.epoch + 1
	if _, err := tx.ExecContext(ctx, setSubjectRoles, roles, epoch, subject); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, setGrantRoles, roles, epoch, subject); err != nil {
		return err
	}
	_, err = s.feed.append(ctx, tx, auth.Revocation{
		Kind: auth.RevokeSubject, ID: auth.RevocationHash(auth.RevokeSubject, subject), Epoch: epoch,
	})
	return err
}

func (s sqlStore) end(ctx context.Context, e ending) (ended int, err error) {
	var revocations []auth.Revocation
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		ended, revocations, err = s.endIn(ctx, tx, e)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.feed.committed(revocations)
	return ended, nil
}

func (s sqlStore) endTx(ctx context.Context, tx sqldb.Tx, e ending) error {
	_, _, err := s.endIn(ctx, tx, e)
	return err
}

// endIn ends sessions and their grants, and writes the revocations that the caller adds to the set once tx has committed.
func (s sqlStore) endIn(ctx context.Context, tx sqldb.Tx, e ending) (int, []auth.Revocation, error) {
	p, err := s.lockSubject(ctx, tx, e.subject, nil)
	if err != nil {
		return 0, nil, err
	}
	if e.only == "" { // also for a sign-in that was decided in another store and is on its way here
		if _, err := tx.ExecContext(ctx, overtake, e.subject); err != nil {
			return 0, nil, err
		}
	}
	args := []any{sqldb.Micros(p.now), string(e.reason), sqldb.Micros(p.now.Add(keepEnded)), e.subject, e.only, e.keep}
	ids, err := sqldb.All(ctx, tx, scanString, endSessions, args...)
	if err != nil || len(ids) == 0 {
		return 0, nil, err
	}
	if _, err := tx.ExecContext(ctx, endGrants, args...); err != nil {
		return 0, nil, err
	}
	if err := s.record(ctx, tx, e, len(ids)); err != nil {
		return 0, nil, err
	}
	revocations := make([]auth.Revocation, len(ids))
	for i, id := range ids {
		revocations[i] = auth.Revocation{Kind: auth.RevokeSession, ID: auth.RevocationHash(auth.RevokeSession, id)}
	}
	revocations, err = s.feed.append(ctx, tx, revocations...)
	return len(ids), revocations, err
}

// apply has nothing to do but to read the feed, which every store has in SQL.
func (s sqlStore) apply(ctx context.Context) error { return s.feed.apply(ctx) }

func (s sqlStore) tasks() []task {
	return []task{{"settle thefts", settleEvery, s.settleThefts}, {"sweep sessions", sweepEvery, s.sweep}}
}

func scanString(r sqldb.Row) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}
