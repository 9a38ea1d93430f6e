package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestWithdrawnKeys(t *testing.T) {
	onEach(t, []test{{"forgotten", testWithdrawnKeys}})
}

// A key of the keyring that became known must be worthless on every node that hears of it, whoever has verified what it made before, and
// also when the news is forgotten; and a node that cannot read its keys at that moment does so later.
func testWithdrawnKeys(t *testing.T, p *place) {
	c := clocktest.Noon()
	var keys [2]*keyring.Keyring
	nodes := make([]*node, len(keys))
	for i := range nodes {
		var tokens *token.Service
		nodes[i] = newNode(t, p.again(t), session.DefaultConfig(), c.Now, func(d *session.Deps) { keys[i], tokens = d.Keyring, d.Tokens })
		var err error
		nodes[i].verifier, err = auth.New(auth.Config{
			Issuer: issuer, Audience: issuer, Keys: tokens, Opener: tokens, Revocations: nodes[i].Revocations(), Clock: c.Now,
		})
		must(t, err)
	}
	n, other := nodes[0], nodes[1]
	stolen := n.signIn(t, session.Start{ClientID: "shop", Form: session.Form{Opaque: true}})
	for _, n := range nodes {
		n.claims(t, stolen.Tokens.Access)
	}
	c.Advance(2 * time.Second) // from when on a key that is not known is looked for
	withdraw(t, n, keys[0], token.OpaquePurpose, func(key keyring.Key) string { return token.OpaqueKeyID(key.ID) })

	damaged := n.damageKeys(t)
	if err := other.Apply(t.Context()); err == nil {
		t.Error("keys that cannot be read are not missed")
	}
	if _, err := other.verifier.Verify(t.Context(), stolen.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("while the keys cannot be read: %v", err)
	}
	damaged()
	for _, n := range nodes {
		must(t, n.Apply(t.Context()))
		if _, err := n.verifier.Verify(t.Context(), stolen.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("a token of a withdrawn key: %v", err)
		}
	}
	for i, k := range keys {
		if _, err := k.ByID(t.Context(), token.OpaquePurpose, 1); !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("node %d still knows the key: %v", i, err)
		}
	}
	fresh := other.signIn(t, session.Start{ClientID: "shop", Form: session.Form{Opaque: true}})
	n.claims(t, fresh.Tokens.Access)

	withdraw(t, n, keys[0], session.MACPurpose, func(key keyring.Key) string { return "refresh" })
	must(t, other.Apply(t.Context()))
	if _, err := other.Refresh(t.Context(), fresh.Tokens.Refresh, laptop); !errors.Is(err, session.ErrInvalidGrant) {
		t.Errorf("a refresh token under a withdrawn key: %v", err)
	}
	again := n.signIn(t, session.Start{})
	other.refresh(t, again.Tokens.Refresh)
}

// withdraw does what the command does.
func withdraw(t *testing.T, n *node, k *keyring.Keyring, purpose string, named func(keyring.Key) string) {
	t.Helper()
	_, err := k.Withdraw(t.Context(), purpose, func(ctx context.Context, tx sqldb.Tx, old []keyring.Key) error {
		for _, key := range old {
			if err := n.RevokeTx(ctx, tx, session.OfKeys(named(key))...); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
}

// damageKeys makes the keys in the database unreadable until it is undone.
func (n *node) damageKeys(t *testing.T) (undo func()) {
	t.Helper()
	const turn = `UPDATE keyring_keys SET id = id + $1 WHERE purpose = $2`
	shift := func(by int) {
		_, err := n.db.Writer().ExecContext(t.Context(), turn, by, token.OpaquePurpose)
		must(t, err)
	}
	shift(100) // the number is sealed with the key
	return func() { shift(-100) }
}
