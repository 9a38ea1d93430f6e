package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sumunio/sumun/internal/oidc"
)

type apiKeyCommands struct {
	Add    apiKeyAddCommand    `cmd:"" help:"Give a client an API key, and print it."`
	List   apiKeyListCommand   `cmd:"" help:"List the API keys."`
	Revoke apiKeyRevokeCommand `cmd:"" help:"Revoke an API key. It is refused from now on."`
}

type apiKeyAddCommand struct {
	storeFlags
	Client    string        `required:"" help:"The client that the key belongs to." placeholder:"ID"`
	Name      string        `required:"" help:"What people call the key." placeholder:"NAME"`
	Scope     []string      `help:"Scope that the key has, of those of the client; may be repeated. Without it none." placeholder:"SCOPE"`
	Audience  []string      `help:"Resource of the client that the key is for; may be repeated. Without it all, or Sumun itself." placeholder:"URI"`
	ExpiresIn time.Duration `help:"How long the key is good, at most five years." default:"90d" placeholder:"DURATION"`
	JSON      bool          `help:"Print a JSON object."`
}

// Help implements kong.HelpProvider.
func (apiKeyAddCommand) Help() string {
	return `A key is for programs that cannot ask for tokens, at routes of the gateway that say api_keys: true. It acts as its client, with
the scope it was given. It is printed once and cannot be read again. Works whether the server runs or not.

Examples:

  sumun apikey add --client billing --name "Nightly export" --scope orders:read
  sumun apikey add --client billing --name "Import on Friday" --scope orders:write --expires-in 3d`
}

func (c *apiKeyAddCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		k, key, err := s.clients.AddKey(ctx, oidc.NewAPIKey{
			ClientID: c.Client, Name: c.Name, Scope: strings.Join(c.Scope, " "), Audience: c.Audience, Life: c.ExpiresIn,
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.Client, err)
		}
		return printKey(p.stdout, c.JSON, k, key.Reveal())
	}))
}

// printKey prints a key, for a person or for a program.
func printKey(w io.Writer, asJSON bool, k oidc.APIKey, key string) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			ID        string    `json:"id"`
			Key       string    `json:"api_key"`
			ExpiresAt time.Time `json:"expires_at"`
		}{k.ID, key, k.ExpiresAt})
	}
	_, err := fmt.Fprintf(w, "id       %s\napi_key  %s\nexpires  %s\n", k.ID, key, k.ExpiresAt.Format(time.RFC3339))
	return err
}

type apiKeyRevokeCommand struct {
	storeFlags
	ID string `arg:"" help:"The key's id, as apikey list shows it: what stands between the first two underscores of the key." placeholder:"ID"`
}

// Help implements kong.HelpProvider.
func (apiKeyRevokeCommand) Help() string {
	return `Works whether the server runs or not. A running server, and every gateway that follows it, refuses the key within half a second.`
}

func (c *apiKeyRevokeCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		if err := s.clients.RevokeKey(ctx, c.ID); err != nil {
			return fmt.Errorf("%s: %w", c.ID, err)
		}
		return done(p, nil, c.ID+" is revoked")
	}))
}

// listedKey is a key as a program reads it. Times that have not come are left out.
type listedKey struct {
	ID        string     `json:"id"`
	ClientID  string     `json:"client_id"`
	Name      string     `json:"name"`
	Scope     string     `json:"scope,omitempty"`
	Audience  []string   `json:"audience,omitempty"`
	Status    string     `json:"status"` // active, expired, revoked
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt time.Time  `json:"expires_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"` // to the hour
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

func newListedKey(k oidc.APIKey, now time.Time) listedKey {
	l := listedKey{
		ID: k.ID, ClientID: k.ClientID, Name: k.Name, Scope: k.Scope, Audience: k.Audience, Status: "active",
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
	}
	if !k.UsedAt.IsZero() {
		l.UsedAt = &k.UsedAt
	}
	switch {
	case !k.RevokedAt.IsZero():
		l.Status, l.RevokedAt = "revoked", &k.RevokedAt
	case !now.Before(k.ExpiresAt):
		l.Status = "expired"
	}
	return l
}

type apiKeyListCommand struct {
	storeFlags
	JSON bool `help:"One JSON object a line."`
}

// Help implements kong.HelpProvider.
func (apiKeyListCommand) Help() string {
	return `Keys that are over are listed for 90 days. When a key was used is known to the hour.

Examples:

  sumun apikey list
  sumun apikey list --json | jq -r 'select(.status == "active" and .used_at == null).id'`
}

func (c *apiKeyListCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		write, flush := c.writer(p.stdout)
		for after := ""; ; {
			keys, err := s.clients.Keys(ctx, after, listPage)
			if err != nil {
				return fmt.Errorf("list API keys: %w", err)
			}
			for _, k := range keys {
				if err := write(newListedKey(k, time.Now())); err != nil {
					return err
				}
				after = k.ID
			}
			if len(keys) < listPage {
				return flush()
			}
		}
	}))
}

func (c *apiKeyListCommand) writer(out io.Writer) (write func(listedKey) error, flush func() error) {
	if c.JSON {
		encoder := json.NewEncoder(out)
		return func(k listedKey) error { return encoder.Encode(k) }, func() error { return nil }
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tCLIENT\tNAME\tSCOPE\tEXPIRES\tUSED\tSTATUS")
	return func(k listedKey) error {
		used := "never"
		if k.UsedAt != nil {
			used = k.UsedAt.Format(time.DateOnly)
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			k.ID, k.ClientID, k.Name, k.Scope, k.ExpiresAt.Format(time.DateOnly), used, k.Status)
		return err
	}, table.Flush
}
