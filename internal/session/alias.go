package session

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

const (
	insertAlias = `INSERT INTO session_aliases (kind, hash, alias, keep_until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (kind, hash, alias) DO UPDATE SET keep_until = CASE
			WHEN session_aliases.keep_until < excluded.keep_until THEN excluded.keep_until ELSE session_aliases.keep_until END`
	findAliases = `SELECT alias FROM session_aliases WHERE kind = $1 AND hash = $2`
)

// Narrow makes an access token say less than was granted. It may also give the person and the session other names than the true ones,
// the same for all tokens of a grant: what ends the one, ends what goes by the other.
type Narrow func(granted *token.Grant) error

// alias notes in the transaction that decides on a grant by which other names its tokens call person and session. Whatever ends a session
// or raises an epoch holds the person's lock, as this transaction does: it came before, which firstTokens looks for, or it will find
// the names.
func (s *Service) alias(ctx context.Context, tx sqldb.Tx, o *opening) error {
	if o.start.Narrow == nil {
		return nil
	}
	truth := granted(o)
	said := truth
	if err := o.start.Narrow(&said); err != nil {
		return err
	}
	o.noted = o.end
	until := sqldb.Micros(o.end.Add(revocationLifetime))
	for _, one := range []struct {
		kind        auth.RevocationKind
		true, alias string
	}{{auth.RevokeSubject, truth.Subject, said.Subject}, {auth.RevokeSession, truth.SessionID, said.SessionID}} {
		if one.true == one.alias {
			continue
		}
		hash, alias := auth.RevocationHash(one.kind, one.true), auth.RevocationHash(one.kind, one.alias)
		if _, err := tx.ExecContext(ctx, insertAlias, string(one.kind), hash[:], alias[:], until); err != nil {
			return fmt.Errorf("note alias: %w", err)
		}
	}
	return nil
}

// keepAliases is for who learns only now when the session ends at the latest, which is later than was thought when the aliases were noted: it
// began when sessions lived longer. It comes before the first token that carries an alias.
func (s *Service) keepAliases(ctx context.Context, o *opening) error {
	if o.start.Narrow == nil || !o.end.After(o.noted) {
		return nil
	}
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error { return s.alias(ctx, tx, o) })
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// withAliases adds to revocations those of the other names of what they name.
func withAliases(ctx context.Context, tx sqldb.Tx, revocations []auth.Revocation) ([]auth.Revocation, error) {
	all := revocations
	for _, r := range revocations {
		if r.Kind != auth.RevokeSession && r.Kind != auth.RevokeSubject {
			continue
		}
		aliases, err := sqldb.All(ctx, tx, scanBytes, findAliases, string(r.Kind), r.ID[:])
		if err != nil {
			return nil, fmt.Errorf("find aliases: %w", err)
		}
		for _, alias := range aliases {
			other := auth.Revocation{Kind: r.Kind, Epoch: r.Epoch}
			copy(other.ID[:], alias)
			all = append(all, other)
		}
	}
	return all, nil
}

// overtaken is ErrOvertaken where what a grant's tokens would say was revoked before the grant was decided on: under other names nobody
// would notice.
func (s *Service) overtaken(ctx context.Context, truth token.Grant) error {
	if _, err := s.feed.pull(ctx); err != nil {
		return unavailable(err)
	}
	if s.feed.revoked.Revoked(&auth.Claims{Subject: truth.Subject, SessionID: truth.SessionID, Epoch: truth.Epoch}) {
		return ErrOvertaken
	}
	return nil
}

func scanBytes(r sqldb.Row) (b []byte, err error) {
	err = r.Scan(&b)
	return b, err
}
