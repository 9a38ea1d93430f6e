package auth

import (
	"context"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims says who may do what, on whose behalf and until when. Claims that come from a [Verifier] are shared: treat
// them as read-only.
type Claims struct {
	Issuer   string
	Subject  string   // the account, or the client itself where no person is involved
	Audience []string // the services the token is for
	ClientID string
	Scope    string // space-separated (RFC 8693 section 4.2)
	// SessionID is empty for tokens that no session stands behind (client credentials).
	SessionID string
	ID        string // jti
	KeyID     string // kid of the key that signed the token

	IssuedAt  time.Time
	ExpiresAt time.Time
	// AuthTime is when the person last proved who they are; zero where no person did.
	AuthTime time.Time
	ACR      string
	AMR      []string // how the person proved it (RFC 8176)
	Roles    []string

	// Epoch is the subject's epoch when the token was issued: it grows whenever roles or status change.
	Epoch int64
	// ClientEpoch is the same for the client. Zero unless the client's privileges were ever withdrawn.
	ClientEpoch int64

	// Confirmation is what whoever presents the token must prove to have.
	Confirmation Confirmation
}

type contextKey struct{}

// NewContext returns a context that carries c.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the claims of the verified token, or nil where nobody verified one.
func FromContext(ctx context.Context) *Claims {
	c, _ := ctx.Value(contextKey{}).(*Claims)
	return c
}

// wireClaims is the payload of an access token (RFC 9068 section 2.2).
type wireClaims struct {
	jwt.RegisteredClaims
	ClientID    string           `json:"client_id"`
	Scope       string           `json:"scope"`
	SessionID   string           `json:"sid"`
	AuthTime    *jwt.NumericDate `json:"auth_time"`
	ACR         string           `json:"acr"`
	AMR         []string         `json:"amr"`
	Roles       []string         `json:"roles"`
	Epoch       int64            `json:"epoch"`
	ClientEpoch int64            `json:"client_epoch"`

	Confirmation *Confirmation `json:"cnf"`
}

// complete reports whether every claim that RFC 9068 section 2.2 requires, and this package relies on, is there.
func (w *wireClaims) complete() bool {
	return w.Issuer != "" && w.Subject != "" && w.ClientID != "" && len(w.Audience) > 0 &&
		w.IssuedAt != nil && w.ExpiresAt != nil
}

func (w *wireClaims) claims(keyID string) *Claims {
	c := &Claims{
		Issuer: w.Issuer, Subject: w.Subject, Audience: w.Audience, ClientID: w.ClientID, Scope: w.Scope,
		SessionID: w.SessionID, ID: w.ID, KeyID: keyID,
		IssuedAt: w.IssuedAt.Time, ExpiresAt: w.ExpiresAt.Time,
		ACR: w.ACR, AMR: w.AMR, Roles: w.Roles,
		Epoch: w.Epoch, ClientEpoch: w.ClientEpoch,
	}
	if w.AuthTime != nil {
		c.AuthTime = w.AuthTime.Time
	}
	if w.Confirmation != nil {
		c.Confirmation = *w.Confirmation
	}
	return c
}
