package federation

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	findAccount = `SELECT account_id FROM federated_identities WHERE provider = $1 AND authority = $2 AND subject = $3`
	// Proves at the moment of commit that the identity still opens this account.
	useIdentity = `UPDATE federated_identities SET last_used_at = $1, label = $2
		WHERE provider = $3 AND authority = $4 AND subject = $5 AND account_id = $6`
	insertIdentity = `INSERT INTO federated_identities (provider, authority, subject, account_id, label, created_at, last_used_at)
		VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING`
	listIdentities = `SELECT provider, authority, label, created_at, last_used_at FROM federated_identities
		WHERE account_id = $1 ORDER BY provider`
	deleteIdentity = `DELETE FROM federated_identities WHERE account_id = $1 AND provider = $2`
)

// Connection is an identity that opens an account, as its owner sees it.
type Connection struct {
	Provider, Label       string
	CreatedAt, LastUsedAt time.Time

	authority string
}

func scanConnection(r sqldb.Row) (Connection, error) {
	var c Connection
	var created, used int64
	err := r.Scan(&c.Provider, &c.authority, &c.Label, &created, &used)
	c.CreatedAt, c.LastUsedAt = sqldb.Time(created), sqldb.Time(used)
	return c, err
}

func scanText(r sqldb.Row) (s string, err error) { return s, r.Scan(&s) }

// opens returns the account that an identity opens, "" for none.
func opens(ctx context.Context, q sqldb.Queryer, i Identity) (account string, err error) {
	account, err = sqldb.One(ctx, q, scanText, findAccount, i.Provider, i.Authority, i.Subject)
	if errors.Is(err, sqldb.ErrNotFound) {
		return "", nil
	}
	return account, err
}

func connections(ctx context.Context, q sqldb.Queryer, account string) ([]Connection, error) {
	return sqldb.All(ctx, q, scanConnection, listIdentities, account)
}

// label is how an owner tells identities of one provider apart.
func (i Identity) label() string {
	if i.Email != "" {
		return i.Email
	}
	return i.Name
}

// connect makes the identity open the account. The unique columns decide between several who try: ErrConnected where it opens another
// account, ErrTwice where the account has one of this provider. Connecting what is connected changes nothing.
func connect(ctx context.Context, tx sqldb.Tx, i Identity, account string, now time.Time) error {
	res, err := tx.ExecContext(ctx, insertIdentity, i.Provider, i.Authority, i.Subject, account, i.label(), sqldb.Micros(now))
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || done {
		return err
	}
	switch other, err := opens(ctx, tx, i); {
	case err != nil:
		return err
	case other == "":
		return ErrTwice
	case other != account:
		return ErrConnected
	}
	return nil
}

// use marks the identity as used, or answers ErrState when it does not open the account any more.
func use(ctx context.Context, tx sqldb.Tx, i Identity, account string, now time.Time) error {
	res, err := tx.ExecContext(ctx, useIdentity, sqldb.Micros(now), i.label(), i.Provider, i.Authority, i.Subject, account)
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrState)
	}
	return nil
}

func changed(res sql.Result) (bool, error) {
	n, err := res.RowsAffected()
	return n > 0, err
}
