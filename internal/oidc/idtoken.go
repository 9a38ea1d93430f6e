package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
)

// idTokenLifetime is how long an ID token may be taken for news of a sign-in. It is no credential.
const idTokenLifetime = time.Hour

// idToken tells the client who signed in, when and how (OpenID Connect Core 1.0, section 2).
func (s *Service) idToken(ctx context.Context, c Client, tokens session.Tokens, agreed agreement) (string, error) {
	g, now := tokens.Granted, s.deps.Clock()
	claims := map[string]any{
		"iss": s.deps.Issuer, "sub": g.Subject, "aud": c.ID, "azp": c.ID, "iat": now.Unix(), "exp": now.Add(idTokenLifetime).Unix(),
		"auth_time": g.AuthTime.Unix(), "sid": g.SessionID, "at_hash": halfHash(s.deps.Tokens.Algorithm(), tokens.Access),
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
	if len(agreed.Claims.IDToken) > 0 {
		about, err := s.about(ctx, g.Subject, agreed.Scope)
		if err != nil {
			return "", err
		}
		for name := range agreed.Claims.IDToken {
			if value, there := about[name]; there {
				claims[name] = value
			}
		}
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

// scopeClaims are the claims that a scope stands for (OpenID Connect Core 1.0, section 5.4), as far as an account has them.
var scopeClaims = map[string][]string{
	"profile": {"name", "preferred_username", "locale", "updated_at"},
	"email":   {"email", "email_verified"},
}

// claimNames are all of them, sorted.
func claimNames() []string {
	names := []string{"sub"}
	for _, more := range scopeClaims {
		names = append(names, more...)
	}
	slices.Sort(names)
	return names
}

// about is what a client with these scopes may know of a person.
func (s *Service) about(ctx context.Context, subject string, scope []string) (map[string]any, error) {
	a, err := s.deps.People.Account(ctx, subject)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"name": a.Name, "updated_at": a.UpdatedAt.Unix(), "email": a.Email, "email_verified": a.EmailVerified}
	if a.UserName != "" {
		all["preferred_username"] = a.UserName
	}
	if a.Locale != "" {
		all["locale"] = a.Locale
	}
	may := map[string]any{"sub": subject}
	for _, word := range scope {
		for _, name := range scopeClaims[word] {
			if value, there := all[name]; there {
				may[name] = value
			}
		}
	}
	return may, nil
}

// userInfo answers who an access token is of (OpenID Connect Core 1.0, section 5.3).
func (s *Service) userInfo(ctx context.Context, claims *auth.Claims) (map[string]any, error) {
	scope := strings.Fields(claims.Scope)
	if claims.SessionID == "" || !slices.Contains(scope, "openid") {
		return nil, ErrInsufficientScope
	}
	about, err := s.about(ctx, claims.Subject, scope)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, ErrInsufficientScope.Wrap(err)
	}
	return maps.Clone(about), err
}
