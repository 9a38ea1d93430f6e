package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

// rotateGrant decides what a presented token is worth and acts on it, in one statement on one row: of two requests at once
// the second is decided on what the first has left, on SQLite because there is one writer, on PostgreSQL because READ
// COMMITTED re-evaluates the row it had to wait for. See Refresh for the cases. A grant that has come from Redis has an id of its own
// kind (grantAlias), and of the hashes their beginnings, as Redis keeps them.
const rotateGrant = `UPDATE session_grants SET
	(outcome, status, end_reason, ended_at, generation, current_hash, previous_hash, successor_sealed, window_until,
		idle_expires_at, purge_at, refreshed_at, issued_epoch, address, user_agent) = (
	SELECT v.outcome,
		CASE WHEN v.outcome = 'theft' THEN 'theft' ELSE status END,
		CASE WHEN v.outcome = 'theft' THEN 'theft' ELSE end_reason END,
		CASE WHEN v.outcome = 'theft' THEN v.now ELSE ended_at END,
		CASE WHEN v.accepted THEN $1 + 1 ELSE generation END,
		CASE WHEN v.accepted THEN $2 ELSE current_hash END,
		CASE WHEN v.accepted THEN $3 ELSE previous_hash END,
		CASE WHEN v.accepted THEN $4 ELSE successor_sealed END,
		CASE WHEN v.accepted THEN v.now + $5 ELSE window_until END,
		CASE WHEN v.accepted THEN CASE WHEN expires_at < v.idle THEN expires_at ELSE v.idle END ELSE idle_expires_at END,
		CASE WHEN v.accepted THEN (v.idle / 86400000000 + 1) * 86400000000 ELSE purge_at END,
		CASE WHEN v.accepted THEN v.now ELSE refreshed_at END,
		CASE WHEN v.accepted THEN epoch ELSE issued_epoch END,
		CASE WHEN v.accepted OR v.outcome = 'theft' THEN $6 ELSE address END,
		CASE WHEN v.accepted OR v.outcome = 'theft' THEN $7 ELSE user_agent END
	FROM (
		SELECT d.now, d.now + $8 AS idle, d.outcome, d.outcome IN ('rotated', 'reissued', 'ahead') AS accepted
		FROM (
			SELECT c.now, CASE
				WHEN status <> 'live' THEN 'ended'
				WHEN idle_expires_at <= c.now OR expires_at <= c.now THEN 'expired'
				WHEN thumbprint <> '' AND thumbprint <> $9 THEN 'wrong_key'
				WHEN thumbprint = '' AND CAST($10 AS BIGINT) = 1 AND client_id = 'sumun' THEN 'unbound'
				WHEN substr(current_hash, 1, 12) = $11 AND refreshed_at > c.now - $12 AND issued_epoch = epoch THEN CAST($13 AS TEXT)
				WHEN substr(current_hash, 1, 12) = $11 THEN 'rotated'
				WHEN substr(previous_hash, 1, 12) = $11 AND window_until > c.now THEN 'repeated'
				WHEN substr(previous_hash, 1, 12) = $11 THEN CAST($14 AS TEXT)
				WHEN generation < $1 THEN 'ahead'
				ELSE 'theft'
			END AS outcome
			FROM (SELECT COALESCE(CAST($15 AS BIGINT), (SELECT now FROM session_clock)) AS now) AS c
		) AS d
	) AS v)
	WHERE id IN ($16, $17)
	RETURNING outcome, end_reason, session_id, subject, client_id, scope, audience, roles, epoch, auth_time, acr, amr,
		current_hash, successor_sealed, idle_expires_at - COALESCE(CAST($15 AS BIGINT), (SELECT now FROM session_clock)),
		thumbprint`

func (s sqlStore) rotate(ctx context.Context, r rotation) (decision, error) {
	grant := r.presented.grant.String()
	d, err := s.refreshes.One(ctx, grant, r.presented.generation, r.next.hash(),
		r.presented.hash(), r.sealed, s.cfg.Window.Microseconds(), addressText(r.device.Address),
		cleanUserAgent(r.device.UserAgent), s.cfg.Idle.Microseconds(), r.thumbprint, flag(r.mustBind),
		r.presented.hash()[:tokenHash], r.age.Microseconds(), string(r.early), string(r.lost), s.deps.told(), grant,
		grantAlias(r.presented.session, r.presented.grant).String())
	if errors.Is(err, sqldb.ErrNotFound) {
		return s.ended(ctx, r.presented)
	}
	return d, err
}

const findEnded = `SELECT subject, end_reason FROM sessions WHERE id = $1 AND ended_at <> 0`

// ended says why the session of a grant ended that is not there: of such sessions Redis keeps no grants.
func (s sqlStore) ended(ctx context.Context, p refreshToken) (decision, error) {
	d, err := sqldb.One(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (decision, error) {
		d := decision{outcome: wasEnded}
		err := r.Scan(&d.grant.Subject, &d.reason)
		return d, err
	}, findEnded, p.session.String())
	if errors.Is(err, sqldb.ErrNotFound) {
		return decision{}, errUnknown
	}
	return d, err
}

func flag(set bool) int64 {
	if set {
		return 1
	}
	return 0
}

func scanDecision(r sqldb.Row) (decision, error) {
	var (
		d                    decision
		audience, roles, amr string
		authTime, lasts      int64
	)
	g := &d.grant
	err := r.Scan(&d.outcome, &d.reason, &g.SessionID, &g.Subject, &g.ClientID, &g.Scope, &audience, &roles, &g.Epoch, &authTime,
		&g.ACR, &amr, &d.current, &d.sealed, &lasts, &g.Thumbprint)
	if err != nil {
		return decision{}, err
	}
	for _, list := range []struct {
		words *[]string
		text  string
	}{{&g.Audience, audience}, {&g.Roles, roles}, {&g.AMR, amr}} {
		if *list.words, err = decodeList(list.text); err != nil {
			return decision{}, err
		}
	}
	d.unsettled = d.outcome == wasTheft
	g.AuthTime, d.lasts = sqldb.Time(authTime), time.Duration(lasts)*time.Microsecond
	return d, nil
}

// The statement that finds a theft marks the grant, and from then on its tokens are refused: the mark is the durable intent.
// Everything else follows in one transaction, at once or, if the process dies in between, by any node's housekeeping.
const (
	settleGrant = `UPDATE session_grants SET status = 'ended' WHERE id IN ($1, $2) AND status = 'theft'
		RETURNING session_id, client_id, address, user_agent, ended_at`
	listThefts = `SELECT id, subject FROM session_grants WHERE status = 'theft' ORDER BY id LIMIT 100`
)

// settleAll settles what is marked and not settled.
func (s sqlStore) settleAll(ctx context.Context) error {
	thefts, err := sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (m mark, err error) {
		err = r.Scan(&m.grant, &m.subject)
		return m, err
	}, listThefts)
	if err != nil {
		return fmt.Errorf("list thefts: %w", err)
	}
	var errs []error
	for _, m := range thefts {
		errs = append(errs, s.settle(ctx, m))
	}
	return errors.Join(errs...)
}

func (s sqlStore) settle(ctx context.Context, m mark) error {
	var revocations []auth.Revocation
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		revocations = nil
		if _, err := s.lockSubject(ctx, tx, m.subject, nil); err != nil {
			return err
		}
		t, err := sqldb.One(ctx, tx, scanTheft, settleGrant, m.grant.String(), m.alias.String())
		if errors.Is(err, sqldb.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.tell(ctx, tx, m.subject, t); err != nil {
			return err
		}
		if t.clientID == FirstParty {
			_, revocations, err = s.endIn(ctx, tx, ending{subject: m.subject, only: t.sessionID, reason: Theft})
			return err
		}
		revocations, err = s.feed.append(ctx, tx, OfGrant(m.grant.String()))
		return err
	})
	if err != nil {
		return fmt.Errorf("settle theft: %w", err)
	}
	s.feed.committed(revocations)
	s.deps.Mail.Wake()
	return nil
}

func scanTheft(r sqldb.Row) (t theft, err error) {
	var address, userAgent string
	var at int64
	if err := r.Scan(&t.sessionID, &t.clientID, &address, &userAgent, &at); err != nil {
		return theft{}, err
	}
	var from netip.Addr
	if from, err = parseAddress(address); err != nil {
		return theft{}, err
	}
	t.device, t.at = NewDevice(userAgent, from), sqldb.Time(at)
	return t, nil
}
