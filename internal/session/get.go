package session

import (
	"context"
	"fmt"
	"slices"
)

// Get returns one of the subject's live sessions, as List does. Every other id is ErrNotFound.
func (s *Service) Get(ctx context.Context, subject, id string) (Session, error) {
	if _, err := ParseID(id); err != nil {
		return Session{}, err
	}
	live, err := s.store.live(ctx, subject)
	if err != nil {
		return Session{}, fmt.Errorf("get session: %w", err)
	}
	i := slices.IndexFunc(live, func(one Session) bool { return one.ID == id })
	if i < 0 {
		return Session{}, ErrNotFound
	}
	return live[i], nil
}
