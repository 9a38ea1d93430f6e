package identity

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
)

// parseEmail checks an address that somebody entered.
func parseEmail(s string) (mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return a, invalid("email", "email.format", "Enter a mail address such as name@example.com.")
	}
	return a, nil
}

// SignUp asks for an account. The address gets a link to choose name and password, or, where it has an account already, a
// letter that says so. The answer is the same.
func (s *Service) SignUp(ctx context.Context, email, locale string, from audit.Origin) error {
	if s.directoryOf(email) != nil {
		return ErrDirectory
	}
	return s.requestLetter(ctx, letterSignUp, email, locale, from, nil)
}

// Recover asks for a link to choose a new password. Where the address has no account nothing is sent; the answer is the
// same.
func (s *Service) Recover(ctx context.Context, email, locale string, from audit.Origin) error {
	if s.directoryOf(email) != nil {
		return ErrDirectory
	}
	return s.requestLetter(ctx, letterRecovery, email, locale, from, nil)
}

func (s *Service) requestLetter(ctx context.Context, kind, email, locale string, from audit.Origin, data map[string]string) error {
	addr, err := parseEmail(email)
	if err != nil {
		return err
	}
	if locale, err = parseLocale(locale); err != nil {
		return err
	}
	if kind, err = s.admitMail(ctx, kind, addr.Key, from); err != nil {
		return err
	}
	// What this costs and answers does not depend on whether the address has an account: the letter's composer looks
	// that up when it is delivered.
	err = s.deps.Mail.Enqueue(ctx, s.deps.DB.Writer(), mail.Letter{
		Kind: kind, Address: addr.Spec, Locale: locale, Data: data, CreatedAt: s.deps.Clock(),
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return err
}

// NewAccount is what a person, or an operator, chooses for an account.
type NewAccount struct {
	Email, Name, UserName, Password, Locale string
	Roles                                   []string
	Verified                                bool

	way Way // nil: a password
}

// prepare checks everything that can be checked before the transaction and hashes the password.
func (s *Service) prepare(ctx context.Context, n NewAccount) (newAccount, error) {
	addr, emailErr := parseEmail(n.Email)
	name, nameErr := parseName(n.Name)
	userName, userNameKey, userErr := parseUserName(n.UserName)
	locale, localeErr := parseLocale(n.Locale)
	roles, rolesErr := parseRoles(n.Roles)
	who := password.Person{Email: addr.Spec, UserName: userName, Name: name}
	var policyErr error
	if n.way == nil && userName == "" && s.directoryOf(n.Email) != nil {
		return newAccount{}, ErrDirectory // with an address of a directory's, nobody could sign in with this password
	}
	if n.way == nil {
		policyErr = s.checkPassword("password", n.Password, who)
	}
	if err := joinFaults(emailErr, nameErr, userErr, localeErr, rolesErr, policyErr); err != nil {
		return newAccount{}, err
	}
	hash := ""
	if n.way == nil {
		var err error
		if hash, err = s.deps.Hasher.Hash(ctx, n.Password); err != nil {
			return newAccount{}, err
		}
	}
	id, err := newID()
	return newAccount{
		id: id, email: addr.Spec, emailKey: addr.Key, verified: n.Verified, userName: userName, userNameKey: userNameKey,
		name: name, locale: locale, hash: hash, roles: roles, now: s.deps.Clock(),
	}, err
}

// joinFaults reports every field that is wrong at once. A fault that is not about fields comes first.
func joinFaults(errs ...error) error {
	var first *fault.Fault
	var fields []fault.Field
	for _, err := range errs {
		var f *fault.Fault
		switch {
		case err == nil:
			continue
		case !errors.As(err, &f) || f.Kind() != fault.Invalid:
			return err
		case first == nil:
			first = f
		default:
			fields = append(fields, f.Fields()...)
		}
	}
	if first == nil {
		return nil
	}
	return first.WithFields(fields...)
}

// PendingSignUp tells which address a sign-up link proves, without using it.
func (s *Service) PendingSignUp(ctx context.Context, token string, from audit.Origin) (email string, err error) {
	return s.pending(ctx, token, purposeSignUp, from)
}

func (s *Service) pending(ctx context.Context, token string, p purpose, from audit.Origin) (string, error) {
	c, err := readConfirmation(ctx, s.deps.DB.Reader(), peekConfirmation, token, p, s.deps.Clock())
	return c.email, s.missed(ctx, err, from)
}

// ConfirmSignUp turns a sign-up link into an account. The link is used up only when the account was made, so that a
// refused password costs nothing. Faults: ErrConfirmation, ErrUserNameTaken, ErrPasswordPolicy, ErrInvalidField.
func (s *Service) ConfirmSignUp(ctx context.Context, token string, n NewAccount, from audit.Origin) (Account, error) {
	email, err := s.pending(ctx, token, purposeSignUp, from)
	if err != nil {
		return Account{}, err
	}
	n.Email, n.Verified, n.Roles = email, true, nil
	return s.create(ctx, n, "", from, func(ctx context.Context, tx sqldb.Tx, now time.Time) error {
		// Other links to this address stay; whoever follows one is told that the account exists.
		_, err := readConfirmation(ctx, tx, useConfirmation, token, purposeSignUp, now)
		return err
	})
}

// create makes the account in one transaction with whatever allows it. The actor is the new account itself when empty.
func (s *Service) create(ctx context.Context, n NewAccount, actor string, from audit.Origin,
	permit func(context.Context, sqldb.Tx, time.Time) error) (Account, error) {
	ready, err := s.prepare(ctx, n)
	if err != nil {
		return Account{}, err
	}
	var made Account
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := permit(ctx, tx, ready.now); err != nil {
			return err
		}
		if err := ready.insert(ctx, tx); err != nil {
			return err
		}
		if n.way != nil {
			if err := n.way(ctx, tx, ready.id); err != nil {
				return err
			}
		}
		err := s.deps.Audit.Append(ctx, tx, audit.Event{At: ready.now, Account: ready.id, Actor: cmp.Or(actor, ready.id),
			Action: "account.created", Origin: from})
		if err != nil {
			return err
		}
		made, err = loadAccount(ctx, tx, ready.id)
		return err
	})
	return made, err
}

// nothingMore permits an account on the word of whoever calls.
func nothingMore(context.Context, sqldb.Tx, time.Time) error { return nil }
