package oidc

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/token"
)

// tokenAnswer is a token (RFC 6749, section 5.1).
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	Scope        string `json:"scope,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	IssuedType   string `json:"issued_token_type,omitempty"` // RFC 8693, section 2.2.1
}

// grant is one way to a token. It is reached through Service.token only.
type grant struct {
	issue func(ctx context.Context, c *call) (tokenAnswer, error)
}

func (s *Service) newGrants() map[string]grant {
	return map[string]grant{
		GrantClientCredentials: {s.clientCredentials},
		GrantAuthorizationCode: {s.authorizationCode},
		GrantRefreshToken:      {s.refreshToken},
		GrantDevice:            {s.deviceCode},
		GrantExchange:          {s.exchangeToken},
		LegacyPassword:         {s.passwordGrant},
	}
}

// grantTypes are the grants that a client may register.
func grantTypes() []string {
	return []string{GrantAuthorizationCode, GrantRefreshToken, GrantClientCredentials, GrantDevice, GrantExchange}
}

// token is the token endpoint (RFC 6749, section 3.2). The client has proved itself; what it may do is decided here for all grants.
func (s *Service) token(ctx context.Context, c *call) (any, error) {
	name := c.param("grant_type")
	if name == "" {
		return nil, ErrInvalidRequest.With("The parameter grant_type is missing.")
	}
	g, known := s.grants[name]
	if !known {
		return nil, ErrUnsupportedGrantType
	}
	if !slices.Contains(c.client.GrantTypes, name) && !c.client.may(name) {
		return nil, ErrUnauthorizedClient
	}
	answer, err := g.issue(ctx, c)
	if err == nil {
		s.noteUsed(ctx, c.client)
	}
	return answer, err
}

// personal are the scopes that mean something only where a person has signed in.
var personalScopes = []string{"openid", "profile", "email", "phone", "address", "offline_access"}

// clientCredentials gives a client a token for itself (RFC 6749, section 4.4). No session stands behind it, and no refresh token
// comes with it.
func (s *Service) clientCredentials(ctx context.Context, c *call) (tokenAnswer, error) {
	if c.client.Public() {
		return tokenAnswer{}, ErrUnauthorizedClient
	}
	scope, err := c.client.scope(c.param("scope"), impersonal)
	if err != nil {
		return tokenAnswer{}, err
	}
	audience, err := c.client.audience(c.form["resource"], s.deps.Issuer)
	if err != nil {
		return tokenAnswer{}, err
	}
	access, err := s.deps.Tokens.Issue(ctx, token.Grant{
		Subject: c.client.ID, ClientID: c.client.ID, Scope: scope, Audience: audience, ClientEpoch: c.client.Epoch, Thumbprint: c.thumbprint,
		Certificate: c.certificate, Opaque: c.client.opaque(),
	})
	if err != nil {
		return tokenAnswer{}, err
	}
	return clientAnswer(access, scope, c.thumbprint), nil
}

func clientAnswer(access token.Access, scope, thumbprint string) tokenAnswer {
	return tokenAnswer{
		AccessToken: access.Token, TokenType: scheme(thumbprint), ExpiresIn: int64(access.Lifetime / time.Second),
		Scope: strings.TrimSpace(scope),
	}
}
