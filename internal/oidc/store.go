package oidc

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package.
var Migrations = sqldb.Migrations{Name: "oidc", FS: files}

const (
	// An id may be used again once its client was removed; it goes on with the epoch, below which old tokens stay dead.
	insertClient = `INSERT INTO oauth_clients (id, kind, metadata, secret_hash, previous_hash, previous_until, epoch, created_at,
			updated_at, disabled_at, removed_at)
		VALUES ($1, $2, $3, $4, NULL, 0, 0, $5, $5, 0, 0)
		ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, metadata = excluded.metadata, secret_hash = excluded.secret_hash,
			previous_hash = NULL, previous_until = 0, registration_hash = NULL, registration = '', created_at = excluded.created_at,
			updated_at = excluded.updated_at, disabled_at = 0, removed_at = 0
		WHERE oauth_clients.removed_at > 0
		RETURNING ` + clientColumns

	clientColumns = `id, metadata, secret_hash, previous_hash, previous_until, epoch, created_at, updated_at, disabled_at, registration, asks_claims,
		used_at`

	findClient  = `SELECT ` + clientColumns + ` FROM oauth_clients WHERE id = $1 AND removed_at = 0`
	listClients = `SELECT ` + clientColumns + ` FROM oauth_clients WHERE removed_at = 0 AND id > $1 ORDER BY id LIMIT $2`

	rotateSecret = `UPDATE oauth_clients SET previous_hash = secret_hash, secret_hash = $1, previous_until = $2, updated_at = $3
		WHERE id = $4 AND removed_at = 0 AND secret_hash IS NOT NULL`
	// Whoever withdraws privileges raises the epoch.
	disableClient = `UPDATE oauth_clients SET disabled_at = $1, updated_at = $1, epoch = epoch + 1
		WHERE id = $2 AND removed_at = 0 AND disabled_at = 0 RETURNING epoch`
	epochOf      = `SELECT epoch FROM oauth_clients WHERE id = $1`
	enableClient = `UPDATE oauth_clients SET disabled_at = 0, updated_at = $1 WHERE id = $2 AND removed_at = 0`
	removeClient = `UPDATE oauth_clients SET removed_at = $1, updated_at = $1, epoch = epoch + 1, secret_hash = NULL,
			previous_hash = NULL, registration_hash = NULL, registration = '', metadata = '{}'
		WHERE id = $2 AND removed_at = 0 RETURNING epoch`

	// Sessions may have begun when they lived longer: what their grants are worth to the next client of that id, the epoch tells.
	sweepClients = `DELETE FROM oauth_clients WHERE id IN (
		SELECT id FROM oauth_clients c WHERE removed_at > 0 AND removed_at < $1
			AND NOT EXISTS (SELECT 1 FROM oauth_grants g WHERE g.client_id = c.id) LIMIT $2)`
)

// store is the clients in SQL.
type store struct{ db *sqldb.DB }

func (s store) add(ctx context.Context, tx sqldb.Tx, id string, m Metadata, hash []byte, now time.Time) (Client, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return Client{}, err
	}
	c, err := sqldb.One(ctx, tx, scanClient, insertClient, id, m.kind(), string(text), hash, sqldb.Micros(now))
	if errors.Is(err, sqldb.ErrNotFound) {
		return Client{}, ErrClientExists
	}
	return c, err
}

// kind is what the table calls a client of this kind.
func (m Metadata) kind() string {
	if m.AuthMethod == AuthNone {
		return "public"
	}
	return "confidential"
}

// find looks a client up. The id can be anything that somebody sent; what no client can be called is not looked for, as PostgreSQL
// refuses some of it.
func (s store) find(ctx context.Context, id string) (Client, error) {
	if checkID(id) != nil {
		return Client{}, ErrClientUnknown
	}
	c, err := sqldb.One(ctx, s.db.Reader(), scanClient, findClient, id)
	if errors.Is(err, sqldb.ErrNotFound) {
		return Client{}, ErrClientUnknown
	}
	return c, err
}

func scanClient(r sqldb.Row) (c Client, err error) {
	var (
		metadata, registration              string
		until, created, updated, disabledAt int64
		asks, used                          int64
	)
	err = r.Scan(&c.ID, &metadata, &c.secretHash, &c.previousHash, &until, &c.Epoch, &created, &updated, &disabledAt, &registration, &asks, &used)
	if err != nil {
		return Client{}, err
	}
	c.previousUntil, c.CreatedAt, c.UpdatedAt = sqldb.Time(until), sqldb.Time(created), sqldb.Time(updated)
	c.DisabledAt, c.asksClaims, c.used = sqldb.Time(disabledAt), asks == 1, used > 0
	if err := json.Unmarshal([]byte(metadata), &c.Metadata); err != nil {
		return Client{}, fmt.Errorf("metadata of client %s is damaged: %w", c.ID, err)
	}
	if registration != "" {
		if err := json.Unmarshal([]byte(registration), &c.registered); err != nil {
			return Client{}, fmt.Errorf("registration of client %s is damaged: %w", c.ID, err)
		}
		c.Trusted = false // whatever it says
	}
	return c, nil
}

// changed runs a statement that changes one client, which must be there.
func changed(ctx context.Context, tx sqldb.Tx, statement string, args ...any) error {
	res, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrClientUnknown)
	}
	return nil
}

func scanInt64(r sqldb.Row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}
