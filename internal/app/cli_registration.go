package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sumunio/sumun/internal/oidc"
)

// errRegistrationOff answers who wants to let programs in while the door is shut.
var errRegistrationOff = errors.New("programs may not register themselves: set oauth.registration to true, and restart the server")

type registrationTokenCommands struct {
	Add    registrationTokenAddCommand    `cmd:"" help:"Make a token with which programs register themselves, and print it."`
	List   registrationTokenListCommand   `cmd:"" help:"List the tokens that have not expired."`
	Remove registrationTokenRemoveCommand `cmd:"" help:"Remove a token. Programs that registered with it stay."`
}

type registrationTokenAddCommand struct {
	storeFlags
	Uses      int64         `help:"How many programs may register with it." default:"1" placeholder:"N"`
	ExpiresIn time.Duration `help:"How long it is good, at most 366 days." default:"24h" placeholder:"DURATION"`
	Scope     []string      `help:"Scope that they may ask for; may be repeated. Without it openid, profile, email and offline_access." placeholder:"SCOPE"`
	Grant     []string      `help:"Grant that they may use; may be repeated. Without it authorization_code and refresh_token." placeholder:"GRANT"`
	JSON      bool          `help:"Print a JSON object."`
}

// Help implements kong.HelpProvider.
func (registrationTokenAddCommand) Help() string {
	return `Whoever has the token may register programs at /oauth/register (RFC 7591), which people are then asked about as programs that
nobody has checked. It needs oauth.registration. The token is printed once and cannot be read again.

Examples:

  sumun client registration-token add
  sumun client registration-token add --uses 20 --expires-in 7d --scope openid --scope email`
}

func (c *registrationTokenAddCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, open, withIdentity(func(s *identityServices) error {
		if !s.clients.Registration() {
			return errRegistrationOff
		}
		t, secret, err := s.clients.AddInitialToken(ctx, oidc.NewInitialToken{
			Scope: strings.Join(c.Scope, " "), Grants: c.Grant, Uses: c.Uses, Life: c.ExpiresIn,
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return json.NewEncoder(p.stdout).Encode(struct {
				listedInitialToken
				Token string `json:"initial_access_token"`
			}{newListedInitialToken(t), secret})
		}
		_, err = fmt.Fprintf(p.stdout, "id                    %s\ninitial_access_token  %s\nexpires               %s\n", t.ID, secret, t.ExpiresAt.Format(time.RFC3339))
		return err
	}))
}

// listedInitialToken is a token as a program reads it.
type listedInitialToken struct {
	ID        string    `json:"id"`
	Scope     string    `json:"scope"`
	Grants    []string  `json:"grant_types"`
	Uses      int64     `json:"uses"` // that are left
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func newListedInitialToken(t oidc.InitialToken) listedInitialToken {
	return listedInitialToken{t.ID, t.Scope, t.Grants, t.Uses, t.CreatedAt, t.ExpiresAt}
}

type registrationTokenListCommand struct {
	storeFlags
	JSON bool `help:"One JSON object a line."`
}

func (c *registrationTokenListCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		encoder := json.NewEncoder(p.stdout)
		if !c.JSON {
			fmt.Fprintln(table, "ID\tUSES LEFT\tSCOPE\tGRANTS\tEXPIRES")
		}
		for after := ""; ; {
			tokens, err := s.clients.InitialTokens(ctx, after, listPage)
			if err != nil {
				return fmt.Errorf("list registration tokens: %w", err)
			}
			for _, t := range tokens {
				after = t.ID
				if c.JSON {
					err = encoder.Encode(newListedInitialToken(t))
				} else {
					_, err = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\n", t.ID, t.Uses, t.Scope, strings.Join(t.Grants, ","), t.ExpiresAt.Format(time.RFC3339))
				}
				if err != nil {
					return err
				}
			}
			if len(tokens) < listPage {
				return table.Flush()
			}
		}
	}))
}

type registrationTokenRemoveCommand struct {
	storeFlags
	ID string `arg:"" help:"The token's id, as client registration-token list shows it." placeholder:"ID"`
}

func (c *registrationTokenRemoveCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		if err := s.clients.RemoveInitialToken(ctx, c.ID); err != nil {
			return fmt.Errorf("%s: %w", c.ID, err)
		}
		return done(p, nil, c.ID+" is removed")
	}))
}
