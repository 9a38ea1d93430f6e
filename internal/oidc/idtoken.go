package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	claimsOfGrant   = `SELECT claims FROM oauth_grants WHERE id = $1 AND client_id = $2`
	idClaimsOfGrant = `SELECT id_claims FROM oauth_grants WHERE id = $1 AND client_id = $2`
)

// idTokenLifetime is how long an ID token may be taken for news of a sign-in. It is no credential.
const idTokenLifetime = time.Hour

// idToken tells the client who signed in, when and how (OpenID Connect Core 1.0, section 2).
func (s *Service) idToken(ctx context.Context, c Client, tokens session.Tokens, agreed agreement) (string, error) {
	g, now := tokens.Granted, s.deps.Clock()
	claims := map[string]any{
		"iss": s.deps.Issuer, "sub": g.Subject, "aud": c.ID, "azp": c.ID, "iat": now.Unix(), "exp": now.Add(idTokenLifetime).Unix(),
		"auth_time": g.AuthTime.Unix(), "sid": g.SessionID,
	}
	if tokens.Access != "" {
		claims["at_hash"] = halfHash(s.deps.Tokens.Algorithm(), tokens.Access)
	}
	if agreed.Nonce != "" {
		claims["nonce"] = agreed.Nonce
	}
	if g.ACR != "" {
		claims["acr"] = g.ACR
	}
	if len(g.AMR) > 0 {
		claims["amr"] = g.AMR
	}
	var scope []string
	if tokens.Access == "" { // there is nothing to ask the userinfo endpoint with (section 5.4)
		scope = agreed.Scope
	}
	if len(scope)+len(agreed.Claims.IDToken) > 0 {
		account, err := s.account(ctx, g.Subject, g.GrantID)
		if err != nil {
			return "", err
		}
		about, err := s.about(ctx, account, scope, agreed.Claims.IDToken)
		if err != nil {
			return "", err
		}
		delete(about, "sub") // which is said by the name that the client knows
		maps.Copy(claims, about)
	}
	return s.deps.Tokens.Sign(ctx, "JWT", claims)
}

// halfHash is the left half of a hash of the size of the signature's (OpenID Connect Core 1.0, section 3.1.3.6).
func halfHash(algorithm, text string) string {
	if algorithm == auth.EdDSA {
		sum := sha512.Sum512([]byte(text))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// about is what a client may know of a person: what its scope stands for, and single claims that it asked for.
func (s *Service) about(ctx context.Context, subject string, scope []string, asked claimSet) (map[string]any, error) {
	a, err := s.deps.People.Account(ctx, subject)
	if err != nil {
		return nil, err
	}
	all := claimsOfAccount(a)
	may := asked.pick(all)
	for _, word := range scope {
		for _, name := range scopeClaims[word] {
			if value, there := all[name]; there {
				may[name] = value
			}
		}
	}
	may["sub"] = subject
	return may, nil
}

// claimsOfAccount are all that an account has a value for (OpenID Connect Core 1.0, section 5.1).
func claimsOfAccount(a identity.Account) map[string]any {
	all := map[string]any{"name": a.Name, "updated_at": a.UpdatedAt.Unix(), "email": a.Email, "email_verified": a.EmailVerified}
	for name, value := range map[string]string{"preferred_username": a.UserName, "locale": a.Locale, "phone_number": a.Phone} {
		if value != "" {
			all[name] = value
		}
	}
	if a.Phone != "" {
		all["phone_number_verified"] = false // nothing verifies numbers
	}
	if a.Address != (identity.PostalAddress{}) {
		all["address"] = a.Address
	}
	return all
}

// userInfo answers who an access token is of (OpenID Connect Core 1.0, section 5.3).
func (s *Service) userInfo(ctx context.Context, claims *auth.Claims) (map[string]any, error) {
	scope := strings.Fields(claims.Scope)
	if claims.SessionID == "" || !slices.Contains(scope, "openid") {
		return nil, ErrInsufficientScope
	}
	asked, err := s.grantClaims(ctx, claimsOfGrant, claims.GrantID, claims.ClientID)
	if err != nil {
		return nil, err
	}
	account, err := s.account(ctx, claims.Subject, claims.GrantID)
	var about map[string]any
	if err == nil {
		about, err = s.about(ctx, account, scope, asked)
	}
	if errors.Is(err, identity.ErrNotFound) {
		return nil, ErrInsufficientScope.Wrap(err)
	}
	if err != nil {
		return nil, err
	}
	about["sub"] = claims.Subject // by the name that the token has for them
	return about, nil
}

// grantClaims returns the claims that a client asked for by name when it was given its grant. One that got a token from that client asked
// for nothing.
func (s *Service) grantClaims(ctx context.Context, query, grantID, clientID string) (asked claimSet, err error) {
	if grantID == "" {
		return nil, nil
	}
	text, err := sqldb.One(ctx, s.deps.DB.Reader(), scanString, query, grantID, clientID)
	if errors.Is(err, sqldb.ErrNotFound) || err == nil && text == "" {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &asked)
	}
	if err != nil {
		return nil, fmt.Errorf("claims of a grant: %w", err)
	}
	return asked, nil
}
