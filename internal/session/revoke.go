package session

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
)

// OfGrant revokes the access tokens of a client's grant, by the grant's id. It ends no refresh family: EndGrant does.
func OfGrant(id string) auth.Revocation { return revocation(auth.RevokeGrant, id, 0) }

// OfToken revokes one access token, by its jti.
func OfToken(id string) auth.Revocation { return revocation(auth.RevokeToken, id, 0) }

// OfClient revokes the access tokens of a client that carry a lower epoch.
func OfClient(clientID string, epoch int64) auth.Revocation {
	return revocation(auth.RevokeClient, clientID, epoch)
}

// OfKeys revokes everything that was signed with keys.
func OfKeys(kids ...string) []auth.Revocation {
	all := make([]auth.Revocation, len(kids))
	for i, kid := range kids {
		all[i] = revocation(auth.RevokeKey, kid, 0)
	}
	return all
}

func revocation(kind auth.RevocationKind, id string, epoch int64) auth.Revocation {
	return auth.Revocation{Kind: kind, ID: auth.RevocationHash(kind, id), Epoch: epoch}
}

// RevokeTx writes revocations into the feed in the caller's transaction. Call Apply once it has committed. The feed's counter is
// locked from here to the commit, so this belongs at the transaction's end.
func (s *Service) RevokeTx(ctx context.Context, tx sqldb.Tx, revocations ...auth.Revocation) error {
	if len(revocations) == 0 {
		return nil
	}
	if _, err := s.feed.append(ctx, tx, revocations...); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// Revoke is RevokeTx in a transaction of its own. Before it returns this node refuses what was revoked.
func (s *Service) Revoke(ctx context.Context, revocations ...auth.Revocation) error {
	var written []auth.Revocation
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		written, err = s.feed.append(ctx, tx, revocations...)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	s.feed.committed(written)
	return nil
}

// OfSession is what the end of a session is in the feed. To end one is for End.
func OfSession(id string) auth.Revocation { return revocation(auth.RevokeSession, id, 0) }

// Follow calls do with every revocation that this node knows and gets to know, in order, until ctx ends. After a failover that lost
// some, all come again.
func (s *Service) Follow(ctx context.Context, do func(context.Context, []auth.Revocation)) {
	at := bookmark{edition: -1}
	for {
		p := s.feed.journal.read(at, feedBatch)
		at = p.next
		if len(p.entries) > 0 {
			revocations := make([]auth.Revocation, len(p.entries))
			for i, e := range p.entries {
				revocations[i] = e.Revocation
			}
			do(ctx, revocations)
		}
		if p.more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.grown:
		}
	}
}
