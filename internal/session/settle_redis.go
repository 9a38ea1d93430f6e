package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

// A patrol asks Redis about so many people in a row, which is one page of SQL and one batch of a hundred commands a second: a
// million people take some three hours.
const (
	patrolEvery = 5 * time.Second
	patrolBatch = 500
)

const listSubjects = `SELECT subject, routing FROM session_subjects WHERE home = 'redis' AND subject > $1 ORDER BY subject LIMIT $2`

// patrol looks for marks whose process died before it could settle them, and which no request of the person has followed. Each
// time it goes on where it stopped.
func (s *redisStore) patrol(ctx context.Context) error {
	people, err := sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (m mark, err error) {
		var routing string
		if err := r.Scan(&m.subject, &routing); err != nil {
			return mark{}, err
		}
		m.routing, err = parseRouting(routing)
		return m, err
	}, listSubjects, s.patrolled, patrolBatch)
	if err != nil {
		return fmt.Errorf("list people: %w", err)
	}
	s.patrolled = ""
	if len(people) == patrolBatch {
		s.patrolled = people[len(people)-1].subject
	}
	client := s.redis.Client()
	asked := make(rueidis.Commands, len(people))
	for i, m := range people {
		asked[i] = client.B().Hget().Key(s.key(m.routing)).Field("p").Build()
	}
	var errs []error
	for i, answer := range client.DoMulti(ctx, asked...) {
		switch err := answer.Error(); {
		case rueidis.IsRedisNil(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("look for marks: %w", err))
		default:
			errs = append(errs, s.settle(ctx, people[i]))
		}
	}
	return errors.Join(errs...)
}

// settleSoon settles marks now. When that is impossible, the next request of the person does.
func (s *redisStore) settleSoon(ctx context.Context, m mark) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := s.settle(ctx, m); err != nil {
		s.deps.Log.WarnContext(ctx, "thefts or evictions are not settled yet", "error", err)
	}
}

// settle draws the consequences of every mark in the person's hash. The intent that is written with them tells that they have
// been, should the mark come back in a failover.
func (s *redisStore) settle(ctx context.Context, m mark) error {
	h, _, err := s.read(ctx, m.routing)
	if err != nil {
		return err
	}
	marks, err := h.marks()
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range marks {
		errs = append(errs, s.settleOne(ctx, m.subject, one))
	}
	return errors.Join(errs...)
}

func (s *redisStore) settleOne(ctx context.Context, subject string, m settlement) error {
	var revocations []auth.Revocation
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		p, err := s.lockSubject(ctx, tx, subject, nil)
		if err != nil {
			return err
		}
		i := m.intent()
		if first, err := s.intendOnce(ctx, tx, subject, i, p); err != nil || !first {
			return err
		}
		if m.evicted {
			e := ending{subject: subject, only: m.theft.sessionID, reason: LimitReached, action: "session.limit"}
			err = s.record(ctx, tx, e, 1)
		} else {
			err = s.tell(ctx, tx, subject, m.theft)
		}
		if err != nil {
			return err
		}
		r := sessionRevocations([]string{m.theft.sessionID})[0]
		if i.Kind == intendEndGrant {
			r = OfGrant(m.id.String())
		}
		revocations, err = s.feed.append(ctx, tx, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	s.feed.committed(revocations)
	s.deps.Mail.Wake()
	return s.carryOutMark(ctx, subject, m.id)
}

// settlement is a mark, read.
type settlement struct {
	id      uuid.UUID // of the grant, or of the session if it was evicted
	evicted bool
	theft   theft // for an eviction its session alone
}

// intent is what a settlement leaves behind. Its text does not depend on when, or by whom.
func (m settlement) intent() intent {
	switch {
	case m.evicted:
		return intent{Kind: intendEndOne, ID: m.theft.sessionID, Reason: LimitReached, Mark: m.id.String()}
	case m.theft.clientID == FirstParty:
		return intent{Kind: intendEndOne, ID: m.theft.sessionID, Reason: Theft, Mark: m.id.String()}
	default:
		return intent{Kind: intendEndGrant, ID: m.id.String(), Reason: Theft, Mark: m.id.String()}
	}
}
