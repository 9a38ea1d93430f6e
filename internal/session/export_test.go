package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"
)

// Exposed to the tests of this package.
var (
	ParseRefreshForTest = func(s string) (again string, err error) {
		t, err := parseRefresh(s)
		return t.encode(), err
	}
	ParseCookieForTest = func(s string) (again string, ok bool) {
		c, ok := parseCookie(s)
		return c.encode(), ok
	}
	ParsePositionForTest = func(s string) (again string, ok bool) {
		b, ok := parseBookmark(s)
		return b.String(), ok
	}
	ParseCursorForTest = func(s string) (again string, err error) {
		p, err := parseCursor(s)
		return p.cursor(), err
	}
)

// StoredDevice is a device as it comes back from Redis.
func StoredDevice(d Device) (Device, error) { return decodeDevice(encodeDevice(d)) }

// Rotate is Refresh without an access token: what the store has to do.
func (s *Service) Rotate(ctx context.Context, presented string, device Device) (successor string, err error) {
	p, err := s.verify(ctx, presented, "")
	if err != nil {
		return "", err
	}
	_, next, err := s.rotate(ctx, p, "", device)
	return next.encode(), err
}

// Mark is Refresh by a process that dies as soon as the store has decided.
func (s *Service) Mark(ctx context.Context, presented string, device Device) (string, error) {
	p, err := s.verify(ctx, presented, "")
	if err != nil {
		return "", err
	}
	d, _, err := s.rotate(ctx, p, "", device)
	return string(d.outcome), err
}

// Chores does every task of Run's once, except to follow the feed.
func (s *Service) Chores(ctx context.Context) error {
	var errs []error
	for _, t := range s.store.tasks() {
		errs = append(errs, t.do(ctx))
	}
	return errors.Join(errs...)
}

// HoldFeed keeps the feed from being read, as a query that hangs does, until release is called.
func (s *Service) HoldFeed() (release func()) {
	s.feed.turn <- struct{}{}
	return func() { <-s.feed.turn }
}

// Listen is Run without its tasks: it learns of revocations when it is woken, and never polls.
func (s *Service) Listen(ctx context.Context) { s.exchangeWakes(ctx) }

// Sweep is such a task, and so is SettleAll, in SQL.
func (s *Service) Sweep(ctx context.Context) error { return s.task("sweep sessions").do(ctx) }

// SettleAll is such a task.
func (s *Service) SettleAll(ctx context.Context) error { return s.task("settle thefts").do(ctx) }

// CatchUp is such a task, in Redis.
func (s *Service) CatchUp(ctx context.Context) error { return s.task("carry out intents").do(ctx) }

func (s *Service) task(name string) task {
	for _, t := range s.store.tasks() {
		if t.name == name {
			return t
		}
	}
	panic("no task " + name)
}

// The steps of a move.
var MoveSteps = []string{stepDeparted, stepCopied, stepArrived}

// DieAfter lets this node die after every step of a move of that name; "" brings it back to life.
func (s *Service) DieAfter(step string) {
	s.store.halt = func(name string) error {
		if name == step {
			return ErrDied
		}
		return nil
	}
}

// Carried reports whether a move writes a column of sessions or grants.
func Carried(column string) bool {
	return slices.Contains(strings.FieldsFunc(putSession+putGrant, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) }), column)
}

// ErrDied is what a node says that dies after a step.
var ErrDied = errors.New("killed")
