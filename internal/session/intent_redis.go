package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/sqldb"
)

// The kinds of intents.
const (
	intendRoles    = "roles"
	intendEndAll   = "end_all" // ID is the session to keep, if any
	intendEndOne   = "end_one"
	intendEndGrant = "end_grant"
)

const (
	// intentEvery is how soon an intent is carried out whose process died.
	intentEvery = time.Second
	// reapplyFor is how far back intents are carried out again when Redis is not the one it was. Replicas lag by seconds.
	reapplyFor = time.Hour
	// keepIntent is how long an intent tells that a mark has been settled.
	keepIntent = keepEnded
	// keepFloor is how long a person's hash remembers intents: longer than any sign-in takes from its transaction to Redis.
	keepFloor = time.Hour

	applyBatch = 500
	// applyFailures is how many intents may fail in one round: all do when Redis is away, a few when a shard or a person's hash is.
	applyFailures = 20
)

const (
	raiseIntent = `UPDATE session_subjects SET seq = seq + 1, epoch = epoch + $1, roles = COALESCE($2, roles),
			ended_seq = CASE WHEN $3 = 'end_all' THEN seq + 1 ELSE ended_seq END
		WHERE subject = $4
		RETURNING ` + personColumns + `COALESCE(CAST($5 AS BIGINT), (SELECT now FROM session_clock))`
	insertIntent = `INSERT INTO session_intents (subject, seq, kind, payload, created_at, applied_at) VALUES ($1, $2, $3, $4, $5, 0)`
	findSettled  = `SELECT count(*) FROM session_intents WHERE subject = $1 AND payload LIKE $2`
	// Of somebody who is on the way to Redis nothing is there yet that an intent could change.
	listIntents = `SELECT i.subject, i.seq, i.kind, i.payload, i.created_at, u.routing
		FROM session_intents i JOIN session_subjects u ON u.subject = i.subject AND u.home <> 'sql'
			AND NOT EXISTS (SELECT 1 FROM session_transits t WHERE t.subject = i.subject AND t.target = 'redis') `
	pendingIntents = listIntents + `WHERE i.applied_at = 0
		AND i.created_at >= $1 AND (i.created_at > $1 OR i.subject > $2 OR (i.subject = $2 AND i.seq > $3))
		ORDER BY i.created_at, i.subject, i.seq LIMIT $4`
	personsIntents = listIntents + `WHERE i.applied_at = 0 AND i.subject = $1 ORDER BY i.seq`
	markIntents    = listIntents + `WHERE i.subject = $1 AND i.payload LIKE $2 ORDER BY i.seq`
	recentIntents  = listIntents + `WHERE i.created_at >= $1 AND (i.created_at > $1 OR i.subject > $2 OR (i.subject = $2 AND i.seq > $3))
		ORDER BY i.created_at, i.subject, i.seq LIMIT $4`
	intentApplied = `UPDATE session_intents SET applied_at = $1 WHERE subject = $2 AND seq = $3`
	sweepIntents  = `DELETE FROM session_intents WHERE (subject, seq) IN (
		SELECT subject, seq FROM session_intents WHERE created_at < $1 AND applied_at > 0 ORDER BY created_at LIMIT $2)`
)

// intent is a decision about a person's sessions. Roles and Epoch are all that is true of the person with it, so that the
// latest intent suffices, whichever were carried out before.
type intent struct {
	Kind   string  `json:"-"`
	ID     string  `json:"id,omitempty"`
	Mark   string  `json:"mark,omitempty"` // what it settles
	Reason Reason  `json:"reason,omitempty"`
	Roles  *string `json:"roles,omitempty"`
	Epoch  int64   `json:"epoch"`

	Raise bool `json:"raise,omitempty"` // the epoch, which has revoked every access token

	subject   string
	seq       int64
	createdAt int64
	routing   [routingSize]byte
}

// intend writes an intent in the caller's transaction and returns the person as they are with it. Until the transaction ends
// whatever else decides about this person waits.
func (s *redisStore) intend(ctx context.Context, tx sqldb.Tx, subject string, i intent) (person, error) {
	if _, err := s.lockSubject(ctx, tx, subject, nil); err != nil {
		return person{}, err
	}
	raise := 0
	if i.Raise {
		raise = 1
	}
	p, err := sqldb.One(ctx, tx, scanPerson, raiseIntent, raise, i.Roles, i.Kind, subject, s.deps.told())
	if err != nil {
		return person{}, fmt.Errorf("raise intent: %w", err)
	}
	i.Roles, i.Epoch = p.roles, p.epoch
	payload, err := json.Marshal(i)
	if err != nil {
		return person{}, err
	}
	_, err = tx.ExecContext(ctx, insertIntent, subject, p.seq, i.Kind, string(payload), sqldb.Micros(s.deps.Clock()))
	return p, err
}

// intendOnce is intend for what settles a mark, unless that has been settled.
func (s *redisStore) intendOnce(ctx context.Context, tx sqldb.Tx, subject string, i intent, p person) (first bool, err error) {
	if p.seq > 0 {
		n, err := sqldb.One(ctx, tx, scanInt64, findSettled, subject, markPattern(i.Mark))
		if err != nil || n > 0 {
			return false, err
		}
	}
	_, err = s.intend(ctx, tx, subject, i)
	return true, err
}

func scanIntent(r sqldb.Row) (i intent, err error) {
	var payload, routing string
	if err := r.Scan(&i.subject, &i.seq, &i.Kind, &payload, &i.createdAt, &routing); err != nil {
		return intent{}, err
	}
	if err := json.Unmarshal([]byte(payload), &i); err != nil {
		return intent{}, fmt.Errorf("decode intent: %w", err)
	}
	i.routing, err = parseRouting(routing)
	return i, err
}

// apply carries out what has been decided and not been carried out, by whichever node.
func (s *redisStore) apply(ctx context.Context) error {
	_, err := s.walk(ctx, pendingIntents, intent{}, s.carryOut)
	return errors.Join(s.feed.apply(ctx), err)
}

// walk does something with each intent that a query lists behind a position. What fails keeps nobody else waiting, until too much
// has failed. It returns where to go on; at the end that is the beginning.
func (s *redisStore) walk(ctx context.Context, query string, at intent, do func(context.Context, intent) error) (intent, error) {
	var errs []error
	for {
		intents, err := sqldb.All(ctx, s.deps.DB.Reader(), scanIntent, query, at.createdAt, at.subject, at.seq, applyBatch)
		if err != nil {
			return at, errors.Join(append(errs, fmt.Errorf("list intents: %w", err))...)
		}
		for _, at = range intents {
			err := do(ctx, at)
			if err == nil {
				continue
			}
			errs = append(errs, err)
			if len(errs) == applyFailures || ctx.Err() != nil {
				return at, errors.Join(errs...)
			}
		}
		if len(intents) < applyBatch {
			return intent{}, errors.Join(errs...)
		}
	}
}

// applySoon carries out what has just been decided about a person. When that is impossible, catchUp will.
func (s *redisStore) applySoon(ctx context.Context, subject string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := s.applyTo(ctx, subject); err != nil {
		s.deps.Log.WarnContext(ctx, "ended sessions are not carried out yet", "error", err)
	}
}

// applyTo carries out what has been decided about one person.
func (s *redisStore) applyTo(ctx context.Context, subject string) error {
	return s.carryOutAll(ctx, personsIntents, subject)
}

// carryOutMark carries out the intent that settles a mark, which removes it; also again, should it have come back.
func (s *redisStore) carryOutMark(ctx context.Context, subject string, mark uuid.UUID) error {
	return s.carryOutAll(ctx, markIntents, subject, markPattern(mark.String()))
}

func (s *redisStore) carryOutAll(ctx context.Context, query string, args ...any) error {
	intents, err := sqldb.All(ctx, s.deps.DB.Reader(), scanIntent, query, args...)
	if err != nil {
		return fmt.Errorf("list intents: %w", err)
	}
	for _, i := range intents {
		if err := s.carryOut(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func markPattern(mark string) string { return `%"mark":"` + mark + `"%` }

// carryOut does what an intent says, and notes that.
func (s *redisStore) carryOut(ctx context.Context, i intent) error {
	if err := s.do(ctx, i); err != nil {
		return err
	}
	if _, err := s.deps.DB.Writer().ExecContext(ctx, intentApplied, sqldb.Micros(s.deps.Clock()), i.subject, i.seq); err != nil {
		return fmt.Errorf("note an intent: %w", err)
	}
	return nil
}

func (s *redisStore) do(ctx context.Context, i intent) error {
	id, err := rawID(i.ID)
	if err != nil {
		return err
	}
	settled, err := rawID(i.Mark)
	if err != nil {
		return err
	}
	roles := ""
	if i.Roles != nil {
		words, err := decodeList(*i.Roles)
		if err != nil {
			return err
		}
		roles = "=" + encodeWords(words)
	}
	ended, err := s.exec(ctx, applyScript, i.routing, number(i.seq), i.Kind, roles, number(i.Epoch), id,
		string(i.Reason), duration(keepFloor), settled)
	if err != nil {
		return fmt.Errorf("carry out an intent: %w", err)
	}
	return s.revokeLate(ctx, i, ended)
}

// revokeLate revokes what an intent ended that nobody knew of when it was written: sessions that started meanwhile. Where the epoch has
// killed their access tokens it names the sessions all the same, for whoever tells others of them.
func (s *redisStore) revokeLate(ctx context.Context, i intent, ended []string) error {
	if i.Kind != intendEndAll || len(ended) == 0 {
		return nil
	}
	ids := make([]string, len(ended))
	for n, raw := range ended {
		id, err := uuid.FromBytes([]byte(raw))
		if err != nil {
			return err
		}
		ids[n] = id.String()
	}
	var revocations []auth.Revocation
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		revocations, err = s.feed.append(ctx, tx, sessionRevocations(ids)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke what an intent ended: %w", err)
	}
	s.feed.committed(revocations)
	return nil
}

// rawID is an id as the scripts know it; "" stays "".
func rawID(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	id, err := uuid.Parse(text)
	return string(id[:]), err
}

// catchUp finishes what other processes began. When Redis is not the one that it was, after a failover or a restart, it may
// lack what it acknowledged, and everything recent is carried out again.
func (s *redisStore) catchUp(ctx context.Context) error {
	var late error
	s.carried, late = s.walk(ctx, pendingIntents, s.carried, s.carryOut)
	return errors.Join(late, s.reapply(ctx))
}

// reapply carries out again what is recent, where Redis is not the one that it was. What Redis itself refuses, it would refuse for
// ever: that is told and passed over.
func (s *redisStore) reapply(ctx context.Context) error {
	is, err := fingerprint(ctx, s.redis)
	if err != nil {
		return err
	}
	if was := s.known.Load(); was != nil && *was == is {
		return nil
	}
	recent := intent{createdAt: sqldb.Micros(s.deps.Clock().Add(-reapplyFor))}
	_, err = s.walk(ctx, recentIntents, recent, func(ctx context.Context, i intent) error {
		err := s.do(ctx, i)
		if _, refused := errors.AsType[*rueidis.RedisError](err); refused && !errors.Is(err, redisdb.ErrUnreachable) {
			s.deps.Log.ErrorContext(ctx, "Redis refuses an intent", "subject", i.subject, "error", err)
			return nil
		}
		return err
	})
	if err == nil {
		s.known.Store(&is)
	}
	return err
}

// fingerprint names the masters as they are now: a process that has restarted, or a replica that was promoted, has another
// name. It needs the permission for INFO.
func fingerprint(ctx context.Context, db *redisdb.DB) (string, error) {
	client := db.Client()
	var masters []string
	for _, node := range client.Nodes() {
		var facts []string
		master := false
		for _, section := range []string{"server", "replication"} {
			info, err := node.Do(ctx, node.B().Info().Section(section).Build()).ToString()
			if err != nil {
				return "", fmt.Errorf("ask %s which server it is: %w; a user without the permission needs +info", db.Name(), err)
			}
			for line := range strings.Lines(info) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
				switch name {
				case "role":
					master = value == "master"
				case "run_id", "master_replid":
					facts = append(facts, value)
				}
			}
		}
		if master {
			masters = append(masters, strings.Join(facts, " "))
		}
	}
	slices.Sort(masters)
	return strings.Join(masters, ", "), nil
}
