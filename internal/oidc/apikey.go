package oidc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// Failures of those who administer keys.
var (
	ErrKeyUnknown = fault.New(fault.NotFound, "oidc.api_key_unknown", "There is no such API key.")
	ErrKeyRefused = fault.New(fault.Invalid, "oidc.api_key_refused", "An API key like this cannot be given.")
)

const (
	// holdClient makes a transaction the only one that gives a client keys, or removes it: none is left to who gets its id next.
	holdClient = `UPDATE oauth_clients SET updated_at = updated_at WHERE id = $1 AND removed_at = 0`

	insertKey = `INSERT INTO api_keys (id, hash, client_id, name, scope, audience, created_at, expires_at, used_at, revoked_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0)`

	keyColumns = `id, client_id, name, scope, audience, created_at, expires_at, used_at, revoked_at, hash`

	findKey      = `SELECT ` + keyColumns + ` FROM api_keys WHERE id = $1`
	listKeys     = `SELECT ` + keyColumns + ` FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2`
	revokeKey    = `UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at = 0`
	revokeKeysOf = `UPDATE api_keys SET revoked_at = $1 WHERE client_id = $2 AND revoked_at = 0`
	useKey       = `UPDATE api_keys SET used_at = $1 WHERE id = $2 AND used_at < $3`

	sweepKeys = `DELETE FROM api_keys WHERE id IN (
		SELECT id FROM api_keys WHERE expires_at < $1 OR (revoked_at > 0 AND revoked_at < $1) LIMIT $2)`
)

const (
	// MaxKeyLife bounds how long a key can be good.
	MaxKeyLife = 5 * 366 * 24 * time.Hour
	// keepKey is how long a key that is over is still listed.
	keepKey = 90 * 24 * time.Hour
	// usedRoughly is how exactly it is known when a key was used.
	usedRoughly = time.Hour
	maxKeyName  = 100
)

// APIKey is what is known of a key: everything but the key itself.
type APIKey struct {
	ID       string
	ClientID string
	Name     string   // what people call it
	Scope    string   // space-separated
	Audience []string // whom its tokens are for; empty: whom the client's own are for

	CreatedAt time.Time
	ExpiresAt time.Time
	UsedAt    time.Time // to the hour; zero: never
	RevokedAt time.Time // zero: it is good until it expires

	hash []byte
}

// NewAPIKey is what a key is to be. Scope is all that it may do: none when it is empty. Audience are resources of the client; without
// one those that the client's own tokens are for.
type NewAPIKey struct {
	ClientID, Name, Scope string
	Audience              []string
	Life                  time.Duration
}

// AddKey gives a client a key. This is the only time that it is seen.
func (s *Service) AddKey(ctx context.Context, asked NewAPIKey) (APIKey, apikey.Key, error) {
	c, err := s.store.find(ctx, asked.ClientID)
	if err != nil {
		return APIKey{}, apikey.Key{}, err
	}
	k, err := asked.of(c, s.deps.Issuer)
	if err != nil {
		return APIKey{}, apikey.Key{}, err
	}
	key := apikey.New()
	hash, now := key.Hash(), s.deps.Clock()
	k.ID, k.CreatedAt, k.ExpiresAt = key.ID(), now, now.Add(asked.Life)
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.recordKey(ctx, tx, k, "apikey.added"); err != nil {
			return err
		}
		if err := changed(ctx, tx, holdClient, k.ClientID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, insertKey, k.ID, hash[:], k.ClientID, k.Name, k.Scope, strings.Join(k.Audience, " "),
			sqldb.Micros(k.CreatedAt), sqldb.Micros(k.ExpiresAt))
		return err
	})
	if err != nil {
		return APIKey{}, apikey.Key{}, fmt.Errorf("add API key: %w", err)
	}
	return k, key, nil
}

// of checks what was asked for against what the client may have.
func (n NewAPIKey) of(c Client, issuer string) (APIKey, error) {
	refuse := func(field, message string) (APIKey, error) {
		return APIKey{}, ErrKeyRefused.WithFields(fault.Field{Name: field, Code: "refused", Message: message})
	}
	switch {
	case c.Public():
		return refuse("client_id", "The client runs on people's own devices, and can keep no secret.")
	case n.Name == "" || len(n.Name) > maxKeyName || strings.ContainsFunc(n.Name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return refuse("name", "The name must be 1 to 100 bytes of text.")
	case n.Life < time.Minute || n.Life > MaxKeyLife:
		return refuse("expires_in", "A key lives from one minute to five years.")
	}
	scope := ""
	if n.Scope != "" {
		var err error
		if scope, err = c.scope(n.Scope, impersonal); err != nil {
			return refuse("scope", "The scope is more than the client may ask for, or means something only where a person has signed in.")
		}
	}
	if _, err := c.audience(n.Audience, issuer); err != nil {
		return refuse("audience", "The audience is none of the client's resources.")
	}
	return APIKey{ClientID: c.ID, Name: n.Name, Scope: scope, Audience: n.Audience}, nil
}

// impersonal reports whether a scope means something where no person has signed in.
func impersonal(scope string) bool { return !slices.Contains(personalScopes, scope) }

// Keys returns up to limit keys in the order of their ids, those after the given one.
func (s *Service) Keys(ctx context.Context, after string, limit int) ([]APIKey, error) {
	return sqldb.All(ctx, s.deps.DB.Reader(), scanKey, listKeys, after, limit)
}

// RevokeKey ends a key, and with it the tokens that were given for it: ErrKeyUnknown when it is not there. Doing so twice is fine.
func (s *Service) RevokeKey(ctx context.Context, id string) error {
	k, err := s.key(ctx, id)
	if err != nil {
		return err
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.recordKey(ctx, tx, k, "apikey.revoked"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, revokeKey, sqldb.Micros(s.deps.Clock()), id); err != nil {
			return err
		}
		return s.deps.Sessions.RevokeTx(ctx, tx, session.OfGrant(id))
	})
	if err != nil {
		return fmt.Errorf("revoke API key: %w", err)
	}
	if err := s.deps.Sessions.Apply(ctx); err != nil {
		s.deps.Log.WarnContext(ctx, "a revoked API key is not applied here yet", "api_key", id, "error", err)
	}
	return nil
}

// KeyToken gives an access token for a key: for the client that has it, with what of the key's scope the client may still have. It says
// whose key it is in the claim gid, and dies with it. A key that is good for nothing is ErrInvalidGrant, whatever the reason.
func (s *Service) KeyToken(ctx context.Context, text string) (a token.Access, scope string, err error) {
	shown, err := apikey.Parse(text)
	if err != nil {
		return token.Access{}, "", ErrInvalidGrant
	}
	now := s.deps.Clock()
	k, err := s.key(ctx, shown.ID())
	if errors.Is(err, ErrKeyUnknown) || err == nil && !(shown.Is(k.hash) && k.RevokedAt.IsZero() && now.Before(k.ExpiresAt)) {
		err = ErrInvalidGrant
	}
	if err != nil {
		return token.Access{}, "", err
	}
	c, err := s.client(ctx, k.ClientID)
	if errors.Is(err, ErrClientUnknown) {
		err = ErrInvalidGrant
	}
	if err != nil {
		return token.Access{}, "", err
	}
	audience, err := c.audience(k.Audience, s.deps.Issuer)
	if err != nil {
		return token.Access{}, "", ErrInvalidGrant
	}
	left := slices.DeleteFunc(strings.Fields(k.Scope), func(word string) bool { return !slices.Contains(strings.Fields(c.Scope), word) })
	scope = strings.Join(left, " ")
	a, err = s.deps.Tokens.Issue(ctx, token.Grant{
		Subject: c.ID, ClientID: c.ID, ClientEpoch: c.Epoch, GrantID: k.ID, Scope: scope, Audience: audience, NotAfter: k.ExpiresAt,
	})
	if err == nil {
		s.noteUse(ctx, k, now)
	}
	return a, scope, err
}

// noteUse remembers that a key was used, once an hour. That it could not is no reason to refuse the key.
func (s *Service) noteUse(ctx context.Context, k APIKey, now time.Time) {
	before := now.Add(-usedRoughly)
	if !k.UsedAt.Before(before) {
		return
	}
	err := s.deps.DB.Write(context.WithoutCancel(ctx), func(tx sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, useKey, sqldb.Micros(now), k.ID, sqldb.Micros(before))
		return err
	})
	if err != nil {
		s.deps.Log.WarnContext(ctx, "the use of an API key is not noted", "api_key", k.ID, "error", err)
	}
}

func (s *Service) key(ctx context.Context, id string) (APIKey, error) {
	if !apikey.IsID(id) {
		return APIKey{}, ErrKeyUnknown
	}
	k, err := sqldb.One(ctx, s.deps.DB.Reader(), scanKey, findKey, id)
	if errors.Is(err, sqldb.ErrNotFound) {
		return APIKey{}, ErrKeyUnknown
	}
	return k, err
}

// recordKey writes into the trail what an operator did to a key.
func (s *Service) recordKey(ctx context.Context, tx sqldb.Tx, k APIKey, action string) error {
	return s.deps.Audit.Append(ctx, tx, audit.Event{
		Actor: audit.Operator, Action: action, Detail: map[string]string{"client": k.ClientID, "api_key": k.ID},
	})
}

func scanKey(r sqldb.Row) (k APIKey, err error) {
	var (
		audience                        string
		created, expires, used, revoked int64
	)
	err = r.Scan(&k.ID, &k.ClientID, &k.Name, &k.Scope, &audience, &created, &expires, &used, &revoked, &k.hash)
	k.Audience = strings.Fields(audience)
	k.CreatedAt, k.ExpiresAt, k.UsedAt, k.RevokedAt = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(used), sqldb.Time(revoked)
	return k, err
}
