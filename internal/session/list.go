package session

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	defaultPage = 20
	maxPage     = 100
)

// List returns up to limit live sessions of the subject (20 when limit is not positive, at most 100), the most recently used
// first. next is the cursor of the following page, "" on the last one; a cursor that is not ours is ErrCursor. A person's
// sessions are few (Config.Limit), so they are read whole and cut here.
func (s *Service) List(ctx context.Context, subject, cursor string, limit int) (page []Session, next string, err error) {
	var after position
	if cursor != "" {
		if after, err = parseCursor(cursor); err != nil {
			return nil, "", err
		}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	page, err = s.store.live(ctx, subject)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	if cursor != "" {
		page = slices.DeleteFunc(page, func(one Session) bool { return !after.before(one) })
	}
	if len(page) <= limit {
		return page, "", nil
	}
	page = page[:limit]
	return page, positionOf(page[limit-1]).cursor(), nil
}

func positionOf(one Session) position {
	return position{used: sqldb.Micros(one.LastUsedAt), id: uuid.MustParse(one.ID)} // ids are ours
}

// before reports whether the session comes after this position in the order of List.
func (p position) before(one Session) bool {
	if used := sqldb.Micros(one.LastUsedAt); used != p.used {
		return used < p.used
	}
	return one.ID < p.id.String()
}
