package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/sqldb"
)

// homes is both stores as one. Who owns a person's sessions is written in session_subjects (home), which only a transaction that
// holds the person's lock changes; whatever else locks the person finds it there. What asks without a lock, a refresh above all,
// asks the store where people mostly are. A person who is not there has a home elsewhere, or no longer: only then homes looks.
// So a refresh is one round trip unless the person lives where it was not expected.
type homes struct {
	common
	sql    sqlStore
	redis  *redisStore // nil without
	target atomic.Pointer[Store]
	moving atomic.Bool // a move is under way
	halt   func(step string) error
}

func newHomes(c common) *homes {
	c.home = InSQL
	if c.deps.Redis != nil && c.cfg.Store != InSQL {
		c.home = InRedis
	}
	s := &homes{common: c}
	c.is = InSQL
	s.sql = newSQLStore(c)
	if c.deps.Redis != nil {
		c.is = InRedis
		s.redis = newRedisStore(c)
	}
	return s
}

var (
	// errNoRedis is met where a node has no Redis and its people have moved there.
	errNoRedis = errors.New("the person's sessions are in Redis, and this node has none; give its URL in redis")
	// errRestless is met where a person moves faster than can be asked.
	errRestless = errors.New("the person's sessions are being moved")
)

// maxAsked is how often somebody is asked for who moves meanwhile.
const maxAsked = 6

// residence is where a person lives. Two that are equal say that nothing was moved or decided between them.
type residence struct {
	subject string
	home    Store
	seq     int64
	transit bool
}

const (
	findResidence = `SELECT u.subject, u.home, u.seq, t.number IS NOT NULL
		FROM session_subjects u LEFT JOIN session_transits t ON t.subject = u.subject AND t.arrived = 0 `
	residenceByRouting = findResidence + `WHERE u.routing = $1`
	residenceBySubject = findResidence + `WHERE u.subject = $1`
	readMove           = `SELECT COALESCE(target, ''), started_at, finished_at, people, sessions, skipped FROM session_moves WHERE id = 1`
	anybodyInRedis     = `SELECT count(*) FROM (SELECT 1 FROM session_subjects WHERE home = 'redis' LIMIT 1) AS anybody`
)

// byRouting and bySubject return how to find a person; nobody is errUnknown.
func (s *homes) byRouting(routing [routingSize]byte) func(context.Context) (residence, error) {
	return func(ctx context.Context) (residence, error) {
		return s.find(ctx, residenceByRouting, hex.EncodeToString(routing[:]))
	}
}

func (s *homes) bySubject(subject string) func(context.Context) (residence, error) {
	return func(ctx context.Context) (residence, error) { return s.find(ctx, residenceBySubject, subject) }
}

func (s *homes) find(ctx context.Context, query, key string) (residence, error) {
	is, err := sqldb.One(ctx, s.deps.DB.Reader(), scanResidence, query, key)
	if errors.Is(err, sqldb.ErrNotFound) {
		return residence{}, errUnknown
	}
	if is.home == "" {
		is.home = s.home
	}
	return is, err
}

func scanResidence(r sqldb.Row) (is residence, err error) {
	err = r.Scan(&is.subject, &is.home, &is.seq, &is.transit)
	return is, err
}

// first is where people mostly are.
func (s *homes) first() Store {
	if target := s.target.Load(); target != nil {
		return *target
	}
	return s.home
}

func (s *homes) in(home Store) (store, error) {
	switch {
	case home == InSQL:
		return s.sql, nil
	case s.redis == nil:
		return nil, unavailable(errNoRedis)
	default:
		return s.redis, nil
	}
}

func other(home Store) Store {
	if home == InSQL {
		return InRedis
	}
	return InSQL
}

// ask asks the store where people mostly are and, while that does not know, the one where the person turns out to live. Only an
// answer from a home that was the same before and after is final: errUnknown.
func ask[T any](ctx context.Context, s *homes, find func(context.Context) (residence, error), from func(store) (T, error)) (T, error) {
	var none T
	var was residence
	at := s.first()
	for range maxAsked {
		st, err := s.in(at)
		if err != nil {
			return none, err
		}
		answer, err := from(st)
		outage := err != nil && at == InRedis && s.moving.Load() && errors.Is(err, redisdb.ErrUnreachable)
		if !outage && !errors.Is(err, errUnknown) {
			return answer, err
		}
		is, lookErr := find(ctx)
		switch {
		case lookErr != nil && !errors.Is(lookErr, errUnknown):
			return none, unavailable(lookErr)
		case lookErr != nil:
			return none, lookErr
		case outage && (is.transit || is.home == InRedis):
			return none, err
		case is.transit:
			if err := s.complete(ctx, is.subject); err != nil {
				return none, unavailable(err)
			}
			is = residence{home: is.home}
		case is == was:
			return none, errUnknown
		}
		was, at = is, is.home
	}
	return none, unavailable(errRestless)
}

func (s *homes) rotate(ctx context.Context, r rotation) (decision, error) {
	return ask(ctx, s, s.byRouting(r.presented.routing), func(st store) (decision, error) { return st.rotate(ctx, r) })
}

func (s *homes) page(ctx context.Context, c cookie) (Session, error) {
	one, err := ask(ctx, s, s.byRouting(c.routing), func(st store) (Session, error) { return st.page(ctx, c) })
	if errors.Is(err, errUnknown) {
		return Session{}, ErrInvalidCookie
	}
	return one, err
}

func (s *homes) live(ctx context.Context, subject string) ([]Session, error) {
	live, err := ask(ctx, s, s.bySubject(subject), func(st store) ([]Session, error) { return st.live(ctx, subject) })
	if errors.Is(err, errUnknown) {
		return nil, nil
	}
	return live, err
}

func (s *homes) end(ctx context.Context, e ending) (int, error) {
	n, err := ask(ctx, s, s.bySubject(e.subject), func(st store) (int, error) { return st.end(ctx, e) })
	if errors.Is(err, errUnknown) {
		return 0, nil
	}
	return n, err
}

// settle goes where the person lives: nobody moves with a theft that has not been settled.
func (s *homes) settle(ctx context.Context, m mark) error {
	is, err := s.find(ctx, residenceBySubject, m.subject)
	if err == nil {
		var st store
		if st, err = s.in(is.home); err == nil {
			err = st.settle(ctx, m)
		}
	}
	if errors.Is(err, errUnknown) {
		return nil
	}
	return err
}

// decide lets the store decide, in the caller's transaction, where the person lives whom it locks.
func decide[T any](s *homes, do func(store) (T, error)) (T, error) {
	var none T
	home := s.first()
	for range 2 {
		st, err := s.in(home)
		if err != nil {
			return none, err
		}
		if answer, err := do(st); !errors.Is(err, errUnknown) {
			return answer, err
		}
		home = other(home)
	}
	return none, unavailable(errRestless)
}

func (s *homes) endTx(ctx context.Context, tx sqldb.Tx, e ending) error {
	_, err := decide(s, func(st store) (struct{}, error) { return struct{}{}, st.endTx(ctx, tx, e) })
	return err
}

func (s *homes) setRolesTx(ctx context.Context, tx sqldb.Tx, subject, roles string) error {
	_, err := decide(s, func(st store) (struct{}, error) { return struct{}{}, st.setRolesTx(ctx, tx, subject, roles) })
	return err
}

func (s *homes) start(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
	done, err := decide(s, func(st store) (finish, error) { return st.start(ctx, tx, o) })
	if err != nil || o.person.home == InSQL {
		return done, err
	}
	subject := o.start.Subject
	return func(ctx context.Context) error {
		return s.follow(ctx, subject, done, func(ctx context.Context, tx sqldb.Tx) error { return s.startAgain(ctx, tx, o) })
	}, nil
}

// startAgain brings a session to life in SQL whose person has come there from Redis since it was decided.
func (s *homes) startAgain(ctx context.Context, tx sqldb.Tx, o *opening) error {
	p, err := s.sql.lockSubject(ctx, tx, o.start.Subject, nil)
	if err != nil {
		return err
	}
	if p.ended > o.person.seq {
		return ErrOvertaken
	}
	again := *o
	again.person, again.session.Epoch = p, p.epoch
	again.begin(s.cfg, p.now)
	if err := s.sql.growable(ctx, tx, &again); err != nil {
		return err
	}
	full, err := s.sql.open(ctx, tx, &again)
	if err == nil && full {
		err = ErrLimitReached
	}
	o.session = again.session
	return err
}

func (s *homes) prove(ctx context.Context, tx sqldb.Tx, p *proof) (finish, error) {
	inRedis := false
	done, err := decide(s, func(st store) (finish, error) {
		_, inRedis = st.(*redisStore)
		return st.prove(ctx, tx, p)
	})
	if err != nil || !inRedis {
		return done, err
	}
	return func(ctx context.Context) error {
		err := s.follow(ctx, p.subject, done, func(ctx context.Context, tx sqldb.Tx) error {
			_, err := s.sql.prove(ctx, tx, p)
			return err
		})
		if errors.Is(err, errUnknown) {
			return ErrNotFound
		}
		return err
	}, nil
}

func (s *homes) attach(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
	inRedis := false
	done, err := decide(s, func(st store) (finish, error) {
		_, inRedis = st.(*redisStore)
		return st.attach(ctx, tx, o)
	})
	if err != nil || !inRedis {
		return done, err
	}
	return func(ctx context.Context) error {
		err := s.follow(ctx, o.start.Subject, done, func(ctx context.Context, tx sqldb.Tx) error {
			_, err := s.sql.attach(ctx, tx, o)
			return err
		})
		if errors.Is(err, errUnknown) {
			return ErrNotFound
		}
		return err
	}, nil
}

func (s *homes) endGrant(ctx context.Context, tx sqldb.Tx, e ending, in, id uuid.UUID) error {
	_, err := decide(s, func(st store) (struct{}, error) { return struct{}{}, st.endGrant(ctx, tx, e, in, id) })
	return err
}

// follow finishes in Redis what a transaction has decided, or, when the person has left it since, in SQL.
func (s *homes) follow(ctx context.Context, subject string, inRedis finish, inSQL func(context.Context, sqldb.Tx) error) error {
	var was residence
	for range maxAsked {
		is, err := s.find(ctx, residenceBySubject, subject)
		switch {
		case err != nil:
			return unavailable(err)
		case is.transit:
			err = s.complete(ctx, subject)
			if err != nil {
				return unavailable(err)
			}
			continue
		case is.home == InSQL:
			err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error { return inSQL(ctx, tx) })
		case is == was:
			return errUnknown
		default:
			err = inRedis(ctx)
		}
		if !errors.Is(err, errUnknown) {
			return err
		}
		was = is
	}
	return unavailable(errRestless)
}

// apply reads the feed, which every store has in SQL, and carries out what has been decided about people in Redis.
func (s *homes) apply(ctx context.Context) error {
	if s.redis == nil {
		return s.sql.apply(ctx)
	}
	return s.redis.apply(ctx)
}

// lookEvery is how soon a node asks first where people have been moved to, and finishes what a mover left behind.
const lookEvery = time.Second

func (s *homes) tasks() []task {
	all := append(s.sql.tasks(), task{"follow moves", lookEvery, s.followMoves})
	if s.redis != nil {
		all = append(append(all, s.redis.tasks()...), task{"be known in Redis", greetEvery, s.greet})
	}
	return all
}

const (
	nameInstallation = `UPDATE session_moves SET installation = CASE WHEN installation = '' THEN $1 ELSE installation END
		WHERE id = 1 RETURNING installation`
	// greetEvery is how often a node makes its installation known in Redis, and greetFor how long it is.
	greetEvery = 10 * time.Minute
	greetFor   = 24 * time.Hour
)

// installation is the name of this database in Redis, which looks like a person's tag.
func (s *homes) installation(ctx context.Context) (tag [routingSize]byte, err error) {
	rand.Read(tag[:])
	name, err := sqldb.One(ctx, s.deps.DB.Writer(), scanString, nameInstallation, hex.EncodeToString(tag[:]))
	if err != nil {
		return tag, fmt.Errorf("name the installation: %w", err)
	}
	return parseRouting(name)
}

// greet makes the installation known in Redis, so that nobody moves people to a Redis that no server uses.
func (s *homes) greet(ctx context.Context) error {
	tag, err := s.installation(ctx)
	if err == nil {
		_, err = s.redis.exec(ctx, greetScript, tag, duration(greetFor))
	}
	return err
}

// checkRedis refuses a Redis that no server of this installation has used lately.
func (s *homes) checkRedis(ctx context.Context) error {
	tag, err := s.installation(ctx)
	if err != nil {
		return err
	}
	h, _, err := s.redis.read(ctx, tag)
	if err == nil && len(h) == 0 {
		err = fmt.Errorf("no server with this database uses %s; restart the servers with it in redis first, or name the Redis and the "+
			"database that they use", s.deps.Redis.Name())
	}
	return err
}

// load makes sure that nobody lives where this node cannot reach.
func (s *homes) load(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	if s.redis != nil {
		if err := s.greet(ctx); err != nil { // while it runs, this node tries again
			s.deps.Log.WarnContext(ctx, "sessions cannot be moved to this Redis yet", "error", err)
		}
		return nil
	}
	n, err := sqldb.One(ctx, s.deps.DB.Reader(), scanInt64, anybodyInRedis)
	if err == nil && n > 0 {
		err = errors.New("there are sessions in Redis, and no Redis is configured; give its URL in redis, or move the sessions with " +
			"`sumun sessions move --from redis --to sql`")
	}
	return err
}

// followMoves is what every node does about moves, while it runs.
func (s *homes) followMoves(ctx context.Context) error {
	if err := s.look(ctx); err != nil || s.redis == nil {
		return err
	}
	return s.completeStragglers(ctx)
}

// look learns where people are being moved to.
func (s *homes) look(ctx context.Context) error {
	m, err := s.readMove(ctx)
	if err != nil {
		return err
	}
	if m.Target != "" {
		s.target.Store(&m.Target)
	}
	s.moving.Store(m.Target != "" && m.FinishedAt.IsZero())
	return nil
}

func (s *homes) readMove(ctx context.Context) (MoveState, error) {
	m, err := sqldb.One(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (m MoveState, err error) {
		var started, finished int64
		err = r.Scan(&m.Target, &started, &finished, &m.People, &m.Sessions, &m.Skipped)
		m.StartedAt, m.FinishedAt = sqldb.Time(started), sqldb.Time(finished)
		return m, err
	}, readMove)
	if err != nil {
		return MoveState{}, fmt.Errorf("read the state of the move: %w", err)
	}
	return m, nil
}
