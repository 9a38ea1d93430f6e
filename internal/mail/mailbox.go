package mail

import (
	"context"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

// mailboxSize is how many messages the development mailbox keeps.
const mailboxSize = 200

// Mailbox is the development mailbox: a transport that keeps the last 200 messages in the database, where every process sees
// them. It is safe for concurrent use. It is no place for mail to real people: whoever reads it can take over accounts.
type Mailbox struct {
	db    *sqldb.DB
	clock func() time.Time
}

// Received is a message in the development mailbox.
type Received struct {
	ID         string    `json:"id"`
	To         string    `json:"to"`
	Subject    string    `json:"subject"`
	Text       string    `json:"text"`
	HTML       string    `json:"html"`
	ReceivedAt time.Time `json:"received_at"`
}

// NewMailbox returns the mailbox in db.
func NewMailbox(db *sqldb.DB, clock func() time.Time) *Mailbox {
	return &Mailbox{db: db, clock: clock}
}

const (
	insertReceived = `INSERT INTO mail_mailbox (id, recipient, subject, text, html, received_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`
	trimReceived = `DELETE FROM mail_mailbox WHERE id NOT IN (
		SELECT id FROM mail_mailbox ORDER BY received_at DESC, id DESC LIMIT $1)`
	listReceived = `SELECT id, recipient, subject, text, html, received_at FROM mail_mailbox
		ORDER BY received_at DESC, id DESC LIMIT $1`
	getReceived   = `SELECT id, recipient, subject, text, html, received_at FROM mail_mailbox WHERE id = $1`
	clearReceived = `DELETE FROM mail_mailbox`
)

// Send implements [Transport]. A redelivery changes nothing.
func (b *Mailbox) Send(ctx context.Context, id string, m Message) error {
	err := b.db.Write(ctx, func(tx sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, insertReceived, id, m.To, m.Subject, m.Text, m.HTML, sqldb.Micros(b.clock())); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, trimReceived, mailboxSize)
		return err
	})
	if err != nil {
		return fmt.Errorf("mailbox: %w", err)
	}
	return nil
}

// List returns all messages, newest first.
func (b *Mailbox) List(ctx context.Context) ([]Received, error) {
	list, err := sqldb.All(ctx, b.db.Reader(), scanReceived, listReceived, mailboxSize)
	if err != nil {
		return nil, fmt.Errorf("list mailbox: %w", err)
	}
	return list, nil
}

// Get returns one message, or [sqldb.ErrNotFound].
func (b *Mailbox) Get(ctx context.Context, id string) (Received, error) {
	r, err := sqldb.One(ctx, b.db.Reader(), scanReceived, getReceived, id)
	if err != nil {
		return Received{}, fmt.Errorf("mailbox message: %w", err)
	}
	return r, nil
}

// Clear removes all messages.
func (b *Mailbox) Clear(ctx context.Context) error {
	if _, err := b.db.Writer().ExecContext(ctx, clearReceived); err != nil {
		return fmt.Errorf("clear mailbox: %w", err)
	}
	return nil
}

func scanReceived(row sqldb.Row) (Received, error) {
	var (
		r  Received
		at int64
	)
	err := row.Scan(&r.ID, &r.To, &r.Subject, &r.Text, &r.HTML, &at)
	r.ReceivedAt = sqldb.Time(at)
	return r, err
}
