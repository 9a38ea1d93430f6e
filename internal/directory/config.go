package directory

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
)

// Config is which directories keep people's passwords.
type Config struct {
	Timeout time.Duration `yaml:"timeout" doc:"How long a directory may take over one sign-in, the wait for a connection included. Shorter than http.request_timeout."`
	Servers []Server      `yaml:"servers" doc:"The directories. People with an address in the domains of one sign in with their password there, and with no other."`
}

// Kind says which names a directory gives its attributes.
type Kind string

// The kinds of directories.
const (
	KindLDAP Kind = "ldap"
	KindAD   Kind = "ad"
)

// Server is one directory.
type Server struct {
	Name         string         `yaml:"name" doc:"What the database calls it: a-z, 0-9 and -. Another name is another directory, of other people."`
	Label        string         `yaml:"label" doc:"What people call it. Empty: its name."`
	Kind         Kind           `yaml:"kind" doc:"ad for Active Directory, or ldap."`
	URLs         []string       `yaml:"urls" doc:"Its servers, such as ldaps://dc1.example.com; others are asked when the first does not answer."`
	StartTLS     bool           `yaml:"start_tls" doc:"Whether ldap:// turns to TLS before anything else is said (RFC 4511, section 4.14). Without it only this very machine is talked to."`
	CAFile       string         `yaml:"ca_file" doc:"A PEM file of certificate authorities to trust instead of the system's."`
	Connections  int            `yaml:"connections" doc:"How many sign-ins may ask it at a time, and connections there are. More wait, up to the timeout."`
	BindDN       string         `yaml:"bind_dn" doc:"The service account that searches: a DN, with ad also a name such as sumun@example.com."`
	BindPassword keyring.Secret `yaml:"bind_password" doc:"Its password."`
	BaseDN       string         `yaml:"base_dn" doc:"Below which entry people are searched for."`
	Filter       string         `yaml:"filter" doc:"How they are searched for (RFC 4515): {login} is what was typed, {name} the part before the @. Empty: by mail, or with ad by userPrincipalName and sAMAccountName. A narrower one lets in fewer."`
	Domains      []string       `yaml:"domains" doc:"The mail domains, and UPN suffixes, of its people. It alone answers for addresses in them."`
	Prefix       string         `yaml:"prefix" doc:"The Windows domain of names such as EXAMPLE\\kim."`

	SubjectAttribute string   `yaml:"subject_attribute" doc:"What names an entry for ever. Empty: entryUUID, or with ad objectGUID."`
	EmailAttributes  []string `yaml:"email_attributes" doc:"Where addresses are. The first in one of its domains is the person's. Empty: mail, and with ad userPrincipalName."`
	LinkAccounts     bool     `yaml:"link_accounts" doc:"Whether an entry opens the account with its address that was there before, which loses its own password. Not where people can write their address in the directory themselves."`
	PasswordURL      string   `yaml:"password_url" doc:"Where people change their password, for the pages that say so."`
}

// SetDefaults fills in what a directory is before anything of it is read.
func (s *Server) SetDefaults() { s.Kind, s.StartTLS, s.Connections = KindLDAP, true, 8 }

// DefaultConfig has no directories.
func DefaultConfig() Config { return Config{Timeout: 4 * time.Second} }

// complete fills in what was left empty.
func (s Server) complete() Server {
	ad := s.Kind == KindAD
	either := func(value *string, ldap, windows string) {
		switch {
		case *value != "":
		case ad:
			*value = windows
		default:
			*value = ldap
		}
	}
	either(&s.Label, s.Name, s.Name)
	either(&s.SubjectAttribute, "entryUUID", "objectGUID")
	either(&s.Filter, "(&(objectClass=inetOrgPerson)(mail={login}))",
		"(&(objectCategory=person)(objectClass=user)(|(userPrincipalName={login})(sAMAccountName={name})))")
	if len(s.EmailAttributes) == 0 {
		s.EmailAttributes = []string{"mail"}
		if ad {
			s.EmailAttributes = append(s.EmailAttributes, "userPrincipalName")
		}
	}
	return s
}

// asciiDomains are the domains in the form in which they are compared.
func (s Server) asciiDomains() []string {
	var all []string
	for _, domain := range s.Domains {
		if a, err := mail.ParseAddress("x@" + domain); err == nil {
			_, domain, _ = strings.Cut(a.Key, "@")
		}
		all = append(all, domain)
	}
	return all
}

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	if c.Timeout < 100*time.Millisecond || c.Timeout > 30*time.Second {
		errs = append(errs, fmt.Errorf("timeout: %v is not between 100ms and 30s; use a value such as 4s", c.Timeout))
	}
	owner := map[string]int{}
	for i, s := range c.Servers {
		key := fmt.Sprintf("servers[%d]", i)
		errs = append(errs, s.complete().validate(key))
		taken := append([]string{"name " + s.Name}, s.asciiDomains()...)
		if s.Prefix != "" {
			taken = append(taken, mail.LowerASCII(s.Prefix)+`\`)
		}
		for _, taken := range taken {
			if other, twice := owner[taken]; twice {
				errs = append(errs, fmt.Errorf("%s: %q belongs to servers[%d] as well; let one of them have it", key, strings.TrimPrefix(taken, "name "), other))
			}
			owner[taken] = i
		}
	}
	return errors.Join(errs...)
}

var serverName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func (s Server) validate(key string) error {
	var errs []error
	wrong := func(member, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: %s", key, member, fmt.Sprintf(format, args...)))
	}
	if !serverName.MatchString(s.Name) {
		wrong("name", "%q is not a word of a-z, 0-9 and -, such as corp", s.Name)
	}
	if s.Kind != KindLDAP && s.Kind != KindAD {
		wrong("kind", "%q is neither ad nor ldap", s.Kind)
	}
	if len(s.URLs) == 0 {
		wrong("urls", "empty; enter a server, such as ldaps://dc1.example.com")
	}
	for _, address := range s.URLs {
		if err := s.checkURL(address); err != nil {
			wrong("urls", "%q %v", address, err)
		}
	}
	if s.Connections < 1 || s.Connections > 1000 {
		wrong("connections", "%d is not between 1 and 1000; use a value such as 8", s.Connections)
	}
	if s.BindDN == "" || s.BindPassword == "" {
		wrong("bind_dn", "%q, or bind_password, is empty; enter an account that may search", s.BindDN)
	}
	if _, err := ldap.ParseDN(s.BaseDN); err != nil || s.BaseDN == "" {
		wrong("base_dn", "%q is not a DN, such as ou=people,dc=example,dc=com", s.BaseDN)
	}
	sample := strings.NewReplacer("{login}", "a", "{name}", "a").Replace(s.Filter)
	if _, err := ldap.CompileFilter(sample); err != nil || sample == s.Filter {
		wrong("filter", "%q is not a filter with {login} or {name}, such as (mail={login})", s.Filter)
	}
	if len(s.Domains) == 0 {
		wrong("domains", "empty; enter the mail domains of the directory's people")
	}
	for _, domain := range s.Domains {
		if domain == "" || domain != mail.LowerASCII(domain) || strings.ContainsAny(domain, "@ *\\") {
			wrong("domains", "%q is not a mail domain in lower case, such as example.com", domain)
		}
	}
	if s.PasswordURL != "" {
		if u, err := url.Parse(s.PasswordURL); err != nil || u.Scheme != "https" || u.Host == "" {
			wrong("password_url", "%q is not an https address; write it like https://password.example.com", s.PasswordURL)
		}
	}
	return errors.Join(errs...)
}

// checkURL accepts servers to which nothing goes in the clear, and this very machine.
func (s Server) checkURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Host == "", u.User != nil, u.RawQuery != "", u.Path != "" && u.Path != "/", !slices.Contains([]string{"ldap", "ldaps"}, u.Scheme):
		return errors.New("is not the address of a server; write it like ldaps://dc1.example.com")
	case u.Scheme == "ldap" && !s.StartTLS && !httpd.IsLoopbackHost(u.Hostname()):
		return errors.New("is not encrypted; use ldaps, or set start_tls")
	}
	return nil
}
