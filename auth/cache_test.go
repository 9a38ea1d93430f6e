package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// counting is a KeySource that can lose or change its keys.
type counting struct {
	asked atomic.Int64
	mu    sync.Mutex
	keys  source
}

func (c *counting) Key(ctx context.Context, kid string) (auth.Key, error) {
	c.asked.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys.Key(ctx, kid)
}

// A cached token must die of everything that kills an uncached one.
func TestCacheIsBeatenBy(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		happens func(*clock, *auth.RevocationSet, *counting)
		want    error
	}{
		"expiry": {func(c *clock, _ *auth.RevocationSet, _ *counting) { c.advance(15 * time.Minute) }, auth.ErrExpired},
		"revocation of the session": {func(_ *clock, s *auth.RevocationSet, _ *counting) {
			s.Add(revocation(auth.RevokeSession, "session-1", 0, now.Add(time.Hour)))
		}, auth.ErrRevoked},
		"revocation of the key": {func(_ *clock, s *auth.RevocationSet, _ *counting) {
			s.Add(revocation(auth.RevokeKey, auth.ES256, 0, now.Add(time.Hour)))
		}, auth.ErrRevoked},
		"a higher epoch": {func(_ *clock, s *auth.RevocationSet, _ *counting) {
			s.Add(revocation(auth.RevokeSubject, "alice", 8, now.Add(time.Hour)))
		}, auth.ErrRevoked},
		"a key that is gone": {func(c *clock, _ *auth.RevocationSet, k *counting) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.keys = source{}
			c.advance(time.Second)
		}, auth.ErrUnknownKey},
		"a key that is another": {func(c *clock, _ *auth.RevocationSet, k *counting) {
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				panic(err)
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.keys = source{auth.ES256: {Algorithm: auth.ES256, Public: other.Public()}}
			c.advance(time.Second)
		}, auth.ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, keys := newClock(), &counting{keys: newSource()}
			set := auth.NewRevocationSet(c.now)
			v := newVerifier(t, func(cfg *auth.Config) { cfg.Clock, cfg.Revocations, cfg.Keys = c.now, set, keys })
			raw := token{}.sign(t)
			for range 10 {
				if _, err := v.Verify(t.Context(), raw); err != nil {
					t.Fatal(err)
				}
			}
			if n := keys.asked.Load(); n != 1 {
				t.Fatalf("the key was asked for %d times within a second: the cache does not work", n)
			}
			row.happens(c, set, keys)
			for range 2 {
				if claims, err := v.Verify(t.Context(), raw); !errors.Is(err, row.want) || claims != nil {
					t.Errorf("got %v, %v", claims, err)
				}
			}
		})
	}
}

// Two spellings of almost the same token are two tokens: what was verified vouches for nothing else.
func TestCacheComparesWholeTokens(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	raw := token{}.sign(t)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		other := byte('A')
		if raw[i] == other {
			other = 'B'
		}
		if raw[i] == '.' {
			continue
		}
		if _, err := v.Verify(t.Context(), raw[:i]+string(other)+raw[i+1:]); err == nil {
			t.Errorf("changed at %d: accepted", i)
		}
	}
}

// careless returns whatever was put in last, as a cache with a fault might.
type careless struct{ last atomic.Pointer[auth.Verified] }

func (c *careless) Get(string, time.Time) *auth.Verified        { return c.last.Load() }
func (c *careless) Put(_ string, v *auth.Verified, _ time.Time) { c.last.Store(v) }

// A cache of the consumer's own cannot turn one token into another, nor carry it to another service.
func TestCacheOfOnesOwnDecidesNothing(t *testing.T) {
	t.Parallel()
	cache := &careless{}
	v := newVerifier(t, func(c *auth.Config) { c.Cache = cache })
	raw := token{}.sign(t)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	if claims, err := v.Verify(t.Context(), token{claims: map[string]any{"sub": "bob"}}.sign(t)); err != nil || claims.Subject != "bob" {
		t.Errorf("bob's token: %+v, %v", claims, err)
	}
	if _, err := v.Verify(t.Context(), "x.y.z"); err == nil {
		t.Error("nonsense was accepted")
	}
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	other := newVerifier(t, func(c *auth.Config) { c.Cache, c.Audience = cache, "https://bank.example" })
	if _, err := other.Verify(t.Context(), raw); !errors.Is(err, auth.ErrAudience) {
		t.Errorf("at another service: %v", err)
	}
}

// Memory is bounded, and what nobody verified takes none of it.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	cache := auth.NewTokenCache(auth.CacheConfig{Size: 16})
	v := newVerifier(t, func(c *auth.Config) { c.Cache = cache })
	good := token{}.sign(t)
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if _, err := v.Verify(t.Context(), good[:len(good)-40]+strings.Repeat("A", 36)+strconv.Itoa(1000+i)); err == nil {
			t.Fatal("a forged token was accepted")
		}
	}
	if n := cache.Len(); n != 1 {
		t.Errorf("%d entries, one token was good", n)
	}
	for i := range 100 {
		raw := token{claims: map[string]any{"jti": strconv.Itoa(i)}}.sign(t)
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	if n := cache.Len(); n != 16 {
		t.Errorf("%d entries of 16", n)
	}
}

// Each policy forgets whom it says it does.
func TestCachePolicies(t *testing.T) {
	t.Parallel()
	kept := func(cfg auth.CacheConfig, use func(v *auth.Verifier, c *clock, tokens []string)) (tokens []string, cache *auth.TokenCache, c *clock) {
		c = newClock()
		cfg.Size = 16 // one pair of sets: everything competes with everything
		cache = auth.NewTokenCache(cfg)
		v := newVerifier(t, func(a *auth.Config) { a.Cache, a.Clock = cache, c.now })
		for i := range 17 {
			life := 840 - 10*((i+5)%17) // the one at 11 expires first
			tokens = append(tokens, token{claims: map[string]any{"jti": strconv.Itoa(i), "exp": now.Unix() + int64(life)}}.sign(t))
		}
		verify := func(i int) {
			c.advance(time.Second)
			if _, err := v.Verify(t.Context(), tokens[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 16 {
			verify(i)
		}
		use(v, c, tokens)
		verify(16)
		return tokens, cache, c
	}
	touch := func(v *auth.Verifier, c *clock, tokens []string) {
		for i := range 16 {
			if i != 7 {
				c.advance(time.Second)
				if _, err := v.Verify(t.Context(), tokens[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, row := range map[string]struct {
		cfg  auth.CacheConfig
		gone int
	}{
		"least recently used": {auth.CacheConfig{}, 7},
		"oldest":              {auth.CacheConfig{Evict: auth.EvictOldest}, 0},
		"soonest":             {auth.CacheConfig{Evict: auth.EvictSoonest}, 11},
	} {
		tokens, cache, c := kept(row.cfg, touch)
		for i, raw := range tokens {
			if there := cache.Get(raw, c.now()) != nil; there == (i == row.gone) {
				t.Errorf("%s: token %d is there: %v", name, i, there)
			}
		}
	}
	tokens, cache, c := kept(auth.CacheConfig{TTL: time.Minute, Idle: 40 * time.Second}, func(*auth.Verifier, *clock, []string) {})
	c.advance(41 * time.Second)
	if cache.Get(tokens[16], c.now()) != nil {
		t.Error("an idle token was kept")
	}
	c.advance(-11 * time.Second)
	if cache.Get(tokens[16], c.now()) == nil {
		t.Error("a used token was forgotten")
	}
	c.advance(31 * time.Second)
	if cache.Get(tokens[16], c.now()) != nil {
		t.Error("a token was kept beyond the TTL")
	}
}

// Revocation is immediate under load: once Add has returned, no goroutine gets the cached token accepted.
func TestCacheUnderContention(t *testing.T) {
	t.Parallel()
	set := auth.NewRevocationSet(func() time.Time { return now })
	cache := auth.NewTokenCache(auth.CacheConfig{Size: 64})
	v := newVerifier(t, func(c *auth.Config) { c.Revocations, c.Cache = set, cache })
	tokens := make([]string, 100)
	for i := range tokens {
		tokens[i] = token{claims: map[string]any{"sid": strconv.Itoa(i), "jti": "t" + strconv.Itoa(i)}}.sign(t)
	}
	var revoked [100]atomic.Bool
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 8 {
		wg.Go(func() {
			for n := g; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				i := n * 7 % 100
				was := revoked[i].Load()
				claims, err := v.Verify(t.Context(), tokens[i])
				if was && !errors.Is(err, auth.ErrRevoked) {
					t.Errorf("token %d was revoked: %v", i, err)
					return
				}
				if err == nil && claims.SessionID != strconv.Itoa(i) {
					t.Errorf("token %d is taken for %s", i, claims.SessionID)
					return
				}
			}
		})
	}
	for i := range tokens {
		set.Add(revocation(auth.RevokeSession, strconv.Itoa(i), 0, now.Add(time.Hour)))
		revoked[i].Store(true)
	}
	close(stop)
	wg.Wait()
	for i, raw := range tokens {
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("token %d: %v", i, err)
		}
	}
}

// What a request costs decides whether verifying everywhere is affordable: no allocation once a token is known.
func TestCachedVerificationDoesNotAllocate(t *testing.T) {
	set := auth.NewRevocationSet(nil)
	fill(set, 1000, time.Now().Add(time.Hour))
	v := newVerifier(t, func(c *auth.Config) { c.Revocations = set })
	raw := token{}.sign(t)
	n := testing.AllocsPerRun(1000, func() {
		auth.CountAddition(set)
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	r := request("GET", "/x", "Bearer "+raw)
	n = testing.AllocsPerRun(1000, func() {
		if _, err := v.VerifyRequest(r); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}
