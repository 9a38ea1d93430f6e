package websession

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// maxKnown bounds the sessions that a node has open. Beyond it some are read from the store again.
	maxKnown = 1 << 16
	// patience bounds what a renewal may take, all of it.
	patience = 5 * time.Second
	// pause is how long nobody tries again after a renewal that failed.
	pause = time.Second
	// maxAnswer bounds the identity module's answers, in bytes.
	maxAnswer = 64 << 10
)

// session is one that this node has open.
type session struct {
	turn  chan struct{} // holds one value while somebody reads or renews it
	state atomic.Pointer[state]
}

// state is what is known of a session. It does not change.
type state struct {
	pair
	unsaved bool      // the store does not have the pair yet
	pause   time.Time // until then nobody tries to renew
}

// origin is who made the request for which a pair is renewed: identity writes down where a session was used last.
type origin struct {
	agent   string
	address netip.Addr
}

// current returns the pair of a session, renewed where that is due, and whether this call renewed it. The access token refused is good
// for nothing any more. While a token is good, one request renews and the others go on; without a good one they wait.
func (k *Keeper) current(ctx context.Context, key *key, refused string, from origin) (pair, bool, error) {
	s := k.session(key.id)
	now := k.Clock()
	usable := func(st *state) bool { return st != nil && now.Before(st.Expires) && st.Access != refused }
	settled := func(st *state) bool { return usable(st) && !st.unsaved && now.Before(st.Renew) }
	st := s.state.Load()
	if settled(st) || usable(st) && now.Before(st.pause) {
		return st.pair, false, nil
	}
	if usable(st) {
		select {
		case s.turn <- struct{}{}:
		default:
			return st.pair, false, nil
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return pair{}, false, ErrUnavailable.Wrap(ctx.Err())
		}
	}
	defer func() { <-s.turn }()
	st = s.state.Load()
	switch {
	case settled(st):
		return st.pair, false, nil
	case st != nil && now.Before(st.pause):
		return afterFailure(st, usable(st), nil)
	}
	// Once begun it is finished, or a refresh token would be used up whose successor nobody has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	next, renewed, err := k.advance(ctx, key, s, refused, from)
	switch {
	case errors.Is(err, errNone):
		k.drop(key.id)
		return pair{}, false, errNone
	case err != nil:
		k.Log.LogAttrs(ctx, slog.LevelWarn, "session of a browser not renewed", slog.Any("error", err))
		st = s.state.Load()
		if st != nil {
			later := *st
			later.pause = k.Clock().Add(pause) // those who waited meanwhile do not try one after the other
			s.state.Store(&later)
		}
		return afterFailure(st, usable(st), err)
	}
	return next, renewed, nil
}

// afterFailure goes on with what there is, if that is still good.
func afterFailure(st *state, usable bool, err error) (pair, bool, error) {
	if usable {
		return st.pair, false, nil
	}
	return pair{}, false, ErrUnavailable.Wrap(err)
}

// advance brings a session to where it should be: saved, as late as the store has it, and renewed where that is due. It is called by one
// at a time on each node. Nothing is renewed without the store: other nodes would not learn of it, and use the old token again.
func (k *Keeper) advance(ctx context.Context, key *key, s *session, refused string, from origin) (pair, bool, error) {
	if st := s.state.Load(); st != nil && st.unsaved {
		if err := k.save(ctx, key, s, st.pair); err != nil {
			return pair{}, false, err
		}
	}
	sealed, err := k.Store.Get(ctx, key.id)
	if errors.Is(err, ErrNotKept) {
		return pair{}, false, errNone
	}
	if err != nil {
		return pair{}, false, err
	}
	p, err := key.open(sealed)
	if err != nil {
		return pair{}, false, err
	}
	s.state.Store(&state{pair: p})
	if k.Clock().Before(p.Renew) && p.Access != refused {
		return p, false, nil
	}
	next, err := k.refresh(ctx, p, from)
	if errors.Is(err, errNone) {
		k.forget(ctx, key)
		return pair{}, false, errNone
	}
	if err != nil {
		return pair{}, false, err
	}
	if err := k.save(ctx, key, s, next); err != nil { // it will be tried again with the next request
		k.Log.LogAttrs(ctx, slog.LevelWarn, "renewed session of a browser not kept yet", slog.Any("error", err))
	}
	return next, true, nil
}

// save makes a pair what is known, here and in the store.
func (k *Keeper) save(ctx context.Context, key *key, s *session, p pair) error {
	sealed, err := key.close(p)
	if err == nil {
		s.state.Store(&state{pair: p, unsaved: true})
		err = k.Store.Replace(ctx, key.id, p.Generation, sealed, p.Until.Sub(k.Clock()))
	}
	if err != nil {
		s.state.Store(&state{pair: p, unsaved: true, pause: k.Clock().Add(pause)})
		return err
	}
	s.state.Store(&state{pair: p})
	return nil
}

// grant is the part of a token answer that is needed.
type grant struct {
	Access           string `json:"access_token"`
	ExpiresIn        int64  `json:"expires_in"`
	Refresh          string `json:"refresh_token"`
	RefreshExpiresIn int64  `json:"refresh_expires_in"`
}

func (g grant) pair(now time.Time, generation int64) (pair, bool) {
	life := time.Duration(g.ExpiresIn) * time.Second
	return pair{
		Access: g.Access, Refresh: g.Refresh, Generation: generation, Renew: now.Add(life * 2 / 3), Expires: now.Add(life),
		Until: now.Add(time.Duration(g.RefreshExpiresIn) * time.Second),
	}, g.Access != "" && g.Refresh != "" && g.ExpiresIn > 0 && g.RefreshExpiresIn > 0
}

// refresh asks identity for the next pair. errNone: it refuses for good. Asked twice for one token within a few seconds, it gives the
// same pair again, so that nodes who ask at once agree.
func (k *Keeper) refresh(ctx context.Context, p pair, from origin) (pair, error) {
	body, err := json.Marshal(map[string]string{"refresh_token": p.Refresh, "access_token": p.Access})
	if err != nil {
		return pair{}, fmt.Errorf("refresh: %w", err)
	}
	now := k.Clock()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.URL+"/v1/sessions/refresh", bytes.NewReader(body))
	if err != nil {
		return pair{}, fmt.Errorf("refresh: %w", err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {from.agent}}
	if from.address.IsValid() {
		r.Header.Set("X-Forwarded-For", from.address.String())
	}
	answer, err := k.Identity.Do(r)
	if err != nil {
		return pair{}, fmt.Errorf("refresh: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch {
	case err != nil:
		return pair{}, fmt.Errorf("refresh: %w", err)
	case answer.StatusCode == http.StatusUnauthorized:
		return pair{}, errNone
	case answer.StatusCode != http.StatusOK:
		return pair{}, fmt.Errorf("refresh: identity answers %d", answer.StatusCode)
	}
	var g grant
	if err := json.Unmarshal(text, &g); err != nil {
		return pair{}, errors.New("refresh: identity's answer is not JSON") // the error could tell of tokens
	}
	next, whole := g.pair(now, p.Generation+1)
	if !whole {
		return pair{}, errors.New("refresh: identity's answer has no pair")
	}
	return next, nil
}

// session returns the one of an id, which is opened if need be.
func (k *Keeper) session(id string) *session {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.known[id]; s != nil {
		return s
	}
	if len(k.known) >= maxKnown {
		for other, s := range k.known { // any; but what the store does not have yet stays
			if st := s.state.Load(); st == nil || !st.unsaved {
				delete(k.known, other)
				break
			}
		}
	}
	s := &session{turn: make(chan struct{}, 1)}
	k.known[id] = s
	return s
}

func (k *Keeper) drop(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, id)
}

// forget removes a session here and from the store. Where the store cannot be reached, its tokens are worth nothing all the same.
func (k *Keeper) forget(ctx context.Context, key *key) {
	k.drop(key.id)
	if err := k.Store.Delete(context.WithoutCancel(ctx), key.id); err != nil {
		k.Log.LogAttrs(ctx, slog.LevelWarn, "session of a browser not deleted", slog.Any("error", err))
	}
}
