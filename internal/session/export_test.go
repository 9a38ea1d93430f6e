package session

import "context"

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
	ParseCursorForTest = func(s string) (again string, err error) {
		p, err := parseCursor(s)
		return p.cursor(), err
	}
)

// Mark is Refresh by a process that dies as soon as the store has decided.
func (s *Service) Mark(ctx context.Context, presented string, device Device) (string, error) {
	p, err := s.verify(ctx, presented)
	if err != nil {
		return "", err
	}
	d, _, err := s.rotate(ctx, p, device)
	return string(d.outcome), err
}

// SettleAll and Sweep are the tasks of Run.
func (s *Service) SettleAll(ctx context.Context) error { return s.settleAll(ctx) }

// Sweep is a task of Run.
func (s *Service) Sweep(ctx context.Context) error { return s.sweep(ctx) }

// HoldFeed keeps the feed from being read, as a query that hangs does, until release is called.
func (s *Service) HoldFeed() (release func()) {
	s.feed.turn <- struct{}{}
	return func() { <-s.feed.turn }
}
