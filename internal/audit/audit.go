// Package audit keeps the trail of who did what to which account, when and from where.
//
// It owns the table audit_events. It promises that an event, once committed, can be neither changed nor removed before its
// retention has passed: triggers in the database refuse it, by the database's own clock, whoever asks. An event is
// written in the transaction of the change it describes, so that neither exists without the other.
//
// It refuses to be a log: events have a bounded size, a stable action name, and never a secret. No password, token, code,
// cookie or key, nor a part of one, belongs into [Event.Detail]; the owner of the account reads it.
package audit

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the table and the triggers of this package.
var Migrations = sqldb.Migrations{Name: "audit", FS: files}

// Bounds of what an event carries, in bytes. Longer text from outside is cut, so that it cannot fail the change it
// describes.
const (
	maxUserAgent = 256
	maxRequestID = 128
	maxValue     = 512
	maxKey       = 64
	maxKeys      = 16
	maxAction    = 64
	maxAccount   = 64
)

// Operator is the [Event.Actor] of what an operator did, from the command line or a console.
const Operator = "operator"

// Config is the configuration of the trail.
type Config struct {
	// Retention applies to events written from then on: the time an event may go is fixed when it is written.
	Retention time.Duration `yaml:"retention" doc:"How long an event is kept, from when it is written."`
}

// DefaultConfig keeps events for 400 days: a year, and time to look at it.
func DefaultConfig() Config {
	return Config{Retention: 400 * 24 * time.Hour}
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Retention < 24*time.Hour || c.Retention > 20*365*24*time.Hour {
		return fmt.Errorf("retention: %s is outside 24h to 175200h (20 years); use 9600h for 400 days", c.Retention)
	}
	return nil
}

// Origin is where a request came from.
type Origin struct {
	Address   netip.Addr
	UserAgent string
	RequestID string
}

// Event is one thing that happened.
type Event struct {
	// ID is a UUIDv7, given by Append.
	ID string
	// At defaults to the time of Append.
	At time.Time
	// Account is the id of the account it happened to; empty when there is none, as for an attempt on an unknown name.
	Account string
	// Actor is who did it: the id of an account, [Operator], or empty for the system itself and for strangers.
	Actor string
	// Action is a permanent name, noun first: "password.changed".
	Action string
	Origin Origin
	// Detail holds up to 16 facts about the event, and never a secret. Values beyond 512 bytes are cut.
	Detail map[string]string
}

// Log is the trail. It is safe for concurrent use.
type Log struct {
	cfg   Config
	clock func() time.Time
}

// New returns the trail. It does no I/O.
func New(cfg Config, clock func() time.Time) *Log {
	return &Log{cfg: cfg, clock: clock}
}

const insertEvent = `INSERT INTO audit_events
	(id, at, account, actor, action, address, user_agent, request_id, detail, keep_until)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

// Append writes an event with q, the transaction of the change that it describes. An event without a proper action, or
// with too many or misnamed details, is a mistake in the program and an error.
func (l *Log) Append(ctx context.Context, q sqldb.Queryer, e Event) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("append audit event: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("append audit event: %w", err)
	}
	detail, err := encodeDetail(e.Detail)
	if err != nil {
		return fmt.Errorf("append audit event: %w", err)
	}
	at := e.At
	if at.IsZero() {
		at = l.clock()
	}
	if _, err := q.ExecContext(ctx, insertEvent, id.String(), sqldb.Micros(at), e.Account, e.Actor, e.Action,
		AddressText(e.Origin.Address), clean(e.Origin.UserAgent, maxUserAgent), clean(e.Origin.RequestID, maxRequestID),
		detail, sqldb.Micros(at.Add(l.cfg.Retention))); err != nil {
		return fmt.Errorf("append audit event %s: %w", e.Action, err)
	}
	return nil
}

func (e Event) check() error {
	var faults []error
	if !isName(e.Action, maxAction) || !strings.Contains(e.Action, ".") {
		faults = append(faults, fmt.Errorf("action %q is not of the form noun.verb", e.Action))
	}
	if len(e.Account) > maxAccount || len(e.Actor) > maxAccount {
		faults = append(faults, fmt.Errorf("account or actor is longer than %d bytes", maxAccount))
	}
	if len(e.Detail) > maxKeys {
		faults = append(faults, fmt.Errorf("%d details, at most %d are kept", len(e.Detail), maxKeys))
	}
	for key := range e.Detail {
		if !isName(key, maxKey) {
			faults = append(faults, fmt.Errorf("detail name %q is not snake_case", key))
		}
	}
	return errors.Join(faults...)
}

// isName reports whether s is made of lower-case words, digits, underscores and inner dots.
func isName(s string, limit int) bool {
	if s == "" || len(s) > limit || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

func encodeDetail(detail map[string]string) (string, error) {
	kept := make(map[string]string, len(detail))
	for key, value := range detail {
		kept[key] = clean(value, maxValue)
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("encode detail: %w", err)
	}
	return string(text), nil
}

// AddressText is the address in its shortest form, empty when unknown. The zone names an interface of this machine and says
// nothing about the caller.
func AddressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// clean cuts s to at most limit bytes of valid UTF-8 without control or invisible formatting characters, which could
// forge lines in whatever prints the trail.
func clean(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			continue
		case b.Len()+utf8.RuneLen(r) > limit:
			return b.String()
		}
		b.WriteRune(r)
	}
	return b.String()
}
