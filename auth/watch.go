package auth

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// Watch calls f once when a token with these claims is revoked, at once if it is already. The call is made on a goroutine
// of its own, which it shares with the others that the same news concern: f hands over or closes something, and does not wait.
// The returned function ends the watch and reports whether it has kept f from being called.
//
// A watch costs some 500 bytes and no goroutine: there may be one for each of a hundred thousand connections.
func (s *RevocationSet) Watch(c *Claims, f func()) (stop func() bool) {
	w := &watch{set: s, claims: c, call: f}
	who := newRevocable(c)
	if w.nodes = w.own[:]; len(who.more) > 0 {
		w.nodes = make([]watchNode, who.n+len(who.more))
	}
	w.nodes = w.nodes[:who.n+len(who.more)]
	for i := range w.nodes {
		name := &who.named[min(i, ownNames-1)]
		if i >= who.n {
			name = &who.more[i-who.n]
		}
		w.nodes[i].key, w.nodes[i].watch = watchKey(name.id), w
	}
	s.watchers.add(w)
	if s.has(&who, s.clock()) && s.watchers.remove(w) { // it may have come before the watch
		go f()
	}
	return func() bool { return s.watchers.remove(w) }
}

// watch is one caller's wait. It is in a list of others for each name of its token.
type watch struct {
	set     *RevocationSet
	claims  *Claims
	call    func()
	nodes   []watchNode
	own     [ownNames]watchNode // where nodes are, unless they are more
	waiting bool
}

type watchNode struct {
	watch      *watch
	next, prev *watchNode
	key        uint64
}

// watchKey is a part of a name's hash. Two names may share one: whoever is found by it is looked at again.
func watchKey(id [32]byte) uint64 { return binary.LittleEndian.Uint64(id[:8]) }

// watchers finds who waits for a revocation.
type watchers struct {
	mu    sync.Mutex
	heads map[uint64]*watchNode
}

func (ws *watchers) add(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.heads == nil {
		ws.heads = make(map[uint64]*watchNode)
	}
	w.waiting = true
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.next = ws.heads[n.key]; n.next != nil {
			n.next.prev = n
		}
		ws.heads[n.key] = n
	}
}

// remove reports whether w was still waiting: whoever gets true decides what becomes of it.
func (ws *watchers) remove(w *watch) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !w.waiting {
		return false
	}
	w.waiting = false
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.next != nil {
			n.next.prev = n.prev
		}
		switch {
		case n.prev != nil:
			n.prev.next = n.next
		case n.next != nil:
			ws.heads[n.key] = n.next
		default:
			delete(ws.heads, n.key)
		}
		n.next, n.prev = nil, nil
	}
	return true
}

// tell calls those whom the revocations concern. They are looked for here, and judged and called on another goroutine: the
// caller holds the set's lock.
func (ws *watchers) tell(s *RevocationSet, revocations []Revocation) {
	ws.mu.Lock()
	var found []*watch
	if len(ws.heads) > 0 {
		for _, r := range revocations {
			for n := ws.heads[watchKey(r.ID)]; n != nil; n = n.next {
				found = append(found, n.watch)
			}
		}
	}
	ws.mu.Unlock()
	if len(found) == 0 {
		return
	}
	go func() {
		for _, w := range found {
			if s.Revoked(w.claims) && ws.remove(w) {
				w.call()
			}
		}
	}()
}

// Watch calls f once when the token with these claims stops being good: with [ErrRevoked] when it is revoked, with
// [ErrExpired] when its time is over. It is for what outlives a request, such as a WebSocket. See [RevocationSet.Watch] for
// what f may do and what stop returns.
func (v *Verifier) Watch(c *Claims, f func(error)) (stop func() bool) {
	var once sync.Once
	fire := func(err error) (first bool) {
		once.Do(func() { first = true })
		if first && err != nil {
			f(err)
		}
		return first
	}
	left := c.ExpiresAt.Add(v.cfg.Leeway).Sub(v.cfg.Clock())
	expiry := time.AfterFunc(left, func() { fire(ErrExpired) })
	unwatch := v.cfg.Revocations.Watch(c, func() {
		expiry.Stop()
		fire(ErrRevoked)
	})
	return func() bool {
		expiry.Stop()
		unwatch()
		return fire(nil)
	}
}

// WithWatch returns a copy of ctx that is cancelled, with [ErrRevoked] or [ErrExpired] as its cause, when the token with
// these claims stops being good. Calling cancel ends the watch.
func (v *Verifier) WithWatch(ctx context.Context, c *Claims) (watched context.Context, cancel context.CancelFunc) {
	watched, cause := context.WithCancelCause(ctx)
	stop := v.Watch(c, cause)
	return watched, func() {
		stop()
		cause(context.Canceled)
	}
}
