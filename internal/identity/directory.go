package identity

import (
	"cmp"
	"context"
	"errors"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// Faults of people whose password a directory keeps.
var (
	// ErrDirectory answers by the address alone, or to the account's owner: whether there is an account does not show.
	ErrDirectory = fault.New(fault.Conflict, "identity.password_elsewhere",
		"The password for this address is kept, and changed, by your organisation. Sign in with it.")
	ErrDirectoryAddress = fault.New(fault.Conflict, "identity.directory_address",
		"Your organisation's directory does not say which mail address is yours, or another account has it. Ask the people who run this service.")
)

// Directory keeps the passwords of people in some mail domains: a company's LDAP server. It alone is asked about them, so that
// an account which it has closed is closed here.
type Directory interface {
	// Describe names the directory: for the database, permanently, for people, and where they change their password ("": unknown).
	Describe() (name, label, passwordURL string)
	// Holds reports whether people who type this to sign in are the directory's.
	Holds(typed string) bool
	// Authenticate proves a password. ErrCredentials is a wrong one, or nobody's; ErrTooManyAttempts an entry that the directory
	// has locked. Every other error costs no attempt.
	Authenticate(ctx context.Context, typed, password string) (DirectoryEntry, error)
	// Keeps reports whether what was typed still names the entry, and the entry may be used. An error means that nobody knows.
	Keeps(ctx context.Context, typed, subject string) (bool, error)
}

// DirectoryEntry is a person as a directory knows them.
type DirectoryEntry struct {
	Subject string // permanent within the directory
	Email   string // an address that the directory answers for, or ""
	Name    string
	// Links lets the directory open the account that has the address, whoever made it.
	Links bool
}

// directoryOf returns whose password somebody types who types this, nil for ours.
func (s *Service) directoryOf(typed string) Directory {
	for _, d := range s.deps.Directories {
		if d.Holds(typed) {
			return d
		}
	}
	return nil
}

// admitFromDirectory is admit with a directory's word instead of a password of ours. It does not pass the gate of the hasher.
func (s *Service) admitFromDirectory(ctx context.Context, d Directory, e entry, mismatch func()) (SignedIn, error) {
	person, err := d.Authenticate(ctx, e.in.Identifier, e.in.Password)
	if err != nil {
		if errors.Is(err, ErrCredentials) || errors.Is(err, ErrTooManyAttempts) {
			mismatch()
		}
		return SignedIn{}, err
	}
	if e.account, err = s.accountOf(ctx, d, person, e.in); err != nil {
		return SignedIn{}, err
	}
	if e.knownDevice, err = s.knowsDevice(ctx, e.account, e.in.DeviceToken); err != nil {
		return SignedIn{}, err
	}
	if err := s.welcome(ctx, e.account); err != nil {
		return SignedIn{}, err
	}
	name, _, _ := d.Describe()
	e.permit = func(ctx context.Context, tx sqldb.Tx) error {
		res, err := tx.ExecContext(ctx, useEntry, e.in.Identifier, sqldb.Micros(s.deps.Clock()), e.account.ID, name, person.Subject)
		if err != nil {
			return err
		}
		if done, err := changed(res); err != nil || !done {
			return errors.Join(err, ErrOvertaken)
		}
		return nil
	}
	e.way, e.amr, e.typed = name, passwordAMR(), parseIdentifier(e.in.Identifier).key
	return s.enter(ctx, e)
}

// entryKnowsDevice reports whether the device belongs to whoever last signed in with what was typed: a directory's name for a person need
// not be the address of their account.
func (s *Service) entryKnowsDevice(ctx context.Context, d Directory, in SignIn) (bool, error) {
	name, _, _ := d.Describe()
	n, err := sqldb.One(ctx, s.deps.DB.Reader(), scanCount, knownDeviceOfEntry,
		secretHash(in.DeviceToken), sqldb.Micros(s.deps.Clock()), name, in.Identifier)
	return n > 0, err
}

// accountOf returns the account that an entry opens. One that opens none gets the account with its address, where that is allowed,
// or a new one. Of several who come first at once, one makes it and the others find it.
func (s *Service) accountOf(ctx context.Context, d Directory, person DirectoryEntry, in SignIn) (Account, error) {
	name, _, _ := d.Describe()
	for try := 1; ; try++ {
		a, err := sqldb.One(ctx, s.deps.DB.Writer(), scanAccount, accountByEntry, name, person.Subject)
		if !errors.Is(err, sqldb.ErrNotFound) {
			return a, err
		}
		err = s.adopt(ctx, d, person, in)
		if err != nil && (try == maxEdits || !errors.Is(err, ErrEmailTaken) && !errors.Is(err, ErrOvertaken)) {
			return Account{}, err
		}
	}
}

// adopt makes an entry open an account.
func (s *Service) adopt(ctx context.Context, d Directory, person DirectoryEntry, in SignIn) error {
	if person.Email == "" {
		return ErrDirectoryAddress
	}
	name, label, _ := d.Describe()
	a, err := s.AccountByAddress(ctx, person.Email)
	switch {
	case errors.Is(err, ErrNotFound):
		n := NewAccount{Email: person.Email, Name: cmp.Or(person.Name, person.Email), Verified: true,
			way: func(ctx context.Context, tx sqldb.Tx, account string) error {
				return s.open(ctx, tx, name, person, in.Identifier, Account{ID: account})
			}}
		_, err := s.create(ctx, n, "", in.Origin, nothingMore)
		return err
	case err != nil:
		return err
	case a.Directory == name && a.directorySubject == person.Subject:
		return nil // somebody was quicker
	case !person.Links || a.Directory != "" || !mail.Same(a.Email, person.Email):
		return ErrDirectoryAddress
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.open(ctx, tx, name, person, in.Identifier, a); err != nil {
			return err
		}
		if err := dropPrepared(ctx, tx, a.ID); err != nil {
			return err
		}
		if err := s.WayChanged(ctx, tx, a, WayChange{Action: "way.added", Letter: "way_added", Way: label}, in.Origin); err != nil {
			return err
		}
		return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, session.PasswordChanged)
	})
	if err == nil {
		s.deps.Mail.Wake()
		s.applied(ctx)
	}
	return err
}

// open hands an account's password over to a directory: the one that it had is gone, with whatever it had opened.
func (s *Service) open(ctx context.Context, tx sqldb.Tx, directory string, person DirectoryEntry, typed string, a Account) error {
	now := max(sqldb.Micros(s.deps.Clock()), sqldb.Micros(a.PasswordChangedAt)+1)
	res, err := tx.ExecContext(ctx, openByEntry, directory, person.Subject, typed, now, a.ID)
	if sqldb.IsUnique(err) {
		return ErrOvertaken
	}
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrOvertaken)
	}
	return nil
}

// proveOwner is prove for whoever keeps the password of the account.
func (s *Service) proveOwner(ctx context.Context, a Account, pw string) error {
	if a.Directory == "" {
		_, err := s.prove(ctx, a, pw, nil)
		return err
	}
	d := s.directoryNamed(a.Directory)
	if d == nil {
		return ErrCredentials // of a directory that is not asked any more
	}
	person, err := d.Authenticate(ctx, a.directoryLogin, pw)
	if err == nil && person.Subject != a.directorySubject {
		err = ErrCredentials // what was typed names somebody else today
	}
	return err
}

// PasswordOpens reports whether the account's own password lets its owner in: who types the address of a directory is asked for the
// password there, and has none but the user name to type.
func (s *Service) PasswordOpens(a Account) bool {
	return a.HasPassword() && (a.UserName != "" || s.directoryOf(a.Email) == nil)
}

// directoryNamed returns nil for one that is not configured.
func (s *Service) directoryNamed(wanted string) Directory {
	for _, d := range s.deps.Directories {
		if name, _, _ := d.Describe(); name == wanted {
			return d
		}
	}
	return nil
}

// PasswordPlace tells who keeps the password of whoever types this, and where it is changed; ok is false where that is here.
func (s *Service) PasswordPlace(typed string) (label, address string, ok bool) {
	d := s.directoryOf(typed)
	if d == nil {
		return "", "", false
	}
	_, label, address = d.Describe()
	return label, address, true
}

// passwordPlaceOf is PasswordPlace for an account.
func (s *Service) passwordPlaceOf(a Account) (label, address string) {
	if d := s.directoryNamed(a.Directory); d != nil {
		_, label, address = d.Describe()
		return label, address
	}
	return a.Directory, ""
}
