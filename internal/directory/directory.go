// Package directory owns asking a company's directory (LDAPv3, RFC 4511; Active Directory among them) whether a password is a
// person's.
//
// It promises that a password is shown to the entry alone that a service account has found for what was typed, and over TLS, or on
// this very machine; that an empty password is never shown, since directories take it for a bind without authentication (RFC 4513,
// section 5.1.2); that what was typed cannot change the question; and that a directory that is slow or down takes up no more than its
// own few connections and its own time: after a few failures nobody waits for it any more, for a while.
//
// It refuses to write to a directory, to follow referrals, to keep a password, and to decide about accounts: package identity does,
// whose Directory it is.
package directory

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/mail"
)

// Faults that people meet. Their codes are permanent. A directory says what is wrong with an account to who has shown its password
// only, and so do we.
var (
	ErrUnavailable = fault.New(fault.Unavailable, "directory.unavailable",
		"Your organisation's directory does not answer right now. Please try again.").After(10 * time.Second)
	ErrRefused = fault.New(fault.BadGateway, "directory.refused",
		"Your organisation's directory refuses to work with this service. The people who run it have been told.")
	ErrPasswordExpired = fault.New(fault.Forbidden, "directory.password_expired",
		"Your password has expired, or must be changed before you can sign in. Change it at your organisation.")
	ErrClosed = fault.New(fault.Forbidden, "directory.closed",
		"Your organisation has closed your account there. Ask your help desk.")
	ErrNotNow = fault.New(fault.Forbidden, "directory.not_now",
		"Your organisation does not let you sign in at this time, or from here.")
)

// LDAP is one directory. It implements identity.Directory and is safe for concurrent use.
type LDAP struct {
	cfg     Server
	timeout time.Duration
	pool    *pool
	log     *slog.Logger
}

// New checks the configuration and reads its files; nothing is connected yet.
func New(cfg Config, clock func() time.Time, log *slog.Logger) ([]identity.Directory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var all []identity.Directory
	for _, s := range cfg.Servers {
		s = s.complete()
		s.Domains = s.asciiDomains()
		t := &tls.Config{MinVersion: tls.VersionTLS12}
		if s.CAFile != "" {
			pem, err := os.ReadFile(s.CAFile)
			t.RootCAs = x509.NewCertPool()
			if err != nil || !t.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("directory.servers: ca_file of %s: %q cannot be read or holds no certificate; name a PEM file", s.Name, s.CAFile)
			}
		}
		all = append(all, &LDAP{cfg: s, timeout: cfg.Timeout, log: log,
			pool: newPool(s, t, cfg.Timeout, clock, log)})
	}
	return all, nil
}

// Describe implements identity.Directory.
func (d *LDAP) Describe() (name, label, passwordURL string) {
	return d.cfg.Name, d.cfg.Label, d.cfg.PasswordURL
}

// Holds implements identity.Directory: addresses in the directory's mail domains, and names after its Windows domain.
func (d *LDAP) Holds(typed string) bool {
	_, _, ok := d.names(typed)
	return ok
}

// names splits what was typed into the login and its part without the domain.
func (d *LDAP) names(typed string) (login, name string, ok bool) {
	typed = strings.TrimSpace(typed)
	if prefix, name, found := strings.Cut(typed, `\`); found {
		return name, name, name != "" && d.cfg.Prefix != "" && mail.LowerASCII(prefix) == mail.LowerASCII(d.cfg.Prefix)
	}
	name, domain, found := strings.Cut(typed, "@")
	if a, err := mail.ParseAddress(typed); err == nil {
		typed = a.Spec
		_, domain, _ = strings.Cut(a.Key, "@")
	}
	return typed, name, found && name != "" && d.answersFor(domain)
}

// answersFor takes a domain in its ASCII form.
func (d *LDAP) answersFor(domain string) bool {
	return slices.Contains(d.cfg.Domains, mail.LowerASCII(domain))
}

// plain reports whether a name has one spelling only, but for case. Attempts are counted by what was typed, and directories take much
// for the same that the count does not: spaces, wide and narrow letters, invisible ones (RFC 4518, section 2), accents. Who may be
// written in many ways could be guessed at as many times as often.
func plain(login, name string) bool {
	return name == strings.Join(strings.Fields(name), " ") &&
		!strings.ContainsFunc(login, func(r rune) bool { return r < ' ' || r > '~' })
}

// Bounds of what is sent to and believed of a directory, in bytes.
const (
	maxPassword = 1024
	maxSubject  = 255
)

// Authenticate implements identity.Directory.
func (d *LDAP) Authenticate(ctx context.Context, typed, password string) (identity.DirectoryEntry, error) {
	login, name, ok := d.names(typed)
	if !ok || password == "" || len(password) > maxPassword || !plain(login, name) {
		return identity.DirectoryEntry{}, identity.ErrCredentials
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var found identity.DirectoryEntry
	err := d.pool.with(ctx, func(c *ldap.Conn) (err error) {
		found, err = d.prove(c, login, name, password)
		return err
	})
	return found, d.noted(ctx, err)
}

// Keeps implements identity.Directory.
func (d *LDAP) Keeps(ctx context.Context, typed, subject string) (kept bool, err error) {
	login, name, ok := d.names(typed)
	if !ok {
		return false, nil // the directory has other domains by now
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	err = d.pool.with(ctx, func(c *ldap.Conn) error {
		one, err := d.find(c, login, name)
		if err != nil || one == nil {
			return err // one of several says nothing about whether the other has gone
		}
		now, err := d.entry(one)
		kept = err == nil && now.Subject == subject
		if errors.Is(err, ErrClosed) {
			return nil
		}
		return err
	})
	return kept, d.noted(ctx, err)
}

// noted writes to the log what operators have to look at.
func (d *LDAP) noted(ctx context.Context, err error) error {
	if errors.Is(err, ErrRefused) {
		d.log.ErrorContext(ctx, "a directory refuses to work with this service; check its configuration", "directory", d.cfg.Name, "error", err)
	}
	return err
}

// errSeveral is for what names more than one entry.
var errSeveral = errors.New("several entries have the name")

// find searches as the service account. What names nobody is nil. That there is no base entry is a fault of the server, or of the
// configuration: it has lost its people, or hides them, and none of them has left.
func (d *LDAP) find(c *ldap.Conn, login, name string) (*ldap.Entry, error) {
	if err := c.Bind(d.cfg.BindDN, d.cfg.BindPassword.Reveal()); err != nil {
		return nil, serviceFault(err)
	}
	found, err := c.Search(d.question(login, name))
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(found.Entries) > 1:
		d.log.Warn("a directory has several entries for what was typed; make its filter narrower", "directory", d.cfg.Name)
		return nil, errSeveral
	case err != nil:
		return nil, serviceFault(err)
	case len(found.Entries) == 0 || found.Entries[0].DN == "":
		return nil, nil
	}
	return found.Entries[0], nil
}

// prove binds as the person whom find has found. The next user of the connection binds anew.
func (d *LDAP) prove(c *ldap.Conn, login, name, password string) (identity.DirectoryEntry, error) {
	one, err := d.find(c, login, name)
	if err != nil && !errors.Is(err, errSeveral) {
		return identity.DirectoryEntry{}, err
	}
	if one == nil {
		// As much work as for somebody who exists, so that time does not tell.
		if err := bindFault(c.Bind("cn="+rand.Text()+","+d.cfg.BaseDN, password)); errors.Is(err, ErrUnavailable) {
			return identity.DirectoryEntry{}, err
		}
		return identity.DirectoryEntry{}, identity.ErrCredentials
	}
	if err := bindFault(c.Bind(one.DN, password)); err != nil {
		return identity.DirectoryEntry{}, err
	}
	return d.entry(one)
}

// question is the search for what was typed, which is escaped (RFC 4515, section 3).
func (d *LDAP) question(login, name string) *ldap.SearchRequest {
	filter := strings.NewReplacer("{login}", ldap.EscapeFilter(login), "{name}", ldap.EscapeFilter(name)).Replace(d.cfg.Filter)
	wanted := append([]string{d.cfg.SubjectAttribute, "displayName", "cn", "userAccountControl", "accountExpires"}, d.cfg.EmailAttributes...)
	return ldap.NewSearchRequest(d.cfg.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, max(1, int(d.timeout/time.Second)), false,
		filter, wanted, nil)
}

// disabledFlag is ACCOUNTDISABLE of Active Directory's userAccountControl.
const disabledFlag = 2

func (d *LDAP) entry(e *ldap.Entry) (identity.DirectoryEntry, error) {
	subject := e.GetAttributeValue(d.cfg.SubjectAttribute)
	if raw := e.GetRawAttributeValue(d.cfg.SubjectAttribute); d.cfg.Kind == KindAD || !utf8.Valid(raw) {
		subject = hex.EncodeToString(raw) // objectGUID is 16 bytes
	}
	if subject == "" || len(subject) > maxSubject || strings.ContainsFunc(subject, unicode.IsControl) {
		return identity.DirectoryEntry{}, ErrRefused.Wrap(fmt.Errorf("an entry has no usable %s; may the service account read it?", d.cfg.SubjectAttribute))
	}
	if flags, err := strconv.ParseInt(e.GetAttributeValue("userAccountControl"), 10, 64); err == nil && flags&disabledFlag != 0 {
		return identity.DirectoryEntry{}, ErrClosed
	}
	if end, ok := windowsTime(e.GetAttributeValue("accountExpires")); ok && !d.pool.clock().Before(end) {
		return identity.DirectoryEntry{}, ErrClosed
	}
	out := identity.DirectoryEntry{Subject: subject, Name: e.GetAttributeValue("displayName"), Links: d.cfg.LinkAccounts}
	if out.Name == "" {
		out.Name = e.GetAttributeValue("cn")
	}
	out.Name = identity.CleanName(out.Name)
	for _, attribute := range d.cfg.EmailAttributes {
		for _, value := range e.GetAttributeValues(attribute) {
			a, err := mail.ParseAddress(value)
			if _, domain, _ := strings.Cut(a.Key, "@"); err == nil && out.Email == "" && d.answersFor(domain) {
				out.Email = a.Spec
			}
		}
	}
	return out, nil
}

// windowsTime reads what Active Directory counts in tenths of a microsecond since 1601. Zero, and the largest number, are never.
func windowsTime(s string) (time.Time, bool) {
	const to1970 = 11644473600 * 1e7
	ticks, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ticks <= 0 || ticks == math.MaxInt64 {
		return time.Time{}, false
	}
	return time.Unix((ticks-to1970)/1e7, 0), true
}
