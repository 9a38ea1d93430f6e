package identity

import (
	"context"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// Account loads an account, or answers ErrNotFound.
func (s *Service) Account(ctx context.Context, id string) (Account, error) {
	return loadAccount(ctx, s.deps.DB.Reader(), id)
}

// Edit is a change of one's profile; nil fields stay as they are. An empty user name, number or address removes it.
type Edit struct {
	Name, UserName, Locale, Phone *string
	Address                       *PostalAddress
}

// idle reports whether the edit changes nothing.
func (e Edit) idle(a Account) bool {
	return valueOr(e.Name, a.Name) == a.Name && valueOr(e.UserName, a.UserName) == a.UserName && valueOr(e.Locale, a.Locale) == a.Locale &&
		valueOr(e.Phone, a.Phone) == a.Phone && valueOr(e.Address, a.Address) == a.Address
}

// EditProfile changes what a person may change about themselves. version 0 edits whatever is there; any other must be
// the account's version, else ErrVersion.
func (s *Service) EditProfile(ctx context.Context, c Caller, version int64, e Edit) (Account, error) {
	if err := s.allow(ctx, allowance{"edits", c.Account, s.cfg.Requests.EditsPerAccount}); err != nil {
		return Account{}, err
	}
	for try := 1; ; try++ {
		a, err := s.editProfile(ctx, c, version, e)
		if version != 0 || try == maxEdits || !errors.Is(err, ErrVersion) {
			return a, err
		}
	}
}

// maxEdits bounds how often an edit of whatever is there is made again because somebody else was quicker.
const maxEdits = 20

func (s *Service) editProfile(ctx context.Context, c Caller, version int64, e Edit) (Account, error) {
	var after Account
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		a, err := loadAccount(ctx, tx, c.Account)
		if err != nil {
			return err
		}
		after = a
		if version != 0 && version != a.Version {
			return ErrVersion
		}
		if e.idle(a) {
			return nil // nothing to do, so nothing happened
		}
		if err := s.storeProfile(ctx, tx, a, e); err != nil {
			return err
		}
		if err := s.record(ctx, tx, a.ID, "account.edited", c.Origin, nil); err != nil {
			return err
		}
		after, err = loadAccount(ctx, tx, a.ID)
		return err
	})
	return after, err
}

func (s *Service) storeProfile(ctx context.Context, tx sqldb.Tx, a Account, e Edit) error {
	name, nameErr := parseName(valueOr(e.Name, a.Name))
	userName, userNameKey, userErr := parseUserName(valueOr(e.UserName, a.UserName))
	locale, localeErr := parseLocale(valueOr(e.Locale, a.Locale))
	phone, phoneErr := parsePhone(valueOr(e.Phone, a.Phone))
	address, addressErr := parseAddress(valueOr(e.Address, a.Address))
	if err := joinFaults(nameErr, userErr, localeErr, phoneErr, addressErr); err != nil {
		return err
	}
	stored, err := addressText(address)
	if err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, updateProfile, name, nullable(userName), nullable(userNameKey), locale, phone, stored,
		sqldb.Micros(s.deps.Clock()), a.ID, a.Version)
	if sqldb.IsUnique(err) {
		return ErrUserNameTaken
	}
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrVersion)
	}
	return nil
}

func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// lastPasswords is how many passwords, the current one included, may not be used again.
const lastPasswords = 5

// ChangePassword needs a recent sign-in and the current password, where there is one. Every other session of the account ends, mailed links die and
// devices are forgotten; the session that proved both goes on.
func (s *Service) ChangePassword(ctx context.Context, c Caller, current, next string) error {
	if err := c.recent(s.deps.Clock(), s.cfg.RecentSignIn); err != nil {
		return err
	}
	a, err := s.Account(ctx, c.Account)
	if err == nil && a.HasPassword() {
		a, err = s.proveCaller(ctx, c, current, ErrCurrentPassword)
	}
	if err != nil {
		return err
	}
	return s.replacePassword(ctx, replacement{account: a, field: "new_password", next: next, keep: c.Session, from: c.Origin, letter: letterPasswordChanged,
		action: "password.changed", reason: session.PasswordChanged, moved: ErrCurrentPassword})
}

// replacement is a new password about to take the old one's place.
type replacement struct {
	account        Account
	field, next    string // the new password, and what the request calls it
	keep           string // the session that stays, or ""
	from           audit.Origin
	letter, action string
	reason         session.Reason
	moved          error                                 // the answer when the password changed meanwhile
	permit         func(context.Context, sqldb.Tx) error // nil: nothing more is needed
}

func (s *Service) replacePassword(ctx context.Context, r replacement) error {
	a := r.account
	if a.Directory != "" {
		return ErrDirectory
	}
	if err := s.checkPassword(r.field, r.next, password.Person{Email: a.Email, UserName: a.UserName, Name: a.Name}); err != nil {
		return err
	}
	if err := s.refuseReuse(ctx, a, r.next); err != nil {
		return err
	}
	hash, err := s.deps.Hasher.Hash(ctx, r.next)
	if err != nil {
		return err
	}
	end := func(ctx context.Context, tx sqldb.Tx) error { return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, r.reason) }
	if r.keep != "" {
		kept := s.deps.Sessions.Keep(ctx, a.ID, r.keep)
		end = func(ctx context.Context, tx sqldb.Tx) error {
			return s.deps.Sessions.EndOthersTx(ctx, tx, kept, r.reason)
		}
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if r.permit != nil {
			if err := r.permit(ctx, tx); err != nil {
				return err
			}
		}
		if err := s.storePassword(ctx, tx, r, hash); err != nil {
			return err
		}
		if err := s.tell(ctx, tx, r.letter, a, r.from, nil); err != nil {
			return err
		}
		if err := s.record(ctx, tx, a.ID, r.action, r.from, nil); err != nil {
			return err
		}
		return end(ctx, tx)
	})
	if err != nil {
		return err
	}
	s.deps.Mail.Wake()
	s.applied(ctx)
	return nil
}

// refuseReuse compares a new password with the last ones.
func (s *Service) refuseReuse(ctx context.Context, a Account, next string) error {
	old, err := sqldb.All(ctx, s.deps.DB.Reader(), scanText, oldPasswords, a.ID, lastPasswords-1)
	if err != nil {
		return err
	}
	if a.HasPassword() {
		old = append(old, a.passwordHash)
	}
	reused, err := s.deps.Hasher.MatchesAny(ctx, old, next)
	if err == nil && reused {
		err = ErrPasswordReused
	}
	return err
}

// storePassword also ends what a thief may have prepared: links that were mailed before, and devices that are known.
func (s *Service) storePassword(ctx context.Context, tx sqldb.Tx, r replacement, hash string) error {
	a := r.account
	now := max(sqldb.Micros(s.deps.Clock()), sqldb.Micros(a.PasswordChangedAt)+1)
	res, err := tx.ExecContext(ctx, updatePassword, hash, now, a.ID, sqldb.Micros(a.PasswordChangedAt))
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, r.moved)
	}
	if a.HasPassword() {
		if _, err := tx.ExecContext(ctx, rememberPassword, a.ID, a.passwordHash, now); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, trimPasswords, a.ID, lastPasswords-1); err != nil {
		return err
	}
	return dropPrepared(ctx, tx, a.ID)
}

// dropPrepared makes every link mailed before useless and every device unknown.
func dropPrepared(ctx context.Context, tx sqldb.Tx, account string) error {
	for _, query := range []string{dropConfirmationsOf, forgetDevices} {
		if _, err := tx.ExecContext(ctx, query, account); err != nil {
			return err
		}
	}
	return nil
}

// PendingRecovery tells whether a recovery link can be used, and for which address.
func (s *Service) PendingRecovery(ctx context.Context, token string, from audit.Origin) (email string, err error) {
	return s.pending(ctx, token, purposeRecovery, from)
}

// ResetPassword uses a recovery link. It proves the address, and every session of the account ends.
func (s *Service) ResetPassword(ctx context.Context, token, next string, from audit.Origin) error {
	c, err := readConfirmation(ctx, s.deps.DB.Reader(), peekConfirmation, token, purposeRecovery, s.deps.Clock())
	if err != nil {
		return s.missed(ctx, err, from)
	}
	a, err := linkedAccount(ctx, s.deps.DB.Reader(), c)
	if err != nil {
		return err
	}
	return s.replacePassword(ctx, replacement{account: a, field: "password", next: next, from: from, letter: letterRecoveryDone,
		action: "password.reset", reason: session.PasswordReset, moved: ErrConfirmation,
		permit: func(ctx context.Context, tx sqldb.Tx) error {
			now := s.deps.Clock()
			if _, err := readConfirmation(ctx, tx, useConfirmation, token, purposeRecovery, now); err != nil {
				return err
			}
			if err := s.attempts.empty(ctx, tx, attemptKeys(a, "")...); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, verifyAddress, sqldb.Micros(now), a.ID)
			return err
		}})
}

// linkedAccount loads the account that a link is for; a link whose account is gone leads nowhere.
func linkedAccount(ctx context.Context, q sqldb.Queryer, c confirmation) (Account, error) {
	a, err := loadAccount(ctx, q, c.account)
	if errors.Is(err, ErrNotFound) {
		return a, ErrConfirmation
	}
	return a, err
}

// ChangeAddress needs a recent sign-in. The new address gets a link to confirm it, the old one is told; nothing changes
// until the link is used. Whether another account has the new address does not show. An address that a directory answers for is for
// its own people.
func (s *Service) ChangeAddress(ctx context.Context, c Caller, email string) error {
	if err := c.recent(s.deps.Clock(), s.cfg.RecentSignIn); err != nil {
		return err
	}
	addr, err := parseEmail(email)
	if err != nil {
		return err
	}
	a, err := s.Account(ctx, c.Account)
	if err != nil {
		return err
	}
	if d := s.directoryOf(email); d != nil {
		if name, _, _ := d.Describe(); name != a.Directory {
			return ErrDirectory // who has it could not sign in with it, nor could the person whose it is there
		}
	}
	if addr.Key == a.emailKey {
		return invalid("email", "email.unchanged", "This is the address of the account already.")
	}
	kind, err := s.admitMail(ctx, letterAddressChange, addr.Key, c.Origin)
	if err != nil {
		return err
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.deps.Mail.Enqueue(ctx, tx, mail.Letter{
			Kind: kind, Address: addr.Spec, Account: a.ID, Locale: a.Locale, CreatedAt: s.deps.Clock(),
		}); err != nil {
			return err
		}
		if err := s.tell(ctx, tx, letterAddressChangeRequested, a, c.Origin, nil); err != nil {
			return err
		}
		return s.record(ctx, tx, a.ID, "address.change_requested", c.Origin, nil)
	})
	s.deps.Mail.Wake()
	return err
}

// PendingEmail is the address that waits to be confirmed, or "".
func (s *Service) PendingEmail(ctx context.Context, account string) (string, error) {
	email, err := sqldb.One(ctx, s.deps.DB.Reader(), scanText, pendingEmail, account, sqldb.Micros(s.deps.Clock()))
	if errors.Is(err, sqldb.ErrNotFound) {
		return "", nil
	}
	return email, err
}

// PendingAddress tells which address a link would give the caller's account.
func (s *Service) PendingAddress(ctx context.Context, c Caller, token string) (email string, err error) {
	link, err := readConfirmation(ctx, s.deps.DB.Reader(), peekConfirmation, token, purposeAddress, s.deps.Clock())
	if err == nil && link.account != c.Account {
		err = ErrConfirmation
	}
	return link.email, s.missed(ctx, err, c.Origin)
}

// ConfirmAddress uses a link sent by ChangeAddress; the old address is told. The link alone is not enough: it takes a session of
// the account as well, so that who was signed out meanwhile cannot carry the account away.
func (s *Service) ConfirmAddress(ctx context.Context, c Caller, token string) error {
	if _, err := s.PendingAddress(ctx, c, token); err != nil {
		return err
	}
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		now := s.deps.Clock()
		link, err := readConfirmation(ctx, tx, useConfirmation, token, purposeAddress, now)
		if err != nil {
			return err
		}
		before, err := linkedAccount(ctx, tx, link)
		if err != nil {
			return err
		}
		return s.storeAddress(ctx, tx, before, link, now, c.Origin)
	})
	s.deps.Mail.Wake()
	return err
}

func (s *Service) storeAddress(ctx context.Context, tx sqldb.Tx, before Account, c confirmation, now time.Time, from audit.Origin) error {
	_, err := tx.ExecContext(ctx, updateAddress, c.email, c.emailKey, sqldb.Micros(now), before.ID)
	if sqldb.IsUnique(err) {
		return ErrEmailTaken
	}
	if err != nil {
		return err
	}
	// Links that were mailed to the old address die with it.
	if _, err := tx.ExecContext(ctx, dropConfirmationsOf, before.ID); err != nil {
		return err
	}
	if err := s.tell(ctx, tx, letterAddressChanged, before, from, nil); err != nil {
		return err
	}
	return s.record(ctx, tx, before.ID, "address.changed", from, nil)
}

// DeleteAccount needs a recent sign-in; version is as in EditProfile. The account, its passwords, devices and links are gone at once and its sessions
// end; the audit trail keeps what it said of it until its retention ends.
func (s *Service) DeleteAccount(ctx context.Context, c Caller, version int64) error {
	if err := c.recent(s.deps.Clock(), s.cfg.RecentSignIn); err != nil {
		return err
	}
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		a, err := loadAccount(ctx, tx, c.Account)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, deleteAccount, a.ID, version)
		if err != nil {
			return err
		}
		if done, err := changed(res); err != nil || !done {
			if version != 0 {
				return errors.Join(err, ErrVersion)
			}
			return errors.Join(err, ErrNotFound)
		}
		if _, err := tx.ExecContext(ctx, dropConfirmationsOf, a.ID); err != nil {
			return err
		}
		if err := s.tell(ctx, tx, letterAccountDeleted, a, c.Origin, nil); err != nil {
			return err
		}
		if err := s.record(ctx, tx, a.ID, "account.deleted", c.Origin, nil); err != nil {
			return err
		}
		return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, session.AccountDeleted)
	})
	if err != nil {
		return err
	}
	s.deps.Mail.Wake()
	s.applied(ctx)
	return nil
}

// Activity lists the account's audit trail, newest first.
func (s *Service) Activity(ctx context.Context, account, cursor string, limit int) ([]audit.Event, string, error) {
	return s.deps.Audit.List(ctx, s.deps.DB.Reader(), account, cursor, limit)
}
