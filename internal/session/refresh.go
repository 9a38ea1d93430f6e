package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// outcome is what came of presenting a refresh token; it is also a metric's label.
type outcome string

// The outcomes that the store decides, in the order in which it asks.
const (
	wasEnded    outcome = "ended"
	wasExpired  outcome = "expired"
	wasRotated  outcome = "rotated"
	wasRepeated outcome = "repeated"
	wasReissued outcome = "reissued"
	wasAhead    outcome = "ahead"
	wasTheft    outcome = "theft"
)

// The outcomes that need no store, or had none.
const (
	wasInvalid     outcome = "invalid" // not a token of ours
	wasUnknown     outcome = "unknown" // the grant has been forgotten
	wasUnavailable outcome = "unavailable"
	wasAbandoned   outcome = "abandoned" // the client went away meanwhile
)

// refreshTimeout bounds a refresh: a client that is turned away in time can try again before its access token expires.
const refreshTimeout = 5 * time.Second

// rotateGrant decides what a presented token is worth and acts on it, in one statement on one row: of two requests at once
// the second is decided on what the first has left, on SQLite because there is one writer, on PostgreSQL because READ
// COMMITTED re-evaluates the row it had to wait for. See Refresh for the cases.
const rotateGrant = `UPDATE session_grants SET
	(outcome, status, end_reason, ended_at, generation, current_hash, previous_hash, successor_sealed, window_until,
		idle_expires_at, purge_at, refreshed_at, address, user_agent) = (
	SELECT v.outcome,
		CASE WHEN v.outcome = 'theft' THEN 'theft' ELSE status END,
		CASE WHEN v.outcome = 'theft' THEN 'theft' ELSE end_reason END,
		CASE WHEN v.outcome = 'theft' THEN $1 ELSE ended_at END,
		CASE WHEN v.accepted THEN $2 + 1 ELSE generation END,
		CASE WHEN v.accepted THEN $3 ELSE current_hash END,
		CASE WHEN v.accepted THEN $4 ELSE previous_hash END,
		CASE WHEN v.accepted THEN $5 ELSE successor_sealed END,
		CASE WHEN v.accepted THEN $6 ELSE window_until END,
		CASE WHEN v.accepted THEN CASE WHEN expires_at < $7 THEN expires_at ELSE $7 END ELSE idle_expires_at END,
		CASE WHEN v.accepted THEN $8 ELSE purge_at END,
		CASE WHEN v.accepted THEN $1 ELSE refreshed_at END,
		CASE WHEN v.accepted OR v.outcome = 'theft' THEN $9 ELSE address END,
		CASE WHEN v.accepted OR v.outcome = 'theft' THEN $10 ELSE user_agent END
	FROM (
		SELECT d.outcome, d.outcome IN ('rotated', 'reissued', 'ahead') AS accepted
		FROM (
			SELECT CASE
				WHEN status <> 'live' THEN 'ended'
				WHEN idle_expires_at <= $1 OR expires_at <= $1 THEN 'expired'
				WHEN current_hash = $4 THEN 'rotated'
				WHEN previous_hash = $4 AND window_until > $1 THEN 'repeated'
				WHEN previous_hash = $4 THEN CAST($11 AS TEXT)
				WHEN generation < $2 THEN 'ahead'
				ELSE 'theft'
			END AS outcome
		) AS d
	) AS v)
	WHERE id = $12
	RETURNING outcome, end_reason, session_id, subject, client_id, scope, audience, roles, epoch, auth_time, acr, amr,
		successor_sealed, idle_expires_at`

// decision is what rotateGrant returned.
type decision struct {
	outcome   outcome
	reason    Reason
	grant     token.Grant
	sealed    []byte
	expiresAt time.Time
}

// Refresh exchanges a refresh token for its successor and a new access token, in one round trip to the store. P is the
// presented token, of generation p; N is its successor, made before the store is asked; H is SHA-256. The first case that
// holds decides:
//
//	the grant has ended                        ErrEnded with the reason
//	it has expired                             ErrInvalidGrant
//	H(P) is current                            rotated: previous = H(P), current = H(N), generation = p+1; N is kept, sealed
//	                                           for the holder of P, while the window is open
//	H(P) is previous, the window is open       repeated: nothing changes, the answer is the same successor
//	H(P) is previous, the window has closed    the successor was never used, or P would not be previous. Policy Reissue:
//	                                           as rotated, the unused successor dies; policy Revoke: theft
//	p is above the generation                  ahead: the store lost writes in a failover. As rotated, and noted
//	otherwise                                  theft: P was ours and has been replaced. The grant ends at once, and with it
//	                                           the session if the client is FirstParty; the owner is told. ErrEnded
//
// A token whose MAC is wrong, or whose grant has been forgotten, is ErrInvalidGrant; the former never reaches the store.
// While the store cannot be reached, or does not answer within refreshTimeout, the answer is ErrUnavailable and the token
// stays good.
func (s *Service) Refresh(ctx context.Context, presented string, device Device) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	tokens, result, err := s.refresh(ctx, presented, device)
	if abandoned(err) {
		result = wasAbandoned
	}
	s.metrics.refreshes.WithLabelValues(string(result)).Inc()
	return tokens, err
}

func (s *Service) refresh(ctx context.Context, presented string, device Device) (Tokens, outcome, error) {
	p, err := s.verify(ctx, presented)
	if errors.Is(err, errNotOurs) {
		return Tokens{}, wasInvalid, ErrInvalidGrant.Wrap(err)
	}
	if err != nil {
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	d, next, err := s.rotate(ctx, p, device)
	switch {
	case errors.Is(err, sqldb.ErrNotFound):
		return Tokens{}, wasUnknown, ErrInvalidGrant.Wrap(err)
	case err != nil:
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	switch d.outcome {
	case wasEnded:
		return Tokens{}, d.outcome, d.reason.ended()
	case wasExpired:
		return Tokens{}, d.outcome, ErrInvalidGrant
	case wasTheft:
		s.drawConsequences(ctx, p.grant.String(), d.grant.Subject)
		return Tokens{}, d.outcome, d.reason.ended()
	case wasRepeated:
		if next, err = p.open(d.sealed); err != nil {
			return Tokens{}, d.outcome, fmt.Errorf("refresh: %w", err)
		}
	case wasAhead:
		s.deps.Log.WarnContext(ctx, "refresh token is ahead of the store, which has lost writes",
			"session", p.session.String(), "generation", p.generation)
	}
	access, err := s.deps.Tokens.Issue(ctx, d.grant)
	if err != nil {
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	return Tokens{
		SessionID: d.grant.SessionID, Access: access.Token, ExpiresIn: access.Lifetime,
		Refresh: next.encode(), RefreshExpiresIn: d.expiresAt.Sub(s.deps.Clock()),
	}, d.outcome, nil
}

// verify returns the token if we made it, and errNotOurs if not. It asks the store for nothing but a key it has not seen.
func (s *Service) verify(ctx context.Context, presented string) (refreshToken, error) {
	p, err := parseRefresh(presented)
	if err != nil {
		return refreshToken{}, err
	}
	key, err := s.deps.Keyring.ByID(ctx, MACPurpose, p.keyID)
	if errors.Is(err, keyring.ErrUnknownKey) {
		return refreshToken{}, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	if err != nil {
		return refreshToken{}, err
	}
	if !p.authentic(key.Secret) {
		return refreshToken{}, errNotOurs
	}
	return p, nil
}

// rotate makes a successor and lets the store decide whether it becomes one. A grant that is not there is sqldb.ErrNotFound.
func (s *Service) rotate(ctx context.Context, p refreshToken, device Device) (decision, refreshToken, error) {
	key, err := s.deps.Keyring.Current(ctx, MACPurpose)
	if err != nil {
		return decision{}, refreshToken{}, err
	}
	next := p.next(key.ID, key.Secret)
	sealed, err := p.seal(next)
	if err != nil {
		return decision{}, refreshToken{}, err
	}
	lost := wasReissued
	if s.cfg.LostAnswer == Revoke {
		lost = wasTheft
	}
	now := s.deps.Clock()
	idle := now.Add(s.cfg.Idle)
	d, err := sqldb.One(ctx, s.deps.DB.Writer(), scanDecision, rotateGrant, sqldb.Micros(now), p.generation, next.hash(), p.hash(),
		sealed, sqldb.Micros(now.Add(s.cfg.Window)), sqldb.Micros(idle), purgeAt(idle), addressText(device.Address),
		cleanUserAgent(device.UserAgent), string(lost), p.grant.String())
	return d, next, err
}

func scanDecision(r sqldb.Row) (decision, error) {
	var (
		d                    decision
		audience, roles, amr string
		authTime, idle       int64
	)
	g := &d.grant
	err := r.Scan(&d.outcome, &d.reason, &g.SessionID, &g.Subject, &g.ClientID, &g.Scope, &audience, &roles, &g.Epoch, &authTime,
		&g.ACR, &amr, &d.sealed, &idle)
	if err != nil {
		return decision{}, err
	}
	for _, list := range []struct {
		words *[]string
		text  string
	}{{&g.Audience, audience}, {&g.Roles, roles}, {&g.AMR, amr}} {
		if *list.words, err = decodeList(list.text); err != nil {
			return decision{}, err
		}
	}
	g.AuthTime, d.expiresAt = sqldb.Time(authTime), sqldb.Time(idle)
	return d, nil
}

// abandoned reports whether something failed because the caller has gone. What fails for want of time is often cancelled, too.
func abandoned(err error) bool {
	return errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// unavailable hides an error of the store behind ErrUnavailable. The wait it asks for is random, so that all who were turned
// away do not come back at once. That the caller has gone is no outage, and stays what it is.
func unavailable(cause error) error {
	if abandoned(cause) {
		return cause
	}
	return ErrUnavailable.Wrap(cause).After(time.Second + rand.N(4*time.Second))
}
