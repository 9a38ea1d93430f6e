package auth_test

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

func revocation(kind auth.RevocationKind, id string, epoch int64, until time.Time) auth.Revocation {
	return auth.Revocation{Kind: kind, ID: auth.RevocationHash(kind, id), Epoch: epoch, Until: until}
}

func fill(set *auth.RevocationSet, n int, until time.Time) {
	for i := range n {
		set.Add(revocation(auth.RevokeSession, "filler-"+strconv.Itoa(i), 0, until))
	}
}

// clock is a time that tests move.
type clock struct{ atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.Store(now.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.Add(int64(d)) }

// What has been revoked is refused, and nothing else is.
func TestRevokedIsExact(t *testing.T) {
	t.Parallel()
	bearer := &auth.Claims{
		Subject: "alice", ClientID: "app", SessionID: "s1", ID: "t1", KeyID: "k1", Epoch: 3, ClientEpoch: 2,
		Through: []auth.Party{{ClientID: "shop", ClientEpoch: 1}, {ClientID: "orders"}},
	}
	until := now.Add(time.Hour)
	for name, row := range map[string]struct {
		entry auth.Revocation
		want  bool
	}{
		"session":                        {revocation(auth.RevokeSession, "s1", 0, until), true},
		"other session":                  {revocation(auth.RevokeSession, "s2", 0, until), false},
		"grant":                          {revocation(auth.RevokeGrant, auth.GrantID("s1", "app"), 0, until), true},
		"grant of other app":             {revocation(auth.RevokeGrant, auth.GrantID("s1", "other"), 0, until), false},
		"token":                          {revocation(auth.RevokeToken, "t1", 0, until), true},
		"other token":                    {revocation(auth.RevokeToken, "t2", 0, until), false},
		"key":                            {revocation(auth.RevokeKey, "k1", 0, until), true},
		"older epoch":                    {revocation(auth.RevokeSubject, "alice", 4, until), true},
		"same epoch":                     {revocation(auth.RevokeSubject, "alice", 3, until), false},
		"other subject":                  {revocation(auth.RevokeSubject, "bob", 4, until), false},
		"older client epoch":             {revocation(auth.RevokeClient, "app", 3, until), true},
		"same client epoch":              {revocation(auth.RevokeClient, "app", 2, until), false},
		"client that it came through":    {revocation(auth.RevokeClient, "shop", 2, until), true},
		"another that it came through":   {revocation(auth.RevokeClient, "orders", 1, until), true},
		"before it came through":         {revocation(auth.RevokeClient, "shop", 1, until), false},
		"no client that it came through": {revocation(auth.RevokeClient, "other", 9, until), false},
		"same id, other kind":            {revocation(auth.RevokeToken, "s1", 0, until), false},
		"over already":                   {revocation(auth.RevokeSession, "s1", 0, now), false},
		"kind of a later time":           {revocation("device", "s1", 0, until), false},
	} {
		set := auth.NewRevocationSet(func() time.Time { return now })
		if set.Revoked(bearer) {
			t.Errorf("%s: an empty set revokes", name)
		}
		set.Add(row.entry)
		if got := set.Revoked(bearer); got != row.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// An ended session's token is dead at its next use, although it was accepted before.
func TestVerifyRefusesRevoked(t *testing.T) {
	t.Parallel()
	set := auth.NewRevocationSet(func() time.Time { return now })
	v := newVerifier(t, func(c *auth.Config) { c.Revocations = set })
	raw := token{}.sign(t)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	set.Add(revocation(auth.RevokeSession, "session-1", 0, now.Add(time.Hour)))
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("got %v", err)
	}
}

// A feed may deliver twice and out of order: an old entry must not bring a dead token back.
func TestAddKeepsTheStricterEntry(t *testing.T) {
	t.Parallel()
	c := newClock()
	set := auth.NewRevocationSet(c.now)
	set.Add(revocation(auth.RevokeSubject, "alice", 9, now.Add(time.Hour)))
	set.Add(revocation(auth.RevokeSubject, "alice", 5, now.Add(time.Minute)))
	c.advance(30 * time.Minute)
	set.Prune()
	if !set.Revoked(&auth.Claims{Subject: "alice", Epoch: 8}) {
		t.Error("the older entry replaced the newer one")
	}
	set.Add(revocation(auth.RevokeSubject, "alice", 9, now.Add(2*time.Hour)))
	c.advance(time.Hour)
	set.Prune()
	if set.Len() != 1 || !set.Revoked(&auth.Claims{Subject: "alice", Epoch: 8}) {
		t.Error("the entry went before its extended time")
	}
	c.advance(time.Hour)
	set.Prune()
	if set.Len() != 0 {
		t.Errorf("%d entries left", set.Len())
	}
}

// A set that only grows would end the process one day.
func TestSetPrunesItself(t *testing.T) {
	t.Parallel()
	c := newClock()
	set := auth.NewRevocationSet(c.now)
	for i := range 10_000 {
		set.Add(revocation(auth.RevokeToken, strconv.Itoa(i), 0, c.now().Add(15*time.Minute)))
		c.advance(time.Second)
	}
	if n := set.Len(); n < 15*60-1 || n > 18*60 {
		t.Errorf("%d entries of one a second for 15 minutes", n)
	}
}

// Revocation is immediate: a reader that starts after Add returned sees the entry, whatever others do meanwhile.
func TestRevokedUnderContention(t *testing.T) {
	t.Parallel()
	const writers, each = 16, 500
	c := newClock()
	set := auth.NewRevocationSet(c.now)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := strconv.Itoa(w) + "-" + strconv.Itoa(i)
				set.Add(revocation(auth.RevokeSession, id, 0, now.Add(time.Hour)),
					revocation(auth.RevokeSession, "shared-"+strconv.Itoa(i), 0, now.Add(time.Hour)),
					revocation(auth.RevokeToken, id, 0, c.now().Add(time.Second)))
				if !set.Revoked(&auth.Claims{SessionID: id}) {
					t.Errorf("%s is not revoked", id)
				}
				c.advance(200 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	c.Store(now.Add(59 * time.Minute).UnixNano())
	set.Prune()
	if want := writers*each + each; set.Len() != want {
		t.Errorf("%d entries, want %d", set.Len(), want)
	}
}

func BenchmarkRevocationSet(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		set := auth.NewRevocationSet(nil)
		fill(set, n, time.Now().Add(time.Hour))
		claims := &auth.Claims{Subject: "alice", ClientID: "app", SessionID: "s1", ID: "t1", KeyID: "k1"}
		b.Run("Revoked/"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if set.Revoked(claims) {
						b.Fatal("revoked")
					}
				}
			})
		})
		b.Run("Add/"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			until := time.Now().Add(time.Hour)
			for i := 0; b.Loop(); i++ {
				set.Add(revocation(auth.RevokeToken, strconv.Itoa(i), 0, until))
			}
		})
	}
}
