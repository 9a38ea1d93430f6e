package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sumunio/sumun/internal/identity"
	passwords "github.com/sumunio/sumun/internal/identity/password"
)

type userCommands struct {
	Add     userAddCommand     `cmd:"" help:"Add an account."`
	List    userListCommand    `cmd:"" help:"List the accounts."`
	Disable userDisableCommand `cmd:"" help:"Disable an account: its sessions end, and nobody can sign in to it."`
	Enable  userEnableCommand  `cmd:"" help:"Let people sign in to a disabled account again."`
	Release userReleaseCommand `cmd:"" help:"Take accounts from a directory that is not configured any more: they choose a password by mail."`
}

type userAddCommand struct {
	storeFlags
	Email         string   `required:"" help:"Address of the account." placeholder:"ADDRESS"`
	PasswordStdin bool     `required:"" help:"Read the password from standard input: its first line."`
	Name          string   `help:"What the person is called; without it, what stands before the @." placeholder:"NAME"`
	UserName      string   `help:"To sign in with instead of the address." placeholder:"NAME"`
	Role          []string `help:"Role of the account; may be repeated. The role of administrators is \"admin\"." placeholder:"ROLE"`
	Verified      bool     `help:"The address is known to be theirs."`
}

// Help implements kong.HelpProvider.
func (userAddCommand) Help() string {
	return `Works whether the server runs or not, as long as both use the same --data or --database.

Examples:

  sumun user add --email kim@example.com --name "Kim Minji" --password-stdin < password.txt
  printf %s "$PASSWORD" | sumun user add --email admin@example.com --password-stdin --role admin --verified`
}

// maxPasswordLine bounds what is read from standard input; the policy allows less.
const maxPasswordLine = 4096

func (c *userAddCommand) Run(ctx context.Context, p *program) error {
	password, err := readLine(p.stdin)
	if err != nil {
		return err
	}
	name := c.Name
	if name == "" {
		name, _, _ = strings.Cut(c.Email, "@")
	}
	cfg, err := c.load(p)
	if err != nil {
		return err
	}
	if err := checkPassword(cfg, p, password, passwords.Person{Email: c.Email, UserName: c.UserName, Name: name}); err != nil {
		return err
	}
	return c.with(ctx, p, open, withIdentity(func(s *identityServices) error {
		a, err := s.people.AddAccount(ctx, identity.NewAccount{
			Email: c.Email, Name: name, UserName: c.UserName, Password: password, Roles: c.Role, Verified: c.Verified,
		})
		if err != nil {
			return fmt.Errorf("add %s: %w", c.Email, err)
		}
		_, err = fmt.Fprintf(p.stdout, "added %s as %s\n", a.Email, a.ID)
		return err
	}))
}

// checkPassword refuses a password before anything is made for its sake.
func checkPassword(cfg Config, p *program, password string, person passwords.Person) (err error) {
	policy, err := passwords.OpenPolicy(cfg.Passwords.Policy, cfg.Log.logger(p.stderr))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, policy.Close()) }()
	broken := policy.Check(password, person)
	if len(broken) == 0 {
		return nil
	}
	rules := make([]string, len(broken))
	for i, rule := range broken {
		rules[i] = rule.Message()
	}
	return fmt.Errorf("the password is refused: %s", strings.Join(rules, " "))
}

// readLine reads the first line, without its end.
func readLine(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPasswordLine+1))
	if err != nil {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", errors.New("there is no password on standard input; give it as the first line")
	}
	if len(line) > maxPasswordLine {
		return "", fmt.Errorf("the password on standard input has more than %d bytes; choose a shorter one", maxPasswordLine)
	}
	return line, nil
}

// withIdentity connects the services of accounts on a foundation and hands them to do.
func withIdentity(do func(*identityServices) error) func(*foundation) error {
	return func(f *foundation) error {
		s, err := newIdentity(f)
		if err != nil {
			return err
		}
		f.closers = append(f.closers, s.policy.Close)
		return do(s)
	}
}

type userDisableCommand struct{ userStatus }

func (c *userDisableCommand) Run(ctx context.Context, p *program) error {
	return c.set(ctx, p, identity.Disabled)
}

type userEnableCommand struct{ userStatus }

func (c *userEnableCommand) Run(ctx context.Context, p *program) error {
	return c.set(ctx, p, identity.Active)
}

// userStatus is what the commands about an account's status have in common.
type userStatus struct {
	storeFlags
	Email string `arg:"" help:"Address of the account." placeholder:"ADDRESS"`
}

// Help implements kong.HelpProvider.
func (userStatus) Help() string {
	return `Works whether the server runs or not. A running server refuses the account's access tokens within a second.`
}

func (c userStatus) set(ctx context.Context, p *program, status identity.Status) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		a, err := s.people.AccountByAddress(ctx, c.Email)
		if err == nil {
			err = s.people.SetStatus(ctx, a.ID, status)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.Email, err)
		}
		_, err = fmt.Fprintf(p.stdout, "%s is %s\n", a.Email, status)
		return err
	}))
}

type userReleaseCommand struct {
	storeFlags
	Emails []string `arg:"" name:"email" help:"Address of an account; several may be given." placeholder:"ADDRESS"`
}

// Help implements kong.HelpProvider.
func (userReleaseCommand) Help() string {
	return `Nobody signs in to an account whose directory has been taken out of the configuration. A released account is one as any other: its
sessions end, and its address gets a link to choose a password. Release only who may still come in: nobody is asked whether they left the
company meanwhile, and who has the mailbox has the account. Whom the directory did not list any more when it was last asked is not released.
Use the configuration of the server, without the directory.

Examples:

  sumun user list --json | jq -r 'select(.directory == "corp").email'
  sumun user release kim@example.com lee@example.com`
}

func (c *userReleaseCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		var errs []error
		for _, email := range c.Emails {
			if err := release(ctx, p.stdout, s.people, email); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", email, err))
			}
		}
		return errors.Join(errs...)
	}))
}

func release(ctx context.Context, w io.Writer, people *identity.Service, email string) error {
	a, err := people.AccountByAddress(ctx, email)
	if err != nil {
		return err
	}
	mailed, err := people.Release(ctx, a)
	if err != nil {
		return err
	}
	next := "is sent a link to choose a password"
	if !mailed {
		next = "is another directory's, which opens the account with link_accounts"
	}
	_, err = fmt.Fprintf(w, "%s is released from %s, and %s\n", a.Email, a.Directory, next)
	return err
}

type userListCommand struct {
	storeFlags
	JSON bool `help:"One JSON object a line."`
}

// Help implements kong.HelpProvider.
func (userListCommand) Help() string {
	return `Examples:

  sumun user list
  sumun user list --json | jq -r 'select(.email_verified | not).email'`
}

// listed is an account as a program reads it.
type listed struct {
	ID            string    `json:"id"`
	Email         string    `json:"email"`
	EmailVerified bool      `json:"email_verified"`
	UserName      string    `json:"user_name,omitempty"`
	Name          string    `json:"name"`
	Status        string    `json:"status"`
	Directory     string    `json:"directory,omitempty"` // that keeps the password
	Roles         []string  `json:"roles"`
	CreatedAt     time.Time `json:"created_at"`
}

const listPage = 500

func (c *userListCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, openExisting, withIdentity(func(s *identityServices) error {
		write, flush := c.writer(p.stdout)
		for after := ""; ; {
			accounts, err := s.people.Accounts(ctx, after, listPage)
			if err != nil {
				return fmt.Errorf("list accounts: %w", err)
			}
			for _, a := range accounts {
				if err := write(a); err != nil {
					return err
				}
				after = a.ID
			}
			if len(accounts) < listPage {
				return flush()
			}
		}
	}))
}

func (c *userListCommand) writer(out io.Writer) (write func(identity.Account) error, flush func() error) {
	if c.JSON {
		encoder := json.NewEncoder(out)
		return func(a identity.Account) error {
			roles := a.Roles
			if roles == nil {
				roles = []string{}
			}
			return encoder.Encode(listed{a.ID, a.Email, a.EmailVerified, a.UserName, a.Name, string(a.Status), a.Directory, roles, a.CreatedAt})
		}, func() error { return nil }
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tADDRESS\tVERIFIED\tUSER NAME\tNAME\tSTATUS\tROLES")
	return func(a identity.Account) error {
		verified := "no"
		if a.EmailVerified {
			verified = "yes"
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			a.ID, a.Email, verified, a.UserName, a.Name, a.Status, strings.Join(a.Roles, ","))
		return err
	}, table.Flush
}
