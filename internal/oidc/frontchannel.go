package oidc

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// Also those that gave their tokens back are told: the session that a program keeps itself knows nothing of that.
const sharesOf = `SELECT DISTINCT client_id, session_id FROM oauth_grants WHERE session_hash = $1 OR browser_hash = $1
	ORDER BY client_id, session_id LIMIT $2`

// maxShares bounds what one page loads: who signs in to more programs at once is told of the rest by the back channel.
const maxShares = 50

// share is a client that the person is signed in to with the session of a browser, and the session that it has been told of.
type share struct{ clientID, session string }

// shares lists the clients that the session of a browser is signed in to.
func (s *Service) shares(ctx context.Context, browser string) ([]share, error) {
	hash := session.OfSession(browser).ID
	return sqldb.All(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (one share, err error) {
		err = r.Scan(&one.clientID, &one.session)
		return one, err
	}, sharesOf, hash[:], maxShares)
}

// Frames returns the addresses that a browser is to load, each in a frame, when its session ends, so that the programs that it is signed
// in to end theirs (OpenID Connect Front-Channel Logout 1.0, section 3). It is asked before the session ends.
func (s *Service) Frames(ctx context.Context, browser string) ([]string, error) {
	all, err := s.shares(ctx, browser)
	if err != nil {
		return nil, err
	}
	var frames []string
	for _, one := range all {
		c, err := s.client(ctx, one.clientID)
		if errors.Is(err, ErrClientUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.FrontchannelLogoutURI == "" {
			continue
		}
		known, err := s.namesFor(ctx, c)
		if err != nil {
			return nil, err
		}
		frames = append(frames, s.frame(c, known.session(one.session)))
	}
	return frames, nil
}

// frame is the address with the issuer and the session in it, which a program that cares compares with its own: whoever else has people
// load the address ends nothing (section 4.1).
func (s *Service) frame(c Client, sessionID string) string {
	separator := "?"
	if strings.Contains(c.FrontchannelLogoutURI, "?") {
		separator = "&"
	}
	return c.FrontchannelLogoutURI + separator + url.Values{"iss": {s.deps.Issuer}, "sid": {sessionID}}.Encode()
}

// checkFrontchannel says what is wrong with a front-channel logout URI; "" if nothing is. Scheme, host and port are those of a redirect URI
// (section 2), so that nobody has our page load a stranger's.
func (m Metadata) checkFrontchannel() string {
	if wrong := checkRedirect(m.FrontchannelLogoutURI); wrong != "" {
		return wrong
	}
	u, err := url.Parse(m.FrontchannelLogoutURI)
	known := err == nil && u.Host != "" && slices.ContainsFunc(m.RedirectURIs, func(uri string) bool {
		r, err := url.Parse(uri)
		return err == nil && r.Scheme == u.Scheme && r.Host == u.Host
	})
	if !known {
		return "Must have the scheme, host and port of a redirect URI."
	}
	return ""
}
