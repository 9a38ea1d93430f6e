package app

import (
	"context"
	"errors"
	"fmt"
)

type configCommands struct {
	Default configDefaultCommand `cmd:"" help:"Print every key with its default and its meaning, as YAML."`
	Check   configCheckCommand   `cmd:"" help:"Check the configuration, and that everything it names answers."`
}

type configDefaultCommand struct{}

// Help implements kong.HelpProvider.
func (configDefaultCommand) Help() string {
	return `A configuration file needs only what differs from the defaults. As environment variables the keys are written in
capitals, with SUMUN_ in front and underscores for dots: log.level is SUMUN_LOG_LEVEL. Lists are separated by commas.
A secret can also be read from a file: SUMUN_MAIL_SMTP_PASSWORD_FILE.

Example:

  sumun config default > sumun.yaml`
}

func (configDefaultCommand) Run(p *program) error { return WriteDefaultConfig(p.stdout) }

type configCheckCommand struct {
	serverFlags
	Modules []string `arg:"" optional:"" name:"module" help:"Modules to check; all of them when none is named."`
}

// Help implements kong.HelpProvider.
func (configCheckCommand) Help() string {
	return `Prints a line for each thing that was tried, and ends with exit code 1 when one of them failed. It changes nothing.
The ports count as taken while Sumun itself runs.

Example:

  sumun config check --config /etc/sumun.yaml`
}

var errCheck = errors.New("the check found faults; mend what is marked above")

func (c *configCheckCommand) Run(ctx context.Context, p *program) error {
	selected, err := selectModules(c.Modules)
	if err != nil {
		return err
	}
	cfg, err := newSource(c.Config, p.env, c.flags(), selected).load()
	if err != nil {
		return err
	}
	cfg.deriveIssuer(cfg.Listen)
	failed := false
	for _, f := range check(ctx, cfg, tables(selected)) {
		state := "ok   "
		if f.err != nil {
			state, failed = "FAULT", true
			f.text = oneLine(f.err.Error())
		}
		fmt.Fprintf(p.stdout, "%s  %-14s  %s\n", state, f.what, f.text)
	}
	for _, warning := range cfg.warnings() {
		fmt.Fprintf(p.stdout, "warn   %s\n", warning)
	}
	if failed {
		return errCheck
	}
	return nil
}
