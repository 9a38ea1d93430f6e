package audit_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var sets = []sqldb.Migrations{audit.Migrations}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func appendEvent(t *testing.T, log *audit.Log, db *sqldb.DB, e audit.Event) {
	t.Helper()
	if err := log.Append(t.Context(), db.Writer(), e); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, log *audit.Log, db *sqldb.DB, account string) []audit.Event {
	t.Helper()
	events, _, err := log.List(t.Context(), db.Reader(), account, "", 200)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// The owner of an account would be shown something else than what happened.
func TestEventComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		now := time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)
		log := audit.New(audit.DefaultConfig(), at(now))
		appendEvent(t, log, db, audit.Event{
			Account: "a1", Actor: audit.Operator, Action: "password.changed",
			Origin: audit.Origin{Address: netip.MustParseAddr("::ffff:203.0.113.9"), UserAgent: "Firefox", RequestID: "r1"},
			Detail: map[string]string{"device": "전화"},
		})
		appendEvent(t, log, db, audit.Event{Account: "a2", Action: "session.ended"})

		got := list(t, log, db, "a1")
		if len(got) != 1 {
			t.Fatalf("%d events of a1, want 1", len(got))
		}
		e := got[0]
		if !e.At.Equal(now) || e.Actor != audit.Operator || e.Action != "password.changed" || e.Origin.UserAgent != "Firefox" ||
			e.Origin.RequestID != "r1" || e.Detail["device"] != "전화" {
			t.Errorf("got %+v", e)
		}
		if want := netip.MustParseAddr("203.0.113.9"); e.Origin.Address != want {
			t.Errorf("address %v, want %v", e.Origin.Address, want)
		}
		if other := list(t, log, db, "a2"); len(other) != 1 || other[0].Origin.Address.IsValid() {
			t.Errorf("events of a2: %+v", other)
		}
	})
}

// Somebody with the application's access to the database could cover up what was done.
func TestTrailIsAppendOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		log := audit.New(audit.DefaultConfig(), time.Now)
		appendEvent(t, log, db, audit.Event{Account: "a1", Action: "password.changed"})
		attempts := []string{
			`UPDATE audit_events SET actor = 'somebody else'`,
			`UPDATE audit_events SET keep_until = 0`,
			`DELETE FROM audit_events`,
		}
		if db.Engine() == sqldb.PostgreSQL {
			attempts = append(attempts, `TRUNCATE audit_events`)
		} else {
			attempts = append(attempts, `REPLACE INTO audit_events SELECT id, at, account, 'somebody else', action, address,
				user_agent, request_id, detail, keep_until FROM audit_events`)
		}
		for _, attempt := range attempts {
			if _, err := db.Writer().ExecContext(t.Context(), attempt); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: got %v, want a refusal", attempt, err)
			}
		}
		if got := list(t, log, db, "a1"); len(got) != 1 || got[0].Actor != "" {
			t.Errorf("the trail was changed: %+v", got)
		}
	})
}

// Either the trail grows for ever, or it loses what it has to keep.
func TestSweepRemovesOnlyWhatHasExpired(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		cfg := audit.DefaultConfig()
		old := audit.New(cfg, at(time.Now().Add(-cfg.Retention-time.Hour)))
		young := audit.New(cfg, at(time.Now().Add(-cfg.Retention+time.Hour)))
		const expired = 1203 // more than two batches
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			for range expired {
				if err := old.Append(t.Context(), tx, audit.Event{Account: "a1", Action: "session.started"}); err != nil {
					return err
				}
			}
			return young.Append(t.Context(), tx, audit.Event{Account: "a1", Action: "session.ended"})
		})
		if err != nil {
			t.Fatal(err)
		}
		n, err := young.Sweep(t.Context(), db)
		if err != nil || n != expired {
			t.Fatalf("swept %d, %v; want %d", n, err, expired)
		}
		if got := list(t, young, db, "a1"); len(got) != 1 || got[0].Action != "session.ended" {
			t.Errorf("left: %+v", got)
		}
	})
}

// A change that was rolled back would be on record, or one that happened would not be.
func TestEventLivesAndDiesWithItsTransaction(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		log := audit.New(audit.DefaultConfig(), time.Now)
		change := errors.New("the change failed")
		err := db.Write(t.Context(), func(tx sqldb.Tx) error {
			if err := log.Append(t.Context(), tx, audit.Event{Account: "a1", Action: "email.changed"}); err != nil {
				return err
			}
			return change
		})
		if !errors.Is(err, change) {
			t.Fatal(err)
		}
		if got := list(t, log, db, "a1"); len(got) != 0 {
			t.Errorf("on record: %+v", got)
		}
	})
}

// Pages would skip or repeat events, most of all those of the same microsecond.
func TestPagesAreCompleteWhileEventsArrive(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		log := audit.New(audit.DefaultConfig(), at(now))
		const n = 40
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() {
				// Two in three share their time.
				e := audit.Event{At: now.Add(time.Duration(i/3) * time.Microsecond), Account: "a1", Action: "session.started"}
				if err := log.Append(t.Context(), db.Writer(), e); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		seen := map[string]bool{}
		var last audit.Event
		for cursor := ""; ; {
			events, next, err := log.List(t.Context(), db.Reader(), "a1", cursor, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if seen[e.ID] || (last.ID != "" && e.At.After(last.At)) {
					t.Fatalf("event %s repeats or is out of order", e.ID)
				}
				seen[e.ID], last = true, e
			}
			appendEvent(t, log, db, audit.Event{At: now.Add(time.Hour), Account: "a1", Action: "session.started"})
			if cursor = next; next == "" {
				break
			}
		}
		if len(seen) != n {
			t.Errorf("saw %d of %d events", len(seen), n)
		}
	})
}

// A crafted user agent would fill the disk or forge lines in whatever prints the trail.
func TestTextFromOutsideIsBounded(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		log := audit.New(audit.DefaultConfig(), time.Now)
		hostile := "Mozilla\r\nSet-Cookie: x\x00\x1b[31m\u202e\u2028" + "\xff\xfe" + strings.Repeat("한", 400)
		appendEvent(t, log, db, audit.Event{
			Account: "a1", Action: "session.started",
			Origin: audit.Origin{UserAgent: hostile, RequestID: hostile}, Detail: map[string]string{"device": hostile},
		})
		e := list(t, log, db, "a1")[0]
		for name, bound := range map[string]struct {
			text  string
			limit int
		}{
			"user agent": {e.Origin.UserAgent, 256}, "request id": {e.Origin.RequestID, 128}, "detail": {e.Detail["device"], 512},
		} {
			if len(bound.text) > bound.limit || len(bound.text) < bound.limit-3 || !utf8.ValidString(bound.text) {
				t.Errorf("%s: %d bytes of a limit of %d", name, len(bound.text), bound.limit)
			}
			if !strings.HasPrefix(bound.text, "MozillaSet-Cookie: x[31m한") {
				t.Errorf("%s: begins with %.40q", name, bound.text)
			}
		}
	})
}

// A misspelt action would be on record for 400 days.
func TestMistakesOfTheProgramAreRefused(t *testing.T) {
	t.Parallel()
	log := audit.New(audit.DefaultConfig(), time.Now)
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	for name, e := range map[string]audit.Event{
		"no action":    {Account: "a1"},
		"no noun":      {Action: "changed"},
		"upper case":   {Action: "Password.Changed"},
		"odd detail":   {Action: "password.changed", Detail: map[string]string{"Old Password": "x"}},
		"many details": {Action: "password.changed", Detail: many},
		"long account": {Action: "password.changed", Account: strings.Repeat("a", 65)},
	} {
		if err := log.Append(t.Context(), nil, e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestConfigNamesKeyValueAndRemedy(t *testing.T) {
	t.Parallel()
	if err := audit.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := audit.Config{Retention: time.Minute}.Validate()
	if err == nil || !strings.Contains(err.Error(), "retention: 1m0s") {
		t.Errorf("got %v", err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("MTc3MjM1ODYwMDAwMDAwMCAwMTljYTZkMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDA")
	f.Add("!!!")
	f.Fuzz(func(t *testing.T, s string) {
		again, err := audit.Recursor(s)
		if err != nil {
			if !errors.Is(err, audit.ErrCursor) || fault.From(err).Status() != 400 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if twice, err := audit.Recursor(again); err != nil || twice != again {
			t.Fatalf("%q: %q does not parse to itself: %q, %v", s, again, twice, err)
		}
	})
}
