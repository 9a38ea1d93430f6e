package token

import (
	"context"
	"crypto/x509"
	"embed"
	"fmt"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Migrations is the history of the table of signing keys.
var Migrations = sqldb.Migrations{Name: "token", FS: migrations}

// purpose is what the keyring seals private keys for.
const purpose = "token.signing"

const selectKeys = `SELECT generation, kid, algorithm, private_key, published_at, active_at, retire_at, expire_at
    FROM signing_keys ORDER BY generation DESC`

// insertKey does nothing where another node was faster to make this generation.
const insertKey = `INSERT INTO signing_keys
    (generation, kid, algorithm, private_key, published_at, active_at, retire_at, expire_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`

// retireOlder lets the predecessors sign until the new key is active, whether that is sooner or later than planned. One
// that would not be active by then never signs.
const retireOlder = `UPDATE signing_keys
    SET retire_at = CASE WHEN active_at > $1 THEN active_at ELSE $1 END,
        expire_at = CASE WHEN active_at > $1 THEN active_at ELSE $1 END + $2
    WHERE generation < $3 AND retire_at > $4`

const deleteOlder = `DELETE FROM signing_keys WHERE generation < $1 RETURNING kid`

// deleteExpired keeps the highest generation, so that numbers are not used twice.
const deleteExpired = `DELETE FROM signing_keys
    WHERE expire_at <= $1 AND generation < (SELECT MAX(generation) FROM signing_keys)`

const updateSealed = `UPDATE signing_keys SET private_key = $1 WHERE generation = $2 AND private_key = $3`

// keyRow is a row of signing_keys, its private key still sealed.
type keyRow struct {
	signingKey
	sealed []byte
}

func scanKey(row sqldb.Row) (keyRow, error) {
	var k keyRow
	var published, active, retire, expire int64
	err := row.Scan(&k.generation, &k.id, &k.algorithm, &k.sealed, &published, &active, &retire, &expire)
	k.publishedAt, k.activeAt = sqldb.Time(published), sqldb.Time(active)
	k.retireAt, k.expireAt = sqldb.Time(retire), sqldb.Time(expire)
	return k, err
}

// read replaces what this node knows by what the database says. The caller holds s.reading.
func (s *Service) read(ctx context.Context, now time.Time) error {
	rows, err := sqldb.All(ctx, s.db.Reader(), scanKey, selectKeys)
	if err != nil {
		return fmt.Errorf("load signing keys: %w", err)
	}
	known := s.ring.Load().byID
	var generation int64
	var keys []*signingKey
	for _, row := range rows {
		generation = max(generation, row.generation)
		if !now.Before(row.expireAt) {
			continue
		}
		key := row.signingKey
		if k, there := known[key.id]; there {
			key.private = k.private
		} else if err := s.open(&key, row.sealed); err != nil {
			return err
		}
		keys = append(keys, &key)
	}
	r, err := newRing(generation, keys, now)
	if err != nil {
		return err
	}
	s.ring.Store(r)
	return nil
}

// open unseals the private key and checks that it is the one the row names.
func (s *Service) open(k *signingKey, sealed []byte) error {
	der, err := s.keyring.Unseal(purpose, sealed)
	if err != nil {
		return fmt.Errorf("unseal signing key of generation %d: %w; start with the master key it was sealed with, or list "+
			"that one in previous_key_files", k.generation, err)
	}
	if k.private, err = parsePrivate(der); err != nil {
		return fmt.Errorf("parse signing key of generation %d: %w", k.generation, err)
	}
	id, err := thumbprint(k.private.Public())
	if err != nil {
		return err
	}
	if id != k.id {
		return fmt.Errorf("signing key of generation %d is damaged: its id is %q, its row says %q; restore the database "+
			"from a backup", k.generation, id, k.id)
	}
	return nil
}

// generate returns a new private key, sealed, and its id.
func (s *Service) generate(algorithm string) (id string, sealed []byte, err error) {
	private, err := generate(algorithm)
	if err != nil {
		return "", nil, err
	}
	if id, err = thumbprint(private.Public()); err != nil {
		return "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", nil, err
	}
	sealed, err = s.keyring.Seal(purpose, der)
	return id, sealed, err
}

// Reseal seals the private keys anew that are still sealed with a previous master key, and returns how many they were. After
// it, a node that does not know the current master key cannot read them any more.
func (s *Service) Reseal(ctx context.Context) (resealed int, err error) {
	rows, err := sqldb.All(ctx, s.db.Reader(), scanKey, selectKeys)
	if err != nil {
		return 0, fmt.Errorf("load signing keys: %w", err)
	}
	now := s.clock()
	for _, row := range rows {
		if !s.keyring.Stale(row.sealed) || !now.Before(row.expireAt) {
			continue
		}
		der, err := s.keyring.Unseal(purpose, row.sealed)
		if err != nil {
			return resealed, fmt.Errorf("unseal signing key of generation %d: %w", row.generation, err)
		}
		sealed, err := s.keyring.Seal(purpose, der)
		if err != nil {
			return resealed, fmt.Errorf("seal signing key of generation %d: %w", row.generation, err)
		}
		if _, err := s.db.Writer().ExecContext(ctx, updateSealed, sealed, row.generation, row.sealed); err != nil {
			return resealed, fmt.Errorf("store signing key of generation %d: %w", row.generation, err)
		}
		resealed++
	}
	return resealed, nil
}

// insert makes a key and stores it together with what it means for its predecessors: with RevokeOld they are deleted. It
// returns false when another node was faster to make a key of this generation.
func (s *Service) insert(
	ctx context.Context, generation int64, algorithm string, now, activeAt time.Time, o RotateOptions,
) (made bool, err error) {
	id, sealed, err := s.generate(algorithm)
	if err != nil {
		return false, fmt.Errorf("make signing key: %w", err)
	}
	retireAt := activeAt.Add(s.cfg.KeyLifetime)
	err = s.db.Write(ctx, func(tx sqldb.Tx) error {
		made = false
		res, err := tx.ExecContext(ctx, insertKey, generation, id, algorithm, sealed, sqldb.Micros(now),
			sqldb.Micros(activeAt), sqldb.Micros(retireAt), sqldb.Micros(retireAt.Add(afterlife)))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 0 {
			return err
		}
		if o.RevokeOld {
			err = revokeOlder(ctx, tx, generation, o)
		} else {
			_, err = tx.ExecContext(ctx, retireOlder, sqldb.Micros(activeAt), afterlife.Microseconds(), generation,
				sqldb.Micros(now))
		}
		made = err == nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store signing key of generation %d: %w", generation, err)
	}
	if made {
		s.log.InfoContext(ctx, "signing key made", "kid", id, "generation", generation, "algorithm", algorithm,
			"active_at", activeAt, "revoked_older", o.RevokeOld)
	}
	return made, nil
}

// revokeOlder deletes the keys before a generation, and tells who wants to know.
func revokeOlder(ctx context.Context, tx sqldb.Tx, generation int64, o RotateOptions) error {
	kids, err := sqldb.All(ctx, tx, func(r sqldb.Row) (kid string, err error) {
		err = r.Scan(&kid)
		return kid, err
	}, deleteOlder, generation)
	if err != nil || o.Revoked == nil || len(kids) == 0 {
		return err
	}
	return o.Revoked(ctx, tx, kids)
}
