package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	// Who signs out in the browser has left also the programs whose tokens go on (offline_access): those grants are told, and do not end.
	endOfSession = `UPDATE oauth_grants SET notify_at = $1, attempts = 0, ended_at = CASE WHEN session_hash = $2 THEN $1 ELSE ended_at END,
			browser_hash = CASE WHEN session_hash = $2 THEN browser_hash END
		WHERE (session_hash = $2 OR browser_hash = $2) AND ended_at = 0`
	dueNotices = `SELECT id, client_id, subject, session_id, attempts, notify_at FROM oauth_grants
		WHERE notify_at > 0 AND notify_at <= $1 ORDER BY notify_at LIMIT 50`
	// Of several nodes one tells; should it die, another does when its time is over.
	claimNotice = `UPDATE oauth_grants SET notify_at = $1, attempts = attempts + 1 WHERE id = $2 AND notify_at = $3`
	// What has happened since is another notice.
	settleNotice = `UPDATE oauth_grants SET notify_at = 0 WHERE id = $1 AND notify_at = $2`
)

const (
	// notifyEvery is how soon a node looks for sessions that have ended.
	notifyEvery = 500 * time.Millisecond
	// notifyTimeout bounds one attempt; the next follows after notifyPause, doubled each time, until there were maxNotices.
	notifyTimeout = 5 * time.Second
	notifyPause   = 10 * time.Second
	maxNotices    = 10
)

// newCaller returns the client that calls applications. It follows no redirects: a registered address is where the token goes.
func newCaller() *http.Client {
	return &http.Client{Timeout: notifyTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// noteEnded notes for which grants' sessions the end has come. Every node does; the first counts. Clients that were changed are looked up again.
func (s *Service) noteEnded(ctx context.Context, revocations []auth.Revocation) {
	now := sqldb.Micros(s.deps.Clock())
	for _, r := range revocations {
		if r.Kind == auth.RevokeClient {
			s.changes.Add(1)
		}
		if r.Kind != auth.RevokeSession {
			continue
		}
		if _, err := s.deps.DB.Writer().ExecContext(ctx, endOfSession, now, r.ID[:]); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "the end of a session is not noted for its clients", "error", err)
		}
	}
}

// notice is a client to be told of the end of a session.
type notice struct {
	id, clientID, subject, session string
	attempts, at                   int64
}

// notifyClients tells clients, until ctx ends.
func (s *Service) notifyClients(ctx context.Context) {
	ticker := time.NewTicker(notifyEvery)
	defer ticker.Stop()
	for {
		if err := s.Notify(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "clients are not told of ended sessions", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Notify tells the clients that are to be told now of sessions that have ended (OpenID Connect Back-Channel Logout 1.0).
func (s *Service) Notify(ctx context.Context) error {
	due, err := sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (n notice, err error) {
		err = r.Scan(&n.id, &n.clientID, &n.subject, &n.session, &n.attempts, &n.at)
		return n, err
	}, dueNotices, sqldb.Micros(s.deps.Clock()))
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range due {
		errs = append(errs, s.notify(ctx, n))
	}
	return errors.Join(errs...)
}

func (s *Service) notify(ctx context.Context, n notice) error {
	next := s.deps.Clock().Add(notifyPause << min(n.attempts, 8))
	res, err := s.deps.DB.Writer().ExecContext(ctx, claimNotice, sqldb.Micros(next), n.id, n.at)
	if err != nil {
		return err
	}
	if claimed, err := res.RowsAffected(); err != nil || claimed == 0 {
		return err
	}
	c, err := s.client(ctx, n.clientID)
	if err != nil && !errors.Is(err, ErrClientUnknown) {
		return err
	}
	if c.BackchannelLogoutURI != "" {
		if err := s.tellLogout(ctx, c, n); err != nil {
			s.deps.Log.WarnContext(ctx, "a client is not told of an ended session", "client", c.ID, "attempt", n.attempts+1, "error", err)
			if n.attempts+1 < maxNotices {
				return nil // again later
			}
		}
	}
	_, err = s.deps.DB.Writer().ExecContext(ctx, settleNotice, n.id, sqldb.Micros(next))
	return err
}

// tellLogout sends a logout token (Back-Channel Logout 1.0, section 2.4).
func (s *Service) tellLogout(ctx context.Context, c Client, n notice) error {
	known, err := s.namesFor(ctx, c)
	if err != nil {
		return err
	}
	now := s.deps.Clock()
	logoutToken, err := s.deps.Tokens.Sign(ctx, "logout+jwt", map[string]any{
		"iss": s.deps.Issuer, "aud": c.ID, "sub": known.subject(n.subject), "sid": known.session(n.session), "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"jti": rand.Text(), "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	body := strings.NewReader(url.Values{"logout_token": {logoutToken}}.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BackchannelLogoutURI, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	caller := s.caller
	if c.SelfRegistered() {
		caller = s.outside
	}
	answer, err := caller.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 4<<10)) // so that the connection can be used again
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}
