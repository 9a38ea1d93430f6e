package session

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Authenticate returns the session behind a cookie of our own pages: ErrInvalidCookie when there is none, ErrEnded with the
// reason when it was ended, ErrUnavailable when the store cannot be reached. Using a session keeps it from expiring; that is
// written down once a minute, and failing to do so fails nothing.
func (s *Service) Authenticate(ctx context.Context, value string) (Session, error) {
	c, ok := parseCookie(value)
	if !ok {
		return Session{}, ErrInvalidCookie
	}
	return s.store.page(ctx, c)
}

// Reauthenticated notes in the caller's transaction that the person behind a session has just proved who they are again, and
// returns what to call once it has committed. That returns the new cookie of a session of our own pages, whose old one is
// then worth nothing; for others it is empty, and the next refresh carries the new time. A session that is not the subject's,
// or not live, is ErrNotFound, from either.
func (s *Service) Reauthenticated(ctx context.Context, tx sqldb.Tx, subject, id string) (commit func(context.Context) (string, error), err error) {
	parsed, err := ParseID(id)
	if err != nil {
		return nil, err
	}
	p := &proof{subject: subject, id: parsed}
	done, err := s.store.prove(ctx, tx, p)
	if err != nil {
		return nil, fmt.Errorf("reauthenticate session: %w", err)
	}
	return func(ctx context.Context) (string, error) {
		if err := done(ctx); err != nil {
			return "", fmt.Errorf("reauthenticate session: %w", err)
		}
		if !p.hasCookie {
			return "", nil
		}
		return p.cookie.encode(), nil
	}, nil
}
