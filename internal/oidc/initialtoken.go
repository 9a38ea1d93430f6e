package oidc

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// Failures of those who administer initial access tokens.
var (
	ErrInitialTokenUnknown = fault.New(fault.NotFound, "oidc.initial_token_unknown", "There is no such initial access token.")
	ErrInitialTokenRefused = fault.New(fault.Invalid, "oidc.initial_token_refused", "An initial access token like this cannot be given.")
)

const (
	insertInitial = `INSERT INTO oauth_initial_tokens (id, hash, scope, grants, uses, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`

	initialColumns = `id, scope, grants, uses, created_at, expires_at`

	findInitial  = `SELECT ` + initialColumns + ` FROM oauth_initial_tokens WHERE hash = $1 AND uses > 0 AND expires_at > $2`
	listInitial  = `SELECT ` + initialColumns + ` FROM oauth_initial_tokens WHERE id > $1 ORDER BY id LIMIT $2`
	useInitial   = `UPDATE oauth_initial_tokens SET uses = uses - 1 WHERE id = $1 AND uses > 0 AND expires_at > $2`
	dropInitial  = `DELETE FROM oauth_initial_tokens WHERE id = $1`
	sweepInitial = `DELETE FROM oauth_initial_tokens WHERE id IN (SELECT id FROM oauth_initial_tokens WHERE expires_at < $1 LIMIT $2)`
)

const (
	// initialPrefix lets secret scanners find a leaked token.
	initialPrefix = "sit_"
	// MaxInitialLife and MaxInitialUses bound an initial access token.
	MaxInitialLife = 366 * 24 * time.Hour
	MaxInitialUses = 10_000
)

// powers are scopes that let a client act on what is not its own, and are for operators to give.
var powers = []string{IntrospectScope, KeyScope, session.FeedScope}

// InitialToken is what is known of an initial access token: everything but itself.
type InitialToken struct {
	ID     string
	Scope  string // space-separated: all that clients may register with it
	Grants []string
	Uses   int64 // that are left

	CreatedAt time.Time
	ExpiresAt time.Time
}

// NewInitialToken is what an initial access token is to be. Without a scope it is that of signing people in, without grants those of
// clients that do so.
type NewInitialToken struct {
	Scope  string
	Grants []string
	Uses   int64
	Life   time.Duration
}

// AddInitialToken makes a token with which programs register themselves. This is the only time that it is seen.
func (s *Service) AddInitialToken(ctx context.Context, asked NewInitialToken) (InitialToken, string, error) {
	if asked.Scope == "" {
		asked.Scope = "openid profile email offline_access"
	}
	if len(asked.Grants) == 0 {
		asked.Grants = []string{GrantAuthorizationCode, GrantRefreshToken}
	}
	if err := asked.check(); err != nil {
		return InitialToken{}, "", err
	}
	secret, hash := newToken(initialPrefix)
	now := s.deps.Clock()
	t := InitialToken{strings.ToLower(rand.Text()[:13]), asked.Scope, asked.Grants, asked.Uses, now, now.Add(asked.Life)}
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.recordInitial(ctx, tx, t.ID, "registration_token.added"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertInitial, t.ID, hash, t.Scope, strings.Join(t.Grants, " "), t.Uses, sqldb.Micros(now), sqldb.Micros(t.ExpiresAt))
		return err
	})
	if err != nil {
		return InitialToken{}, "", fmt.Errorf("add initial access token: %w", err)
	}
	return t, secret, nil
}

// check refuses what would give strangers more than a stranger may have.
func (n NewInitialToken) check() error {
	refuse := func(field, message string) error {
		return ErrInitialTokenRefused.WithFields(fault.Field{Name: field, Code: "refused", Message: message})
	}
	scopes := strings.Fields(n.Scope)
	switch {
	case n.Uses < 1 || n.Uses > MaxInitialUses:
		return refuse("uses", "It is good for one to 10000 registrations.")
	case n.Life < time.Minute || n.Life > MaxInitialLife:
		return refuse("expires_in", "It is good for one minute to 366 days.")
	case len(scopes) > maxScopes || slices.ContainsFunc(scopes, func(word string) bool { return !validScope(word) }):
		return refuse("scope", "Must be at most 100 words of printable ASCII, without quotes and backslashes.")
	case slices.ContainsFunc(scopes, func(word string) bool { return slices.Contains(powers, word) }):
		return refuse("scope", "The scopes "+strings.Join(powers, ", ")+" are for clients that an operator has registered.")
	case slices.ContainsFunc(n.Grants, func(g string) bool { return !slices.Contains(grantTypes(), g) }):
		return refuse("grant", "Must be among "+strings.Join(grantTypes(), ", ")+".")
	}
	return nil
}

// InitialTokens returns up to limit tokens in the order of their ids, those after the given one. Those that have expired are gone.
func (s *Service) InitialTokens(ctx context.Context, after string, limit int) ([]InitialToken, error) {
	return sqldb.All(ctx, s.deps.DB.Reader(), scanInitial, listInitial, after, limit)
}

// RemoveInitialToken ends a token: ErrInitialTokenUnknown when it is not there. The clients that it has let in stay.
func (s *Service) RemoveInitialToken(ctx context.Context, id string) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.recordInitial(ctx, tx, id, "registration_token.removed"); err != nil {
			return err
		}
		err := changed(ctx, tx, dropInitial, id)
		if errors.Is(err, ErrClientUnknown) {
			return ErrInitialTokenUnknown
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove initial access token: %w", err)
	}
	return nil
}

// Registration reports whether programs may register themselves at all.
func (s *Service) Registration() bool { return s.cfg.Registration }

// initialToken finds the token that somebody shows: ErrInvalidToken when it is good for nothing, whatever the reason.
func (s *Service) initialToken(ctx context.Context, shown string) (InitialToken, error) {
	if !strings.HasPrefix(shown, initialPrefix) {
		return InitialToken{}, errBearer
	}
	t, err := sqldb.One(ctx, s.deps.DB.Reader(), scanInitial, findInitial, hashSecret(shown), sqldb.Micros(s.deps.Clock()))
	if errors.Is(err, sqldb.ErrNotFound) {
		err = errBearer
	}
	return t, err
}

func (s *Service) recordInitial(ctx context.Context, tx sqldb.Tx, id, action string) error {
	return s.deps.Audit.Append(ctx, tx, audit.Event{Actor: audit.Operator, Action: action, Detail: map[string]string{"registration_token": id}})
}

func scanInitial(r sqldb.Row) (t InitialToken, err error) {
	var grants string
	var created, expires int64
	err = r.Scan(&t.ID, &t.Scope, &grants, &t.Uses, &created, &expires)
	t.Grants, t.CreatedAt, t.ExpiresAt = strings.Fields(grants), sqldb.Time(created), sqldb.Time(expires)
	return t, err
}

// newToken returns a token of 256 random bits and what is kept of it.
func newToken(prefix string) (token string, hash []byte) {
	var random [32]byte
	rand.Read(random[:])
	token = prefix + base64.RawURLEncoding.EncodeToString(random[:])
	return token, hashSecret(token)
}
