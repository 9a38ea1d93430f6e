package oidc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
)

// verifier verifies access tokens for one audience, and remembers them in a cache of its own.
type verifier struct {
	*auth.Verifier
	known *auth.TokenCache
}

// verifier returns who verifies access tokens for an audience. There are as many as there are registered resources.
func (s *Service) verifier(audience string) (*auth.Verifier, error) {
	if v, there := s.verifiers.Load(audience); there {
		return v.(verifier).Verifier, nil
	}
	known := auth.NewTokenCache(auth.CacheConfig{})
	v, err := auth.New(auth.Config{
		Issuer: s.deps.Issuer, Audience: audience, Keys: s.deps.Tokens, Revocations: s.deps.Sessions.Revocations(), Clock: s.deps.Clock,
		Log: s.deps.Log, Proofs: s.deps.Proofs, Cache: known, ClientCertificate: httpd.ClientCertificate, Opener: s.deps.Tokens,
	})
	if err != nil {
		return nil, fmt.Errorf("verify for %s: %w", audience, err)
	}
	first, _ := s.verifiers.LoadOrStore(audience, verifier{v, known})
	return first.(verifier).Verifier, nil
}

// introspection is what is said of a token (RFC 7662, section 2.2).
type introspection struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	ExpiresAt int64    `json:"exp,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	ID        string   `json:"jti,omitempty"`
	SessionID string   `json:"sid,omitempty"`
	AuthTime  int64    `json:"auth_time,omitempty"`
	ACR       string   `json:"acr,omitempty"`
	AMR       []string `json:"amr,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	// What whoever follows the revocation feed knows a token by.
	GrantID     string `json:"gid,omitempty"`
	Epoch       int64  `json:"epoch,omitempty"`
	ClientEpoch int64  `json:"client_epoch,omitempty"`

	Through []auth.Party `json:"exchanged_through,omitempty"`

	Confirmation *auth.Confirmation `json:"cnf,omitempty"`
}

// introspect says what an access token is worth to those who may know: the client that it was issued to, the services that it is for, and
// where it is for Sumun itself, those with the scope introspect. To all others, and for refresh tokens, which are nobody's business but ours, it is not active.
func (s *Service) introspect(ctx context.Context, c *call) (any, error) {
	if c.client.Public() {
		return nil, ErrUnauthorizedClient
	}
	said, err := s.describeToken(ctx, c)
	if err != nil || !wantsSigned(c.accept) {
		return said, err
	}
	return s.sign(ctx, c.client, said)
}

func (s *Service) describeToken(ctx context.Context, c *call) (introspection, error) {
	claims, err := s.claimsOf(ctx, c)
	if err != nil {
		return introspection{}, err
	}
	if claims == nil || !mayKnow(c.client, claims) {
		return introspection{}, nil
	}
	answer := introspection{
		Active: true, Scope: claims.Scope, ClientID: claims.ClientID, TokenType: scheme(claims.Confirmation.JKT), ExpiresAt: claims.ExpiresAt.Unix(),
		IssuedAt: claims.IssuedAt.Unix(), Subject: claims.Subject, Audience: claims.Audience, Issuer: claims.Issuer, ID: claims.ID,
		SessionID: claims.SessionID, ACR: claims.ACR, AMR: claims.AMR, Roles: claims.Roles,
		GrantID: claims.GrantID, Epoch: claims.Epoch, ClientEpoch: claims.ClientEpoch, Through: claims.Through,
	}
	if claims.Confirmation != (auth.Confirmation{}) {
		answer.Confirmation = &claims.Confirmation
	}
	if !claims.AuthTime.IsZero() {
		answer.AuthTime = claims.AuthTime.Unix()
	}
	return answer, nil
}

// IntrospectScope lets a client ask about access tokens for Sumun itself, whoever they were given to. About those for a service that
// service may ask, which names it among its resources, and no scope lets anybody else.
const IntrospectScope = "introspect"

func mayKnow(c Client, claims *auth.Claims) bool {
	return concerns(c, claims) || slices.Contains(strings.Fields(c.Scope), IntrospectScope)
}

// claimsOf is verify for the access token in a request that is about it: it says what the token is bound to, and needs no proof of that.
func (s *Service) claimsOf(ctx context.Context, c *call) (*auth.Claims, error) {
	raw := c.param("token")
	if raw == "" {
		return nil, ErrInvalidRequest.With("The parameter token is missing.")
	}
	return s.verifyWith(ctx, c.client, raw, (*auth.Verifier).VerifyBound)
}

// verify verifies an access token for any audience that a client has to do with; nil is no valid one, or one that needs a proof.
func (s *Service) verify(ctx context.Context, c Client, raw string) (*auth.Claims, error) {
	return s.verifyWith(ctx, c, raw, (*auth.Verifier).Verify)
}

func (s *Service) verifyWith(ctx context.Context, c Client, raw string, verify func(*auth.Verifier, context.Context, string) (*auth.Claims, error)) (*auth.Claims, error) {
	for _, audience := range s.audiences(c, raw) {
		v, err := s.verifier(audience)
		if err != nil {
			return nil, err
		}
		claims, err := verify(v, ctx, raw)
		var refused *auth.Error
		switch {
		case err == nil:
			return claims, nil
		case errors.Is(err, auth.ErrAudience):
		case errors.As(err, &refused) && !errors.Is(err, auth.ErrKeysUnavailable):
			return nil, nil
		default:
			return nil, err
		}
	}
	return nil, nil
}

// audiences are those that a token may be for, of all that a client has to do with: the one that it is known to be for, else those that it
// names itself. With the verifier of another its signature would be checked on every request, only for the token to be refused.
func (s *Service) audiences(c Client, raw string) []string {
	all := slices.Concat([]string{s.deps.Issuer}, c.Resources)
	now := s.deps.Clock()
	for i, audience := range all {
		if v, there := s.verifiers.Load(audience); there && v.(verifier).known.Get(raw, now) != nil {
			return all[i : i+1]
		}
	}
	if named, readable := addressees(raw); readable {
		return slices.DeleteFunc(all, func(audience string) bool { return !slices.Contains(named, audience) })
	}
	return all
}

// addressees reads whom a JWT says that it is for. Nothing of that is to be believed.
func addressees(raw string) (named []string, readable bool) {
	if len(raw) > auth.MaxTokenSize {
		return nil, false
	}
	var claims jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(raw, &claims)
	return claims.Audience, err == nil
}

// revoke takes back a token of the client's (RFC 7009): an access token alone; with a refresh token the whole grant. What it does not
// know is as good as revoked (section 2.2).
func (s *Service) revoke(ctx context.Context, c *call) (any, error) {
	if raw := c.param("token"); strings.HasPrefix(raw, session.RefreshPrefix) {
		var id string
		raw, err := s.unveil(ctx, c.client, raw)
		if err == nil {
			id, _, err = s.deps.Sessions.Identify(ctx, raw, c.client.ID)
		}
		if errors.Is(err, session.ErrInvalidGrant) || errors.Is(err, ErrInvalidGrant) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return nil, s.endGrant(ctx, "", id)
	}
	claims, err := s.claimsOf(ctx, c)
	if err != nil || claims == nil || claims.ClientID != c.client.ID || claims.ID == "" {
		return nil, err
	}
	return nil, s.deps.Sessions.Revoke(ctx, session.OfToken(claims.ID))
}
