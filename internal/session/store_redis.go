package session

import (
	"context"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/sqldb"
)

// redisPrefix begins the name of every key.
const redisPrefix = "sumun:login:"

var (
	//go:embed lua/common.lua
	luaCommon string
	//go:embed lua/refresh.lua
	luaRefresh string
	//go:embed lua/start.lua
	luaStart string
	//go:embed lua/page.lua
	luaPage string
	//go:embed lua/prove.lua
	luaProve string
	//go:embed lua/apply.lua
	luaApply string
	//go:embed lua/adopt.lua
	luaAdopt string
	//go:embed lua/freeze.lua
	luaFreeze string
	//go:embed lua/leave.lua
	luaLeave string
	//go:embed lua/greet.lua
	luaGreet string
	//go:embed lua/read.lua
	luaRead string
)

var (
	refreshScript = redisdb.NewScript(luaCommon + luaRefresh)
	startScript   = redisdb.NewScript(luaCommon + luaStart)
	pageScript    = redisdb.NewScript(luaCommon + luaPage)
	proveScript   = redisdb.NewScript(luaCommon + luaProve)
	applyScript   = redisdb.NewScript(luaCommon + luaApply)
	adoptScript   = redisdb.NewScript(luaCommon + luaAdopt)
	freezeScript  = redisdb.NewScript(luaCommon + luaFreeze)
	leaveScript   = redisdb.NewScript(luaCommon + luaLeave)
	greetScript   = redisdb.NewScript(luaCommon + luaGreet)
	readScript    = redisdb.NewScript(luaCommon + luaRead)
)

// redisStore keeps sessions in Redis: one hash per person, named by the person's random routing tag, which refresh tokens and
// cookies carry. Whatever happens to a person's sessions is one script on this one key, so it is atomic, also on a Cluster.
// lua/common.lua describes the fields.
//
// SQL stays the authority on what a person may have. A decision about sessions is written there as an intent, in the
// transaction that makes it and with the number that session_subjects counts, together with the revocation that kills access
// tokens. After the commit the intent is carried out in Redis; if the process dies before, any node does it. A session
// carries the number that its sign-in saw, under a lock. An intent ends sessions with lower numbers, and one with a lower
// number that comes later is refused: in whatever order they arrive, no sign-in survives a reset that it raced.
//
// Redis may lose what it acknowledged, in a failover or a crash. Lost rotations show as tokens ahead of the store, lost
// sessions as tokens that are not known. Lost intents would be worse, so when Redis is not the one it was, all of the last
// hour (reapplyFor) are carried out again. A Redis restored from an older copy brings back sessions that were ended between.
//
// A theft is marked by the script that finds it, and from then on the grant is dead. Its consequences are settled in SQL by
// whoever sees the mark: the request that made it, or, if its process died, the next one of the same person, be it the
// thief's, who got no answer, or the owner's, or a node on its patrol. A list of marks for all people would be a second key in
// another slot, which no atomic script could write.
type redisStore struct {
	common
	redis  *redisdb.DB
	prefix string
	known  atomic.Pointer[string] // the fingerprint of the Redis that has every intent

	patrolled string // the subject that patrol looked at last; it alone touches this
	carried   intent // where catchUp goes on; it alone touches this
}

func newRedisStore(c common) *redisStore {
	prefix := c.deps.RedisPrefix
	if prefix == "" {
		prefix = redisPrefix
	}
	return &redisStore{common: c, redis: c.deps.Redis, prefix: prefix}
}

// key is that of a person's hash.
func (s *redisStore) key(routing [routingSize]byte) string {
	return s.prefix + "{" + hex.EncodeToString(routing[:]) + "}"
}

// exec runs a script on a person's key. Its first argument is empty, or a test's word for the time.
func (s *redisStore) exec(ctx context.Context, script redisdb.Script, routing [routingSize]byte, args ...string) ([]string, error) {
	told := ""
	if s.deps.StoreClock != nil {
		told = micros(s.deps.StoreClock())
	}
	return script.Exec(ctx, s.redis, []string{s.key(routing)}, append([]string{told}, args...)).Strings()
}

func micros(t time.Time) string         { return strconv.FormatInt(sqldb.Micros(t), 10) }
func duration(d time.Duration) string   { return strconv.FormatInt(d.Microseconds(), 10) }
func number(n int64) string             { return strconv.FormatInt(n, 10) }
func short(hash []byte) string          { return string(hash[:cookieHash]) }
func shorter(hash []byte) string        { return string(hash[:tokenHash]) } // no secret: MACs keep strangers out
func parseMicros(text string) time.Time { return sqldb.Time(parseNumber(text)) }

// parseNumber reads what a script wrote.
func parseNumber(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *redisStore) start(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
	roles := encodeList(o.start.Roles)
	p, err := s.lockSubject(ctx, tx, o.start.Subject, &roles)
	if err != nil {
		return nil, err
	}
	if err := o.admit(s.cfg, p); err != nil {
		return nil, err
	}
	from, err := rawID(o.start.From)
	if err != nil {
		return nil, ErrNotFound
	}
	return func(ctx context.Context) error {
		if from != "" {
			// What ended the session that this one grows out of may be decided and not carried out yet: it would not find this one,
			// which is younger.
			if err := s.applyTo(ctx, o.start.Subject); err != nil {
				return unavailable(err)
			}
		}
		return s.open(ctx, o, from)
	}, nil
}

// open brings a session to life whose transaction has committed.
func (s *redisStore) open(ctx context.Context, o *opening, from string) error {
	var cookie, grant, hash, thumbprint, authTime string
	if o.start.Page {
		cookie = short(o.cookie.hash())
	} else {
		grant, hash = string(o.grantID[:]), shorter(o.refresh.hash())
		thumbprint = encodeThumbprint(o.start.binding())
	}
	if !o.start.AuthTime.IsZero() {
		authTime = micros(o.start.AuthTime)
	}
	args := []string{
		number(o.person.seq), encodeSubject(o.start.Subject), encodeWords(o.session.Roles), number(o.person.epoch),
		string(o.id[:]), string(deviceClass(o.start.Device.UserAgent)), encodeSessionTail(o.start), encodeDevice(o.start.Device),
		duration(s.cfg.Idle), duration(s.cfg.Lifetime), authTime, cookie, grant, encodeGrantTail(o.start), hash,
		thumbprint, from,
	}
	for _, q := range s.cfg.quotas(o.start, o.session.Roles) {
		args = append(args, q.encode()...)
	}
	answer, err := s.exec(ctx, startScript, o.person.routing, args...)
	if err != nil {
		return unavailable(err)
	}
	switch answer[0] {
	case "unknown":
		return errUnknown
	case "overtaken":
		return s.refused(ctx, o, ErrOvertaken)
	case "full":
		return s.refused(ctx, o, ErrLimitReached)
	case "gone":
		return s.refused(ctx, o, ErrNotFound)
	}
	o.begin(s.cfg, parseMicros(answer[2]))
	if answer[1] != "0" {
		s.settleSoon(ctx, mark{routing: o.person.routing, subject: o.start.Subject})
	}
	return nil
}

func (s *redisStore) rotate(ctx context.Context, r rotation) (decision, error) {
	p := r.presented
	answer, err := s.exec(ctx, refreshScript, p.routing, string(p.session[:]), string(p.grant[:]), number(p.generation),
		shorter(p.hash()), shorter(r.next.hash()), string(r.sealed), duration(s.cfg.Window), duration(s.cfg.Idle), string(r.lost),
		string(r.early), duration(r.age),
		encodeDevice(Device{UserAgent: cleanUserAgent(r.device.UserAgent), Address: r.device.Address}),
		encodeThumbprint(r.thumbprint), number(flag(r.mustBind)))
	if err != nil {
		return decision{}, err
	}
	d := decision{outcome: outcome(answer[0]), unsettled: answer[1] != "0"}
	d.grant.Subject = decodeSubject(answer[2])
	if d.outcome == wasUnknown {
		return decision{}, errUnknown
	}
	d.reason = Reason(answer[3])
	if len(answer) == 4 {
		return d, nil
	}
	return d, d.decode(p, answer[4:])
}

// decode reads what an accepted token is answered.
func (d *decision) decode(p refreshToken, answer []string) (err error) {
	g := &d.grant
	if g.Roles, err = decodeWords(answer[0]); err != nil {
		return err
	}
	g.Epoch, g.AuthTime, g.SessionID = parseNumber(answer[1]), parseMicros(answer[2]), p.session.String()
	if g.ClientID, g.Scope, g.Audience, err = decodeGrantTail(answer[3]); err != nil {
		return err
	}
	if g.ACR, g.AMR, err = decodeSessionTail(answer[4]); err != nil {
		return err
	}
	d.current, d.sealed = []byte(answer[5]), []byte(answer[6])
	d.lasts = time.Duration(parseNumber(answer[7])) * time.Microsecond
	g.Thumbprint = decodeThumbprint(answer[8])
	return nil
}

func (s *redisStore) page(ctx context.Context, c cookie) (Session, error) {
	answer, err := s.exec(ctx, pageScript, c.routing, string(c.session[:]), short(c.hash()), duration(slideEvery),
		duration(s.cfg.Idle))
	if err != nil {
		return Session{}, unavailable(err)
	}
	if answer[1] != "0" && len(answer) > 2 {
		s.settleSoon(ctx, mark{routing: c.routing, subject: decodeSubject(answer[2])})
	}
	switch answer[0] {
	case "found":
	case "ended":
		return Session{}, Reason(answer[3]).ended()
	case "unknown":
		return Session{}, errUnknown
	default:
		return Session{}, ErrInvalidCookie
	}
	one, err := decodeSession(c.session[:], answer[3], answer[4])
	if err != nil {
		return Session{}, err
	}
	one.Subject, one.Epoch, one.ExpiresAt = decodeSubject(answer[2]), parseNumber(answer[6]), parseMicros(answer[7])
	one.Roles, err = decodeWords(answer[5])
	return one, err
}

func (s *redisStore) prove(ctx context.Context, tx sqldb.Tx, p *proof) (finish, error) {
	person, err := s.lockSubject(ctx, tx, p.subject, nil)
	if err != nil {
		return nil, err
	}
	p.cookie = newCookie(person.routing, p.id)
	return func(ctx context.Context) error {
		answer, err := s.exec(ctx, proveScript, person.routing, string(p.id[:]), short(p.cookie.hash()))
		if err != nil {
			return unavailable(err)
		}
		if answer[0] == "unknown" {
			return errUnknown
		}
		p.hasCookie = answer[0] == "replaced"
		return nil
	}, nil
}

const findRouting = `SELECT routing FROM session_subjects WHERE subject = $1`

func (s *redisStore) live(ctx context.Context, subject string) ([]Session, error) {
	routing, err := sqldb.One(ctx, s.deps.DB.Reader(), scanString, findRouting, subject)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, errUnknown
	}
	if err != nil {
		return nil, err
	}
	tag, err := parseRouting(routing)
	if err != nil {
		return nil, err
	}
	h, now, err := s.read(ctx, tag)
	if err != nil {
		return nil, unavailable(err)
	}
	if len(h) == 0 || h["m"] != "" {
		return nil, errUnknown
	}
	return h.live(now)
}

// read returns everything about a person, and the time.
func (s *redisStore) read(ctx context.Context, routing [routingSize]byte) (hash, time.Time, error) {
	flat, err := s.exec(ctx, readScript, routing)
	if err != nil {
		return nil, time.Time{}, err
	}
	h := make(hash, len(flat)/2)
	for i := 1; i+1 < len(flat); i += 2 {
		h[flat[i]] = flat[i+1]
	}
	return h, parseMicros(flat[0]), nil
}

// end finds out first what there is to end, so that it can tell, and revoke sessions rather than everything of the person. A
// session that starts meanwhile is ended with the others, and revoked afterwards.
func (s *redisStore) end(ctx context.Context, e ending) (int, error) {
	live, err := s.live(ctx, e.subject)
	if err != nil {
		return 0, err
	}
	var ids []string
	for _, one := range live {
		if (e.only == "" || e.only == one.ID) && one.ID != e.keep {
			ids = append(ids, one.ID)
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	i := intent{Kind: intendEndAll, ID: e.keep, Reason: e.reason}
	if e.only != "" {
		i = intent{Kind: intendEndOne, ID: e.only, Reason: e.reason}
	}
	var revocations []auth.Revocation
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		if _, err = s.intend(ctx, tx, e.subject, i); err != nil {
			return err
		}
		if err = s.record(ctx, tx, e, len(ids)); err != nil {
			return err
		}
		revocations, err = s.feed.append(ctx, tx, sessionRevocations(ids)...)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.feed.committed(revocations)
	s.applySoon(ctx, e.subject)
	return len(ids), nil
}

func sessionRevocations(ids []string) []auth.Revocation {
	revocations := make([]auth.Revocation, len(ids))
	for i, id := range ids {
		revocations[i] = auth.Revocation{Kind: auth.RevokeSession, ID: auth.RevocationHash(auth.RevokeSession, id)}
	}
	return revocations
}

// endTx raises the subject's epoch, which kills the access tokens of all sessions without knowing which there are. To spare those
// of one session, the others are revoked by name; carrying out the intent tells of any that has started since they were asked for.
func (s *redisStore) endTx(ctx context.Context, tx sqldb.Tx, e ending) error {
	if e.only != "" {
		return s.endOneTx(ctx, tx, e)
	}
	i := intent{Kind: intendEndAll, ID: e.keep, Reason: e.reason, Raise: !e.known}
	p, err := s.intend(ctx, tx, e.subject, i)
	if err != nil {
		return err
	}
	if err := s.record(ctx, tx, e, 0); err != nil {
		return err
	}
	switch {
	case !e.known:
		return s.revokeEpoch(ctx, tx, e.subject, p.epoch)
	case len(e.others) > 0:
		_, err = s.feed.append(ctx, tx, sessionRevocations(e.others)...)
	}
	return err
}

// endOneTx ends one session whatever Redis knows of it.
func (s *redisStore) endOneTx(ctx context.Context, tx sqldb.Tx, e ending) error {
	if _, err := s.intend(ctx, tx, e.subject, intent{Kind: intendEndOne, ID: e.only, Reason: e.reason}); err != nil {
		return err
	}
	if err := s.record(ctx, tx, e, 1); err != nil {
		return err
	}
	_, err := s.feed.append(ctx, tx, sessionRevocations([]string{e.only})...)
	return err
}

func (s *redisStore) setRolesTx(ctx context.Context, tx sqldb.Tx, subject, roles string) error {
	p, err := s.lockSubject(ctx, tx, subject, nil)
	if err != nil {
		return err
	}
	if p.roles != nil && *p.roles == roles {
		return nil
	}
	if p, err = s.intend(ctx, tx, subject, intent{Kind: intendRoles, Roles: &roles, Raise: true}); err != nil {
		return err
	}
	return s.revokeEpoch(ctx, tx, subject, p.epoch)
}

func (s *redisStore) revokeEpoch(ctx context.Context, tx sqldb.Tx, subject string, epoch int64) error {
	_, err := s.feed.append(ctx, tx, auth.Revocation{
		Kind: auth.RevokeSubject, ID: auth.RevocationHash(auth.RevokeSubject, subject), Epoch: epoch,
	})
	return err
}

func (s *redisStore) tasks() []task {
	return []task{
		{"carry out intents", intentEvery, s.catchUp},
		{"look for marks", patrolEvery, s.patrol},
		{"sweep intents", sweepEvery, s.sweep},
	}
}

// sweep removes old intents; in Redis what has expired goes by itself.
func (s *redisStore) sweep(ctx context.Context) error {
	before := sqldb.Micros(s.deps.Clock().Add(-keepIntent))
	_, err := sqldb.Sweep(ctx, s.deps.DB, sweepIntents, before, sweepBatch)
	return err
}
