package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sumunio/sumun/internal/keyring"
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
	wasEarly    outcome = "early"
	wasWrongKey outcome = "wrong_key" // its key is another one
	wasUnbound  outcome = "unbound"   // it is bound to none, and has to be
)

// The outcomes that need no store, or had none.
const (
	wasInvalid     outcome = "invalid" // not a token of ours
	wasUnpaired    outcome = "unpaired"
	wasUnproved    outcome = "unproved" // wrong_key, without any
	wasUnknown     outcome = "unknown"  // the grant has been forgotten
	wasUnavailable outcome = "unavailable"
	wasAbandoned   outcome = "abandoned" // the client went away meanwhile
)

// refreshTimeout bounds a refresh: a client that is turned away in time can try again before its access token expires.
const refreshTimeout = 5 * time.Second

// Refresh exchanges a refresh token for its successor and a new access token, in one round trip to the store. P is the
// presented token, of generation p; N is its successor, made before the store is asked; H is SHA-256. The first case that
// holds decides:
//
//	the grant has ended                        ErrEnded with the reason
//	it has expired                             ErrInvalidGrant
//	it is bound to a key (DPoP, RFC 9449),     and the evidence has no proof: ErrProofRequired; one of another key: ErrWrongKey
//	or to a certificate (RFC 8705)
//	it is bound to none, DPoPRequired          ErrUnbound
//	H(P) is current, the access token is new   policy EarlyAllow: as below; EarlyReject: ErrTooEarly; EarlyRevoke: theft
//	H(P) is current                            rotated: previous = H(P), current = H(N), generation = p+1; N is kept, sealed
//	                                           for the holder of P, while the window is open
//	H(P) is previous, the window is open       repeated: nothing changes, the answer is the same successor
//	H(P) is previous, the window has closed    the successor was never used, or P would not be previous. Policy Reissue:
//	                                           as rotated, the unused successor dies; policy Revoke: theft
//	p is above the generation                  ahead: the store lost writes in a failover. As rotated, and noted
//	otherwise                                  theft: P was ours and has been replaced. The grant ends at once, and with it
//	                                           the session if the client is FirstParty; the owner is told. ErrEnded
//
// Where Config.Pairing asks for the access token that was issued with P, and that is missing, the answer is ErrUnpaired.
// A token whose MAC is wrong, or whose grant has been forgotten, is ErrInvalidGrant; the former never reaches the store.
// While the store cannot be reached, or does not answer within refreshTimeout, the answer is ErrUnavailable and the token
// stays good.
func (s *Service) Refresh(ctx context.Context, presented string, device Device) (Tokens, error) {
	return s.RefreshWith(ctx, presented, Evidence{}, device)
}

// Evidence is what comes with a refresh token to show that its client presents it.
type Evidence struct {
	Access     string // the access token that was issued with it
	Thumbprint string // of the key whose proof came with it
	Form       Form   // of the tokens that are asked for; its certificate is the one that the client has shown
	// ClientID is the client that has proved who it is; "" where none has to. A token that is confined to a client is not valid
	// without it, and one that is not confined is not valid with it.
	ClientID    string
	ClientEpoch int64
	// Narrow, if given, decides what the access token says. An error leaves the client with the successor that it gets for the same
	// token again.
	Narrow Narrow
}

// RefreshWith is Refresh with evidence. The access token is bound to the key, also where the grant is not (RFC 9449 section 5).
func (s *Service) RefreshWith(ctx context.Context, presented string, with Evidence, device Device) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	tokens, result, err := s.refresh(ctx, presented, with, device)
	if abandoned(err) {
		result = wasAbandoned
	}
	s.metrics.refreshes.WithLabelValues(string(result)).Inc()
	return tokens, err
}

func (s *Service) refresh(ctx context.Context, presented string, with Evidence, device Device) (Tokens, outcome, error) {
	p, result, err := s.accept(ctx, presented, with)
	if err != nil {
		return Tokens{}, result, err
	}
	d, next, err := s.rotate(ctx, p, cmp.Or(with.Thumbprint, with.Form.Certificate), device)
	switch {
	case errors.Is(err, errUnknown):
		return Tokens{}, wasUnknown, ErrInvalidGrant.Wrap(err)
	case err != nil:
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	if d.unsettled {
		s.drawConsequences(ctx, mark{p.routing, p.grant, grantAlias(p.session, p.grant), d.grant.Subject})
	}
	if result, err := s.refused(d, with); err != nil {
		return Tokens{}, result, err
	}
	switch d.outcome {
	case wasRepeated:
		if next, err = s.repeat(ctx, p, d); err != nil {
			return Tokens{}, d.outcome, fmt.Errorf("refresh: %w", err)
		}
	case wasAhead:
		s.deps.Log.WarnContext(ctx, "refresh token is ahead of the store, which has lost writes",
			"session", p.session.String(), "generation", p.generation)
	}
	return s.succeed(ctx, p, next, d, with)
}

// accept decides what can be decided without the store: whether a token is ours, and comes with the access token that it has to.
func (s *Service) accept(ctx context.Context, presented string, with Evidence) (refreshToken, outcome, error) {
	p, err := s.verify(ctx, presented, with.ClientID)
	if errors.Is(err, errNotOurs) {
		return refreshToken{}, wasInvalid, ErrInvalidGrant.Wrap(err)
	}
	if err != nil {
		return refreshToken{}, wasUnavailable, unavailable(err)
	}
	err = s.checkPair(ctx, p, with.Access)
	if errors.Is(err, ErrUnpaired) {
		return refreshToken{}, wasUnpaired, err
	}
	return p, wasUnavailable, err
}

// refused says why the store gave no successor; nil where it gave one.
func (s *Service) refused(d decision, with Evidence) (outcome, error) {
	switch d.outcome {
	case wasEnded, wasTheft:
		return d.outcome, d.reason.ended()
	case wasExpired:
		return d.outcome, ErrInvalidGrant
	case wasEarly:
		return d.outcome, ErrTooEarly.After(s.deps.Tokens.Lifetime() / 2)
	case wasWrongKey:
		if with.Thumbprint == "" && with.Form.Certificate == "" {
			return wasUnproved, ErrProofRequired
		}
		return d.outcome, ErrWrongKey
	case wasUnbound:
		return d.outcome, ErrUnbound
	}
	return d.outcome, nil
}

// succeed issues the access token that goes with the successor of p.
func (s *Service) succeed(ctx context.Context, p, next refreshToken, d decision, with Evidence) (Tokens, outcome, error) {
	var err error
	if d.grant.ID, err = s.paired(ctx, next); err != nil {
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	d.grant.GrantID, d.grant.ClientEpoch = grantID(d.grant.ClientID, p.grant), with.ClientEpoch
	if with.Narrow != nil {
		if err := with.Narrow(&d.grant); err != nil {
			return Tokens{}, d.outcome, err
		}
	}
	if d.grant.Thumbprint != with.Thumbprint { // what the store has compared it with is the certificate
		d.grant.Thumbprint = ""
	}
	d.grant.Certificate, d.grant.Opaque = with.Form.Certificate, with.Form.Opaque
	if d.grant.Thumbprint == "" && s.cfg.DPoP != DPoPOff {
		d.grant.Thumbprint = with.Thumbprint
	}
	issued, err := s.deps.Tokens.Issue(ctx, d.grant)
	if err != nil {
		return Tokens{}, wasUnavailable, unavailable(err)
	}
	return Tokens{
		SessionID: d.grant.SessionID, Access: issued.Token, ExpiresIn: issued.Lifetime,
		Refresh: next.encode(), RefreshExpiresIn: d.lasts, Bound: d.grant.Thumbprint != "", Granted: d.grant,
	}, d.outcome, nil
}

// verify returns the token if we made it, and errNotOurs if not. It asks the store for nothing but a key it has not seen.
func (s *Service) verify(ctx context.Context, presented, clientID string) (refreshToken, error) {
	p, err := parseRefresh(presented)
	if err != nil {
		return refreshToken{}, err
	}
	p.client = clientID
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

// repeat makes the successor again that was sealed for the holder of p.
func (s *Service) repeat(ctx context.Context, p refreshToken, d decision) (refreshToken, error) {
	next, err := p.open(d.sealed, d.current)
	if err != nil {
		return refreshToken{}, err
	}
	key, err := s.deps.Keyring.ByID(ctx, MACPurpose, next.keyID)
	if err != nil {
		return refreshToken{}, err
	}
	next.mac = next.computeMAC(key.Secret)
	return next, nil
}

// rotate makes a successor and lets the store decide whether it becomes one. A grant that is not there is errUnknown.
func (s *Service) rotate(ctx context.Context, p refreshToken, thumbprint string, device Device) (decision, refreshToken, error) {
	key, err := s.deps.Keyring.Current(ctx, MACPurpose)
	if err != nil {
		return decision{}, refreshToken{}, err
	}
	r := rotation{
		presented: p, next: p.next(key.ID, key.Secret), thumbprint: thumbprint, mustBind: s.cfg.DPoP == DPoPRequired,
		device: device, lost: wasReissued, early: wasRotated,
	}
	if r.sealed, err = p.seal(r.next); err != nil {
		return decision{}, refreshToken{}, err
	}
	if s.cfg.LostAnswer == Revoke {
		r.lost = wasTheft
	}
	switch s.cfg.EarlyRefresh {
	case EarlyReject:
		r.early, r.age = wasEarly, s.deps.Tokens.Lifetime()/2
	case EarlyRevoke:
		r.early, r.age = wasTheft, s.deps.Tokens.Lifetime()/2
	}
	d, err := s.store.rotate(ctx, r)
	return d, r.next, err
}

// settleTimeout bounds the consequences of one theft; the client that caused it may be gone.
const settleTimeout = 5 * time.Second

// drawConsequences settles a theft now. When that is impossible, the mark that the store keeps lets somebody do it later.
func (s *Service) drawConsequences(ctx context.Context, m mark) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := s.store.settle(ctx, m); err != nil {
		s.deps.Log.WarnContext(ctx, "theft of a refresh token is not settled yet", "grant", m.grant.String(), "error", err)
	}
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
