package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

// A person moves in steps, of which each is atomic and may be repeated by anybody. docs/adr/0016 has what a crash between any
// two of them leaves.
//
//	to Redis   depart: in one transaction the rows leave SQL for session_transits, and the home changes
//	           adopt: a script writes them to Redis, unless it has been done
//	           the row in session_transits goes
//	to SQL     depart: a row in session_transits says that it has begun
//	           freeze: a script marks the person's hash; refreshes there are turned away from now on
//	           arrive: in one transaction the sessions are written to SQL, and the home changes
//	           leave: a script removes the hash, but for its mark
//	           the row in session_transits goes
//
// Between the steps nobody can use the sessions. Who wants to completes the move.

// transit is somebody who is under way.
type transit struct {
	subject string
	routing [routingSize]byte
	number  int64 // seq as the departure raised it
	target  Store
	seq     int64 // as it is now
	ended   int64
	payload []byte // fields and values of the hash, as a JSON array; on the way to SQL they are in Redis
}

const (
	raiseMove = `UPDATE session_subjects SET seq = seq + 1, home = $1 WHERE subject = $2 
		RETURNING ` + personColumns + `COALESCE(CAST($3 AS BIGINT), (SELECT now FROM session_clock))`
	addTransit  = `INSERT INTO session_transits (subject, number, target, payload, arrived, created_at) VALUES ($1, $2, $3, $4, 0, $5)`
	markArrived = `UPDATE session_transits SET arrived = 1 WHERE subject = $1 AND number = $2 AND arrived = 0`
	dropTransit = `DELETE FROM session_transits WHERE subject = $1 AND number = $2`
	findTransit = `SELECT t.subject, u.routing, t.number, t.target, u.seq, u.ended_seq, t.payload
		FROM session_transits t JOIN session_subjects u ON u.subject = t.subject `
	oneTransit  = findTransit + `WHERE t.subject = $1`
	oldTransits = findTransit + `WHERE t.subject > $1
		AND t.created_at <= COALESCE(CAST($2 AS BIGINT), (SELECT now FROM session_clock)) - $3 ORDER BY t.subject LIMIT $4`
	countArrival = `UPDATE session_moves SET people = people + $1, sessions = sessions + $2, skipped = skipped + $3
		WHERE id = 1 AND target = $4 AND finished_at = 0`
	pendingOf = `SELECT count(*) FROM session_intents WHERE subject = $1 AND applied_at = 0`
)

// The steps after which a test lets the mover die.
const (
	stepDeparted = "departed"
	stepCopied   = "copied" // adopted, or frozen
	stepArrived  = "arrived"
)

func (s *homes) step(name string) error {
	if s.halt == nil {
		return nil
	}
	return s.halt(name)
}

func scanTransit(r sqldb.Row) (t transit, err error) {
	var routing string
	if err := r.Scan(&t.subject, &routing, &t.number, &t.target, &t.seq, &t.ended, &t.payload); err != nil {
		return transit{}, err
	}
	t.routing, err = parseRouting(routing)
	return t, err
}

// strays is how long a move may take before other nodes than the mover look after it.
const strays = 5 * time.Second

// completeStragglers completes moves whose mover has died.
func (s *homes) completeStragglers(ctx context.Context) error {
	return s.completeAll(ctx, strays)
}

// completeAll brings everybody home who has been under way for so long.
func (s *homes) completeAll(ctx context.Context, since time.Duration) error {
	for after := ""; ; {
		list, err := sqldb.All(ctx, s.deps.DB.Reader(), scanTransit, oldTransits, after, s.deps.told(), since.Microseconds(), applyBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		if err := s.completeEach(ctx, list); err != nil {
			return err
		}
		after = list[len(list)-1].subject
	}
}

// complete brings one person to where they are going, if they are under way.
func (s *homes) complete(ctx context.Context, subject string) error {
	t, err := sqldb.One(ctx, s.deps.DB.Reader(), scanTransit, oneTransit, subject)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.completeEach(ctx, []transit{t})
}

// completeEach brings people to where they are going. Who has been brought by somebody else is not touched.
func (s *homes) completeEach(ctx context.Context, people []transit) error {
	if s.redis == nil {
		return errNoRedis
	}
	var toRedis, toSQL []transit
	for _, t := range people {
		if t.target == InRedis {
			toRedis = append(toRedis, t)
		} else {
			toSQL = append(toSQL, t)
		}
	}
	return errors.Join(s.adopt(ctx, toRedis), s.leaveRedis(ctx, toSQL))
}

// adopt writes people to Redis who have left SQL.
func (s *homes) adopt(ctx context.Context, people []transit) error {
	if len(people) == 0 {
		return nil
	}
	err := each(people, func(t transit) error {
		var fields [][]byte
		if err := json.Unmarshal(t.payload, &fields); err != nil {
			return fmt.Errorf("read what somebody carries: %w", err)
		}
		args := []string{number(t.number), number(t.ended), duration(keepFloor)}
		for _, one := range fields {
			args = append(args, string(one))
		}
		_, err := s.redis.exec(ctx, adoptScript, t.routing, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := s.step(stepCopied); err != nil {
		return err
	}
	if err := s.drop(ctx, people); err != nil {
		return err
	}
	return each(people, func(t transit) error {
		if t.seq == t.number {
			return nil
		}
		return s.redis.applyTo(ctx, t.subject) // what was decided about them on the way
	})
}

// drop removes the rows of people who are where they belong.
func (s *homes) drop(ctx context.Context, people []transit) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		for _, t := range people {
			if _, err := tx.ExecContext(ctx, dropTransit, t.subject, t.number); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note an arrival: %w", err)
	}
	return nil
}

// leaveRedis brings people to SQL.
func (s *homes) leaveRedis(ctx context.Context, people []transit) error {
	if len(people) == 0 {
		return nil
	}
	stale := make([]bool, len(people))
	err := eachIndex(len(people), func(i int) error {
		answer, err := s.redis.exec(ctx, freezeScript, people[i].routing, number(people[i].number))
		stale[i] = err == nil && answer[0] == "stale"
		return err
	})
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	if err := s.step(stepCopied); err != nil {
		return err
	}
	var frozen []transit
	for i, t := range people {
		if !stale[i] {
			frozen = append(frozen, t)
		}
	}
	for waiting := frozen; len(waiting) > 0; {
		if waiting, err = s.arrive(ctx, waiting); err != nil {
			return fmt.Errorf("arrive in SQL: %w", err)
		}
	}
	if err := s.step(stepArrived); err != nil {
		return err
	}
	err = each(frozen, func(t transit) error {
		_, err := s.redis.exec(ctx, leaveScript, t.routing, number(t.number))
		return err
	})
	if err != nil {
		return fmt.Errorf("leave Redis: %w", err)
	}
	return s.drop(ctx, people)
}

// luggage is what somebody brings from Redis.
type luggage struct {
	transit
	baggage
}

// arrive writes people to SQL whose hashes are frozen, and returns those about whom something was decided meanwhile: they have
// to be read again.
func (s *homes) arrive(ctx context.Context, people []transit) (again []transit, err error) {
	list := make([]luggage, len(people))
	err = eachIndex(len(people), func(i int) (err error) {
		list[i], err = s.collect(ctx, people[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		again = nil
		var arrived, sessions, empty int64
		for _, l := range list {
			p, err := s.redis.lockSubject(ctx, tx, l.subject, nil)
			if errors.Is(err, errUnknown) {
				continue // is there already
			}
			if err != nil {
				return err
			}
			if p.seq != l.seq {
				again = append(again, l.transit)
				continue
			}
			first, err := s.settleIn(ctx, tx, l, p)
			if err != nil {
				return err
			}
			if n := l.living(); first && n > 0 {
				arrived, sessions = arrived+1, sessions+n
			} else if first {
				empty++
			}
		}
		_, err := tx.ExecContext(ctx, countArrival, arrived, sessions, empty, string(InSQL))
		return err
	})
	return again, err
}

// settleIn gives somebody a home in SQL, unless somebody else did.
func (s *homes) settleIn(ctx context.Context, tx sqldb.Tx, l luggage, p person) (first bool, err error) {
	res, err := tx.ExecContext(ctx, markArrived, l.subject, l.number)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if err := s.sql.put(ctx, tx, l.subject, p, l.baggage); err != nil {
		return false, err
	}
	_, err = s.raise(ctx, tx, l.subject, InSQL)
	return true, err
}

// collect reads what somebody has in Redis, with everything carried out that has been decided up to seq.
func (s *homes) collect(ctx context.Context, t transit) (luggage, error) {
	for range maxAsked {
		is, err := s.find(ctx, residenceBySubject, t.subject)
		if err != nil {
			return luggage{}, err
		}
		t.seq = is.seq
		pending, err := sqldb.One(ctx, s.deps.DB.Reader(), scanInt64, pendingOf, t.subject)
		if err != nil {
			return luggage{}, err
		}
		h, now, err := s.redis.read(ctx, t.routing)
		if err != nil {
			return luggage{}, err
		}
		marks, err := h.marks()
		if err != nil {
			return luggage{}, err
		}
		if len(marks) == 0 && pending == 0 {
			b, err := h.baggage()
			if err == nil {
				b.pack(now)
			}
			return luggage{t, b}, err
		}
		if err := errors.Join(s.redis.settle(ctx, mark{routing: t.routing, subject: t.subject}), s.redis.applyTo(ctx, t.subject)); err != nil {
			return luggage{}, err
		}
	}
	return luggage{}, errRestless
}

// departFromSQL takes somebody out of SQL. Who had nothing there, and has never been in Redis, is not under way but there at once.
func (s *homes) departFromSQL(ctx context.Context, tx sqldb.Tx, subject string) (t transit, sessions int64, err error) {
	p, err := s.sql.lockSubject(ctx, tx, subject, nil)
	if err != nil {
		return transit{}, 0, err
	}
	b, err := s.sql.take(ctx, tx, subject, p.now)
	if err != nil {
		return transit{}, 0, err
	}
	if p, err = s.raise(ctx, tx, subject, InRedis); err != nil || len(b.sessions) == 0 && p.seq == 1 {
		return transit{}, 0, err
	}
	h, err := b.hash(subject, p)
	if err != nil {
		return transit{}, 0, err
	}
	var fields [][]byte
	for field, value := range h {
		fields = append(fields, []byte(field), []byte(value))
	}
	t = transit{subject: subject, routing: p.routing, number: p.seq, seq: p.seq, ended: p.ended, target: InRedis}
	if t.payload, err = json.Marshal(fields); err != nil {
		return transit{}, 0, err
	}
	return t, b.living(), s.addTransit(ctx, tx, t, p.now)
}

// departFromRedis notes that somebody is about to leave Redis. Who is under way already is errUnknown.
func (s *homes) departFromRedis(ctx context.Context, tx sqldb.Tx, subject string) (t transit, err error) {
	if _, err := s.redis.lockSubject(ctx, tx, subject, nil); err != nil {
		return transit{}, err
	}
	is, err := sqldb.One(ctx, tx, scanResidence, residenceBySubject, subject)
	if err != nil {
		return transit{}, err
	}
	if is.transit {
		return transit{}, errUnknown
	}
	p, err := s.raise(ctx, tx, subject, InRedis)
	if err != nil {
		return transit{}, err
	}
	t = transit{subject: subject, routing: p.routing, number: p.seq, seq: p.seq, ended: p.ended, target: InSQL}
	return t, s.addTransit(ctx, tx, t, p.now)
}

// raise counts a step of somebody who is locked, and says where the person lives from now on.
func (s *homes) raise(ctx context.Context, tx sqldb.Tx, subject string, home Store) (person, error) {
	return sqldb.One(ctx, tx, scanPerson, raiseMove, string(home), subject, s.deps.told())
}

func (s *homes) addTransit(ctx context.Context, tx sqldb.Tx, t transit, now time.Time) error {
	_, err := tx.ExecContext(ctx, addTransit, t.subject, t.number, string(t.target), t.payload, sqldb.Micros(now))
	return err
}

// atOnce is how many people are carried to Redis, or read there, at the same time.
const atOnce = 32

// each does something for all of a list, several at a time, and returns what went wrong first.
func each[T any](list []T, do func(T) error) error {
	return eachIndex(len(list), func(i int) error { return do(list[i]) })
}

func eachIndex(n int, do func(int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, min(n, atOnce))
	for w := range errs {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}
