package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	loadTimeout = 10 * time.Second
	tick        = time.Second
)

// Load makes the verifier ready: it reads the snapshot, if there is one, then fetches the keys and reads the revocation feed up to
// the present. It takes ten seconds at most. The error says why there are no keys: without them no token can be verified yet,
// though they are asked for again with every token. What else is wrong is logged: a snapshot that cannot be used, a feed that
// cannot be read, for which see [Verifier.Staleness].
//
// Call it before serving requests, once, and then [Verifier.Run].
func (v *Verifier) Load(ctx context.Context) error {
	v.loaded.Store(true)
	if v.snapshot != nil {
		snap, err := v.snapshot.read()
		if err == nil && snap != nil {
			err = v.restore(snap)
		}
		if err != nil {
			v.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "snapshot_not_used", slog.Any("error", err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var wg sync.WaitGroup
	if v.feed != nil {
		wg.Go(func() {
			if _, err := v.feed.follow(ctx, true); err != nil {
				v.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation_feed_not_read", slog.Any("error", err))
			}
		})
	}
	var err error
	if v.remote != nil {
		if err = v.remote.renew(ctx); err != nil && v.remote.living() != nil { // the snapshot's will do
			v.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "keys_not_renewed", slog.Any("error", err))
			err = nil
		}
	}
	wg.Wait()
	if err != nil {
		return fmt.Errorf("load keys: %w", err)
	}
	return nil
}

// Run keeps the verifier up to date until ctx ends, and returns nil then: it follows the revocation feed, renews the keys before
// they are due, writes the snapshot, and calls [Config.OnStale]. Call it once.
func (v *Verifier) Run(ctx context.Context) error {
	if !v.loaded.Load() {
		if err := v.Load(ctx); err != nil && ctx.Err() == nil {
			v.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "keys_not_loaded", slog.Any("error", err))
		}
	}
	var wg sync.WaitGroup
	if v.feed != nil {
		wg.Go(func() { v.feed.run(ctx) })
	}
	v.keepHouse(ctx)
	wg.Wait()
	v.save(ctx)
	return nil
}

// keepHouse does what is due, once a second.
func (v *Verifier) keepHouse(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	alarm, began := false, v.cfg.Clock()
	var writes schedule
	for {
		if v.remote != nil {
			v.remote.refresh()
		}
		v.cfg.Revocations.Prune()
		alarm = v.watchAge(ctx, began, alarm)
		if v.snapshot != nil && writes.due(v.cfg.Clock(), v.position(), v.snapshot.cfg.Every) {
			v.save(ctx)
			writes.done(v.cfg.Clock())
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// schedule says when the snapshot is written: every so often, and as soon as something has been revoked, since a process that is killed
// and starts again during an outage knows only what is in it.
type schedule struct {
	began, ended time.Time // the last write
	position     string    // of the feed then
}

// restFactor bounds the time spent on writing, which grows with the number of entries, to a part of all time.
const restFactor = 20

func (s *schedule) due(now time.Time, position string, every time.Duration) bool {
	if age := now.Sub(s.began); age < every && (position == s.position || age < restFactor*s.ended.Sub(s.began)) {
		return false
	}
	s.began, s.position = now, position
	return true
}

func (s *schedule) done(now time.Time) { s.ended = now }

// position is where in the feed the verifier is, "" where it follows none.
func (v *Verifier) position() string {
	if v.feed == nil {
		return ""
	}
	position, _ := v.feed.place()
	return position
}

// save writes the snapshot, unless there is nothing to write: an older one is better than none.
func (v *Verifier) save(ctx context.Context) {
	if v.snapshot == nil {
		return
	}
	snap := v.takeSnapshot()
	if snap.Keys == nil && snap.Synced == 0 {
		return
	}
	if err := v.snapshot.write(snap); err != nil {
		v.cfg.Log.LogAttrs(ctx, slog.LevelError, "snapshot_not_written", slog.Any("error", err))
	}
}

// watchAge tells of the feed becoming stale, and fresh again, once each.
func (v *Verifier) watchAge(ctx context.Context, began time.Time, alarm bool) bool {
	age := v.Staleness()
	stale := age > v.cfg.MaxStale
	if stale == alarm || age == Unknown && v.needsNoFeed(began) {
		return alarm
	}
	if stale {
		v.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation_feed_stale", slog.Duration("age", age))
	} else {
		v.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "revocation_feed_fresh", slog.Duration("age", age))
	}
	if v.cfg.OnStale != nil {
		v.cfg.OnStale(stale, age)
	}
	return stale
}

// needsNoFeed reports whether it is no news that the feed was never read: because there is none, which is logged where it is
// found, or because there was no time yet.
func (v *Verifier) needsNoFeed(began time.Time) bool {
	return v.feed == nil || v.feed.absent.Load() || v.cfg.Clock().Sub(began) <= v.cfg.MaxStale
}

// Staleness returns how long ago everything that had been revoked was known here. [Unknown] means that it never was: no feed, or
// none that could be read yet. It is cheap enough to be asked on every request.
func (v *Verifier) Staleness() time.Duration {
	switch {
	case v.cfg.Age != nil:
		return v.cfg.Age()
	case v.feed != nil:
		return v.feed.staleness()
	}
	return Unknown
}

// Fresh returns nil when the news from the feed is recent enough for a critical operation, and otherwise [ErrStale].
func (v *Verifier) Fresh() error {
	age := v.Staleness()
	if age <= v.cfg.MaxStale {
		return nil
	}
	if age == Unknown {
		return ErrStale.wrap(errors.New("no revocation feed has been read"))
	}
	return ErrStale.wrap(fmt.Errorf("the revocation feed is %v old", age.Round(time.Millisecond)))
}

// Stats is what a dashboard wants to know of a verifier.
type Stats struct {
	Staleness   time.Duration // of the feed; Unknown where there is none
	Revocations int           // entries in the set
	KeysAge     time.Duration // since the keys were fetched; Unknown where they are somebody else's, or not there
}

// Stats returns the present numbers. It does not wait.
func (v *Verifier) Stats() Stats {
	s := Stats{Staleness: v.Staleness(), Revocations: v.cfg.Revocations.Len(), KeysAge: Unknown}
	if v.remote != nil {
		if fetched := v.remote.Fetched(); !fetched.IsZero() {
			s.KeysAge = v.cfg.Clock().Sub(fetched)
		}
	}
	return s
}
