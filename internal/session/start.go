package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// Start begins a session with one grant in the caller's transaction. Its id is always new. When the person has too many
// sessions, the least recently used end; call Apply once the transaction has committed. The tokens work from then on.
func (s *Service) Start(ctx context.Context, tx sqldb.Tx, start Start) (Started, error) {
	key, err := s.deps.Keyring.Current(ctx, MACPurpose)
	if err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	b, err := s.begin(ctx, tx, start, nil)
	if err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	refresh, err := s.addGrant(ctx, tx, b, key)
	if err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	sess := b.session
	access, err := s.deps.Tokens.Issue(ctx, token.Grant{
		Subject: sess.Subject, ClientID: b.start.ClientID, Scope: b.start.Scope, Audience: b.start.Audience,
		SessionID: sess.ID, ACR: sess.ACR, AMR: sess.AMR, AuthTime: sess.AuthTime, Roles: sess.Roles, Epoch: sess.Epoch,
	})
	if err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	return Started{Session: sess, Tokens: Tokens{
		SessionID: sess.ID, Access: access.Token, ExpiresIn: access.Lifetime,
		Refresh: refresh.encode(), RefreshExpiresIn: sess.ExpiresAt.Sub(sess.CreatedAt),
	}}, nil
}

// StartBrowser begins a session of our own pages in the caller's transaction, as Start does, and returns the value of its
// cookie. It has no grant, so nothing to refresh.
func (s *Service) StartBrowser(ctx context.Context, tx sqldb.Tx, start Start) (Session, string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Session{}, "", fmt.Errorf("start session: %w", err)
	}
	c := newCookie(id)
	b, err := s.begin(ctx, tx, start, &c)
	if err != nil {
		return Session{}, "", fmt.Errorf("start session: %w", err)
	}
	return b.session, c.encode(), nil
}

// beginning is a session whose row has just been written.
type beginning struct {
	id      uuid.UUID
	start   Start // with defaults filled in
	person  person
	session Session
	end     time.Time // absolute
}

// begin makes room below the limit and writes the session's row.
func (s *Service) begin(ctx context.Context, tx sqldb.Tx, start Start, c *cookie) (beginning, error) {
	now := s.deps.Clock()
	start.fill(now)
	roles := encodeList(start.Roles)
	// From here on, whatever else starts or ends sessions of this person waits.
	p, err := s.lockSubject(ctx, tx, start.Subject, &roles)
	if err != nil {
		return beginning{}, err
	}
	if err := s.makeRoom(ctx, tx, start, now); err != nil {
		return beginning{}, err
	}
	b := beginning{start: start, person: p, end: now.Add(s.cfg.Lifetime)}
	idle := now.Add(s.cfg.Idle)
	var cookieHash []byte
	var cookieIdle time.Time
	if c != nil {
		b.id, cookieHash, cookieIdle = c.session, c.hash(), idle
	} else if b.id, err = uuid.NewV7(); err != nil {
		return beginning{}, err
	}
	b.session = Session{
		ID: b.id.String(), Subject: start.Subject, Epoch: p.epoch, Device: start.Device,
		CreatedAt: now, LastUsedAt: now, AuthTime: start.AuthTime, ExpiresAt: idle, AMR: start.AMR, ACR: start.ACR,
	}
	if b.session.Roles, err = decodeList(*p.roles); err != nil {
		return beginning{}, err
	}
	_, err = tx.ExecContext(ctx, insertSession, b.session.ID, start.Subject, start.Device.Label, start.Device.UserAgent,
		addressText(start.Device.Address), encodeList(start.AMR), start.ACR, sqldb.Micros(start.AuthTime), sqldb.Micros(now),
		cookieHash, sqldb.Micros(cookieIdle), sqldb.Micros(b.end), purgeAt(idle))
	return b, err
}

// fill puts defaults where nothing is said, and cleans what came from outside.
func (start *Start) fill(now time.Time) {
	if start.ClientID == "" {
		start.ClientID = FirstParty
	}
	if start.AuthTime.IsZero() {
		start.AuthTime = now
	}
	start.Device = NewDevice(start.Device.UserAgent, start.Device.Address)
}

// makeRoom ends the least recently used sessions until one more fits below the limit.
func (s *Service) makeRoom(ctx context.Context, tx sqldb.Tx, start Start, now time.Time) error {
	live, err := s.live(ctx, tx, start.Subject, now)
	if err != nil {
		return err
	}
	slices.Reverse(live) // the oldest use first
	for len(live) >= s.cfg.Limit {
		e := ending{subject: start.Subject, only: live[0].ID, reason: LimitReached, action: "session.limit"}
		if _, _, err := s.endTx(ctx, tx, e); err != nil {
			return err
		}
		live = live[1:]
	}
	return nil
}

// addGrant writes a grant with the first refresh token of its family.
func (s *Service) addGrant(ctx context.Context, tx sqldb.Tx, b beginning, key keyring.Key) (refreshToken, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return refreshToken{}, err
	}
	t := refreshToken{keyID: key.ID, session: b.id, grant: id}
	rand.Read(t.secret[:])
	if n, err := hex.Decode(t.routing[:], []byte(b.person.routing)); err != nil || n != routingSize {
		return refreshToken{}, fmt.Errorf("routing of a subject is damaged: %d bytes, %w", n, err)
	}
	t.mac = t.computeMAC(key.Secret)
	sess, start := b.session, b.start
	_, err = tx.ExecContext(ctx, insertGrant, id.String(), sess.ID, sess.Subject, start.ClientID, start.Scope,
		encodeList(start.Audience), *b.person.roles, sess.Epoch, sqldb.Micros(sess.AuthTime), sess.ACR, encodeList(sess.AMR),
		t.hash(), sqldb.Micros(sess.ExpiresAt), sqldb.Micros(b.end), sqldb.Micros(sess.CreatedAt),
		addressText(sess.Device.Address), sess.Device.UserAgent, purgeAt(sess.ExpiresAt))
	return t, err
}

// person is a subject's row, locked.
type person struct {
	routing string // hexadecimal
	epoch   int64
	roles   *string // JSON; nil while nobody has said them
}

// lockSubject locks the subject's row until the transaction ends, creating it if need be. roles, if given, are taken over
// when the row knows none.
func (s *Service) lockSubject(ctx context.Context, tx sqldb.Tx, subject string, roles *string) (person, error) {
	var routing [routingSize]byte
	rand.Read(routing[:])
	p, err := sqldb.One(ctx, tx, func(r sqldb.Row) (p person, err error) {
		err = r.Scan(&p.routing, &p.epoch, &p.roles)
		return p, err
	}, lockSubject, subject, hex.EncodeToString(routing[:]), roles, sqldb.Micros(s.deps.Clock().Add(keepSubject)))
	if err != nil {
		return person{}, fmt.Errorf("lock subject: %w", err)
	}
	return p, nil
}
