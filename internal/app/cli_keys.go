package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

type keysCommands struct {
	Rotate keysRotateCommand `cmd:"" help:"Make a new key, besides the schedule."`
	Reseal keysResealCommand `cmd:"" help:"Seal all keys with the current master key."`
}

type keysRotateCommand struct {
	storeFlags
	Kind      string `enum:"signing,pepper,refresh,opaque,nonce,veil,assertion" default:"signing" help:"signing: of access tokens; pepper: of passwords; refresh: of refresh tokens; opaque: of opaque access tokens; nonce: of what clients prove keys with; veil: of pairwise clients' refresh tokens; assertion: of what the gateway tells services." placeholder:"KIND"`
	Now       bool   `help:"signing: sign with the new key at once, before every service has fetched it."`
	RevokeOld bool   `help:"The old keys are known to others. Deletes them: what was made with them is refused at once."`
}

// Help implements kong.HelpProvider.
func (keysRotateCommand) Help() string {
	return `Signing keys rotate by themselves (tokens.key_lifetime); this is for the time between. The new key is published at once, and
running servers know it within 30 seconds. They sign with it 6 minutes later, when no service has an older copy of the key
set any more; with --now as soon as they know it, so that a service that does not fetch the key set for a key it has not
seen refuses their tokens for up to 5 minutes. With --revoke-old servers, and services that follow the revocation feed, refuse
the old keys' tokens within half a second; other services once they have fetched the key set anew, within 5 minutes. Nobody is
signed out by any of it: clients refresh.

A new key of another kind is used a minute later. A pepper reaches each password at its next sign-in, a refresh or veil key each
session at its next refresh. With --revoke-old all servers use it, and refuse what was made with the old ones, within half a second:

  opaque     every opaque access token dies; clients refresh. JWTs that somebody exchanged forged ones for live until they
             expire: run this for the kind signing, too
  refresh    every refresh token is refused: everybody signs in again, except in browsers at Sumun's own pages
  nonce      proofs under an older nonce are answered with a new one, with which clients try again
  assertion  services that follow the feed refuse the old key's assertions at once, others within 5 minutes. Gateways with
             gateway.assertions.keys, or apart from identity, derive their key from the configuration: change it there

An old pepper cannot be withdrawn, as no password could be verified any more: by itself it opens nothing. Nor can a veil, which
hides ids and authenticates nothing.

Examples:

  sumun keys rotate
  sumun keys rotate --revoke-old
  sumun keys rotate --kind opaque --revoke-old
  sumun keys rotate --kind pepper --database postgres://sumun:secret@db/sumun`
}

func (c *keysRotateCommand) Run(ctx context.Context, p *program) error {
	kind, other := keyKinds[c.Kind]
	switch {
	case other && c.Now:
		return usageError{fmt.Errorf("--now is for signing keys; leave it out with --kind %s", c.Kind)}
	case other && c.RevokeOld && kind.named == nil:
		return usageError{fmt.Errorf("keys of --kind %s cannot be withdrawn: %s; leave --revoke-old out to rotate them", c.Kind, kind.stays)}
	case other && !c.RevokeOld && kind.brief:
		return usageError{fmt.Errorf("what keys of --kind %s make lives for a minute, so they are only withdrawn; add --revoke-old", c.Kind)}
	}
	return c.with(ctx, p, openExisting, func(f *foundation) error {
		if other && !c.RevokeOld {
			return kind.rotate(ctx, p, f)
		}
		if other && kind.purpose == assertionPurpose && len(f.cfg.Gateway.Assertions.Keys) > 0 {
			return errors.New("gateway.assertions.keys: is set, so keys of assertions are derived from it; put a new secret there in the place of the one that leaked")
		}
		return withIdentity(func(s *identityServices) error {
			if other {
				return kind.withdraw(ctx, p, f, s)
			}
			return c.rotateSigning(ctx, p, s)
		})(f)
	})
}

// rotateSigning writes revoked keys into the feed in the transaction that deletes them, so that whoever follows it refuses their
// tokens at once.
func (c *keysRotateCommand) rotateSigning(ctx context.Context, p *program, s *identityServices) error {
	err := s.tokens.Rotate(ctx, token.RotateOptions{Now: c.Now, RevokeOld: c.RevokeOld,
		Revoked: func(ctx context.Context, tx sqldb.Tx, kids []string) error {
			return s.sessions.RevokeTx(ctx, tx, session.OfKeys(kids...)...)
		},
	})
	if err != nil {
		return err
	}
	done := "signing keys rotated"
	if c.RevokeOld {
		done = "signing keys withdrawn: a new one is used in their place"
	}
	_, err = fmt.Fprintln(p.stdout, done)
	return err
}

// keyKind is a purpose of the keyring whose keys an operator can do something about.
type keyKind struct {
	purpose, what string
	// named is under which name what a key has made is revoked; nil where old keys cannot be withdrawn.
	named func(purpose string, key keyring.Key) (string, error)
	stays string // why they cannot, in words for the operator
	brief bool   // what its keys make is over so soon that old ones need not be kept
}

// keyKinds are all but the signing keys, which have a life of their own. Two purposes are not among them: pairwise names, which would all
// become others, and the marks of addresses in limits, which are over before anybody could rotate their key.
var keyKinds = map[string]keyKind{
	"pepper":    {purpose: password.PepperPurpose, what: "peppers", stays: "no password could be verified any more"},
	"refresh":   {purpose: session.MACPurpose, what: "refresh keys", named: byNumber},
	"opaque":    {purpose: token.OpaquePurpose, what: "opaque token keys", named: byOpaqueID},
	"nonce":     {purpose: session.NoncePurpose, what: "nonce keys", named: byNumber},
	"veil":      {purpose: oidc.VeilPurpose, what: "veil keys", stays: "they authenticate nothing, and what was hidden under them has left"},
	"assertion": {purpose: assertionPurpose, what: "assertion keys", named: byThumbprint, brief: true},
}

func byOpaqueID(_ string, key keyring.Key) (string, error) { return token.OpaqueKeyID(key.ID), nil }

func byThumbprint(_ string, key keyring.Key) (string, error) { return assertion.KeyID(key.Secret) }

// byNumber names a key by which no token is verified: that it is revoked only tells the nodes to forget it.
func byNumber(purpose string, key keyring.Key) (string, error) {
	return purpose + "-" + strconv.FormatUint(uint64(key.ID), 10), nil
}

func (k keyKind) rotate(ctx context.Context, p *program, f *foundation) error {
	key, err := f.keyring.Rotate(ctx, k.purpose)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s rotated: number %d is used from a minute from now\n", k.what, key.ID)
	return err
}

// withdraw writes the old keys into the feed in the transaction that deletes them: nodes that read it forget them, and refuse what they
// have verified before.
func (k keyKind) withdraw(ctx context.Context, p *program, f *foundation, s *identityServices) error {
	key, err := f.keyring.Withdraw(ctx, k.purpose, func(ctx context.Context, tx sqldb.Tx, old []keyring.Key) error {
		names := make([]string, len(old))
		for i, key := range old {
			var err error
			if names[i], err = k.named(k.purpose, key); err != nil {
				return err
			}
		}
		return s.sessions.RevokeTx(ctx, tx, session.OfKeys(names...)...)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s withdrawn: number %d is used in their place\n", k.what, key.ID)
	return err
}

type keysResealCommand struct{ storeFlags }

// Help implements kong.HelpProvider.
func (keysResealCommand) Help() string {
	return `The keys in the database are sealed with the master key. To replace that, in this order:

  1. Make the new key: (umask 077; head -c 32 /dev/urandom | base64 > new.key). List its file in
     keyring.previous_key_files of every node, and restart them: now all of them can open what it seals.
  2. Make it the master key of every node (master_key_file), list the old file in keyring.previous_key_files
     instead, and restart them.
  3. With that configuration, run this command.
  4. Remove the old file from keyring.previous_key_files. Keep it as long as the oldest backup of the database.

It may be run again, and while servers run.

Example:

  sumun keys reseal --config /etc/sumun.yaml`
}

func (c *keysResealCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, func(f *foundation) error {
		tokens, err := newTokens(f)
		if err != nil {
			return err
		}
		signing, err := tokens.Reseal(ctx)
		if err != nil {
			return err
		}
		others, err := f.keyring.Reseal(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "%d signing keys and %d other values sealed with the current master key\n", signing, others)
		return err
	})
}
