package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sumunio/sumun/internal/oidc"
)

type clientCommands struct {
	Add          clientAddCommand          `cmd:"" help:"Add a client, and print its secret."`
	List         clientListCommand         `cmd:"" help:"List the clients."`
	Show         clientShowCommand         `cmd:"" help:"Print what is known of a client."`
	RotateSecret clientRotateSecretCommand `cmd:"" help:"Give a client a new secret, and print it."`
	Disable      clientDisableCommand      `cmd:"" help:"Disable a client: it gets no tokens, and those it has are refused."`
	Enable       clientEnableCommand       `cmd:"" help:"Let a disabled client ask for tokens again."`
	Remove       clientRemoveCommand       `cmd:"" help:"Forget a client. The tokens it has are refused."`

	RegistrationToken registrationTokenCommands `cmd:"" help:"Tokens with which programs register themselves."`
}

type clientAddCommand struct {
	storeFlags
	Name        string   `required:"" help:"What people call the program." placeholder:"NAME"`
	ID          string   `help:"Its id; without it a random one." placeholder:"ID"`
	Public      bool     `help:"It runs on people's own devices and can keep no secret."`
	Grant       []string `help:"Grant it may use; may be repeated. Without it authorization_code and refresh_token." placeholder:"GRANT"`
	Scope       []string `help:"Scope it may ask for; may be repeated." placeholder:"SCOPE"`
	Resource    []string `help:"Audience of its tokens, a URI; may be repeated. Without it Sumun itself." placeholder:"URI"`
	RedirectURI []string `help:"Where people come back to; may be repeated." placeholder:"URI" sep:"none"`
	PostLogout  []string `name:"post-logout-redirect-uri" help:"Where people may be sent after they signed out; may be repeated." placeholder:"URI" sep:"none"`
	Backchannel string   `name:"backchannel-logout-uri" help:"Told when a session ends." placeholder:"URI"`
	FrontLogout string   `name:"frontchannel-logout-uri" help:"Loaded in a frame by the browser whose session ends; on the host of a redirect URI." placeholder:"URI"`
	Keys        string   `help:"File with the JWK Set whose keys it signs assertions with, instead of a secret (private_key_jwt)." placeholder:"FILE" xor:"keys"`
	KeysURI     string   `name:"jwks-uri" help:"Where it publishes these keys, instead of a file: an https URI." placeholder:"URI" xor:"keys"`
	Pairwise    bool     `help:"It knows people by names that are for it alone, not by the ids of their accounts. This cannot be changed later."`
	Sector      string   `name:"sector-identifier-uri" help:"With --pairwise: a JSON array of its redirect URIs, whose host is who knows people by the same names. Needed where they have several hosts." placeholder:"URI"`
	SelfSigned  bool     `help:"With --keys or --jwks-uri: it proves itself with a TLS certificate of one of them (self_signed_tls_client_auth)."`
	SubjectDN   string   `name:"tls-subject-dn" help:"It proves itself with a TLS certificate of this subject, by one of tls.client_certificates.ca_file (tls_client_auth)." placeholder:"DN"`
	SANDNS      string   `name:"tls-san-dns" help:"The same, for a host name in the certificate." placeholder:"NAME"`
	SANURI      string   `name:"tls-san-uri" help:"The same, for a URI." placeholder:"URI"`
	SANIP       string   `name:"tls-san-ip" help:"The same, for an address." placeholder:"ADDRESS"`
	SANEmail    string   `name:"tls-san-email" help:"The same, for a mail address." placeholder:"ADDRESS"`
	BindTokens  bool     `name:"certificate-bound-tokens" help:"Its tokens are good over connections with its TLS certificate only (RFC 8705)."`
	Opaque      bool     `name:"opaque-tokens" help:"Its access tokens say nothing to others: services ask /oauth/introspect about them."`
	Legacy      []string `name:"legacy-grant" enum:"implicit,password" help:"For an old application while it is replaced: implicit or password; may be repeated. Prints what is lost by it." placeholder:"GRANT"`
	RequestKeys string   `name:"request-keys" help:"File with the JWK Set whose keys it signs its requests with (JAR), beside its other proof." placeholder:"FILE" xor:"keys"`
	RequestAlg  string   `name:"request-alg" help:"The only signature that its requests may have: ES256, EdDSA, RS256 or PS256." placeholder:"ALG"`
	RequireJAR  bool     `name:"require-signed-requests" help:"Refuse sign-ins whose requests it did not sign (JAR)."`
	RequestOnce bool     `name:"request-once" help:"Take each signed request once, by its jti."`
	RequirePAR  bool     `name:"require-par" help:"Refuse sign-ins that it did not announce (PAR)."`
	RequirePKCE bool     `name:"require-pkce" help:"Refuse sign-ins without PKCE. Public clients always need it."`
	Trusted     bool     `help:"It is your own: people are not asked whether it may know them."`
	JSON        bool     `help:"Print a JSON object."`
}

// Help implements kong.HelpProvider.
func (clientAddCommand) Help() string {
	return `A client is a program that asks for tokens at /oauth/token. The secret is printed once and cannot be read again; rotate it
when it is lost. Works whether the server runs or not.

Examples:

  sumun client add --name "Billing" --id billing --grant client_credentials --scope revocations:read
  sumun client add --name "Shop" --redirect-uri https://shop.example.com/callback --scope openid --scope email
  sumun client add --name "Shop app" --public --redirect-uri com.example.shop:/callback --scope openid
  sumun client add --name "Ledger" --grant client_credentials --tls-subject-dn "CN=ledger,O=Example" --certificate-bound-tokens`
}

func (c *clientAddCommand) Run(ctx context.Context, p *program) error {
	m := oidc.Metadata{
		Name: c.Name, GrantTypes: c.Grant, Scope: strings.Join(c.Scope, " "), Resources: c.Resource, RedirectURIs: c.RedirectURI,
		PostLogoutRedirectURIs: c.PostLogout, BackchannelLogoutURI: c.Backchannel, FrontchannelLogoutURI: c.FrontLogout,
		RequirePKCE: c.RequirePKCE, RequirePAR: c.RequirePAR, Trusted: c.Trusted,
		JWKSURI: c.KeysURI, SectorIdentifierURI: c.Sector,
		RequestObjectAlg: c.RequestAlg, RequireRequestObject: c.RequireJAR, RequestObjectOnce: c.RequestOnce,
	}
	m.CertificateNames = oidc.CertificateNames{SubjectDN: c.SubjectDN, DNS: c.SANDNS, URI: c.SANURI, IP: c.SANIP, Email: c.SANEmail}
	var err error
	if m.AuthMethod, err = c.proof(m.CertificateNames); err != nil {
		return err
	}
	if c.Pairwise {
		m.SubjectType = oidc.SubjectPairwise
	}
	if file := cmp.Or(c.Keys, c.RequestKeys); file != "" {
		keys, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the client's keys: %w", err)
		}
		m.Keys = keys
	}
	if c.Opaque {
		m.AccessToken = oidc.TokensOpaque
	}
	m.BindTokens, m.LegacyGrants = c.BindTokens, c.Legacy
	return c.with(ctx, p, open, withIdentity(func(s *identityServices) error {
		client, secret, err := s.clients.AddClient(ctx, c.ID, m)
		if err != nil {
			return err
		}
		for _, grant := range c.Legacy {
			if _, err := fmt.Fprintln(p.stderr, "warning: "+oidc.LegacyLoss(grant)); err != nil {
				return err
			}
		}
		return printSecret(p.stdout, c.JSON, client.ID, secret)
	}))
}

// proof is how the client proves itself: "" by a secret. Flags that contradict each other are refused, as one of them would be passed over.
func (c *clientAddCommand) proof(names oidc.CertificateNames) (string, error) {
	keys, named := c.Keys != "" || c.KeysURI != "", names != (oidc.CertificateNames{})
	switch {
	case c.Public && (keys || named || c.SelfSigned):
		return "", usageError{errors.New("--public is for programs that cannot prove themselves; leave it out, or the keys and certificates")}
	case c.Keys != "" && named:
		return "", usageError{errors.New("--keys and the --tls flags are two ways to prove itself; choose one (--request-keys is for signed requests)")}
	case c.SelfSigned && !keys:
		return "", usageError{errors.New("--self-signed needs --keys or --jwks-uri, with the keys of the certificates")}
	case c.SelfSigned && named:
		return "", usageError{errors.New("--self-signed and the --tls flags are two ways to prove itself; choose one")}
	case c.Public:
		return oidc.AuthNone, nil
	case named:
		return oidc.AuthTLS, nil
	case c.SelfSigned:
		return oidc.AuthSelfSigned, nil
	case keys:
		return oidc.AuthPrivateKey, nil
	}
	return "", nil
}

// printSecret prints how a client proves itself, for a person or for a program.
func printSecret(w io.Writer, asJSON bool, id, secret string) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret,omitempty"`
		}{id, secret})
	}
	text := "client_id      " + id + "\n"
	if secret != "" {
		text += "client_secret  " + secret + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

type clientRotateSecretCommand struct {
	clientID
	Overlap time.Duration `help:"How long the old secret goes on working (oauth.secret_overlap). 0s if it is known to others." default:"-1s" placeholder:"DURATION"`
	JSON    bool          `help:"Print a JSON object."`
}

// Help implements kong.HelpProvider.
func (clientRotateSecretCommand) Help() string {
	return `Examples:

  sumun client rotate-secret billing
  sumun client rotate-secret billing --overlap 0s`
}

func (c *clientRotateSecretCommand) Run(ctx context.Context, p *program) error {
	return c.change(ctx, p, func(s *identityServices) error {
		overlap := c.Overlap
		if overlap < 0 {
			overlap = s.clients.SecretOverlap()
		}
		secret, err := s.clients.RotateSecret(ctx, c.ID, overlap)
		if err != nil {
			return err
		}
		return printSecret(p.stdout, c.JSON, c.ID, secret)
	})
}

// clientID is what the commands about one client have in common.
type clientID struct {
	storeFlags
	ID string `arg:"" help:"The client's id." placeholder:"ID"`
}

func (c clientID) change(ctx context.Context, p *program, do func(*identityServices) error) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		if err := do(s); err != nil {
			return fmt.Errorf("%s: %w", c.ID, err)
		}
		return nil
	}))
}

// clientStatus is a command that changes whether a client may ask for tokens.
type clientStatus struct{ clientID }

// Help implements kong.HelpProvider.
func (clientStatus) Help() string {
	return `Works whether the server runs or not. A running server refuses the client's access tokens within half a second.`
}

type clientDisableCommand struct{ clientStatus }

func (c *clientDisableCommand) Run(ctx context.Context, p *program) error {
	return c.change(ctx, p, func(s *identityServices) error {
		return done(p, s.clients.Disable(ctx, c.ID), c.ID+" is disabled")
	})
}

type clientEnableCommand struct{ clientStatus }

func (c *clientEnableCommand) Run(ctx context.Context, p *program) error {
	return c.change(ctx, p, func(s *identityServices) error {
		return done(p, s.clients.Enable(ctx, c.ID), c.ID+" is enabled")
	})
}

type clientRemoveCommand struct{ clientStatus }

func (c *clientRemoveCommand) Run(ctx context.Context, p *program) error {
	return c.change(ctx, p, func(s *identityServices) error {
		return done(p, s.clients.Remove(ctx, c.ID), c.ID+" is removed")
	})
}

func done(p *program, err error, text string) error {
	if err == nil {
		_, err = fmt.Fprintln(p.stdout, text)
	}
	return err
}

// listedClient is a client as a program reads it: what it registered, and what Sumun knows besides.
type listedClient struct {
	ID string `json:"client_id"`
	oidc.Metadata
	Disabled       bool      `json:"disabled"`
	SelfRegistered bool      `json:"self_registered"`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
}

func newListedClient(c oidc.Client) listedClient {
	return listedClient{c.ID, c.Metadata, !c.DisabledAt.IsZero(), c.SelfRegistered(), c.CreatedAt, c.UpdatedAt}
}

type clientShowCommand struct{ clientID }

// Help implements kong.HelpProvider.
func (clientShowCommand) Help() string {
	return `Prints a JSON object with the names of RFC 7591. Secrets are kept as hashes and cannot be shown.`
}

func (c *clientShowCommand) Run(ctx context.Context, p *program) error {
	return c.change(ctx, p, func(s *identityServices) error {
		client, err := s.clients.Client(ctx, c.ID)
		if err != nil {
			return err
		}
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(newListedClient(client))
	})
}

type clientListCommand struct {
	storeFlags
	JSON bool `help:"One JSON object a line."`
}

// Help implements kong.HelpProvider.
func (clientListCommand) Help() string {
	return `Examples:

  sumun client list
  sumun client list --json | jq -r 'select(.disabled).client_id'`
}

func (c *clientListCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		write, flush := c.writer(p.stdout)
		for after := ""; ; {
			clients, err := s.clients.Clients(ctx, after, listPage)
			if err != nil {
				return fmt.Errorf("list clients: %w", err)
			}
			for _, one := range clients {
				if err := write(one); err != nil {
					return err
				}
				after = one.ID
			}
			if len(clients) < listPage {
				return flush()
			}
		}
	}))
}

func (c *clientListCommand) writer(out io.Writer) (write func(oidc.Client) error, flush func() error) {
	if c.JSON {
		encoder := json.NewEncoder(out)
		return func(one oidc.Client) error { return encoder.Encode(newListedClient(one)) }, func() error { return nil }
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tPROOF\tGRANTS\tSCOPE\tSTATUS")
	return func(one oidc.Client) error {
		status := "active"
		if !one.DisabledAt.IsZero() {
			status = "disabled"
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n",
			one.ID, one.Name, one.AuthMethod, strings.Join(one.GrantTypes, ","), one.Scope, status)
		return err
	}, table.Flush
}
