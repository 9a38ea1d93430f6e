package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
)

// The statement that finds a theft marks the grant, and from then on its tokens are refused: the mark is the durable intent.
// Everything else follows in one transaction, at once or, if the process dies in between, by any node's housekeeping.
const (
	settleGrant = `UPDATE session_grants SET status = 'ended' WHERE id = $1 AND status = 'theft'
		RETURNING session_id, client_id, address, user_agent, ended_at`
	listThefts = `SELECT id, subject FROM session_grants WHERE status = 'theft' ORDER BY id LIMIT 100`
)

// settleTimeout bounds the consequences of one theft; the client that caused it may be gone.
const settleTimeout = 5 * time.Second

// drawConsequences settles a theft now. When that is impossible, housekeeping will.
func (s *Service) drawConsequences(ctx context.Context, grantID, subject string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := s.settle(ctx, grantID, subject); err != nil {
		s.deps.Log.WarnContext(ctx, "theft of a refresh token is not settled yet", "grant", grantID, "error", err)
	}
}

// settleAll settles what is marked and not settled.
func (s *Service) settleAll(ctx context.Context) error {
	type marked struct{ grantID, subject string }
	thefts, err := sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (m marked, err error) {
		err = r.Scan(&m.grantID, &m.subject)
		return m, err
	}, listThefts)
	if err != nil {
		return fmt.Errorf("list thefts: %w", err)
	}
	var errs []error
	for _, m := range thefts {
		errs = append(errs, s.settle(ctx, m.grantID, m.subject))
	}
	return errors.Join(errs...)
}

// theft is a marked grant, and whoever presented the replaced token.
type theft struct {
	sessionID, clientID string
	device              Device
	at                  time.Time
}

// settle draws the consequences of a marked theft, once, however many nodes try.
func (s *Service) settle(ctx context.Context, grantID, subject string) error {
	var revocations []auth.Revocation
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		revocations = nil
		if _, err := s.lockSubject(ctx, tx, subject, nil); err != nil {
			return err
		}
		t, err := sqldb.One(ctx, tx, scanTheft, settleGrant, grantID)
		if errors.Is(err, sqldb.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.tell(ctx, tx, subject, t); err != nil {
			return err
		}
		if t.clientID == FirstParty {
			_, revocations, err = s.endTx(ctx, tx, ending{subject: subject, only: t.sessionID, reason: Theft})
			return err
		}
		id := auth.RevocationHash(auth.RevokeGrant, auth.GrantID(t.sessionID, t.clientID))
		revocations, err = s.revokeTx(ctx, tx, auth.Revocation{Kind: auth.RevokeGrant, ID: id})
		return err
	})
	if err != nil {
		return fmt.Errorf("settle theft: %w", err)
	}
	s.revoked.Add(revocations...)
	s.deps.Mail.Wake()
	return nil
}

// tell writes the theft into the owner's trail, and a letter.
func (s *Service) tell(ctx context.Context, tx sqldb.Tx, subject string, t theft) error {
	err := s.deps.Audit.Append(ctx, tx, audit.Event{
		At: t.at, Account: subject, Action: "session.theft",
		Origin: audit.Origin{Address: t.device.Address, UserAgent: t.device.UserAgent},
		Detail: map[string]string{"session": t.sessionID, "client": t.clientID},
	})
	if err != nil {
		return err
	}
	return s.deps.Mail.Enqueue(ctx, tx, mail.Letter{
		Kind: "session_theft", Account: subject, CreatedAt: t.at,
		Data: map[string]string{"device": t.device.Label, "from": addressText(t.device.Address)},
	})
}

func scanTheft(r sqldb.Row) (t theft, err error) {
	var address, userAgent string
	var at int64
	if err := r.Scan(&t.sessionID, &t.clientID, &address, &userAgent, &at); err != nil {
		return theft{}, err
	}
	var from netip.Addr
	if from, err = parseAddress(address); err != nil {
		return theft{}, err
	}
	t.device, t.at = NewDevice(userAgent, from), sqldb.Time(at)
	return t, nil
}
