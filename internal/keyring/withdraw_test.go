package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// A key that became known must be worth nothing, at once where it is withdrawn and elsewhere as soon as a node hears of it, also to who
// asks for it by its number.
func TestWithdrawnKeysAreForgotten(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		here, there := open(t, db, cfg, c), open(t, sqldbtest.Reopen(t, db), cfg, c)
		for _, k := range []*keyring.Keyring{here, there} {
			for _, purpose := range []string{"mac", "pepper"} {
				if _, err := k.Current(t.Context(), purpose); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := there.Rotate(t.Context(), "mac"); err != nil { // one that is not used yet may be known to others, too
			t.Fatal(err)
		}
		var old []uint32
		made, err := here.Withdraw(t.Context(), "mac", func(_ context.Context, _ sqldb.Tx, keys []keyring.Key) error {
			old = nil
			for _, key := range keys {
				old = append(old, key.ID)
			}
			return nil
		})
		if err != nil || made.ID != 3 || !slices.Equal(old, []uint32{1, 2}) {
			t.Fatalf("withdrew %v and made %v, %v", old, made, err)
		}
		if err := there.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, k := range []*keyring.Keyring{here, there} {
			for _, id := range old {
				if key, err := k.ByID(t.Context(), "mac", id); !errors.Is(err, keyring.ErrUnknownKey) {
					t.Errorf("a withdrawn key: %v, %v", key, err)
				}
			}
			if key, err := k.Current(t.Context(), "mac"); err != nil || !bytes.Equal(key.Secret, made.Secret) {
				t.Errorf("in its place %v is used, %v", key, err)
			}
			if key, err := k.ByID(t.Context(), "pepper", 1); err != nil || key.ID != 1 {
				t.Errorf("the key of another purpose: %v, %v", key, err)
			}
		}
		if next, err := there.Rotate(t.Context(), "mac"); err != nil || next.ID != 4 {
			t.Errorf("the next key is %v, %v", next, err)
		}
	})
}

// A key must not be gone without anybody hearing of it: what it made would be taken until each node looks by itself.
func TestKeysAreWithdrawnWithTheNews(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		k := open(t, db, inFolder(t), clocktest.Noon())
		before, err := k.Current(t.Context(), "mac")
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("no news")
		if _, err := k.Withdraw(t.Context(), "mac", func(context.Context, sqldb.Tx, []keyring.Key) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("withdraw: %v", err)
		}
		if err := k.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after, err := k.Current(t.Context(), "mac"); err != nil || !bytes.Equal(after.Secret, before.Secret) {
			t.Errorf("%v is used, %v", after, err)
		}
	})
}

// Two operators withdraw at once, and a third rotates: no key that was there when a command began may live on after it.
func TestConcurrentWithdrawals(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations, func(t *testing.T, db *sqldb.DB) {
		cfg, c := inFolder(t), clocktest.Noon()
		nodes := []*keyring.Keyring{open(t, db, cfg, c), open(t, sqldbtest.Reopen(t, db), cfg, c)}
		var wg sync.WaitGroup
		var mu sync.Mutex
		gone := map[uint32]bool{}
		errs := make([]error, 9)
		for i := range errs {
			wg.Go(func() {
				if i%3 == 2 {
					_, errs[i] = nodes[i%2].Rotate(t.Context(), "mac")
					return
				}
				var old []uint32
				_, errs[i] = nodes[i%2].Withdraw(t.Context(), "mac", func(_ context.Context, _ sqldb.Tx, keys []keyring.Key) error {
					old = nil // what an attempt that lost has said does not count
					for _, key := range keys {
						old = append(old, key.ID)
					}
					return nil
				})
				mu.Lock()
				defer mu.Unlock()
				for _, id := range old {
					if gone[id] {
						errs[i] = errors.Join(errs[i], errors.New("a key is withdrawn twice"))
					}
					gone[id] = true
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		c.Advance(time.Minute)
		for id := range uint32(9) {
			for i, k := range nodes {
				if err := k.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := k.ByID(t.Context(), "mac", id+1); errors.Is(err, keyring.ErrUnknownKey) != gone[id+1] {
					t.Errorf("node %d, key %d: %v, and it was withdrawn: %v", i, id+1, err, gone[id+1])
				}
			}
		}
	})
}
