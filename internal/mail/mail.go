// Package mail owns the letters that Sumun writes: an outbox that outlives a crash, the transports that carry a letter away,
// and the rules for e-mail addresses.
//
// A domain puts a [Letter] into the outbox in the transaction that made it necessary. [Queue.Run] composes and sends
// it afterwards, at least once: a redelivery carries the same Message-ID. Since composing happens on delivery, a
// request that leads to a letter costs the same whether or not there is anything to say, and to whom.
//
// It promises that no committed letter is lost: it is delivered, dropped by its composer, or parked with its error where an
// operator sees it. It promises nothing about order. It refuses headers that could be injected into, and never logs a whole
// address; see [MaskAddress].
package mail

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of the outbox and of the development mailbox.
var Migrations = sqldb.Migrations{Name: "mail", FS: files}

// Letter is something to tell a person. Its text is made on delivery, by a [Composer].
type Letter struct {
	// ID is a UUIDv7, given by Enqueue when empty.
	ID string
	// Kind says what the letter is about, and with what stands before its first dot, if there is one, who composes it; see
	// [Queue.Handle].
	Kind string
	// Address is where it goes. It may be left empty when the composer finds out.
	Address string
	// Account is the id of the account it concerns, if there is one.
	Account string
	// Locale is the language to write in, as a BCP 47 tag; empty for the default.
	Locale string
	// Data is what the composer needs to know. It lies in the database in clear until the letter is gone, so a secret,
	// such as the token of a link, is better made by the composer.
	Data map[string]string
	// CreatedAt defaults to the time of Enqueue.
	CreatedAt time.Time
}

// Message is a letter ready to be sent.
type Message struct {
	To      string
	Subject string // one line
	Text    string
	HTML    string // optional alternative to Text
}

// Composer makes the message of a letter. A nil message means that there is nothing to send, and the letter is
// dropped. An error, or a panic, makes the queue try again later. It may be called several times for one letter, from
// several goroutines and nodes.
type Composer func(ctx context.Context, letter Letter) (*Message, error)

// Transport carries messages away. Send returns once the message is somebody else's responsibility. An error that wraps
// [ErrRefused] is final; any other is tried again with the same id, which identifies the message to its receiver.
type Transport interface {
	Send(ctx context.Context, id string, m Message) error
}

// ErrRefused is wrapped by a transport when the receiver has said that it will never take the message.
var ErrRefused = errors.New("refused for good")

const (
	maxSubject = 255       // bytes
	maxBody    = 512 << 10 // bytes, of text and of HTML each
	maxData    = 16 << 10  // bytes of JSON
	maxName    = 64        // bytes of kind, account and locale each
)

// check refuses what no transport may be given.
func (m Message) check() error {
	if _, err := ParseAddress(m.To); err != nil {
		return fmt.Errorf("recipient: %w", err)
	}
	switch {
	case m.Subject == "" || len(m.Subject) > maxSubject || !utf8.ValidString(m.Subject):
		return fmt.Errorf("subject is not 1 to %d bytes of UTF-8", maxSubject)
	case strings.ContainsFunc(m.Subject, unicode.IsControl):
		return errors.New("subject holds a control character")
	case m.Text == "" || len(m.Text) > maxBody || len(m.HTML) > maxBody:
		return fmt.Errorf("text is not 1 to %d bytes, or HTML is longer", maxBody)
	case !utf8.ValidString(m.Text) || !utf8.ValidString(m.HTML):
		return errors.New("body is not valid UTF-8")
	}
	return nil
}

// encode checks a letter and returns its data as it is stored.
func (l Letter) encode() (string, error) {
	domain, _, _ := strings.Cut(l.Kind, ".")
	if domain == "" || len(l.Kind) > maxName || len(l.Account) > maxName || len(l.Locale) > maxName {
		return "", fmt.Errorf("kind is empty, or kind, account or locale exceeds %d bytes", maxName)
	}
	if l.Address != "" {
		if _, err := ParseAddress(l.Address); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(l.Data)
	if err != nil {
		return "", err
	}
	if len(data) > maxData {
		return "", fmt.Errorf("data is %d bytes, at most %d are kept", len(data), maxData)
	}
	return string(data), nil
}
