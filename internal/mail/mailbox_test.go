package mail_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// A developer would not find the mail, or a forgotten mailbox would fill the disk.
func TestMailboxKeepsTheNewest(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		now := clocktest.Noon()
		box := mail.NewMailbox(db, now.Now)
		for i := range 203 {
			now.Advance(time.Second)
			m := mail.Message{To: "kim@example.com", Subject: fmt.Sprintf("No. %d", i), Text: "text", HTML: "<p>html</p>"}
			if err := box.Send(t.Context(), fmt.Sprintf("id-%03d", i), m); err != nil {
				t.Fatal(err)
			}
		}
		// Another process sees the same.
		other := mail.NewMailbox(sqldbtest.Reopen(t, db), now.Now)
		list, err := other.List(t.Context())
		if err != nil || len(list) != 200 || list[0].Subject != "No. 202" || list[199].Subject != "No. 3" {
			t.Fatalf("%d messages, %v", len(list), err)
		}
		got, err := other.Get(t.Context(), "id-202")
		if err != nil || got != list[0] || !got.ReceivedAt.Equal(now.Now()) || got.Text != "text" || got.HTML != "<p>html</p>" {
			t.Errorf("got %+v, %v", got, err)
		}
		if _, err := other.Get(t.Context(), "id-002"); !errors.Is(err, sqldb.ErrNotFound) {
			t.Errorf("an old message: %v", err)
		}
		if err := other.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		if list, err := box.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("after clear: %d messages, %v", len(list), err)
		}
	})
}

// A redelivery would show as a second message; nodes that deliver at once would fail each other.
func TestMailboxTakesEachMessageOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		box := mail.NewMailbox(db, clocktest.Noon().Now)
		var senders sync.WaitGroup
		for i := range 20 {
			senders.Go(func() {
				m := mail.Message{To: "kim@example.com", Subject: "Hello", Text: "x"}
				if err := box.Send(t.Context(), fmt.Sprintf("id-%d", i/2), m); err != nil {
					t.Error(err)
				}
			})
		}
		senders.Wait()
		if list, err := box.List(t.Context()); err != nil || len(list) != 10 {
			t.Errorf("%d messages, %v; want 10", len(list), err)
		}
	})
}
