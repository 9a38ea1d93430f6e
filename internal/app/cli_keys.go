package app

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/token"
)

type keysCommands struct {
	Rotate keysRotateCommand `cmd:"" help:"Make a new key, besides the schedule."`
}

type keysRotateCommand struct {
	storeFlags
	Kind      string `enum:"signing,pepper,refresh" default:"signing" help:"signing: of access tokens; pepper: of passwords; refresh: of refresh tokens." placeholder:"KIND"`
	Now       bool   `help:"signing: sign with the new key at once, before every service has fetched it."`
	RevokeOld bool   `help:"signing: the old keys are known to others. Deletes them, and with them every access token."`
}

// Help implements kong.HelpProvider.
func (keysRotateCommand) Help() string {
	return `Signing keys rotate by themselves (tokens.key_lifetime); this is for the time between. Running servers follow within
seconds. Without --now the new key is published first and signs some minutes later, so that no service meets a token it
cannot verify. Nobody is signed out, by --revoke-old neither: clients refresh.

A new pepper reaches each password at its next sign-in, a new refresh key each session at its next refresh.

Examples:

  sumun keys rotate
  sumun keys rotate --revoke-old
  sumun keys rotate --kind pepper --database postgres://sumun:secret@db/sumun`
}

func (c *keysRotateCommand) Run(ctx context.Context, p *program) error {
	if c.Kind != "signing" && (c.Now || c.RevokeOld) {
		return usageError{fmt.Errorf("--now and --revoke-old are for signing keys; leave them out with --kind %s", c.Kind)}
	}
	return c.withExisting(ctx, p, func(f *foundation) error {
		switch c.Kind {
		case "pepper":
			return rotateSecret(ctx, p, f, password.PepperPurpose, "peppers")
		case "refresh":
			return rotateSecret(ctx, p, f, session.MACPurpose, "refresh keys")
		}
		tokens, err := token.New(f.cfg.Tokens, token.Deps{
			DB: f.db, Keyring: f.keyring, Issuer: f.cfg.Issuer, Clock: f.clock, Log: f.log,
		})
		if err != nil {
			return err
		}
		if err := tokens.Rotate(ctx, token.RotateOptions{Now: c.Now, RevokeOld: c.RevokeOld}); err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.stdout, "signing keys rotated")
		return err
	})
}

func rotateSecret(ctx context.Context, p *program, f *foundation, purpose, what string) error {
	key, err := f.keyring.Rotate(ctx, purpose)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s rotated: number %d is in use within a minute\n", what, key.ID)
	return err
}
