package session

import (
	"context"
	_ "embed" // the script
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed lua/grant.lua
var luaGrant string

var grantScript = redisdb.NewScript(luaCommon + luaGrant)

func (s *redisStore) attach(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
	p, err := s.lockSubject(ctx, tx, o.start.Subject, nil)
	if err != nil {
		return nil, err
	}
	if p.roles == nil {
		return nil, ErrNotFound // nobody has signed in
	}
	if err := o.admit(s.cfg, p); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		answer, err := s.exec(ctx, grantScript, o.person.routing, number(o.person.seq), string(o.id[:]), string(o.grantID[:]),
			encodeGrantTail(o.start), shorter(o.refresh.hash()), duration(s.cfg.Idle), number(o.person.epoch),
			encodeThumbprint(o.start.binding()))
		if err != nil {
			return unavailable(err)
		}
		switch answer[0] {
		case "overtaken":
			return ErrOvertaken
		case "ended":
			return Reason(answer[1]).ended()
		case "unknown":
			return errUnknown
		}
		a := attachment{authTime: parseMicros(answer[1]), lasts: time.Duration(parseNumber(answer[3])) * time.Microsecond}
		if a.acr, a.amr, err = decodeSessionTail(answer[2]); err != nil {
			return err
		}
		o.adopt(a)
		o.end = o.now.Add(time.Duration(parseNumber(answer[4])) * time.Microsecond)
		return nil
	}, nil
}

func (s *redisStore) endGrant(ctx context.Context, tx sqldb.Tx, e ending, _, id uuid.UUID) error {
	_, err := s.intend(ctx, tx, e.subject, intent{Kind: intendEndGrant, ID: id.String(), Reason: e.reason})
	return err
}
