// Package fault owns expected failures: what a caller is told when something cannot be done.
//
// A fault has a kind (and through it an HTTP status), a permanent code such as "session.ended", a message that is safe to
// show to anyone, and optionally the cause, which is logged and never shown. Packages declare their faults as variables
// and return them, wrapped or not:
//
//	var ErrEnded = fault.New(fault.Unauthenticated, "session.ended", "The session has ended.")
//
//	return ErrEnded.Wrap(err)
//
// It promises that a fault is immutable (every With... method returns a copy, so faults may be shared between goroutines),
// that errors.Is compares codes, and that nothing but code, messages and fields ever reaches a client.
//
// It refuses to guess: an error without a fault in its chain is internal, except for the two the standard library itself
// declares about requests, a passed deadline and a body that is too large.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is an expected failure. Make one with New; the zero value is not useful. It is immutable and safe for concurrent
// use.
type Fault struct {
	kind       Kind
	code       string
	title      string // as declared
	detail     string // more specific than title; "" when there is nothing to add
	cause      error
	fields     []Field
	retryAfter time.Duration
	challenge  string
}

// Field says what is wrong with one value of a request. It never carries the value itself, which may be a password.
type Field struct {
	Name    string `json:"name" doc:"Where the value was: a path in the body, or with its place in front." example:"query.limit"`
	Code    string `json:"code,omitempty" doc:"Permanent and meant for programs." example:"password.too_short"`
	Message string `json:"message" doc:"What is wrong with it, for people."`
}

// Faults that belong to no domain.
var (
	// ErrInternal is what a caller sees of an error that is not a fault.
	ErrInternal = New(Internal, "internal", "Something went wrong on our side.")
	// ErrTimeout is what a caller sees when a deadline has passed.
	ErrTimeout = New(Timeout, "timeout", "This took too long. Please try again.").After(5 * time.Second)
	// ErrTooLarge is what a caller sees when a request body exceeds its bound.
	ErrTooLarge = New(TooLarge, "request.too_large", "The request is too large.")
)

// New declares a fault. The code is permanent and consists of dot-separated words in snake_case; the message is one
// sentence that is safe to show to anyone. New panics on a malformed code or an empty message: both are programming errors
// that a package variable brings to light at once.
func New(kind Kind, code, message string) *Fault {
	if !validCode(code) {
		panic(fmt.Sprintf("fault: malformed code %q", code))
	}
	if message == "" {
		panic(fmt.Sprintf("fault: %s has no message", code))
	}
	return &Fault{kind: kind, code: code, title: message}
}

// Error returns code, message and cause, for logs. It is not what a client is shown; that is Message.
func (f *Fault) Error() string {
	text := f.code + ": " + f.Message()
	if f.cause != nil {
		text += ": " + f.cause.Error()
	}
	return text
}

// Unwrap returns the cause, nil when there is none.
func (f *Fault) Unwrap() error { return f.cause }

// Is reports whether target is a fault with the same code, whatever else was added to either.
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	return ok && t.code == f.code
}

// Wrap returns a copy with a cause. The cause is logged where the kind asks for it, and never shown.
func (f *Fault) Wrap(cause error) *Fault {
	c := *f
	c.cause = cause
	return &c
}

// With returns a copy with a message more specific than the declared one. It must be as safe to show.
func (f *Fault) With(detail string) *Fault {
	c := *f
	c.detail = detail
	return &c
}

// WithFields returns a copy that names the values at fault, after those it already names.
func (f *Fault) WithFields(fields ...Field) *Fault {
	c := *f
	c.fields = slices.Concat(f.fields, fields)
	return &c
}

// After returns a copy that asks the caller to wait for d before trying again. It is rounded up to whole seconds, at least
// one (RFC 9110, section 10.2.3).
func (f *Fault) After(d time.Duration) *Fault {
	c := *f
	c.retryAfter = max(time.Second, (d + time.Second - 1).Truncate(time.Second))
	return &c
}

// Challenge returns a copy with a value for the WWW-Authenticate header (RFC 9110, section 11.6.1).
func (f *Fault) Challenge(header string) *Fault {
	c := *f
	c.challenge = header
	return &c
}

// Kind returns the kind.
func (f *Fault) Kind() Kind { return f.kind }

// Code returns the permanent code.
func (f *Fault) Code() string { return f.code }

// Message returns the most specific message that is safe to show.
func (f *Fault) Message() string {
	if f.detail != "" {
		return f.detail
	}
	return f.title
}

// Fields returns a copy of the values at fault.
func (f *Fault) Fields() []Field { return slices.Clone(f.fields) }

// RetryAfter returns how long to wait before trying again, in whole seconds; zero when nothing is said about it.
func (f *Fault) RetryAfter() time.Duration { return f.retryAfter }

// WWWAuthenticate returns the value of the WWW-Authenticate header, "" when there is none.
func (f *Fault) WWWAuthenticate() string { return f.challenge }

// Status returns the HTTP status.
func (f *Fault) Status() int { return f.kind.Status() }

// From returns the first fault in err's chain. Of the errors that are not faults, a passed deadline becomes ErrTimeout and
// an exceeded http.MaxBytesReader ErrTooLarge, both with err as their cause; anything else becomes ErrInternal wrapping
// err. From(nil) is nil.
func From(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return ErrTooLarge.Wrap(err)
	case errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout.Wrap(err)
	default:
		return ErrInternal.Wrap(err)
	}
}

// validCode reports whether code is made of dot-separated words of a-z, 0-9 and _, at most 64 bytes.
func validCode(code string) bool {
	if len(code) > 64 {
		return false
	}
	for word := range strings.SplitSeq(code, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return false
		}
	}
	return true
}
