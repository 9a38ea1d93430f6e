// Package apikeys turns the API keys that callers show into access tokens.
//
// It owns the tokens that a gateway holds for keys: asking for them, one question at a time for a key, and asking anew before they
// expire.
//
// It promises that a request with a key it knows asks nobody; that a key which was refused, and addresses that show wrong ones, cost the
// identity module a bounded number of questions; and that keys it knows go on working for the life of a token while that module is
// down. Of keys it keeps hashes.
//
// It refuses to judge: whether a token is good, revoked, or enough for a route is decided where all tokens are verified.
package apikeys

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// Why a key gets no token.
var (
	ErrInvalid = fault.New(fault.Unauthenticated, "gateway.api_key", "The API key is unknown, has expired, or was revoked.").
			Challenge(`Bearer realm="sumun", error="invalid_token", error_description="The API key is unknown, has expired, or was revoked."`)
	ErrUnavailable = fault.New(fault.Unavailable, "gateway.api_keys_unavailable", "API keys cannot be checked at the moment. Try again shortly.").
			After(time.Second)
	ErrTooMany = fault.New(fault.RateLimited, "gateway.api_key_failures", "Too many wrong API keys came from your network. Please wait a moment.")
)

// Exchanger knows the keys. The identity module of this process is one, and so is *Remote. It is called by several goroutines at once.
type Exchanger interface {
	// Exchange returns an access token for a key, ErrInvalid where the key is good for nothing, and another error where that is not
	// known.
	Exchange(ctx context.Context, key apikey.Key) (Token, error)
}

// Token is an access token, and how long it lives from now.
type Token struct {
	Text string
	Life time.Duration
}

// Deps are what Keys work with. Limiter may be nil: failures are not counted.
type Deps struct {
	Exchanger Exchanger
	Limiter   ratelimit.Limiter
	Clock     func() time.Time
	Metrics   prometheus.Registerer
}

const (
	maxTokens  = 1 << 16
	maxRefused = 1 << 14
	maxBlocked = 1 << 14
	// refusedFor is how long a refused key is not asked about again, and so how long after its making a key may be refused that
	// somebody tried before.
	refusedFor = 10 * time.Second
	// askTimeout bounds a question, waiting for its turn included.
	askTimeout = 5 * time.Second
	// askAgain is how long a failed renewal is not repeated.
	askAgain = 5 * time.Second
	// settle is how long a token that replaced another is not replaced again because it is refused.
	settle = time.Second
	// atOnce bounds the questions that are asked at the same time.
	atOnce = 32
)

// failures is how many keys that nobody knows may come from one address.
var failures = ratelimit.Policy{Name: "gateway.api_key_failures", Rate: 30, Period: time.Minute, Burst: 30}

type digest = [sha256.Size]byte

// Keys holds tokens for keys. It is safe for concurrent use.
type Keys struct {
	deps    Deps
	tokens  *otter.Cache[digest, *held]
	refused *otter.Cache[digest, time.Time]     // until when
	blocked *otter.Cache[netip.Addr, time.Time] // until when
	turns   chan struct{}
	asked   *prometheus.CounterVec

	mu      sync.Mutex
	flights map[digest]*flight
	group   sync.WaitGroup
}

// held is the token of a key. It does not change.
type held struct {
	text           string
	renew, expires time.Time
	settled        time.Time // before that nobody may have it forgotten
}

// flight is a question that is being asked.
type flight struct {
	landed chan struct{} // closed when what follows is known
	text   string
	err    error
}

// New returns Keys that hold nothing yet.
func New(deps Deps) (*Keys, error) {
	k := &Keys{deps: deps, turns: make(chan struct{}, atOnce), flights: map[digest]*flight{}}
	var errs [3]error
	k.tokens, errs[0] = otter.New(&otter.Options[digest, *held]{MaximumSize: maxTokens, Executor: inline})
	k.refused, errs[1] = otter.New(&otter.Options[digest, time.Time]{MaximumSize: maxRefused, Executor: inline})
	k.blocked, errs[2] = otter.New(&otter.Options[netip.Addr, time.Time]{MaximumSize: maxBlocked, Executor: inline})
	k.asked = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sumun_gateway_api_key_exchanges_total",
		Help: "Questions to the identity module about API keys, by what came of them: ok, refused, failed.",
	}, []string{"outcome"})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	if err := deps.Metrics.Register(k.asked); err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	return k, nil
}

func inline(work func()) { work() }

// Wait returns when no question is under way.
func (k *Keys) Wait() { k.group.Wait() }

// Token returns the access token of a key that somebody at an address shows, or a fault that says why there is none. It asks only
// where nothing is held for the key; a token in the last third of its life is given out while somebody asks for the next.
func (k *Keys) Token(ctx context.Context, key apikey.Key, from netip.Addr) (string, error) {
	hash, now := key.Hash(), k.deps.Clock()
	if t, there := k.tokens.GetIfPresent(hash); there && now.Before(t.expires) {
		if !now.Before(t.renew) {
			k.ask(ctx, key, hash)
		}
		return t.text, nil
	}
	if until, there := k.refused.GetIfPresent(hash); there && now.Before(until) {
		return "", ErrInvalid
	}
	from = network(from)
	if until, there := k.blocked.GetIfPresent(from); there && now.Before(until) {
		return "", ErrTooMany.After(until.Sub(now))
	}
	f, first := k.ask(ctx, key, hash)
	select {
	case <-f.landed:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if first && errors.Is(f.err, ErrInvalid) {
		return "", errors.Join(f.err, k.fail(ctx, from, now))
	}
	return f.text, f.err
}

// Forget drops the token of a key, so that the next request asks for another. Where the next one was no better, it does so once a second.
func (k *Keys) Forget(key apikey.Key, token string) {
	hash, now := key.Hash(), k.deps.Clock()
	if t, there := k.tokens.GetIfPresent(hash); there && t.text == token && !now.Before(t.settled) {
		k.tokens.Set(hash, &held{text: token, renew: now, expires: now})
	}
}

// fail counts a wrong key. Who has shown too many is asked to wait before another one is looked at.
func (k *Keys) fail(ctx context.Context, from netip.Addr, now time.Time) error {
	if k.deps.Limiter == nil {
		return nil
	}
	v, err := k.deps.Limiter.Take(ctx, failures, from.String())
	if err == nil && !v.Allowed {
		k.blocked.Set(from, now.Add(v.RetryAfter))
	}
	return err
}

// network is what failures are counted by: of IPv6 the /64, which is what one customer has.
func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 is a length that IPv6 has
		return p.Addr()
	}
	return a
}

// ask joins the question about a key, and asks it where nobody does. It goes on when the one who asked has left.
func (k *Keys) ask(ctx context.Context, key apikey.Key, hash digest) (f *flight, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f = k.flights[hash]; f != nil {
		return f, false
	}
	f = &flight{landed: make(chan struct{})}
	k.flights[hash] = f
	k.group.Go(func() {
		f.text, f.err = k.exchange(context.WithoutCancel(ctx), key, hash)
		k.mu.Lock()
		delete(k.flights, hash)
		k.mu.Unlock()
		close(f.landed)
	})
	return f, true
}

// exchange asks, and remembers what was said.
func (k *Keys) exchange(ctx context.Context, key apikey.Key, hash digest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	t, err := k.inTurn(ctx, key)
	now := k.deps.Clock()
	old, there := k.tokens.GetIfPresent(hash)
	switch {
	case err == nil:
		k.asked.WithLabelValues("ok").Inc()
		next := &held{text: t.Text, renew: now.Add(t.Life * 2 / 3), expires: now.Add(t.Life)}
		if there {
			next.settled = now.Add(settle)
		}
		k.tokens.Set(hash, next)
		k.refused.Invalidate(hash)
		return t.Text, nil
	case errors.Is(err, ErrInvalid):
		k.asked.WithLabelValues("refused").Inc()
		k.refused.Set(hash, now.Add(refusedFor))
		k.tokens.Invalidate(hash)
		return "", ErrInvalid
	}
	k.asked.WithLabelValues("failed").Inc()
	if there && now.Before(old.expires) {
		k.tokens.Set(hash, &held{old.text, now.Add(askAgain), old.expires, old.settled})
	}
	return "", ErrUnavailable.Wrap(err)
}

func (k *Keys) inTurn(ctx context.Context, key apikey.Key) (Token, error) {
	select {
	case k.turns <- struct{}{}:
		defer func() { <-k.turns }()
		return k.deps.Exchanger.Exchange(ctx, key)
	case <-ctx.Done():
		return Token{}, fmt.Errorf("wait for a turn: %w", context.Cause(ctx))
	}
}
