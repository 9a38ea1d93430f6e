package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Move says which way all sessions go, person by person.
type Move struct {
	From, To Store
	Batch    int  // people in one transaction, 1 to MaxBatch
	Rate     int  // people per second at most; 0: as fast as it goes
	Turn     bool // also when a move the other way is under way, which ends
}

// MaxBatch bounds Move.Batch: for so many people at once, sessions stand still for some milliseconds.
const MaxBatch = 1000

// MoveState is how far a move has come, whoever moves. Without any it has no Target.
type MoveState struct {
	Target                    Store
	StartedAt, FinishedAt     time.Time // FinishedAt is zero while the move is under way
	People, Sessions, Skipped int64     // who moved, with how many live sessions; who had none
	Remaining                 int64     // people who have not moved
}

const (
	startMove = `UPDATE session_moves SET target = $1, started_at = $2, finished_at = 0, people = 0, sessions = 0, skipped = 0
		WHERE id = 1 AND (target IS NULL OR target <> $1
			OR finished_at > 0 AND EXISTS (SELECT 1 FROM session_subjects WHERE home = $3))`
	finishMove = `UPDATE session_moves SET finished_at = $1 WHERE id = 1 AND target = $2 AND finished_at = 0
		AND NOT EXISTS (SELECT 1 FROM session_subjects WHERE home = $3) AND NOT EXISTS (SELECT 1 FROM session_transits)`
	nameHomes = `UPDATE session_subjects SET home = $1 WHERE subject IN (
		SELECT subject FROM session_subjects WHERE home = '' ORDER BY subject LIMIT $2)`
	countHome  = `SELECT count(*) FROM session_subjects WHERE home = $1`
	nextMovers = `SELECT u.subject FROM session_subjects u
		WHERE u.home = $1 AND u.subject > $2 AND NOT EXISTS (SELECT 1 FROM session_transits t WHERE t.subject = u.subject)
		ORDER BY u.subject LIMIT $3`
)

// errTurned ends a mover when another one has begun to move the other way, or has finished.
var errTurned = errors.New("another process has ended this move, or turned it round; `sumun sessions status` tells")

// finishPause is how long to wait for those who came to the old home while the last ones left it.
const finishPause = 50 * time.Millisecond

// batchTimeout bounds one batch, which is finished also when the mover is told to stop.
const batchTimeout = 30 * time.Second

// Move moves everybody's sessions from one store to the other while they are in use, and calls progress after each batch. Nobody is
// signed out: a person's sessions move together, in steps that any node completes, and a refresh that comes meanwhile waits some
// milliseconds. New people live in Move.To from the beginning. It may be stopped at any time and called again, also by several
// processes at once, and after it all have moved. It ends early with the error of a store that cannot be reached, or when ctx
// ends; then the state says how far it came.
func (s *Service) Move(ctx context.Context, m Move, progress func(MoveState)) (MoveState, error) {
	if err := m.validate(); err != nil {
		return MoveState{}, err
	}
	if s.deps.Redis == nil {
		return MoveState{}, errors.New("no Redis is configured; give the URL in redis that the servers have")
	}
	if err := s.deps.Redis.Ping(ctx); err != nil {
		return MoveState{}, err
	}
	if err := s.store.checkRedis(ctx); err != nil {
		return MoveState{}, err
	}
	run := mover{homes: s.store, move: m, progress: progress}
	if err := run.begin(ctx); err != nil {
		return MoveState{}, fmt.Errorf("begin to move sessions: %w", err)
	}
	err := run.everybody(ctx)
	if err != nil {
		err = fmt.Errorf("move sessions: %w", err)
	}
	state, readErr := s.store.moveState(context.WithoutCancel(ctx))
	return state, errors.Join(err, readErr)
}

func (m Move) validate() error {
	for _, one := range []Store{m.From, m.To} {
		if one != InSQL && one != InRedis {
			return fmt.Errorf("sessions are not kept in %q; use %q or %q", one, InSQL, InRedis)
		}
	}
	if m.From == m.To {
		return fmt.Errorf("sessions cannot be moved from %s to %s; name two stores", m.From, m.To)
	}
	if m.Batch < 1 || m.Batch > MaxBatch {
		return fmt.Errorf("a batch of %d is not between 1 and %d; use 100", m.Batch, MaxBatch)
	}
	if m.Rate < 0 {
		return fmt.Errorf("a rate of %d a second is below 0; use 0 for as fast as it goes", m.Rate)
	}
	return nil
}

// MoveState returns how far the latest move has come.
func (s *Service) MoveState(ctx context.Context) (MoveState, error) { return s.store.moveState(ctx) }

func (s *homes) moveState(ctx context.Context) (MoveState, error) {
	state, err := s.readMove(ctx)
	if err != nil || state.Target == "" {
		return state, err
	}
	state.Remaining, err = sqldb.One(ctx, s.deps.DB.Reader(), scanInt64, countHome, string(other(state.Target)))
	return state, err
}

// mover is one process that moves sessions.
type mover struct {
	*homes
	move     Move
	progress func(MoveState)
	total    int64 // people who belong to the move
	done     int64 // who have been moved by this process
}

// begin makes the target where new people live, for every node from the commit on, and finishes what a mover before left.
func (m *mover) begin(ctx context.Context) error {
	state, err := m.readMove(ctx)
	if err != nil {
		return err
	}
	if state.Target == m.move.From && state.FinishedAt.IsZero() && !m.move.Turn {
		return fmt.Errorf("a move from %s to %s is under way (%d people have moved); let it finish, or turn it round with --turn",
			m.move.To, m.move.From, state.People)
	}
	if _, err := sqldb.Sweep(ctx, m.deps.DB, nameHomes, string(m.home), sweepBatch); err != nil {
		return err
	}
	_, err = m.deps.DB.Writer().ExecContext(ctx, startMove, string(m.move.To), sqldb.Micros(m.deps.Clock()), string(m.move.From))
	if err != nil {
		return err
	}
	if err := m.look(ctx); err != nil {
		return err
	}
	return m.completeAll(ctx, 0)
}

// everybody moves everybody. Who came to the old home behind its back, at a node that had not heard of the move, is found in
// another round.
func (m *mover) everybody(ctx context.Context) error {
	state, err := m.moveState(ctx)
	if err != nil {
		return err
	}
	m.total = state.People + state.Skipped + state.Remaining
	m.progress(state)
	began := time.Now()
	for after, found := "", false; ; {
		people, err := sqldb.All(ctx, m.deps.DB.Reader(), scanString, nextMovers, string(m.move.From), after, m.move.Batch)
		switch {
		case err != nil:
			return err
		case len(people) > 0:
			after, found = people[len(people)-1], true
			if err := m.batch(ctx, people); err != nil {
				return err
			}
			m.pace(ctx, began)
		case found:
			after, found = "", false
		default:
			if done, err := m.finish(ctx); done || err != nil {
				return err
			}
			pause(ctx, finishPause)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// batch moves some people, all the way.
func (m *mover) batch(ctx context.Context, people []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
	defer cancel()
	departed, err := m.depart(ctx, people)
	for unsettled := (*unsettledError)(nil); errors.As(err, &unsettled); {
		if err := m.settle(ctx, unsettled.mark); err != nil {
			return err
		}
		departed, err = m.depart(ctx, people)
	}
	if err != nil {
		return err
	}
	if err := m.step(stepDeparted); err != nil {
		return err
	}
	if err := m.completeEach(ctx, departed); err != nil {
		return err
	}
	m.done += int64(len(people))
	state, err := m.readMove(ctx)
	if err == nil {
		state.Remaining = max(0, m.total-state.People-state.Skipped)
		m.progress(state)
	}
	return err
}

// depart lets people set out, who have not yet.
func (m *mover) depart(ctx context.Context, people []string) (departed []transit, err error) {
	err = m.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		departed = nil
		var moved, sessions, empty int64
		for _, subject := range people {
			t, n, err := m.departOne(ctx, tx, subject)
			switch {
			case errors.Is(err, errUnknown):
				continue
			case err != nil:
				return err
			case t.number > 0:
				departed = append(departed, t)
			}
			if n > 0 {
				moved, sessions = moved+1, sessions+n
			} else if m.move.To == InRedis { // on the way to SQL people are counted when they arrive
				empty++
			}
		}
		res, err := tx.ExecContext(ctx, countArrival, moved, sessions, empty, string(m.move.To))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err == nil && n == 0 && len(departed)+int(empty) > 0 {
			err = errTurned
		}
		return err
	})
	return departed, err
}

func (m *mover) departOne(ctx context.Context, tx sqldb.Tx, subject string) (transit, int64, error) {
	if m.move.To == InRedis {
		return m.departFromSQL(ctx, tx, subject)
	}
	t, err := m.departFromRedis(ctx, tx, subject)
	return t, 0, err
}

// pace waits so that no more people move in a second than is wanted.
func (m *mover) pace(ctx context.Context, began time.Time) {
	if m.move.Rate > 0 {
		due := time.Duration(float64(m.done) / float64(m.move.Rate) * float64(time.Second))
		pause(ctx, time.Until(began.Add(due)))
	}
}

// finish ends the move if nobody is left. Who is under way belongs to another mover, or to one that died.
func (m *mover) finish(ctx context.Context) (done bool, err error) {
	if err := m.completeAll(ctx, 0); err != nil {
		return false, err
	}
	res, err := m.deps.DB.Writer().ExecContext(ctx, finishMove, sqldb.Micros(m.deps.Clock()), string(m.move.To), string(m.move.From))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	if n > 0 || err != nil {
		return true, err
	}
	state, err := m.readMove(ctx)
	switch {
	case err != nil:
		return false, err
	case state.Target != m.move.To:
		return false, errTurned
	default:
		return !state.FinishedAt.IsZero(), nil // by another mover
	}
}
