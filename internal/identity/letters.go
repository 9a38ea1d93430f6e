package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/web"
)

// Kinds of letters: what is asked for when a request is answered. Which mail goes out, if any, is decided on delivery.
const (
	letterSignUp                 = "sign_up"
	letterRecovery               = "recovery"
	letterRecoveryDone           = "recovery_done"
	letterPasswordChanged        = "password_changed"
	letterAddressChange          = "address_change"
	letterAddressChangeRequested = "address_change_requested"
	letterAddressChanged         = "address_changed"
	letterNewDevice              = "new_device"
	letterLocked                 = "locked"
	letterAccountDeleted         = "account_deleted"

	letterNone = "none" // written where another would be, and dropped

	mailSignUpExisting     = "sign_up_existing"
	mailAddressChangeTaken = "address_change_taken"
)

// Paths of the pages that mails lead to.
const (
	pathConfirmSignUp  = "/sign-up/confirm"
	pathReset          = "/recover/reset"
	pathConfirmAddress = "/address/confirm"
	pathSetup          = "/setup"
	pathSignIn         = "/sign-in"
	pathRecover        = "/recover"
	pathSessions       = "/account/sessions"
)

// Letters writes the mails of this package, in the words of package web.
type Letters struct {
	*Service
	web *web.Renderer
}

// NewLetters returns the composer of the letters that people's accounts cause.
func NewLetters(people *Service, words *web.Renderer) Letters { return Letters{people, words} }

// Compose turns a letter into the mail to send, or into nil when there is nobody to send it to. One-time links are made
// here, on delivery: a link exists only once its mail does, and answering the request that asked for it took the same time
// whoever was named. It implements mail.Composer.
func (s Letters) Compose(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	switch l.Kind {
	case letterSignUp:
		return s.composeSignUp(ctx, l)
	case letterRecovery:
		return s.composeRecovery(ctx, l)
	case letterAddressChange:
		return s.composeAddressChange(ctx, l)
	case letterLocked:
		return s.composeLocked(ctx, l)
	case letterNone:
		return nil, nil
	}
	return s.composeNotice(ctx, l)
}

func (s Letters) composeSignUp(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	addr, err := mail.ParseAddress(l.Address)
	if err != nil {
		return nil, nil
	}
	a, err := accountByAddress(ctx, s.deps.DB.Reader(), addr.Key)
	if err == nil {
		return s.render(mailSignUpExisting, a.Email, a.Locale, web.MailData{Name: a.Name, Link: s.deps.Issuer + pathSignIn,
			RecoverLink: s.deps.Issuer + pathRecover})
	}
	if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	link, err := s.link(ctx, confirmation{purpose: purposeSignUp, email: addr.Spec, emailKey: addr.Key},
		cmp.Or(l.Data["page"], pathConfirmSignUp), s.cfg.ConfirmationLifetime)
	if err != nil {
		return nil, err
	}
	return s.render(letterSignUp, addr.Spec, l.Locale, web.MailData{Link: link, Until: s.deps.Clock().Add(s.cfg.ConfirmationLifetime)})
}

func (s Letters) composeRecovery(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	addr, err := mail.ParseAddress(l.Address)
	if err != nil {
		return nil, nil
	}
	a, err := accountByAddress(ctx, s.deps.DB.Reader(), addr.Key)
	if errors.Is(err, ErrNotFound) || (err == nil && (!a.mayGetLink(l) || a.Directory != "")) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = s.deps.Audit.Append(ctx, s.deps.DB.Writer(), audit.Event{At: l.CreatedAt, Account: a.ID, Action: "password.reset_requested"})
	if err != nil {
		return nil, err
	}
	link, err := s.link(ctx, confirmation{purpose: purposeRecovery, account: a.ID, email: a.Email, emailKey: addr.Key},
		pathReset, s.cfg.RecoveryLifetime)
	if err != nil {
		return nil, err
	}
	return s.render(letterRecovery, a.Email, localeOf(a, l), web.MailData{Name: a.Name, Link: link,
		Until: s.deps.Clock().Add(s.cfg.RecoveryLifetime)})
}

func (s Letters) composeAddressChange(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	addr, err := mail.ParseAddress(l.Address)
	if err != nil {
		return nil, nil
	}
	if other, err := accountByAddress(ctx, s.deps.DB.Reader(), addr.Key); err == nil {
		return s.render(mailAddressChangeTaken, other.Email, other.Locale, web.MailData{Name: other.Name})
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	a, err := loadAccount(ctx, s.deps.DB.Reader(), l.Account)
	if errors.Is(err, ErrNotFound) || (err == nil && !a.mayGetLink(l)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	link, err := s.link(ctx, confirmation{purpose: purposeAddress, account: a.ID, email: addr.Spec, emailKey: addr.Key},
		pathConfirmAddress, s.cfg.ConfirmationLifetime)
	if err != nil {
		return nil, err
	}
	// No name: the address is not known to be the account's, and a name is whatever somebody chose to have mailed there.
	return s.render(letterAddressChange, addr.Spec, localeOf(a, l), web.MailData{Link: link,
		Until: s.deps.Clock().Add(s.cfg.ConfirmationLifetime)})
}

func (s Letters) composeLocked(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	id := parseIdentifier(l.Data["identifier"])
	a, err := sqldb.One(ctx, s.deps.DB.Reader(), scanAccount, id.query, id.arg)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Only now is it known whose account it is. A letter that is composed again writes this again.
	from, _ := netip.ParseAddr(l.Data["from"])
	err = s.deps.Audit.Append(ctx, s.deps.DB.Writer(), audit.Event{
		At: l.CreatedAt, Account: a.ID, Action: "account.locked",
		Origin: audit.Origin{Address: from}, Detail: map[string]string{"until": l.Data["until"]},
	})
	if err != nil {
		return nil, err
	}
	l.Account, l.Address = a.ID, a.Email
	return s.composeNotice(ctx, l)
}

// composeNotice tells an owner what happened. The address is the one the letter names (an account may be gone, or have a
// new address), else the account's.
func (s Letters) composeNotice(ctx context.Context, l mail.Letter) (*mail.Message, error) {
	a, err := loadAccount(ctx, s.deps.DB.Reader(), l.Account)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	to := l.Address
	if to == "" {
		to = a.Email
	}
	if to == "" {
		return nil, nil
	}
	data := web.MailData{
		Name: a.Name, Link: s.deps.Issuer + pathSessions, RecoverLink: s.deps.Issuer + pathRecover,
		Device: l.Data["device"], Way: l.Data["way"], Address: l.Data["from"], Time: l.CreatedAt,
	}
	if until, err := time.Parse(time.RFC3339, l.Data["until"]); err == nil {
		data.Until = until
	}
	return s.render(l.Kind, to, localeOf(a, l), data)
}

// mayGetLink refuses a link that was asked for before the password changed: that change was to end whatever a thief had
// prepared, and a letter may have waited.
func (a Account) mayGetLink(l mail.Letter) bool {
	return a.Status == Active && !l.CreatedAt.Before(a.PasswordChangedAt)
}

func localeOf(a Account, l mail.Letter) string {
	if l.Locale != "" {
		return l.Locale
	}
	return a.Locale
}

// link stores a one-time link and spells it out.
func (s Letters) link(ctx context.Context, c confirmation, path string, lifetime time.Duration) (string, error) {
	token, err := c.issue(ctx, s.deps.DB.Writer(), s.deps.Clock(), lifetime)
	if err != nil {
		return "", fmt.Errorf("make a %s link: %w", c.purpose, err)
	}
	return s.deps.Issuer + path + "?token=" + token, nil
}

func (s Letters) render(kind, to, locale string, data web.MailData) (*mail.Message, error) {
	data.Issuer = s.deps.Issuer
	subject, text, html, err := s.web.Mail(locale, kind, data)
	if err != nil {
		return nil, fmt.Errorf("render mail %s: %w", kind, err)
	}
	return &mail.Message{To: to, Subject: subject, Text: text, HTML: html}, nil
}
