package oidc

import (
	"context"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	noteFirstUse = `UPDATE oauth_clients SET used_at = $1 WHERE id = $2 AND used_at = 0`

	unused     = ` registration <> '' AND used_at = 0 AND disabled_at = 0 AND removed_at = 0`
	listUnused = `SELECT id FROM oauth_clients WHERE updated_at < $1 AND` + unused + ` ORDER BY updated_at LIMIT $2`
	// Whoever obtains something at that moment either comes first, and the client stays, or gets a token that is dead.
	holdUnused = `UPDATE oauth_clients SET used_at = 0 WHERE id = $1 AND updated_at < $2 AND` + unused
)

// noteUsed notes that a client that registered itself has obtained something. Where that cannot be noted, the next time will do.
func (s *Service) noteUsed(ctx context.Context, c Client) {
	if !c.SelfRegistered() || c.used {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := s.deps.DB.Writer().ExecContext(ctx, noteFirstUse, sqldb.Micros(s.deps.Clock()), c.ID); err != nil {
		s.deps.Log.WarnContext(ctx, "the first use of a client is not noted", "client", c.ID, "error", err)
		return
	}
	s.known.Delete(c.ID)
}

// removeUnused removes clients that registered themselves and obtained nothing since, so that whoever can register cannot fill the table.
func (s *Service) removeUnused(ctx context.Context, now time.Time) error {
	if s.cfg.UnusedRegistrations == 0 {
		return nil
	}
	before := sqldb.Micros(now.Add(-s.cfg.UnusedRegistrations))
	for {
		ids, err := sqldb.All(ctx, s.deps.DB.Reader(), scanString, listUnused, before, sweepBatch)
		if err != nil {
			return err
		}
		for _, id := range ids {
			err := s.removeHeld(ctx, id, func(tx sqldb.Tx) error {
				return s.deps.Audit.Append(ctx, tx, audit.Event{Action: "client.removed", Detail: map[string]string{"client": id, "reason": "unused"}})
			}, func(tx sqldb.Tx) error { return changed(ctx, tx, holdUnused, id, before) })
			if err != nil && !errors.Is(err, ErrClientUnknown) { // which another node has removed, or which was used meanwhile
				return err
			}
		}
		if len(ids) < sweepBatch {
			return nil
		}
	}
}
