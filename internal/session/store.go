package session

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	lockSubject = `INSERT INTO session_subjects (subject, routing, epoch, roles, purge_at)
		VALUES ($1, $2, 0, $3, $4)
		ON CONFLICT (subject) DO UPDATE
			SET purge_at = excluded.purge_at, roles = COALESCE(session_subjects.roles, excluded.roles)
		RETURNING routing, epoch, roles`

	insertSession = `INSERT INTO sessions (id, subject, label, user_agent, address, amr, acr, auth_time, created_at, last_used_at,
			cookie_hash, idle_expires_at, expires_at, ended_at, end_reason, purge_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, 0, '', $13)`

	insertGrant = `INSERT INTO session_grants (id, session_id, subject, client_id, scope, audience, roles, epoch, auth_time, acr,
			amr, generation, current_hash, window_until, idle_expires_at, expires_at, refreshed_at, address, user_agent,
			status, end_reason, ended_at, outcome, purge_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, 0, $13, $14, $15, $16, $17, 'live', '', 0, '', $18)`

	setSubjectRoles = `UPDATE session_subjects SET roles = $1, epoch = $2 WHERE subject = $3`
	setGrantRoles   = `UPDATE session_grants SET roles = $1, epoch = $2
		WHERE status = 'live' AND session_id IN (SELECT id FROM sessions WHERE subject = $3)`

	endSessions = `UPDATE sessions SET ended_at = $1, end_reason = $2, purge_at = CASE WHEN purge_at < $3 THEN purge_at ELSE $3 END
		WHERE subject = $4 AND ended_at = 0 AND ($5 = '' OR id = $5) AND id <> $6
		RETURNING id`
	// A grant that is marked as stolen keeps its mark until that has been settled.
	endGrants = `UPDATE session_grants
		SET status = 'ended', ended_at = $1, end_reason = $2, purge_at = CASE WHEN purge_at < $3 THEN purge_at ELSE $3 END
		WHERE status = 'live' AND session_id IN (
			SELECT id FROM sessions WHERE subject = $4 AND ($5 = '' OR id = $5) AND id <> $6)`

	liveSessions = `SELECT s.id, s.subject, u.roles, u.epoch, s.label, s.user_agent, s.address, s.amr, s.acr, s.auth_time,
			s.created_at, s.last_used_at, s.idle_expires_at, g.refreshed_at, g.idle_expires_at, g.user_agent, g.address
		FROM sessions s
		JOIN session_subjects u ON u.subject = s.subject
		LEFT JOIN session_grants g ON g.session_id = s.id AND g.status = 'live' AND g.idle_expires_at > $1
		WHERE s.subject = $2 AND s.ended_at = 0 AND s.expires_at > $1`
)

const (
	defaultPage = 20
	maxPage     = 100
)

// List returns up to limit live sessions of the subject (20 when limit is not positive, at most 100), the most recently used
// first. next is the cursor of the following page, "" on the last one; a cursor that is not ours is ErrCursor. A person's
// sessions are few (Config.Limit), so they are read whole and cut here.
func (s *Service) List(ctx context.Context, subject, cursor string, limit int) (page []Session, next string, err error) {
	var after position
	if cursor != "" {
		if after, err = parseCursor(cursor); err != nil {
			return nil, "", err
		}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	page, err = s.live(ctx, s.deps.DB.Reader(), subject, s.deps.Clock())
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	if cursor != "" {
		page = slices.DeleteFunc(page, func(one Session) bool { return !after.before(one) })
	}
	if len(page) <= limit {
		return page, "", nil
	}
	page = page[:limit]
	return page, positionOf(page[limit-1]).cursor(), nil
}

// live returns the subject's live sessions, the most recently used first. A session is live while it has not been ended and
// its cookie or one of its grants has not expired.
func (s *Service) live(ctx context.Context, q sqldb.Queryer, subject string, now time.Time) ([]Session, error) {
	rows, err := sqldb.All(ctx, q, scanLive, liveSessions, sqldb.Micros(now), subject)
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
		if seen && one.ExpiresAt.After(row.ExpiresAt) {
			row.ExpiresAt = one.ExpiresAt
		}
		byID[row.ID] = row
	}
	var live []Session
	for _, one := range byID {
		if one.ExpiresAt.After(now) {
			live = append(live, one)
		}
	}
	slices.SortFunc(live, func(a, b Session) int {
		if order := b.LastUsedAt.Compare(a.LastUsedAt); order != 0 {
			return order
		}
		return strings.Compare(b.ID, a.ID)
	})
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
	)
	err := r.Scan(&one.ID, &one.Subject, &roles, &one.Epoch, &one.Device.Label, &one.Device.UserAgent, &address, &amr, &one.ACR,
		&authTime, &created, &used, &idle, &grantUsed, &grantIdle, &grantUserAgent, &grantAddress)
	if err != nil {
		return Session{}, err
	}
	if grantUsed != nil {
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

func positionOf(one Session) position {
	return position{used: sqldb.Micros(one.LastUsedAt), id: uuid.MustParse(one.ID)} // ids are ours
}

// before reports whether the session comes after this position in the order of List.
func (p position) before(one Session) bool {
	if used := sqldb.Micros(one.LastUsedAt); used != p.used {
		return used < p.used
	}
	return one.ID < p.id.String()
}

func scanString(r sqldb.Row) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

// encodeList writes words as a JSON array: a role may contain any character.
func encodeList(words []string) string {
	if len(words) == 0 {
		return "[]"
	}
	text, err := json.Marshal(words)
	if err != nil {
		panic(err) // cannot be: strings always encode
	}
	return string(text)
}

func decodeList(text string) (words []string, err error) {
	if text == "[]" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		return nil, fmt.Errorf("decode list: %w", err)
	}
	return words, nil
}

// addressText writes an address as the trail does.
func addressText(a netip.Addr) string { return audit.AddressText(a) }

func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}
