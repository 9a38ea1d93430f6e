package audit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/sqldb"
)

// ErrCursor is returned for a cursor that List did not give out.
var ErrCursor = fault.New(fault.Malformed, "audit.cursor", "The page cursor is not valid. Start again without one.")

const (
	defaultPage = 50
	maxPage     = 200
)

const listEvents = `SELECT id, at, account, actor, action, address, user_agent, request_id, detail
	FROM audit_events
	WHERE account = $1 AND (at, id) < ($2, $3)
	ORDER BY at DESC, id DESC
	LIMIT $4`

// List returns up to limit events of an account (50 when limit is not positive, at most 200), newest first, older than
// the cursor before; an empty cursor starts at the newest. next is the cursor of the following page, empty on the last
// one. A cursor that is not ours is [ErrCursor].
func (l *Log) List(ctx context.Context, q sqldb.Queryer, account, before string, limit int) (events []Event, next string, err error) {
	from := position{at: math.MaxInt64}
	if before != "" {
		if from, err = parseCursor(before); err != nil {
			return nil, "", err
		}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	events, err = sqldb.All(ctx, q, scanEvent, listEvents, account, from.at, from.id, limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("list audit events: %w", err)
	}
	if len(events) > limit {
		events = events[:limit]
		last := events[limit-1]
		next = position{at: sqldb.Micros(last.At), id: last.ID}.cursor()
	}
	return events, next, nil
}

func scanEvent(row sqldb.Row) (Event, error) {
	var (
		e               Event
		at              int64
		address, detail string
	)
	err := row.Scan(&e.ID, &at, &e.Account, &e.Actor, &e.Action, &address, &e.Origin.UserAgent, &e.Origin.RequestID, &detail)
	if err != nil {
		return Event{}, err
	}
	e.At = sqldb.Time(at)
	if address != "" {
		if e.Origin.Address, err = netip.ParseAddr(address); err != nil {
			return Event{}, fmt.Errorf("audit event %s: %w", e.ID, err)
		}
	}
	if err := json.Unmarshal([]byte(detail), &e.Detail); err != nil {
		return Event{}, fmt.Errorf("audit event %s: detail: %w", e.ID, err)
	}
	return e, nil
}

// position is a place in the order of List.
type position struct {
	at int64 // microseconds
	id string
}

func (p position) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.at, 10) + " " + p.id))
}

func parseCursor(s string) (position, error) {
	if len(s) > 96 {
		return position{}, ErrCursor
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return position{}, ErrCursor.Wrap(err)
	}
	number, id, _ := strings.Cut(string(text), " ")
	at, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return position{}, ErrCursor.Wrap(err)
	}
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		return position{}, ErrCursor
	}
	return position{at: at, id: id}, nil
}

// The triggers decide by the database's clock, so the sweep does too: a node whose clock runs ahead would be refused.
const (
	sweepSQLite = `DELETE FROM audit_events WHERE id IN (
		SELECT id FROM audit_events
		WHERE keep_until <= CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)
		ORDER BY keep_until LIMIT $1)`
	sweepPostgreSQL = `DELETE FROM audit_events WHERE id IN (
		SELECT id FROM audit_events
		WHERE keep_until <= CAST(extract(epoch FROM now()) * 1000000 AS BIGINT)
		ORDER BY keep_until LIMIT $1)`
)

// sweepBatch is how many events one statement removes: few enough not to be felt by other writers.
const sweepBatch = 500

// Sweep removes the events whose retention has passed, in small batches, and returns how many there were.
func (l *Log) Sweep(ctx context.Context, db *sqldb.DB) (int64, error) {
	query := sweepSQLite
	if db.Engine() == sqldb.PostgreSQL {
		query = sweepPostgreSQL
	}
	n, err := sqldb.Sweep(ctx, db, query, sweepBatch)
	if err != nil {
		return n, fmt.Errorf("sweep audit events: %w", err)
	}
	return n, nil
}
