package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

// GrantStart is what a client's grant in a person's session is made of.
type GrantStart struct {
	Subject, SessionID string
	ClientID           string
	ClientEpoch        int64
	Scope              string
	Audience           []string
	Device             Device
	Thumbprint         string // of the key that the grant is bound to; none when empty
	Narrow             Narrow // if any; every refresh needs it again (Evidence)
	Form               Form
}

// Granting is a grant between the transaction that decided on it and its life. It is for one goroutine.
type Granting struct {
	ID string // UUIDv7; the claim gid of its access tokens

	service *Service
	opening *opening
	finish  finish
}

// attachment is what the store says of a grant that it has given.
type attachment struct {
	authTime time.Time
	acr      string
	amr      []string
	lasts    time.Duration // until it expires unless it is used
}

// BeginGrant decides in the caller's transaction that a client gets a grant in a live session: a refresh family whose tokens work
// together with the client alone (see Evidence). It ends with the session. A session that is not the subject's, or not live, is
// ErrNotFound, from here or from Commit; one that was ended meanwhile is ErrOvertaken. Like Begin it belongs at the transaction's end.
func (s *Service) BeginGrant(ctx context.Context, tx sqldb.Tx, start GrantStart) (*Granting, error) {
	id, err := ParseID(start.SessionID)
	if err != nil {
		return nil, err
	}
	key, err := s.deps.Keyring.Current(ctx, MACPurpose)
	if err != nil {
		return nil, fmt.Errorf("start grant: %w", err)
	}
	o, err := newOpening(Start{
		Subject: start.Subject, ClientID: start.ClientID, ClientEpoch: start.ClientEpoch, Confined: true, Scope: start.Scope, Audience: start.Audience,
		Device: start.Device, Thumbprint: start.Thumbprint, Narrow: start.Narrow, Form: start.Form,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("start grant: %w", err)
	}
	if err := s.checkStart(&o.start); err != nil {
		return nil, err
	}
	o.id = id
	g := &Granting{ID: o.grantID.String(), service: s, opening: o}
	if g.finish, err = s.store.attach(ctx, tx, o); err != nil {
		return nil, fmt.Errorf("start grant: %w", err)
	}
	if err := s.alias(ctx, tx, o); err != nil {
		return nil, fmt.Errorf("start grant: %w", err)
	}
	return g, nil
}

// Commit brings the grant to life after its transaction has committed, and makes its first tokens.
func (g *Granting) Commit(ctx context.Context) (Tokens, error) {
	if err := g.finish(ctx); err != nil {
		return Tokens{}, fmt.Errorf("start grant: %w", err)
	}
	if err := g.service.keepAliases(ctx, g.opening); err != nil {
		return Tokens{}, fmt.Errorf("start grant: %w", err)
	}
	tokens, err := g.service.firstTokens(ctx, g.opening)
	if err != nil {
		return Tokens{}, fmt.Errorf("start grant: %w", err)
	}
	return tokens, nil
}

// End is when the session of the grant ends at the latest. It is known once Commit has returned.
func (g *Granting) End() time.Time { return g.opening.end }

// adopt takes over what the store says of the session that a grant was attached to.
func (o *opening) adopt(a attachment) {
	o.session.AuthTime, o.session.ACR, o.session.AMR = a.authTime, a.acr, a.amr
	o.session.ExpiresAt = o.session.CreatedAt.Add(a.lasts)
}

// grantID is the claim gid: Sumun's own tokens have none, as they go with their session.
func grantID(clientID string, id uuid.UUID) string {
	if clientID == FirstParty {
		return ""
	}
	return id.String()
}

// EndGrantTx ends a client's grant in a session, by its id, in the caller's transaction: its refresh tokens are worth nothing, and its access
// tokens are refused. The session goes on. One that is not there, or has ended, is fine. Call Apply once it has committed; like EndTx it
// belongs at the transaction's end.
func (s *Service) EndGrantTx(ctx context.Context, tx sqldb.Tx, subject, sessionID, grantID string, reason Reason) error {
	id, err := ParseID(grantID)
	if err != nil {
		return err
	}
	in, err := ParseID(sessionID)
	if err != nil {
		return err
	}
	if err = s.store.endGrant(ctx, tx, ending{subject: subject, reason: reason}, in, id); err == nil {
		err = s.RevokeTx(ctx, tx, OfGrant(grantID))
	}
	if err != nil {
		return fmt.Errorf("end grant: %w", err)
	}
	return nil
}

const (
	findAttachable = `SELECT s.auth_time, s.acr, s.amr, s.expires_at FROM sessions s
		WHERE s.id = $1 AND s.subject = $2 AND s.ended_at = 0 AND s.expires_at > $3 AND (s.idle_expires_at > $3 OR EXISTS (
			SELECT 1 FROM session_grants g WHERE g.session_id = s.id AND g.status = 'live' AND g.idle_expires_at > $3))`
	endOneGrant = `UPDATE session_grants
		SET status = 'ended', ended_at = $1, end_reason = $2, purge_at = CASE WHEN purge_at < $3 THEN purge_at ELSE $3 END
		WHERE status = 'live' AND id IN ($4, $5) AND subject = $6`
)

func (s sqlStore) attach(ctx context.Context, tx sqldb.Tx, o *opening) (finish, error) {
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
	a, end, err := s.attachable(ctx, tx, o.id.String(), o)
	if err != nil {
		return nil, err
	}
	if o.end = end; o.idle.After(end) {
		o.idle = end
	}
	a.lasts = o.idle.Sub(o.now)
	o.adopt(a)
	return finished, s.insertGrant(ctx, tx, o)
}

// attachable returns what a live session of the person's says, and when it ends at the latest; ErrNotFound where it is not live. The
// person is locked.
func (s sqlStore) attachable(ctx context.Context, tx sqldb.Tx, id string, o *opening) (a attachment, end time.Time, err error) {
	a, err = sqldb.One(ctx, tx, func(r sqldb.Row) (a attachment, err error) {
		var amr string
		var auth, ends int64
		if err := r.Scan(&auth, &a.acr, &amr, &ends); err != nil {
			return attachment{}, err
		}
		a.authTime, end = sqldb.Time(auth), sqldb.Time(ends)
		a.amr, err = decodeList(amr)
		return a, err
	}, findAttachable, id, o.start.Subject, sqldb.Micros(o.now))
	if errors.Is(err, sqldb.ErrNotFound) {
		err = ErrNotFound
	}
	return a, end, err
}

func (s sqlStore) endGrant(ctx context.Context, tx sqldb.Tx, e ending, in, id uuid.UUID) error {
	p, err := s.lockSubject(ctx, tx, e.subject, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, endOneGrant, sqldb.Micros(p.now), string(e.reason), sqldb.Micros(p.now.Add(keepEnded)), id.String(),
		grantAlias(in, id).String(), e.subject)
	return err
}

// Identify returns the grant and the session that a refresh token is of, if it is authentic and confined to the client. Whether it is
// still worth anything is for a refresh to say. What it cannot read is ErrInvalidGrant.
func (s *Service) Identify(ctx context.Context, presented, clientID string) (grantID, sessionID string, err error) {
	p, err := s.verify(ctx, presented, clientID)
	if errors.Is(err, errNotOurs) {
		return "", "", ErrInvalidGrant.Wrap(err)
	}
	if err != nil {
		return "", "", unavailable(err)
	}
	return p.grant.String(), p.session.String(), nil
}

// Lifetime is how long a session lives at most.
func (s *Service) Lifetime() time.Duration { return s.cfg.Lifetime }
