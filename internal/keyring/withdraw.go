package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/sumunio/sumun/internal/sqldb"
)

// Withdrawn learns in the transaction that withdraws keys which ones these are, oldest first.
type Withdrawn func(ctx context.Context, tx sqldb.Tx, keys []Key) error

// Withdraw deletes the keys of a purpose, which have become known to others, and puts a new one in their place that is used at once.
// What was made with the old ones is worth nothing from then on: here when it returns, and at every other node when that calls Reload,
// which the told function is for; it may be nil. Until then another node uses what is withdrawn, and may refuse, for a second at most,
// what is made with the new key.
func (k *Keyring) Withdraw(ctx context.Context, purpose string, told Withdrawn) (Key, error) {
	r := k.ring(purpose)
	if err := r.lock(ctx); err != nil {
		return Key{}, fmt.Errorf("withdraw keys for %s: %w", purpose, err)
	}
	defer r.unlock()
	for {
		s, err := k.reload(ctx, purpose, r)
		if err != nil {
			return Key{}, fmt.Errorf("withdraw keys for %s: %w", purpose, err)
		}
		made, err := k.replace(ctx, purpose, s, told)
		if err != nil {
			return Key{}, fmt.Errorf("withdraw keys for %s: %w", purpose, err)
		}
		if !made {
			continue // another node has made a key at the same moment, which may be known to others, too
		}
		if s, err = k.reload(ctx, purpose, r); err != nil {
			return Key{}, fmt.Errorf("withdraw keys for %s: %w", purpose, err)
		}
		return s.keys[len(s.keys)-1].Key, nil
	}
}

// replace puts a new key in the place of those that were read, and reports whether they still were all. Ids go on rising: one that was
// withdrawn never names another key.
func (k *Keyring) replace(ctx context.Context, purpose string, s *ringState, told Withdrawn) (made bool, err error) {
	const remove = `DELETE FROM keyring_keys WHERE purpose = $1 AND id < $2`
	id := s.nextID()
	old := make([]Key, len(s.keys))
	for i, key := range s.keys {
		old[i] = key.Key
	}
	err = k.db.Write(ctx, func(tx sqldb.Tx) (err error) {
		if err = k.insertTx(ctx, tx, purpose, id); err != nil {
			return err
		}
		if _, err = tx.ExecContext(ctx, remove, purpose, int64(id)); err != nil || told == nil {
			return err
		}
		return told(ctx, tx, old)
	})
	if errors.Is(err, errOvertaken) {
		return false, nil
	}
	return err == nil, err
}

// Reload makes this node know the keys of every purpose that it uses as they are in the database now: it forgets those that were
// withdrawn. What could not be read stays as it was.
func (k *Keyring) Reload(ctx context.Context) error {
	k.mu.RLock()
	rings := make(map[string]*ring, len(k.rings))
	for purpose, r := range k.rings {
		rings[purpose] = r
	}
	k.mu.RUnlock()
	var errs []error
	for purpose, r := range rings {
		if err := k.reloadRing(ctx, purpose, r); err != nil {
			errs = append(errs, fmt.Errorf("reload keys for %s: %w", purpose, err))
		}
	}
	return errors.Join(errs...)
}

func (k *Keyring) reloadRing(ctx context.Context, purpose string, r *ring) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	_, err := k.reload(ctx, purpose, r)
	return err
}
