package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// store is where sessions are kept. Every store passes the tests of this package; which one it is shows nowhere else.
//
// People, their roles and epochs, the revocation feed, the trail and the letters are in SQL whatever the store, so what a
// transaction decides about sessions is decided with it. A store that is not SQL itself does its part after the commit.
//
// A person's sessions are in one store. Every method of the other one answers errUnknown, as for what is nowhere; homes asks on.
type store interface {
	// start decides in the caller's transaction that a session starts, and fills in what it learns of the person. The session
	// exists once finish, called after the commit, has returned.
	start(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error)
	// attach decides in the caller's transaction that a client gets a grant in the session o.id, which must be live when finish,
	// called after the commit, has returned; endGrant ends one, and apply follows the commit.
	attach(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error)
	endGrant(ctx context.Context, tx sqldb.Tx, e ending, in, id uuid.UUID) error
	// rotate decides what a refresh token is worth and acts on it, atomically.
	rotate(ctx context.Context, r rotation) (decision, error)
	// settle draws the consequences of a theft that rotate found, once, however many nodes try. A store may settle more that
	// it knows of the person.
	settle(ctx context.Context, m mark) error
	// page returns the session behind a cookie and notes its use, as Authenticate says.
	page(ctx context.Context, c cookie) (Session, error)
	// prove notes in the caller's transaction that the person behind a session has proved who they are. Once finish has
	// returned, and if the session has a cookie, that is the new one. A session that is not live is ErrNotFound, from either.
	prove(ctx context.Context, tx sqldb.Tx, p *proof) (finish, error)
	// live returns the subject's live sessions in the order of List. A session is live while it has not been ended and its
	// cookie or one of its grants has not expired.
	live(ctx context.Context, subject string) ([]Session, error)
	// end ends live sessions in a transaction of its own and returns how many.
	end(ctx context.Context, e ending) (int, error)
	// endTx ends them in the caller's transaction, one that the ending names whether it is known or not, setRolesTx makes roles (JSON) the
	// subject's; apply follows the commit.
	endTx(ctx context.Context, tx sqldb.Tx, e ending) error
	setRolesTx(ctx context.Context, tx sqldb.Tx, subject, roles string) error
	// apply carries out what committed transactions have decided.
	apply(ctx context.Context) error
	// tasks are done now and then while the service runs.
	tasks() []task
}

// finish is the part of a change that follows the commit.
type finish func(ctx context.Context) error

// finished is for a store whose transaction was all.
func finished(context.Context) error { return nil }

// errUnknown says that the store has no such grant, session or person; another store may.
var errUnknown = errors.New("not known in this store")

// task is a chore that is repeated.
type task struct {
	name  string
	every time.Duration
	do    func(context.Context) error
}

// opening is a session about to start: with a cookie for our own pages, with a first grant for a client.
type opening struct {
	id, grantID uuid.UUID
	start       Start // with defaults filled in
	key         keyring.Key

	// What begin and admit fill in.
	now       time.Time
	idle, end time.Time // when it ends unless used, and at the latest
	noted     time.Time // the end that aliases outlive
	person    person
	session   Session
	cookie    cookie
	refresh   refreshToken
}

func newOpening(start Start, key keyring.Key) (*opening, error) {
	start.fill()
	o := &opening{start: start, key: key}
	var err error
	if o.id, err = uuid.NewV7(); err != nil {
		return nil, err
	}
	o.grantID, err = uuid.NewV7()
	return o, err
}

// begin says when the session starts, by the clock of the store.
func (o *opening) begin(cfg Config, now time.Time) {
	o.now, o.idle, o.end = now, now.Add(cfg.Idle), now.Add(cfg.Lifetime)
	o.session.CreatedAt, o.session.LastUsedAt, o.session.ExpiresAt = now, now, o.idle
	if o.session.AuthTime = o.start.AuthTime; o.session.AuthTime.IsZero() {
		o.session.AuthTime = now
	}
}

// admit makes the session, and its cookie or token, for a person who is now known and locked.
func (o *opening) admit(cfg Config, p person) (err error) {
	o.person = p
	o.session = Session{
		ID: o.id.String(), Subject: o.start.Subject, Epoch: p.epoch, Device: o.start.Device, AMR: o.start.AMR, ACR: o.start.ACR,
	}
	o.begin(cfg, p.now)
	if o.session.Roles, err = decodeList(*p.roles); err != nil {
		return err
	}
	if o.start.Page {
		o.cookie = newCookie(p.routing, o.id)
	} else {
		o.refresh = firstRefresh(o.key.ID, o.key.Secret, o.start.confinedTo(), p.routing, o.id, o.grantID)
	}
	return nil
}

// rotation is a refresh token that was presented, and what becomes of it if it is good.
type rotation struct {
	presented, next refreshToken
	sealed          []byte // next, for the holder of presented
	thumbprint      string // of the key whose proof came with it, or ""
	mustBind        bool   // a grant of FirstParty that is bound to no key is worth nothing
	device          Device
	lost            outcome // what the predecessor is worth after the window
	early           outcome // what the current token is worth before the age
	age             time.Duration
}

// decision is what came of it.
type decision struct {
	outcome   outcome
	reason    Reason
	grant     token.Grant
	current   []byte // the beginning of the hash of the current token, and
	sealed    []byte // that token, for the holder of its predecessor
	lasts     time.Duration
	unsettled bool // there are thefts and evictions whose consequences have not been drawn
}

// refused writes into the trail why a sign-in that was decided came to nothing, and returns it.
func (c common) refused(ctx context.Context, o *opening, why *fault.Fault) error {
	err := c.deps.Audit.Append(context.WithoutCancel(ctx), c.deps.DB.Writer(), audit.Event{
		Account: o.start.Subject, Actor: o.start.Subject, Action: "session.refused",
		Origin: audit.Origin{Address: httpd.ClientAddr(ctx), UserAgent: httpd.UserAgent(ctx), RequestID: httpd.RequestID(ctx)},
		Detail: map[string]string{"session": o.session.ID, "reason": why.Code()},
	})
	if err != nil {
		c.deps.Log.WarnContext(ctx, "a refused sign-in is not in the trail", "session", o.session.ID, "error", err)
	}
	return why
}

// mark names a grant whose theft awaits its consequences.
type mark struct {
	routing [routingSize]byte
	grant   uuid.UUID
	alias   uuid.UUID // what grantAlias makes of it; zero where grant is known to be its id
	subject string
}

// proof is a session whose person has just proved who they are, and the cookie that it gets if it has one.
type proof struct {
	subject string
	id      uuid.UUID

	// What the store fills in.
	cookie    cookie
	hasCookie bool
}

// ending says which sessions of a person end, and why.
type ending struct {
	subject string
	only    string // this one; "" for all
	keep    string // but not this one; "" for none
	reason  Reason

	others []string // what ends besides the one to keep, as far as is
	known  bool

	action string // for the trail; "" when that tells of it anyway
}

// common is what every store works with.
type common struct {
	cfg  Config
	deps Deps
	feed *feed
	is   Store // InSQL or InRedis: the store itself
	home Store // where somebody new lives before any move
}

// told is what a test says that the store's clock shows, in microseconds; nil, and the store looks. Whatever is compared with a
// time that is stored comes from the store's clock (in Redis TIME, in SQL the view session_clock), in the statement or script that
// decides, so that nodes whose clocks differ decide alike.
func (d Deps) told() any {
	if d.StoreClock == nil {
		return nil
	}
	return sqldb.Micros(d.StoreClock())
}

const (
	lockSubject = `INSERT INTO session_subjects (subject, routing, epoch, roles, purge_at, home)
		VALUES ($1, $2, 0, $3, $4, COALESCE((SELECT target FROM session_moves WHERE id = 1), $5))
		ON CONFLICT (subject) DO UPDATE
			SET purge_at = CASE WHEN session_subjects.purge_at < excluded.purge_at THEN excluded.purge_at ELSE session_subjects.purge_at END,
				roles = COALESCE(session_subjects.roles, excluded.roles),
				home = CASE WHEN session_subjects.home = '' THEN $5 ELSE session_subjects.home END
		RETURNING ` + personColumns + `COALESCE(CAST($6 AS BIGINT), (SELECT now FROM session_clock))`
	personColumns = `routing, epoch, roles, seq, ended_seq, home, `
)

// person is a subject's row, locked.
type person struct {
	routing [routingSize]byte
	epoch   int64
	roles   *string // JSON; nil while nobody has said them
	seq     int64   // of the last intent or move; see redisStore
	ended   int64   // seq as it was raised when all sessions last ended
	home    Store
	now     time.Time
}

// lockSubject locks the subject's row until the transaction ends, creating it if need be. roles, if given, are taken over
// when the row knows none. Whatever the transaction decides, it decides at the time that this returns. Somebody whose sessions are
// in another store is errUnknown: as nobody moves while locked, this is what keeps two stores from deciding about one person.
func (c common) lockSubject(ctx context.Context, tx sqldb.Tx, subject string, roles *string) (person, error) {
	var fresh [routingSize]byte
	rand.Read(fresh[:])
	p, err := sqldb.One(ctx, tx, scanPerson, lockSubject, subject, hex.EncodeToString(fresh[:]), roles,
		sqldb.Micros(c.deps.Clock().Add(c.cfg.Lifetime+keepSubject)), string(c.home), c.deps.told())
	if err != nil {
		return person{}, fmt.Errorf("lock subject: %w", err)
	}
	if p.home != c.is {
		return person{}, fmt.Errorf("lock subject: %w", errUnknown)
	}
	return p, nil
}

func scanPerson(r sqldb.Row) (p person, err error) {
	var routing string
	var now int64
	if err := r.Scan(&routing, &p.epoch, &p.roles, &p.seq, &p.ended, &p.home, &now); err != nil {
		return person{}, err
	}
	p.now = sqldb.Time(now)
	p.routing, err = parseRouting(routing)
	return p, err
}

func parseRouting(text string) (routing [routingSize]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || copy(routing[:], b) != len(routing) || len(b) != len(routing) {
		return routing, fmt.Errorf("routing of a subject is damaged: %d bytes, %w", len(b), err)
	}
	return routing, nil
}

// record writes into the owner's trail that sessions were ended.
func (c common) record(ctx context.Context, tx sqldb.Tx, e ending, ended int) error {
	if e.action == "" {
		return nil
	}
	event := audit.Event{
		Account: e.subject, Action: e.action,
		Origin: audit.Origin{Address: httpd.ClientAddr(ctx), UserAgent: httpd.UserAgent(ctx), RequestID: httpd.RequestID(ctx)},
		Detail: map[string]string{"reason": string(e.reason), "sessions": strconv.Itoa(ended)},
	}
	if e.only != "" {
		event.Detail = map[string]string{"reason": string(e.reason), "session": e.only}
	}
	switch e.reason {
	case SignedOut, EndedByOwner:
		event.Actor = e.subject
	case EndedByOperator:
		event.Actor = audit.Operator
	}
	return c.deps.Audit.Append(ctx, tx, event)
}

// theft is a marked grant, and whoever presented the replaced token.
type theft struct {
	sessionID, clientID string
	device              Device
	at                  time.Time
}

// tell writes the theft into the owner's trail, and a letter.
func (c common) tell(ctx context.Context, tx sqldb.Tx, subject string, t theft) error {
	err := c.deps.Audit.Append(ctx, tx, audit.Event{
		At: t.at, Account: subject, Action: "session.theft",
		Origin: audit.Origin{Address: t.device.Address, UserAgent: t.device.UserAgent},
		Detail: map[string]string{"session": t.sessionID, "client": t.clientID},
	})
	if err != nil {
		return err
	}
	return c.deps.Mail.Enqueue(ctx, tx, mail.Letter{
		Kind: "session_theft", Account: subject, CreatedAt: t.at,
		Data: map[string]string{"device": t.device.Label, "from": addressText(t.device.Address)},
	})
}

// sortByUse puts sessions into the order of List.
func sortByUse(sessions []Session) {
	slices.SortFunc(sessions, func(a, b Session) int {
		if order := b.LastUsedAt.Compare(a.LastUsedAt); order != 0 {
			return order
		}
		return strings.Compare(b.ID, a.ID)
	})
}

// encodeList writes words as a JSON array: a role may contain any character.
func encodeList(words []string) string {
	if len(words) == 0 {
		return "[]"
	}
	text, err := json.Marshal(words)
	if err != nil {
		panic(err) // cannot be: strings always encode
	}
	return string(text)
}

func decodeList(text string) (words []string, err error) {
	if text == "[]" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		return nil, fmt.Errorf("decode list: %w", err)
	}
	return words, nil
}

// addressText writes an address as the trail does.
func addressText(a netip.Addr) string { return audit.AddressText(a) }

func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}
