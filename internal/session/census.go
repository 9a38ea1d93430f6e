package session

import (
	"context"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Census says who lives where.
type Census struct {
	SQL, Redis Residents
	UnderWay   int64    // people between the two
	Twice      []string // subjects who have sessions where they do not live, which must not be
}

// Residents are people and their sessions in one store. Who lives somewhere may have no session there.
type Residents struct{ People, Sessions int64 }

const (
	countPeople = `SELECT count(*) FROM session_subjects WHERE home = $1 OR (home = '' AND CAST($1 AS TEXT) = $2)`
	countMoving = `SELECT count(*) FROM session_transits WHERE arrived = 0`
	countInSQL  = `SELECT count(*) FROM (SELECT COALESCE(CAST($1 AS BIGINT), (SELECT now FROM session_clock)) AS now) c, sessions s
		WHERE s.ended_at = 0 AND s.expires_at > c.now AND (s.idle_expires_at > c.now
		OR EXISTS (SELECT 1 FROM session_grants g WHERE g.session_id = s.id AND g.status = 'live' AND g.idle_expires_at > c.now))`
	strangersInSQL = `SELECT DISTINCT s.subject FROM sessions s JOIN session_subjects u ON u.subject = s.subject
		WHERE u.home = 'redis' ORDER BY s.subject LIMIT 100`
	peopleByPage = `SELECT subject, home, routing FROM session_subjects WHERE subject > $1 ORDER BY subject LIMIT $2`
)

// Census counts people and the live sessions that are in SQL. With visit it also asks Redis about everybody, which takes about 20
// seconds per million people, counts the sessions there, and tells who has sessions in two places; who moves meanwhile may be
// counted twice or not at all.
func (s *Service) Census(ctx context.Context, visit bool) (c Census, err error) {
	for _, one := range []struct {
		into  *int64
		query string
		args  []any
	}{
		{&c.SQL.People, countPeople, []any{string(InSQL), string(s.store.home)}},
		{&c.Redis.People, countPeople, []any{string(InRedis), string(s.store.home)}},
		{&c.UnderWay, countMoving, nil},
		{&c.SQL.Sessions, countInSQL, []any{s.deps.told()}},
	} {
		if *one.into, err = sqldb.One(ctx, s.deps.DB.Reader(), scanInt64, one.query, one.args...); err != nil {
			return Census{}, err
		}
	}
	if !visit || s.deps.Redis == nil {
		return c, nil
	}
	if c.Twice, err = sqldb.All(ctx, s.deps.DB.Reader(), scanString, strangersInSQL); err != nil {
		return Census{}, err
	}
	return c, s.store.visit(ctx, &c)
}

// visited is what Redis holds of somebody.
type visited struct {
	subject, home string
	routing       [routingSize]byte
	sessions      int64
}

// visit asks Redis about everybody.
func (s *homes) visit(ctx context.Context, c *Census) error {
	for after := ""; ; {
		page, err := sqldb.All(ctx, s.deps.DB.Reader(), scanVisited, peopleByPage, after, applyBatch)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].subject
		err = eachIndex(len(page), func(i int) error {
			h, now, err := s.redis.read(ctx, page[i].routing)
			if err != nil || h["m"] != "" { // who is leaving can do nothing there
				return err
			}
			live, err := h.live(now)
			page[i].sessions = int64(len(live))
			return err
		})
		if err != nil {
			return err
		}
		for _, one := range page {
			c.Redis.Sessions += one.sessions
			if one.sessions > 0 && Store(one.home) == InSQL {
				c.Twice = append(c.Twice, one.subject)
			}
		}
	}
}

func scanVisited(r sqldb.Row) (v visited, err error) {
	var routing string
	if err := r.Scan(&v.subject, &v.home, &routing); err != nil {
		return visited{}, err
	}
	v.routing, err = parseRouting(routing)
	return v, err
}
