package app

import (
	"context"
	"log/slog"
	"time"
)

const (
	// maxSkew is how far this node's clock may be from the database's before somebody is told. Sessions go by the store's clock;
	// access tokens are refused by nodes that differ by more than a minute from the one that issued them.
	maxSkew       = 2 * time.Second
	checkClock    = time.Minute
	clockDeadline = 5 * time.Second
)

// watchClock compares this node's clock with the database's, which all nodes share.
func (f *foundation) watchClock(ctx context.Context) error {
	ticker := time.NewTicker(checkClock)
	defer ticker.Stop()
	for {
		f.compareClocks(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// compareClocks allows for the time that asking takes. A database that does not answer is others' to complain about.
func (f *foundation) compareClocks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, clockDeadline)
	defer cancel()
	before := f.clock()
	theirs, err := f.db.Clock(ctx)
	after := f.clock()
	if err != nil {
		return
	}
	ahead := max(before.Sub(theirs), theirs.Sub(after))
	if ahead > maxSkew {
		f.log.LogAttrs(ctx, slog.LevelError, "this machine's clock differs from the database's; synchronise both (NTP)",
			slog.Float64("difference_seconds", ahead.Seconds()))
	}
}
