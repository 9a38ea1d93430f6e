package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	keySize = 32
	// refreshEvery is how often a node looks for keys that other nodes have made.
	refreshEvery = 30 * time.Second
	// refreshTimeout bounds what that costs the caller who does it when the database hangs.
	refreshTimeout = time.Second
	// activation is how old a rotated key must be before it is used, so that every node knows it by then, with clocks
	// that differ by the rest.
	activation = time.Minute
	// reloadEvery bounds the queries that made-up ids can cause.
	reloadEvery = time.Second
)

// Key is a key of one purpose.
type Key struct {
	// ID numbers the keys of a purpose from 1. It is no secret, and is stored beside what the key protects.
	ID uint32
	// Secret is 32 random bytes. It is shared: do not change it.
	Secret []byte
}

// String implements fmt.Stringer. Like all the ways to print a key, it tells the id only.
func (k Key) String() string { return "key " + strconv.FormatUint(uint64(k.ID), 10) + " " + redacted }

// Format implements fmt.Formatter.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText implements encoding.TextMarshaler, and through it JSON and YAML.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// ring is what a node knows of the keys of one purpose.
type ring struct {
	state atomic.Pointer[ringState]
	turn  chan struct{} // holds one element, which is taken by the one who queries the database
}

func newRing() *ring {
	r := &ring{turn: make(chan struct{}, 1)}
	r.state.Store(&ringState{})
	r.turn <- struct{}{}
	return r
}

// lock waits for the turn. The wait ends with ctx, as a database that hangs must not hold up callers without a bound.
func (r *ring) lock(ctx context.Context) error {
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *ring) tryLock() bool {
	select {
	case <-r.turn:
		return true
	default:
		return false
	}
}

func (r *ring) unlock() { r.turn <- struct{}{} }

// ringState is never changed once it is published.
type ringState struct {
	keys     []storedKey // ascending by id
	loadedAt time.Time   // when they were read
	triedAt  time.Time   // when the database was last asked for them, whether it answered or not
}

type storedKey struct {
	Key
	createdAt time.Time
}

// current returns the newest key that every node knows by now: the first one, or one that is older than activation.
func (s *ringState) current(now time.Time) (Key, bool) {
	for i := len(s.keys) - 1; i >= 0; i-- {
		if i == 0 || now.Sub(s.keys[i].createdAt) >= activation {
			return s.keys[i].Key, true
		}
	}
	return Key{}, false
}

// nextID is that of the key that is made next.
func (s *ringState) nextID() uint32 {
	if n := len(s.keys); n > 0 {
		return s.keys[n-1].ID + 1
	}
	return 1
}

func (s *ringState) byID(id uint32) (Key, bool) {
	for _, k := range s.keys {
		if k.ID == id {
			return k.Key, true
		}
	}
	return Key{}, false
}

// Current returns the key to use for something new. It is made on first use; however many nodes ask at once, there is one.
//
// It is answered from memory. Every 30 seconds one caller looks for new keys in the database, and while that fails the known
// ones stay in use.
func (k *Keyring) Current(ctx context.Context, purpose string) (Key, error) {
	r, now := k.ring(purpose), k.clock()
	s := r.state.Load()
	if key, ok := s.current(now); ok {
		if now.Sub(s.triedAt) >= refreshEvery && r.tryLock() {
			defer r.unlock()
			return k.refresh(ctx, purpose, r, key), nil
		}
		return key, nil
	}
	if err := r.lock(ctx); err != nil {
		return Key{}, fmt.Errorf("current key for %s: %w", purpose, err)
	}
	defer r.unlock()
	if key, ok := r.state.Load().current(now); ok {
		return key, nil
	}
	s, err := k.reload(ctx, purpose, r)
	if err == nil && len(s.keys) == 0 {
		s, err = k.addFirst(ctx, purpose, r)
	}
	if err != nil {
		return Key{}, fmt.Errorf("current key for %s: %w", purpose, err)
	}
	key, ok := s.current(now)
	if !ok {
		return Key{}, fmt.Errorf("current key for %s: %w", purpose, ErrUnknownKey) // deleted behind our back
	}
	return key, nil
}

// refresh looks for new keys and returns the current one, which is the one known before while the database does not answer.
// The caller has r locked.
func (k *Keyring) refresh(ctx context.Context, purpose string, r *ring, known Key) Key {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	now := k.clock()
	s, err := k.reload(ctx, purpose, r)
	if err != nil {
		s = r.state.Load()
		r.state.Store(&ringState{keys: s.keys, loadedAt: s.loadedAt, triedAt: now})
	}
	if key, ok := s.current(now); ok {
		return key
	}
	return known
}

// ByID returns the key with which something was made. An id that this node does not know is looked up in the database, at
// most once a second per purpose, and is then ErrUnknownKey. As no key is used before every node can know it, that is
// certain however often it is asked, but for the first second of a key that has taken the place of withdrawn ones.
func (k *Keyring) ByID(ctx context.Context, purpose string, id uint32) (Key, error) {
	r := k.ring(purpose)
	if key, ok := r.state.Load().byID(id); ok {
		return key, nil
	}
	if err := r.lock(ctx); err != nil {
		return Key{}, fmt.Errorf("key %d for %s: %w", id, purpose, err)
	}
	defer r.unlock()
	s := r.state.Load()
	if _, ok := s.byID(id); !ok && (len(s.keys) == 0 || k.clock().Sub(s.loadedAt) >= reloadEvery) {
		var err error
		if s, err = k.reload(ctx, purpose, r); err != nil {
			return Key{}, fmt.Errorf("key %d for %s: %w", id, purpose, err)
		}
	}
	if key, ok := s.byID(id); ok {
		return key, nil
	}
	return Key{}, fmt.Errorf("key %d for %s: %w", id, purpose, ErrUnknownKey)
}

// Rotate makes a new key. It becomes the current one on all nodes after a minute, when each of them knows it; the first key
// of a purpose at once.
func (k *Keyring) Rotate(ctx context.Context, purpose string) (Key, error) {
	r := k.ring(purpose)
	if err := r.lock(ctx); err != nil {
		return Key{}, fmt.Errorf("rotate key for %s: %w", purpose, err)
	}
	defer r.unlock()
	for {
		s, err := k.reload(ctx, purpose, r)
		if err != nil {
			return Key{}, fmt.Errorf("rotate key for %s: %w", purpose, err)
		}
		id := s.nextID()
		made, err := k.insert(ctx, purpose, id)
		if err != nil {
			return Key{}, fmt.Errorf("rotate key for %s: %w", purpose, err)
		}
		if !made {
			continue // another node has rotated at the same moment
		}
		if s, err = k.reload(ctx, purpose, r); err != nil {
			return Key{}, fmt.Errorf("rotate key for %s: %w", purpose, err)
		}
		key, _ := s.byID(id)
		return key, nil
	}
}

func (k *Keyring) ring(purpose string) *ring {
	k.mu.RLock()
	r, ok := k.rings[purpose]
	k.mu.RUnlock()
	if ok {
		return r
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok = k.rings[purpose]; !ok {
		r = newRing()
		k.rings[purpose] = r
	}
	return r
}

// addFirst makes the first key, unless another node has. The caller has r locked.
func (k *Keyring) addFirst(ctx context.Context, purpose string, r *ring) (*ringState, error) {
	if _, err := k.insert(ctx, purpose, 1); err != nil {
		return nil, err
	}
	return k.reload(ctx, purpose, r)
}

// errOvertaken says that there is a newer key than the one that was to be the newest.
var errOvertaken = errors.New("another node was faster")

// insert stores a new key and reports whether its id was free.
func (k *Keyring) insert(ctx context.Context, purpose string, id uint32) (made bool, err error) {
	err = k.db.Write(ctx, func(tx sqldb.Tx) error { return k.insertTx(ctx, tx, purpose, id) })
	if errors.Is(err, errOvertaken) {
		return false, nil
	}
	return err == nil, err
}

// insertTx stores a new key, which must be the newest: errOvertaken where it is not. That its id is free is not enough, as it also is where
// others have made that key and withdrawn it.
func (k *Keyring) insertTx(ctx context.Context, tx sqldb.Tx, purpose string, id uint32) error {
	secret := make([]byte, keySize)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	sealed, err := k.Seal(purposeOf(purpose, id), secret)
	if err != nil {
		return err
	}
	const (
		insert = `INSERT INTO keyring_keys (purpose, id, sealed, created_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (purpose, id) DO NOTHING`
		newest = `SELECT COALESCE(MAX(id), 0) FROM keyring_keys WHERE purpose = $1`
	)
	res, err := tx.ExecContext(ctx, insert, purpose, int64(id), sealed, sqldb.Micros(k.clock()))
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	var last int64
	if err := tx.QueryRowContext(ctx, newest, purpose).Scan(&last); err != nil {
		return err
	}
	if n == 0 || last != int64(id) {
		return errOvertaken
	}
	return nil
}

// reload reads all keys of a purpose. The caller has r locked.
func (k *Keyring) reload(ctx context.Context, purpose string, r *ring) (*ringState, error) {
	const list = `SELECT id, sealed, created_at FROM keyring_keys WHERE purpose = $1 ORDER BY id`
	now := k.clock()
	keys, err := sqldb.All(ctx, k.db.Reader(), func(row sqldb.Row) (storedKey, error) {
		var (
			key    storedKey
			id, at int64
			sealed []byte
		)
		if err := row.Scan(&id, &sealed, &at); err != nil {
			return key, err
		}
		secret, err := k.Unseal(purposeOf(purpose, uint32(id)), sealed)
		if err != nil {
			return key, fmt.Errorf("key %d for %s: %w", id, purpose, err)
		}
		key.ID, key.Secret, key.createdAt = uint32(id), secret, sqldb.Time(at)
		return key, nil
	}, list, purpose)
	if err != nil {
		return nil, err
	}
	s := &ringState{keys: keys, loadedAt: now, triedAt: now}
	r.state.Store(s)
	return s, nil
}

// purposeOf is what a stored key is sealed for. It is apart from what callers of Seal can name by accident.
func purposeOf(purpose string, id uint32) string {
	return "keyring:key:" + purpose + ":" + strconv.FormatUint(uint64(id), 10)
}

// Reseal seals everything in the keyring's tables under the current master key, and returns how many values it changed.
// After it, a node that does not know this master key can no longer start.
func (k *Keyring) Reseal(ctx context.Context) (int, error) {
	const (
		listKeys    = `SELECT purpose, id, sealed FROM keyring_keys`
		updateKey   = `UPDATE keyring_keys SET sealed = $1 WHERE purpose = $2 AND id = $3`
		listCheck   = `SELECT sealed FROM keyring_check WHERE one = 1`
		updateCheck = `UPDATE keyring_check SET sealed = $1 WHERE one = 1`
	)
	type row struct {
		purpose string
		id      int64
		sealed  []byte
	}
	var changed int
	err := k.db.Write(ctx, func(tx sqldb.Tx) error {
		changed = 0
		rows, err := sqldb.All(ctx, tx, func(r sqldb.Row) (v row, err error) {
			err = r.Scan(&v.purpose, &v.id, &v.sealed)
			return v, err
		}, listKeys)
		if err != nil {
			return err
		}
		for _, v := range rows {
			n, err := k.reseal(ctx, tx, purposeOf(v.purpose, uint32(v.id)), v.sealed, updateKey, v.purpose, v.id)
			if err != nil {
				return fmt.Errorf("key %d for %s: %w", v.id, v.purpose, err)
			}
			changed += n
		}
		check, err := sqldb.One(ctx, tx, scanBytes, listCheck)
		if err != nil {
			return err
		}
		n, err := k.reseal(ctx, tx, purposeCheck, check, updateCheck)
		changed += n
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reseal: %w", err)
	}
	return changed, nil
}

// reseal runs update with a stale value sealed anew as its first argument.
func (k *Keyring) reseal(ctx context.Context, tx sqldb.Tx, purpose string, sealed []byte, update string, args ...any) (int, error) {
	if !k.Stale(sealed) {
		return 0, nil
	}
	plain, err := k.Unseal(purpose, sealed)
	if err != nil {
		return 0, err
	}
	fresh, err := k.Seal(purpose, plain)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, update, append([]any{fresh}, args...)...)
	return 1, err
}
