package token_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
)

// Nobody is signed out by a rotation: over months, at every hour, any token of either node is accepted by both, and by
// services whose copy of either node's key set is as old as max-age allows, until the token expires. Nodes look at the
// database only now and then.
func TestRotationOverMonths(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		const days = 62
		f := newFleet(t, db)
		nodes := []*token.Service{f.started(t, nil), f.started(t, nil)}
		random := rand.New(rand.NewPCG(1, 2))
		signers := map[string]bool{}
		for hour := f.clock.Now(); hour.Before(clocktest.Noon().Now().AddDate(0, 0, days)); hour = hour.Add(time.Hour) {
			f.clock.Set(hour)
			verifiers := []auth.KeySource{nodes[0], nodes[1]}
			var oldest time.Duration
			for _, s := range nodes {
				if random.IntN(2) == 0 {
					f.tick(t, s)
				}
				_, _, maxAge := s.JWKS()
				oldest = max(oldest, maxAge)
				verifiers = append(verifiers, f.cached(t, s))
			}
			f.clock.Advance(oldest)
			issued := []token.Access{issue(t, nodes[0]), issue(t, nodes[1])}
			f.acceptedBy(t, issued, verifiers, signers)
			f.clock.Set(issued[0].ExpiresAt.Add(-time.Second))
			f.acceptedBy(t, issued[:1], verifiers[:2], signers)
		}
		if len(signers) != 3 {
			t.Errorf("%d keys signed in %d days", len(signers), days)
		}
		f.tick(t, nodes...)
		if n := f.count(t); n > 2 {
			t.Errorf("%d keys are kept", n)
		}
	})
}

func (f *fleet) acceptedBy(t *testing.T, issued []token.Access, verifiers []auth.KeySource, signers map[string]bool) {
	t.Helper()
	for i, a := range issued {
		for j, keys := range verifiers {
			c, err := f.verify(t, keys, a.Token)
			if err != nil {
				t.Fatalf("%v: token of node %d at verifier %d: %v", f.clock.Now(), i, j, err)
			}
			signers[c.KeyID] = true
		}
	}
}

// A fleet that starts at once must not sign with a key each: whoever fetched the set a moment earlier would refuse.
func TestNodesAgreeOnOneKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		nodes := make([]*token.Service, 16)
		for i := range nodes {
			nodes[i] = f.node(t, nil)
		}
		loadAll := func() {
			t.Helper()
			var wg sync.WaitGroup
			for _, s := range nodes {
				wg.Go(func() {
					if err := s.Load(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		loadAll()
		if n := f.count(t); n != 1 {
			t.Errorf("%d keys after the first start", n)
		}
		f.clock.Advance(29*24*time.Hour + time.Minute)
		loadAll()
		if n := f.count(t); n != 2 {
			t.Errorf("%d keys when the successor was due", n)
		}
		f.clock.Advance(24 * time.Hour)
		first := f.signer(t, nodes[0])
		for i, s := range nodes {
			if id := f.signer(t, s); id != first {
				t.Errorf("node %d signs with %s, node 0 with %s", i, id, first)
			}
		}
	})
}

// Operators may press the button at the same time: every press makes a key, and the nodes agree on the last.
func TestConcurrentRotations(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		nodes := make([]*token.Service, 4)
		for i := range nodes {
			nodes[i] = f.started(t, nil)
		}
		var wg sync.WaitGroup
		for _, s := range nodes {
			wg.Go(func() {
				if err := s.Rotate(t.Context(), token.RotateOptions{Now: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		f.tick(t, nodes...)
		if n := f.count(t); n != 5 {
			t.Errorf("%d keys", n)
		}
		for _, s := range nodes[1:] {
			if a, b := f.signer(t, s), f.signer(t, nodes[0]); a != b {
				t.Errorf("nodes sign with %s and %s", a, b)
			}
		}
	})
}

// After months off, a start is enough: no waiting for a publication, no operator.
func TestAfterMonthsOff(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s := f.started(t, nil)
		before := f.signer(t, s)
		f.clock.Advance(200 * 24 * time.Hour)
		if _, err := s.Issue(t.Context(), token.Grant{Subject: "alice", ClientID: "sumun"}); !errors.Is(err, token.ErrNoKey) {
			t.Errorf("before anything was loaded: %v", err)
		}
		if after := f.signer(t, f.started(t, nil)); after == before {
			t.Error("the old key still signs")
		}
		f.tick(t, s)
		if n := f.count(t); n != 1 {
			t.Errorf("%d keys are kept", n)
		}
	})
}

// A node that was off until just before its key retires must not sign with a key that nobody could have heard of.
func TestLateSuccessorIsPublishedFirst(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s := f.started(t, nil)
		old := f.signer(t, s)
		f.clock.Advance(30*24*time.Hour - 10*time.Second)
		services := f.cached(t, s)
		f.tick(t, s)
		f.clock.Advance(5 * time.Minute)
		a := issue(t, s)
		if c, err := f.verify(t, services, a.Token); err != nil || c.KeyID != old {
			t.Errorf("a service with a five minutes old key set: %+v, %v", c, err)
		}
		f.clock.Advance(2 * time.Minute)
		if f.signer(t, s) == old {
			t.Error("the old key signs for ever")
		}
		if _, err := f.verify(t, f.cached(t, s), a.Token); err != nil {
			t.Errorf("its last token died early: %v", err)
		}
	})
}

func TestRotateGently(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s, other := f.started(t, nil), f.started(t, nil)
		old, services := f.signer(t, s), f.cached(t, other)
		if err := s.Rotate(t.Context(), token.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(5 * time.Minute)
		if _, err := f.verify(t, services, issue(t, s).Token); err != nil {
			t.Errorf("a service with an old key set: %v", err)
		}
		f.clock.Advance(90 * time.Second)
		last := issue(t, other) // has not heard of the rotation
		if f.signer(t, s) == old {
			t.Error("still signs with the old key")
		}
		f.clock.Set(last.ExpiresAt.Add(-time.Second))
		f.tick(t, s, other)
		for _, keys := range []auth.KeySource{s, other, f.cached(t, s)} {
			if _, err := f.verify(t, keys, last.Token); err != nil {
				t.Errorf("the old key's last token: %v", err)
			}
		}
		f.clock.Advance(2 * time.Hour)
		f.tick(t, s)
		if n := f.count(t); n != 1 {
			t.Errorf("%d keys are kept after the old one's last token", n)
		}
	})
}

// The key leaked: one command, and whatever was signed with it is worthless, at once where it was given.
func TestRotateRevokingOldKeys(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s, other := f.started(t, nil), f.started(t, nil)
		if err := s.Rotate(t.Context(), token.RotateOptions{}); err != nil { // a pending key may have leaked, too
			t.Fatal(err)
		}
		a := issue(t, s)
		if err := s.Rotate(t.Context(), token.RotateOptions{RevokeOld: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.verify(t, s, a.Token); !errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("at this node: %v", err)
		}
		if _, err := f.verify(t, f.cached(t, s), a.Token); err == nil {
			t.Error("the key set still has the key")
		}
		f.clock.Advance(time.Second)
		if _, err := f.verify(t, other, issue(t, s).Token); err != nil {
			t.Errorf("new tokens at the other node: %v", err)
		}
		if _, err := f.verify(t, other, a.Token); !errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("old tokens at the other node: %v", err)
		}
		if n := f.count(t); n != 1 {
			t.Errorf("%d private keys are left", n)
		}
	})
}

// A new algorithm waits until every verifier has seen its key, and a rolling deployment does not go back and forth.
func TestAlgorithmChange(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		before := f.started(t, nil)
		old := f.signer(t, before)
		toEdDSA := func(c *token.Config) { c.Algorithm = auth.EdDSA }
		after := f.started(t, toEdDSA)
		f.tick(t, before, after)
		f.started(t, toEdDSA)
		if n := f.count(t); n != 2 {
			t.Errorf("%d keys", n)
		}
		f.clock.Advance(23 * time.Hour)
		if f.signer(t, after) != old {
			t.Error("signs before it was published long enough")
		}
		f.clock.Advance(time.Hour)
		for i, s := range []*token.Service{before, after} {
			key, err := s.Key(t.Context(), f.signer(t, s))
			if err != nil || key.Algorithm != auth.EdDSA {
				t.Errorf("node %d signs with %s, %v", i, key.Algorithm, err)
			}
		}
		f.clock.Advance(30 * 24 * time.Hour)
		f.tick(t, before)
		if key, err := before.Key(t.Context(), f.signer(t, before)); err != nil || key.Algorithm != auth.EdDSA {
			t.Errorf("the node with the old configuration made a key of %s, %v", key.Algorithm, err)
		}
	})
}

// Replacing the master key must neither lose the signing keys nor keep the old master key needed.
func TestReplacedMasterKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		clk, first, second := clocktest.Noon(), masterFile(t), masterFile(t)
		f := &fleet{db: db, clock: clk, keys: openKeyring(t, db, clk, first)}
		a := issue(t, f.started(t, nil))

		f.keys = openKeyring(t, db, clk, second, first)
		s := f.started(t, nil)
		if _, err := f.keys.Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.keys = openKeyring(t, db, clk, second)
		if _, err := f.verify(t, f.started(t, nil), a.Token); err != nil {
			t.Error(err)
		}
		if _, err := f.verify(t, s, a.Token); err != nil {
			t.Error(err)
		}
	})
}

// The wrong master key is an error that says what to do, before anything is signed or made anew.
func TestWrongMasterKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		clk, first, second := clocktest.Noon(), masterFile(t), masterFile(t)
		f := &fleet{db: db, clock: clk, keys: openKeyring(t, db, clk, first)}
		f.started(t, nil)
		if _, err := keyring.Open(t.Context(), db, keyring.Config{MasterKeyFile: second}, clk.Now); err == nil {
			t.Error("the keyring opened with another master key")
		}

		// The keyring moved on to the second master key, but no node sealed the signing key anew.
		if _, err := openKeyring(t, db, clk, second, first).Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.keys = openKeyring(t, db, clk, second)
		s := f.node(t, nil)
		if err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "previous_key_files") {
			t.Errorf("got %v", err)
		}
		if err := s.Rotate(t.Context(), token.RotateOptions{Now: true}); err == nil {
			t.Error("rotated nevertheless")
		}
		if n := f.count(t); n != 1 {
			t.Errorf("%d keys", n)
		}
	})
}
