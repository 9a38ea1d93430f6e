package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
)

// ParseUserCode is exposed to the tests of this package.
var ParseUserCode = parseUserCode

// Unpack reads a request object of a client, signed or not, and returns the parameters that it has.
func (s *Service) Unpack(ctx context.Context, clientID, raw string) (url.Values, error) {
	c, err := s.client(ctx, clientID)
	if err != nil {
		return nil, err
	}
	return s.unpack(ctx, c, url.Values{"client_id": {clientID}, "request": {raw}})
}

// Hint reads an ID token that a client hands back, and returns its person and session.
func (s *Service) Hint(ctx context.Context, raw string) (subject, session string, ok bool) {
	h := s.readHint(ctx, raw)
	if h == nil {
		return "", "", false
	}
	return h.Subject, h.SessionID, true
}

// ParseClaims reads the parameter claims of a client that may ask for everything but addresses, and returns it as it is kept, with the
// scopes that the person is asked about.
func ParseClaims(text string) (kept string, scopes []string, err error) {
	claims, err := parseClaims(text, func(scope string) bool { return scope != "address" })
	if err != nil {
		return "", nil, err
	}
	if _, err := claims.subject(); err != nil {
		return "", nil, err
	}
	_ = claims.takesACR("1")
	for _, set := range []claimSet{claims.UserInfo, claims.IDToken} {
		for name := range set.pick(map[string]any{"name": "Kim", "email_verified": true, "updated_at": int64(1), "address": nil}) {
			if _, there := set[name]; !there {
				return "", nil, errors.New(name + " was not asked for")
			}
		}
	}
	out, err := json.Marshal(claims)
	return string(out), claims.scopes(), err
}

// Granted decides on scope and resources that a client asks for.
func (c Client) Granted(scope, resource string) (words string, audience []string, err error) {
	words, err = c.scope(scope, impersonal)
	if err != nil {
		return "", nil, err
	}
	audience, err = c.audience([]string{resource}, "https://id.example.com")
	return words, audience, err
}

// ValidResource reports whether a resource may be registered.
func ValidResource(uri string) bool { return validResource(uri) }
