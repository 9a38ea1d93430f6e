// Package idempotency lets a caller repeat a request without it happening twice (draft-ietf-httpapi-idempotency-key-header-07).
//
// It owns the memory of what callers have asked for under a key: a Store, in memory or in Redis, and the stage that asks it.
//
// It promises that of any number of requests with one key at most one is under way, on all nodes that share the store; that the
// first answer is what every later one gets; that a key stands for one request, so that another one under it is refused; that keys
// of different callers and routes have nothing to do with each other; and that a client which leaves does not stop what it began,
// so that its next attempt finds the answer.
//
// A request whose outcome nobody knows, because the process died before it kept the answer or the service did not give one, stays
// known as that: repeats are refused with ErrUnknownOutcome, or run again where the route says that its service stands that. What
// was certainly not sent may be sent again under the same key.
//
// It refuses to guess: without the store requests with a key are refused, unless the route says otherwise; and it does not know
// callers without a name, since a key is a secret of nobody in particular.
package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// Why a request with a key is not passed on.
var (
	ErrKey = fault.New(fault.Malformed, "idempotency.key",
		"The header Idempotency-Key is not one key of at most 255 characters.")
	ErrMissing = fault.New(fault.Malformed, "idempotency.missing",
		"This needs a header Idempotency-Key with a new value for each operation.")
	ErrBody   = fault.New(fault.Malformed, "idempotency.body", "The body of the request ended before its end.")
	ErrInUse  = fault.New(fault.Conflict, "idempotency.in_use", "The same request is still being worked on.").After(time.Second)
	ErrReused = fault.New(fault.Invalid, "idempotency.reused",
		"This Idempotency-Key was used for a different request. Use a new one for each operation.")
	ErrUnknownOutcome = fault.New(fault.Conflict, "idempotency.unknown_outcome",
		"It is not known how the same request ended before. Look whether it took effect before you ask again with a new key.")
	ErrNotKept = fault.New(fault.Conflict, "idempotency.answer_not_kept",
		"The same request has been answered before. Its answer was too large to be kept.")
	ErrUnavailable = fault.New(fault.Unavailable, "idempotency.unavailable",
		"It cannot be told at the moment whether this was asked before. Please try again shortly.").After(5 * time.Second)
)

// Config is what a route says about repeated requests. The zero Config is off.
type Config struct {
	Mode      Mode          `yaml:"mode" doc:"off; optional: POST, PUT, PATCH and DELETE with a header Idempotency-Key happen once; required: POST and PATCH must have one."`
	Keep      time.Duration `yaml:"keep" doc:"How long the answer to a key is kept."`
	Implicit  time.Duration `yaml:"implicit" doc:"For clients that send no key: how long a caller's request with the same method, path and body counts as the same one, such as 10s. 0s: never."`
	MaxAnswer int64         `yaml:"max_answer" doc:"The largest body of an answer that is kept, in bytes. Repeats of what had a larger one are refused."`
	Outage    Outage        `yaml:"outage" doc:"While what was asked before cannot be looked up: refuse answers 503; pass lets requests through, which may then happen twice."`
	Lost      Lost          `yaml:"lost" doc:"A repeat of a request of which nobody knows how it ended: refuse answers 409; repeat passes it on again, for services that know the key themselves."`
}

// DefaultConfig keeps the answers to keys for a day, once mode says that there are keys.
func DefaultConfig() Config {
	return Config{Mode: Off, Keep: 24 * time.Hour, MaxAnswer: 64 << 10, Outage: Refuse, Lost: RefuseLost}
}

// Enabled reports whether there is anything to do.
func (c Config) Enabled() bool { return c.Mode != "" && c.Mode != Off || c.Implicit > 0 }

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if !c.Enabled() {
		return nil
	}
	if c.Keep < time.Second || c.Keep > maxKeep {
		errs = append(errs, fmt.Errorf("keep: %s is outside 1s to %s; use 24h", c.Keep, maxKeep))
	}
	if c.Implicit < 0 || c.Implicit > time.Hour {
		errs = append(errs, fmt.Errorf("implicit: %s is outside 0s to 1h; use 10s, or 0s for never", c.Implicit))
	}
	if c.MaxAnswer < 0 || c.MaxAnswer > maxAnswer {
		errs = append(errs, fmt.Errorf("max_answer: %d is outside 0 to %d; use 65536", c.MaxAnswer, maxAnswer))
	}
	return errors.Join(errs...)
}

const (
	maxKeep   = 30 * 24 * time.Hour
	maxAnswer = 8 << 20
)

// Mode is which requests are looked at.
type Mode string

// The modes.
const (
	Off      Mode = "off"
	Optional Mode = "optional"
	Required Mode = "required"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	return stage.OneOf(m, text, Off, Optional, Required)
}

// Outage is what happens while the store cannot be asked.
type Outage string

// What can happen.
const (
	Refuse Outage = "refuse"
	Pass   Outage = "pass"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Outage) UnmarshalText(text []byte) error {
	return stage.OneOf(o, text, Refuse, Pass)
}

// Lost is what happens to a repeat of a request whose outcome is not known.
type Lost string

// What can happen.
const (
	RefuseLost Lost = "refuse"
	RepeatLost Lost = "repeat"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Lost) UnmarshalText(text []byte) error {
	return stage.OneOf(l, text, RefuseLost, RepeatLost)
}

// Claim is a request that wants to happen.
type Claim struct {
	// ID stands for caller, route and key.
	ID string
	// Holder is who claims; nobody else has the same.
	Holder string
	// Fingerprint stands for the request.
	Fingerprint string
	// Lease is how long the claim lives if it is not renewed.
	Lease time.Duration
	// Keep is how long the claim and its outcome are known.
	Keep time.Duration
	// Repeat says that an earlier claim whose outcome is unknown counts as none.
	Repeat bool
}

// Outcome is what became of a claim.
type Outcome int

// What can become of it.
const (
	// Claimed: the request may happen, and the store expects to be told.
	Claimed Outcome = iota
	// Answered: it has happened before.
	Answered
	// InUse: it is happening.
	InUse
	// Differs: the key was used for another request.
	Differs
	// Unknown: it may have happened; its holder is gone, or does not know either.
	Unknown
)

// Store remembers claims. *Memory and *Redis are stores. Every method is one atomic step, and safe for concurrent use.
type Store interface {
	// Claim decides whether a request may happen. The answer is what Keep was given, where the outcome is Answered.
	Claim(ctx context.Context, c Claim) (Outcome, []byte, error)
	// Renew makes a claim live for its lease, from now; none at all where alive is false: its outcome stays unknown.
	Renew(ctx context.Context, c Claim, alive bool) error
	// Keep ends a claim with an answer. It does nothing if the claim is somebody else's by now.
	Keep(ctx context.Context, c Claim, answer []byte) error
	// Release forgets a claim: the request did not happen. It does nothing if the claim is somebody else's by now.
	Release(ctx context.Context, c Claim) error
}
