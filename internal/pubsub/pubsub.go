// Package pubsub is the fan-out between nodes: what one publishes on a subject, every subscriber on every node gets, at most
// once. It runs over NATS, which is embedded in the process unless it is configured to be elsewhere, or over Redis.
//
// It promises that the messages of one publisher arrive in their order and never twice; that a subscriber is told when it
// may have missed some (its gap handler), whatever lost them: a connection, a link between two servers, a queue that was
// full; that nothing waits and nothing grows without bound because a subscriber is slow or a server is away; and that no
// handler is called once stop has returned.
//
// It refuses to be the truth: a message is a hint, and what it hints at is read from where it is kept. A node that was away
// gets nothing later. Nor does it vouch for who sent a message: whoever may publish on the same NATS or Redis can.
//
// How a loss is noticed. Every message carries the number that it has among its publisher's on that subject, and how long ago
// the one before was sent; after the last one its publisher repeats number and age now and then (a beat). A subscriber that
// finds a number missing, of a message that was sent after it subscribed and after it was last told of a gap, has a gap.
// Ages are compared with durations on the subscriber's own clock, so the nodes' clocks need not agree.
package pubsub

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/fault"
)

// Limits.
const (
	// MaxPayload is the size of the largest message, in bytes.
	MaxPayload = 64 << 10
	// MaxSubject is the length of the longest subject, in bytes.
	MaxSubject = 128

	// A subscriber that is behind by more than this many messages or bytes loses the newest, and is told.
	maxPending      = 4096
	maxPendingBytes = 4 << 20
)

// Faults.
var (
	// ErrUnavailable says that a message was not handed over, or a subscription not made: there is no connection.
	ErrUnavailable = fault.New(fault.Unavailable, "pubsub.unavailable", "Nodes cannot reach each other at the moment.").
			After(time.Second)
	// ErrSubject says that a subject is not made of words of a-z, 0-9, _ and - with dots between them, or is too long.
	ErrSubject = fault.New(fault.Invalid, "pubsub.subject", "The subject of a message is not valid.")
	// ErrTooLarge says that a message is larger than MaxPayload.
	ErrTooLarge = fault.New(fault.TooLarge, "pubsub.too_large", "The message is too large.")
)

// Deps are what NATS and Redis work with. All are required, except Metrics. Clock must not be set back while the program runs,
// which is true of time.Now.
type Deps struct {
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// checkSubject lets nothing through that NATS or Redis would take for a pattern, a command or two words.
func checkSubject(subject string) error {
	if len(subject) > MaxSubject {
		return ErrSubject.Wrap(fmt.Errorf("it has %d bytes, at most %d are allowed", len(subject), MaxSubject))
	}
	for word := range strings.SplitSeq(subject, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return ErrSubject.Wrap(fmt.Errorf("%.*q", MaxSubject, subject))
		}
	}
	return nil
}
