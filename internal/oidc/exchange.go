package oidc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/token"
)

const (
	// GrantExchange is the grant of services that call another service in the name of who called them (RFC 8693).
	GrantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	typeAPIKey      = "urn:sumun:token-type:api_key"

	// KeyScope lets a client, a gateway, exchange API keys that are shown to it.
	KeyScope = "apikeys:exchange"

	// maxThrough bounds how many services in a row may exchange what the one before them got.
	maxThrough = 8
)

// exchangeToken gives a service a token for another one, in the name of the person or client whose token it was called with: for the
// same session, with no more scope, and not longer. The token says who acts (claim act). It dies with what it was made from: session,
// grant, roles, and the privileges of every client that had it. RFC 8693, section 2.1, leaves open whether revocations
// reach what was exchanged; a client that was disabled must not live on in the hands of those that it called.
func (s *Service) exchangeToken(ctx context.Context, c *call) (tokenAnswer, error) {
	if c.client.Public() {
		return tokenAnswer{}, ErrUnauthorizedClient
	}
	if c.param("subject_token_type") == typeAPIKey {
		return s.exchangeKey(ctx, c)
	}
	if err := checkExchange(c); err != nil {
		return tokenAnswer{}, err
	}
	claims, err := s.verify(ctx, c.client, c.param("subject_token"))
	if err != nil {
		return tokenAnswer{}, err
	}
	if claims == nil || !concerns(c.client, claims) {
		return tokenAnswer{}, ErrInvalidRequest.With("The subject_token is not valid, or was not meant for this client.")
	}
	scope, err := lesser(claims.Scope, c.param("scope"))
	if err != nil {
		return tokenAnswer{}, err
	}
	asked := slices.Concat(c.form["resource"], c.form["audience"])
	if len(asked) == 0 {
		return tokenAnswer{}, ErrInvalidTarget.With("The request names no resource that the token is to be for.")
	}
	audience, err := c.client.audience(asked, "")
	if err != nil {
		return tokenAnswer{}, err
	}
	through, err := passedOn(c.client, claims)
	if err != nil {
		return tokenAnswer{}, err
	}
	access, err := s.deps.Tokens.Issue(ctx, token.Grant{
		Subject: claims.Subject, ClientID: c.client.ID, ClientEpoch: c.client.Epoch, Through: through, Actor: c.client.ID, NotAfter: claims.ExpiresAt,
		SessionID: claims.SessionID, GrantID: claims.GrantID, Scope: scope, Audience: audience, Roles: claims.Roles, Epoch: claims.Epoch,
		ACR: claims.ACR, AMR: claims.AMR, AuthTime: claims.AuthTime, Thumbprint: c.thumbprint,
		Certificate: c.certificate, Opaque: c.client.opaque(),
	})
	if err != nil {
		return tokenAnswer{}, err
	}
	answer := clientAnswer(access, scope, c.thumbprint)
	answer.IssuedType = typeAccessToken
	return answer, nil
}

// checkExchange refuses what is not for exchanging an access token for another.
func checkExchange(c *call) error {
	switch {
	case c.param("subject_token") == "" || !slices.Contains([]string{typeAccessToken, typeJWT}, c.param("subject_token_type")):
		return ErrInvalidRequest.With("A subject_token of the type access_token is needed.")
	case c.form.Has("actor_token"):
		return ErrInvalidRequest.With("The client itself is the actor; an actor_token is not supported.")
	case !slices.Contains([]string{"", typeAccessToken, typeJWT}, c.param("requested_token_type")):
		return ErrInvalidRequest.With("Only access tokens are given.")
	case c.client.opaque() && c.param("requested_token_type") == typeJWT:
		return ErrInvalidRequest.With("The tokens of this client are opaque.")
	}
	return nil
}

// passedOn are the clients that a token has come through once c has exchanged it.
func passedOn(c Client, claims *auth.Claims) ([]auth.Party, error) {
	last := auth.Party{ClientID: claims.ClientID, ClientEpoch: claims.ClientEpoch}
	if claims.ClientID == c.ID || slices.Contains(claims.Through, last) {
		return claims.Through, nil
	}
	if len(claims.Through) >= maxThrough {
		return nil, ErrInvalidRequest.With("The subject_token was exchanged too often.")
	}
	return append(slices.Clone(claims.Through), last), nil
}

// exchangeKey gives a gateway the token of whoever has shown it an API key. The key decides about scope and audience.
func (s *Service) exchangeKey(ctx context.Context, c *call) (tokenAnswer, error) {
	if !slices.Contains(strings.Fields(c.client.Scope), KeyScope) {
		return tokenAnswer{}, ErrUnauthorizedClient.With("The client may not exchange API keys: it lacks the scope " + KeyScope + ".")
	}
	for _, name := range []string{"resource", "audience", "scope", "actor_token"} {
		if c.form.Has(name) {
			return tokenAnswer{}, ErrInvalidRequest.With("The key decides what its token is for.")
		}
	}
	if c.thumbprint != "" || c.certificate != "" {
		return tokenAnswer{}, ErrInvalidRequest.With("Tokens for API keys are bound to no key of the client's.")
	}
	access, scope, err := s.KeyToken(ctx, c.param("subject_token"))
	if errors.Is(err, ErrInvalidGrant) {
		err = ErrInvalidRequest.With("The API key is unknown, has expired, or was revoked.") // RFC 8693, section 2.2.2
	}
	if err != nil {
		return tokenAnswer{}, err
	}
	answer := clientAnswer(access, scope, "")
	answer.IssuedType = typeAccessToken
	return answer, nil
}

// concerns reports whether a token was given to the client, or sent to it.
func concerns(c Client, claims *auth.Claims) bool {
	return claims.ClientID == c.ID || slices.ContainsFunc(claims.Audience, func(a string) bool { return slices.Contains(c.Resources, a) })
}

// lesser returns what was asked of a scope, all of it when nothing was.
func lesser(had, asked string) (string, error) {
	words := strings.Fields(asked)
	if len(words) == 0 {
		return had, nil
	}
	all := strings.Fields(had)
	if slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(all, word) }) {
		return "", ErrInvalidScope
	}
	return strings.Join(words, " "), nil
}
