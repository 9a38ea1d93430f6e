package oidc

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

const (
	// maxKeySet bounds a client's key set, in bytes.
	maxKeySet = 64 << 10
	// keysFresh is how long a fetched set is used without a question, keysStand how long where its address does not answer.
	keysFresh = 10 * time.Minute
	keysStand = 24 * time.Hour
	// keysPause is how soon an address is asked again, whoever wants to know, and however often: for a key that is not in the set, or
	// because it did not answer.
	keysPause = 30 * time.Second
	// maxKeySets bounds the sets that are remembered. Beyond, the one that was asked for longest ago goes.
	maxKeySets = 1000
)

// keySource fetches the key sets that clients publish (RFC 7591, section 2, jwks_uri), and remembers them.
type keySource struct {
	client *http.Client
	clock  func() time.Time

	mu   sync.Mutex
	sets map[string]*keySet // by address
}

// keySet is what is known of an address. Its turn is taken by who asks there; those who need the answer wait for it.
type keySet struct {
	turn  chan struct{}
	state atomic.Pointer[keyState]
}

// keyState is never changed once it is published.
type keyState struct {
	keys           clientKeys
	fetched, tried time.Time // zero: never
	err            error     // of the last time
}

// has reports whether a key is there, and need not be asked for.
func (st *keyState) has(wanted func(clientKeys) bool, now time.Time) bool {
	return now.Sub(st.fetched) < keysFresh && wanted(st.keys)
}

func newKeySource(client *http.Client, clock func() time.Time) *keySource {
	return &keySource{client: client, clock: clock, sets: map[string]*keySet{}}
}

// keys returns the keys of a client, as registered or as published; wanted says whether the one that is looked for is among them, for which
// a published set may be asked for again. While an address does not answer, what it last said stands for a day; then, and where it
// never has answered, nobody can tell whose a signature is: ErrUnavailable.
func (s *Service) keys(ctx context.Context, c Client, wanted func(clientKeys) bool) (clientKeys, error) {
	if c.JWKSURI == "" {
		return parseClientKeys(c.Keys)
	}
	keys, err := s.sources.at(ctx, c.JWKSURI, wanted)
	if err != nil {
		return clientKeys{}, ErrUnavailable.With("The keys of the client cannot be fetched from its jwks_uri.").After(keysPause).Wrap(err)
	}
	return keys, nil
}

func (k *keySource) at(ctx context.Context, address string, wanted func(clientKeys) bool) (clientKeys, error) {
	set := k.set(address)
	if st := set.state.Load(); st.has(wanted, k.clock()) {
		return st.keys, nil
	}
	select {
	case set.turn <- struct{}{}:
	case <-ctx.Done():
		return clientKeys{}, context.Cause(ctx)
	}
	defer func() { <-set.turn }()
	st, now := set.state.Load(), k.clock()
	if !st.has(wanted, now) && now.Sub(st.tried) >= keysPause {
		// Others use the answer: it does not depend on whether the one who asked first goes on waiting.
		keys, err := k.fetch(context.WithoutCancel(ctx), address)
		next := keyState{keys, now, now, nil}
		if err != nil {
			next = keyState{st.keys, st.fetched, now, err}
		}
		st = &next
		set.state.Store(st)
	}
	if now.Sub(st.fetched) > keysStand {
		return clientKeys{}, st.err
	}
	return st.keys, nil
}

// set returns what is known of an address, and makes room for it.
func (k *keySource) set(address string) *keySet {
	k.mu.Lock()
	defer k.mu.Unlock()
	set, there := k.sets[address]
	if there {
		return set
	}
	if len(k.sets) >= maxKeySets {
		oldest := ""
		for name, one := range k.sets {
			if oldest == "" || one.state.Load().tried.Before(k.sets[oldest].state.Load().tried) {
				oldest = name
			}
		}
		delete(k.sets, oldest)
	}
	set = &keySet{turn: make(chan struct{}, 1)}
	set.state.Store(&keyState{})
	k.sets[address] = set
	return set
}

func (k *keySource) fetch(ctx context.Context, address string) (clientKeys, error) {
	body, err := httpd.Fetch(ctx, k.client, address, maxKeySet)
	if err != nil {
		return clientKeys{}, err
	}
	return parseClientKeys(body)
}
