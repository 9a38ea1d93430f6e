package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/sumunio/sumun/internal/sqldb"
)

type serveCommand struct {
	serverFlags
	Modules []string `arg:"" optional:"" name:"module" help:"Modules to serve; all of them when none is named."`
}

// Help implements kong.HelpProvider.
func (serveCommand) Help() string {
	return `Without any configuration Sumun keeps everything in ./sumun-data, on SQLite, and shows its mail in a mailbox for
developers. It prints where to go, and how the first administrator gets in.

Examples:

  sumun serve
  sumun serve --listen 127.0.0.1:8000 --data /var/lib/sumun
  sumun serve identity --issuer https://id.example.com --config /etc/sumun.yaml
  sumun serve gateway --issuer https://id.example.com --config /etc/gateway.yaml
  SUMUN_DATABASE=postgres://sumun:secret@db/sumun sumun serve

A first SIGTERM or SIGINT lets requests in flight finish; a second one ends the process at once.`
}

func (c *serveCommand) Run(ctx context.Context, p *program) error {
	selected, err := selectModules(c.Modules)
	if err != nil {
		return err
	}
	from := newSource(c.Config, p.env, c.flags(), selected)
	cfg, err := from.load()
	if err != nil {
		return err
	}
	err = serve(ctx, cfg, from, p.stdout, p.stderr)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // told to stop while it was starting
	}
	return err
}

type migrateCommand struct {
	storeFlags
	Status bool `help:"Only print what is still to be done."`
}

// Help implements kong.HelpProvider.
func (migrateCommand) Help() string {
	return `"serve" does this by itself; it is a command of its own for deployments that want it as a step of its own. It may run
while the previous version serves, and in several places at once.

Examples:

  sumun migrate --status
  sumun migrate --database postgres://sumun:secret@db/sumun`
}

func (c *migrateCommand) Run(ctx context.Context, p *program) error {
	if c.Status {
		return c.printPending(ctx, p)
	}
	return c.with(ctx, p, open, func(f *foundation) error {
		_, err := fmt.Fprintf(p.stdout, "%s is up to date\n", f.db.Name())
		return err
	})
}

// printPending changes nothing: a SQLite file that does not exist is not made.
func (c *migrateCommand) printPending(ctx context.Context, p *program) (err error) {
	cfg, err := newSource(c.Config, p.env, c.flags(), modules()).load()
	if err != nil {
		return err
	}
	if err := databaseExists(cfg); err != nil {
		return err
	}
	db, err := sqldb.Open(ctx, cfg.SQL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	pending, err := sqldb.Pending(ctx, db, allTables()...)
	if err != nil {
		return err
	}
	for _, name := range pending {
		fmt.Fprintf(p.stdout, "pending  %s\n", name)
	}
	_, err = fmt.Fprintf(p.stdout, "%s has %d pending migrations\n", db.Name(), len(pending))
	return err
}
