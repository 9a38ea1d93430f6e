package app

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/internal/identity/password"
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
	Kind      string `enum:"signing,pepper,refresh,opaque" default:"signing" help:"signing: of access tokens; pepper: of passwords; refresh: of refresh tokens; opaque: of opaque access tokens." placeholder:"KIND"`
	Now       bool   `help:"signing: sign with the new key at once, before every service has fetched it."`
	RevokeOld bool   `help:"signing: the old keys are known to others. Deletes them, and with them every access token that they signed; opaque ones live on."`
}

// Help implements kong.HelpProvider.
func (keysRotateCommand) Help() string {
	return `Signing keys rotate by themselves (tokens.key_lifetime); this is for the time between. The new key is published at once, and
running servers know it within 30 seconds. They sign with it 6 minutes later, when no service has an older copy of the key
set any more; with --now as soon as they know it, so that a service that does not fetch the key set for a key it has not
seen refuses their tokens for up to 5 minutes. With --revoke-old servers, and services that follow the revocation feed, refuse
the old keys' tokens within half a second; other services once they have fetched the key set anew, within 5 minutes. Nobody is
signed out by any of it: clients refresh.

A new pepper, refresh or opaque key is used a minute later. The pepper reaches each password at its next sign-in, the refresh key
each session at its next refresh.

Examples:

  sumun keys rotate
  sumun keys rotate --revoke-old
  sumun keys rotate --kind pepper --database postgres://sumun:secret@db/sumun`
}

func (c *keysRotateCommand) Run(ctx context.Context, p *program) error {
	if c.Kind != "signing" && (c.Now || c.RevokeOld) {
		return usageError{fmt.Errorf("--now and --revoke-old are for signing keys; leave them out with --kind %s", c.Kind)}
	}
	return c.with(ctx, p, openExisting, func(f *foundation) error {
		switch c.Kind {
		case "pepper":
			return rotateSecret(ctx, p, f, password.PepperPurpose, "peppers")
		case "refresh":
			return rotateSecret(ctx, p, f, session.MACPurpose, "refresh keys")
		case "opaque":
			return rotateSecret(ctx, p, f, token.OpaquePurpose, "opaque token keys")
		}
		return withIdentity(func(s *identityServices) error { return c.rotateSigning(ctx, p, s) })(f)
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
	_, err = fmt.Fprintln(p.stdout, "signing keys rotated")
	return err
}

func rotateSecret(ctx context.Context, p *program, f *foundation, purpose, what string) error {
	key, err := f.keyring.Rotate(ctx, purpose)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s rotated: number %d is used from a minute from now\n", what, key.ID)
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
