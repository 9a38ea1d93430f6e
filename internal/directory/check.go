package directory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/fault"
)

// Check tries whether every directory lets its service account search below the entry where people are. It shows nobody's password.
func Check(ctx context.Context, cfg Config) error {
	all, err := New(cfg, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range all {
		d := one.(*LDAP)
		ctx, cancel := context.WithTimeout(ctx, d.timeout)
		if err := d.pool.with(ctx, d.try); err != nil {
			if f, ok := errors.AsType[*fault.Fault](err); ok {
				err = f.Unwrap() // its words are for people who sign in
			}
			errs = append(errs, fmt.Errorf("directory.servers: %s: %w", d.cfg.Name, err))
		}
		cancel()
		d.pool.close()
	}
	return errors.Join(errs...)
}

// try asks as find does, for nobody, and says what has to be changed.
func (d *LDAP) try(c *ldap.Conn) error {
	err := c.Bind(d.cfg.BindDN, d.cfg.BindPassword.Reveal())
	if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		return fmt.Errorf("it refuses the service account %q; check bind_dn and bind_password", d.cfg.BindDN)
	}
	if err != nil {
		return serviceFault(err)
	}
	_, err = c.Search(d.question(rand.Text(), rand.Text()))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return fmt.Errorf("it has no entry %q, or does not show it to the service account; check base_dn", d.cfg.BaseDN)
	}
	if err != nil {
		return serviceFault(err)
	}
	return nil
}
