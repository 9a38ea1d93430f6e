package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/web"
)

const appsPath = "/account/apps"

const (
	findConsent   = `SELECT scope FROM oauth_consents WHERE subject = $1 AND client_id = $2 AND used_at >= $3`
	useConsent    = `UPDATE oauth_consents SET used_at = $1 WHERE subject = $2 AND client_id = $3 AND used_at < $4`
	upsertConsent = `INSERT INTO oauth_consents (subject, client_id, scope, created_at, used_at) VALUES ($1, $2, $3, $4, $4)
		ON CONFLICT (subject, client_id) DO UPDATE SET scope = excluded.scope, used_at = excluded.used_at`
	listConsents  = `SELECT client_id, scope, created_at FROM oauth_consents WHERE subject = $1 ORDER BY client_id LIMIT 500`
	deleteConsent = `DELETE FROM oauth_consents WHERE subject = $1 AND client_id = $2`
	sweepConsents = `DELETE FROM oauth_consents WHERE (subject, client_id) IN (
		SELECT subject, client_id FROM oauth_consents WHERE used_at < $1 LIMIT $2)`

	findGrant    = `SELECT id, subject, session_id, own FROM oauth_grants WHERE id = $1`
	grantEnded   = `SELECT ended_at FROM oauth_grants WHERE id = $1`
	markGrant    = `UPDATE oauth_grants SET ended_at = $1 WHERE id = $2 AND (subject = $3 OR $3 = '') AND ended_at = 0 RETURNING id, subject, session_id, own`
	markGrantsOf = `UPDATE oauth_grants SET ended_at = $1 WHERE subject = $2 AND client_id = $3 AND ended_at = 0 RETURNING id, subject, session_id, own`
	sweepGrants  = `DELETE FROM oauth_grants WHERE id IN (SELECT id FROM oauth_grants WHERE expires_at < $1 LIMIT $2)`
)

const (
	// The codes that may still be exchanged are few, so expires_at is what they are found by.
	dropCodes   = `DELETE FROM oauth_codes WHERE subject = $1 AND client_id = $2 AND consumed_at = 0 AND expires_at > $3`
	denyDevices = `UPDATE oauth_devices SET status = 'denied' WHERE subject = $1 AND client_id = $2 AND status = 'approved' AND expires_at > $3`

	// codeSkew is how far the clock of a node may be behind that takes a code.
	codeSkew = time.Minute
)

const (
	// keepConsent is how long what a person agreed to is remembered when the client does not ask for it.
	keepConsent = 400 * 24 * time.Hour
	// useEvery is how often its use is written down.
	useEvery = 24 * time.Hour
)

// consent returns what the person has agreed to give the client, nil for nothing at all. What they gave another client of that id does not
// count, nor what they gave a client that has said something else of itself since.
func (s store) consent(ctx context.Context, subject string, c Client, now time.Time) ([]string, error) {
	since := c.CreatedAt
	if c.SelfRegistered() {
		since = c.UpdatedAt
	}
	clientID := c.ID
	scope, err := sqldb.One(ctx, s.db.Reader(), scanString, findConsent, subject, clientID, sqldb.Micros(since))
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.db.Writer().ExecContext(ctx, useConsent, sqldb.Micros(now), subject, clientID, sqldb.Micros(now.Add(-useEvery))); err != nil {
		return nil, err
	}
	return append([]string{}, strings.Fields(scope)...), nil
}

func scanString(r sqldb.Row) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

// agree remembers that a person gives a client what it asks for, besides what they gave before.
func (s *Service) agree(ctx context.Context, subject string, c Client, scope []string) error {
	now := s.deps.Clock()
	before, err := s.store.consent(ctx, subject, c, now)
	if err != nil {
		return err
	}
	for _, word := range scope {
		if !slices.Contains(before, word) {
			before = append(before, word)
		}
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, upsertConsent, subject, c.ID, strings.Join(before, " "), sqldb.Micros(now)); err != nil {
			return err
		}
		return s.recordOwn(ctx, tx, subject, c.ID, "client.allowed", strings.Join(scope, " "))
	})
	if err != nil {
		return fmt.Errorf("store consent: %w", err)
	}
	return nil
}

// recordOwn writes into a person's trail what they did about a client.
func (s *Service) recordOwn(ctx context.Context, q sqldb.Queryer, subject, clientID, action, scope string) error {
	detail := map[string]string{"client": clientID}
	if scope != "" {
		detail["scope"] = scope
	}
	return s.deps.Audit.Append(ctx, q, audit.Event{
		Account: subject, Actor: subject, Action: action, Detail: detail,
		Origin: identity.OriginOf(ctx),
	})
}

// given is a grant that was given.
type given struct {
	id, subject, session string
	own                  int64
}

func scanGiven(r sqldb.Row) (g given, err error) {
	err = r.Scan(&g.id, &g.subject, &g.session, &g.own)
	return g, err
}

// endGrant takes back one grant of the subject's, or of anybody's where subject is empty. One that is not there, or has ended, is fine.
func (s *Service) endGrant(ctx context.Context, subject, id string) error {
	return s.end(ctx, func(tx sqldb.Tx) ([]given, error) {
		return sqldb.All(ctx, tx, scanGiven, markGrant, sqldb.Micros(s.deps.Clock()), id, subject)
	})
}

// end takes back the grants that mark marks as ended, in one transaction with whatever else mark does: what is decided stands, also while
// sessions cannot be reached. The session that a grant has to itself may be about to begin, and then there is nothing yet that could end:
// whoever begins it looks for the mark, see stillGiven.
func (s *Service) end(ctx context.Context, mark func(tx sqldb.Tx) ([]given, error)) error {
	var all []given
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		if all, err = mark(tx); err != nil {
			return err
		}
		for _, g := range all {
			if err := s.endTx(ctx, tx, g); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take back grants: %w", err)
	}
	if len(all) == 0 {
		return nil
	}
	if err := s.deps.Sessions.Apply(ctx); err != nil {
		s.deps.Log.WarnContext(ctx, "what was taken back is not carried out yet", "error", err)
	}
	return nil
}

// endTx ends a grant: its session, where it has one to itself.
func (s *Service) endTx(ctx context.Context, tx sqldb.Tx, g given) error {
	if g.own == 1 {
		return s.deps.Sessions.EndTx(ctx, tx, g.subject, g.session, session.GrantRevoked)
	}
	return s.deps.Sessions.EndGrantTx(ctx, tx, g.subject, g.session, g.id, session.GrantRevoked)
}

// apps shows the person which programs they allowed what.
func (p pages) apps(w http.ResponseWriter, r *http.Request) error {
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	if v == nil {
		return see(w, r, "/sign-in?return_to="+appsPath)
	}
	page := web.Apps{}
	if r.URL.Query().Get("notice") == "app_withdrawn" {
		page.Notice = "app_withdrawn"
	}
	page.Apps, err = sqldb.All(r.Context(), p.deps.DB.Reader(), func(row sqldb.Row) (a web.App, err error) {
		var scope string
		var created int64
		err = row.Scan(&a.ID, &scope, &created)
		a.Name, a.Scopes, a.Since = a.ID, strings.Fields(scope), sqldb.Time(created)
		return a, err
	}, listConsents, v.account.ID)
	if err != nil {
		return err
	}
	for i := range page.Apps {
		c, err := p.store.find(r.Context(), page.Apps[i].ID)
		if err == nil {
			page.Apps[i].Name = c.Name
		} else if !errors.Is(err, ErrClientUnknown) {
			return err
		}
	}
	return p.web.Page(w, r.WithContext(v.seen(r.Context())), http.StatusOK, page)
}

// withdraw takes back from a client what a person allowed it.
func (p pages) withdraw(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	if v == nil {
		return see(w, r, "/sign-in?return_to="+appsPath)
	}
	if err := p.Withdraw(r.Context(), v.account.ID, form.Get("client_id")); err != nil {
		return err
	}
	return see(w, r, appsPath+"?notice=app_withdrawn")
}

// Withdraw forgets what a person allowed a client, and ends all grants that it has of theirs, and all that could still become one.
func (s *Service) Withdraw(ctx context.Context, subject, clientID string) error {
	return s.end(ctx, func(tx sqldb.Tx) ([]given, error) {
		if err := changed(ctx, tx, deleteConsent, subject, clientID); err != nil {
			return nil, err
		}
		if err := s.recordOwn(ctx, tx, subject, clientID, "client.withdrawn", ""); err != nil {
			return nil, err
		}
		now := s.deps.Clock()
		// A code that is being exchanged is waited for: then there is a grant.
		for _, statement := range []string{dropCodes, denyDevices} {
			if _, err := tx.ExecContext(ctx, statement, subject, clientID, sqldb.Micros(now.Add(-codeSkew))); err != nil {
				return nil, err
			}
		}
		return sqldb.All(ctx, tx, scanGiven, markGrantsOf, sqldb.Micros(now), subject, clientID)
	})
}
