package identity

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// SignIn is an attempt to sign in with an address or user name and a password.
type SignIn struct {
	Identifier, Password string
	DeviceToken          string          // of an earlier sign-in from this device, or ""
	Browser              bool            // a page session with a cookie instead of tokens
	Replaces             session.Session // the page session that this browser had, ended by success; zero: none
	Origin               audit.Origin
}

// SignedIn is a successful sign-in. Tokens is filled for programs, Cookie for pages.
type SignedIn struct {
	Account     Account
	Session     session.Session
	Tokens      session.Tokens
	Cookie      string
	DeviceToken string
}

// identifierKey folds what was typed into what is looked up: addresses by their key, user names in lower case.
func identifierKey(typed string) (key string, isAddress bool) {
	typed = strings.TrimSpace(typed)
	if addr, err := mail.ParseAddress(typed); err == nil {
		return addr.Key, true
	}
	return strings.ToLower(norm.NFKC.String(typed)), false
}

const maxIdentifier = 254

// SignIn proves a password and starts a session. Every failure is ErrCredentials, after the same work and time, whether
// or not the account exists; too many are ErrTooManyAttempts, likewise. ErrDisabled is told only to who knows the password.
func (s *Service) SignIn(ctx context.Context, in SignIn) (SignedIn, error) {
	if len(in.Identifier) > maxIdentifier || len(in.DeviceToken) > maxSecretBytes {
		return SignedIn{}, ErrCredentials
	}
	key, isAddress := identifierKey(in.Identifier)
	account, known, err := s.candidate(ctx, key, isAddress, in.DeviceToken)
	if err != nil {
		return SignedIn{}, err
	}
	taken, err := s.takeAttempts(ctx, key, known, in)
	if err != nil {
		return SignedIn{}, err
	}
	newHash, err := s.prove(ctx, account, in.Password)
	if err != nil {
		return SignedIn{}, err
	}
	if account.Status != Active {
		return SignedIn{}, ErrDisabled
	}
	return s.enter(ctx, entry{in: in, account: account, knownDevice: known, newHash: newHash, taken: taken})
}

// candidate looks up the account that an identifier names and whether it knows the device. An account that does not
// exist costs the same statements and is the zero Account.
func (s *Service) candidate(ctx context.Context, key string, isAddress bool, deviceToken string) (Account, bool, error) {
	query := accountByUserName
	if isAddress {
		query = accountByEmail
	}
	q := s.deps.DB.Reader()
	a, err := sqldb.One(ctx, q, scanAccount, query, key)
	if err != nil && !errors.Is(err, sqldb.ErrNotFound) {
		return Account{}, false, err
	}
	n, err := sqldb.One(ctx, q, scanCount, knownDevice, a.ID, secretHash(deviceToken), sqldb.Micros(s.deps.Clock()))
	return a, n > 0, err
}

// takenAttempts are the counters that this attempt was counted on.
type takenAttempts struct{ aimedAt, network attemptKey }

// takeAttempts counts the attempt before it is made. A device that the account knows has a counter of its own: strangers
// who lock the account do not lock out its owner.
func (s *Service) takeAttempts(ctx context.Context, identifier string, knownDevice bool, in SignIn) (takenAttempts, error) {
	t := takenAttempts{aimedAt: newAttemptKey("account", identifier), network: networkKey(in.Origin.Address)}
	if knownDevice {
		t.aimedAt = newAttemptKey("device", identifier, in.DeviceToken)
	}
	limits := s.cfg.Attempts
	if _, err := s.attempts.take(ctx, t.network, limits.Address); err != nil {
		return t, err
	}
	count, err := s.attempts.take(ctx, t.aimedAt, limits.Account)
	if err != nil {
		return t, err
	}
	if count == limits.Account.LockAfter {
		return t, s.tellLocked(ctx, identifier, in.Origin)
	}
	return t, nil
}

// tellLocked writes to whoever has the identifier that sign-in is locked. The letter's composer finds out whether
// anybody has.
func (s *Service) tellLocked(ctx context.Context, identifier string, from audit.Origin) error {
	until := s.deps.Clock().Add(s.cfg.Attempts.Account.LockFor)
	err := s.deps.Mail.Enqueue(ctx, s.deps.DB.Writer(), mail.Letter{
		Kind: letterLocked, CreatedAt: s.deps.Clock(),
		Data: map[string]string{
			"identifier": identifier, "until": until.UTC().Format(time.RFC3339), "from": addrText(from.Address),
			"device": session.DeviceLabel(from.UserAgent),
		},
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return err
}

// prove checks the password, and answers a new hash if the stored one is weaker than today's.
func (s *Service) prove(ctx context.Context, a Account, pw string) (newHash string, err error) {
	if a.ID == "" {
		if err := s.deps.Hasher.VerifyNothing(ctx, pw); err != nil {
			return "", err
		}
		return "", ErrCredentials
	}
	ok, upgrade, err := s.deps.Hasher.Verify(ctx, a.passwordHash, pw)
	switch {
	case errors.Is(err, password.ErrUnsupported):
		s.deps.Log.ErrorContext(ctx, "stored password hash cannot be verified", "account", a.ID, "error", err)
		return "", ErrCredentials
	case err != nil:
		return "", err
	case !ok:
		return "", ErrCredentials
	case upgrade:
		newHash, err = s.deps.Hasher.Hash(ctx, pw)
		if errors.Is(err, password.ErrBusy) {
			return "", nil // the next sign-in will do
		}
	}
	return newHash, err
}

// entry is a proved sign-in about to become a session.
type entry struct {
	in          SignIn
	account     Account
	knownDevice bool
	newHash     string
	taken       takenAttempts
}

func (s *Service) enter(ctx context.Context, e entry) (SignedIn, error) {
	out := SignedIn{DeviceToken: e.in.DeviceToken}
	if !e.knownDevice {
		out.DeviceToken = newSecret().text
	}
	var starting *session.Starting
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.markSignIn(ctx, tx, e); err != nil {
			return err
		}
		if err := s.rememberDevice(ctx, tx, e, out.DeviceToken); err != nil {
			return err
		}
		var err error
		if starting, err = s.deps.Sessions.Begin(ctx, tx, s.newSession(e)); err != nil {
			return err
		}
		if out.Account, err = loadAccount(ctx, tx, e.account.ID); err != nil {
			return err
		}
		return s.record(ctx, tx, e.account.ID, "session.started", e.in.Origin,
			map[string]string{"session": starting.Session.ID, "new_device": strconv.FormatBool(!e.knownDevice)})
	})
	if err != nil {
		return SignedIn{}, err
	}
	started, err := starting.Commit(ctx)
	if err != nil {
		return SignedIn{}, err
	}
	out.Session, out.Tokens, out.Cookie = started.Session, started.Tokens, started.Cookie
	s.deps.Mail.Wake()
	if old := e.in.Replaces; old.ID != "" {
		// The browser forgets the old cookie with this answer; nobody holds it if the process dies just here.
		if err := s.deps.Sessions.End(ctx, old.Subject, old.ID, session.SignedOut); err != nil && !errors.Is(err, session.ErrNotFound) {
			return SignedIn{}, err
		}
	}
	s.applied(ctx)
	return out, nil
}

// markSignIn holds the account's row for the transaction: a password change, a reset or a disabling either came before and
// refuses this sign-in, or comes after and ends its session.
func (s *Service) markSignIn(ctx context.Context, tx sqldb.Tx, e entry) error {
	res, err := tx.ExecContext(ctx, markSignIn, sqldb.Micros(s.deps.Clock()), e.account.ID, e.account.passwordHash)
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrCredentials)
	}
	if e.newHash != "" {
		if _, err := tx.ExecContext(ctx, upgradePassword, e.newHash, e.account.ID, e.account.passwordHash); err != nil {
			return err
		}
	}
	if err := s.attempts.reset(ctx, tx, e.taken.aimedAt); err != nil {
		return err
	}
	return s.attempts.giveBack(ctx, tx, e.taken.network)
}

const maxDevices = 50

// rememberDevice makes the device known to the account, and tells the owner of one that was not; the first device of a
// new account is no news.
func (s *Service) rememberDevice(ctx context.Context, tx sqldb.Tx, e entry, token string) error {
	before, err := sqldb.One(ctx, tx, scanCount, countDevices, e.account.ID)
	if err != nil {
		return err
	}
	now := s.deps.Clock()
	_, err = tx.ExecContext(ctx, keepDevice, e.account.ID, secretHash(token), sqldb.Micros(now),
		sqldb.Micros(now.Add(s.cfg.DeviceLifetime)))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, trimDevices, e.account.ID, maxDevices); err != nil {
		return err
	}
	if e.knownDevice || before == 0 {
		return nil
	}
	return s.tell(ctx, tx, letterNewDevice, e.account, e.in.Origin, map[string]string{"time": now.UTC().Format(time.RFC3339)})
}

// passwordACR and passwordAMR say how the person proved who they are (RFC 8176).
const passwordACR = "1"

func passwordAMR() []string { return []string{"pwd"} }

func (s *Service) newSession(e entry) session.Start {
	return session.Start{
		Subject: e.account.ID, Page: e.in.Browser, ClientID: session.FirstParty, Roles: e.account.Roles,
		ACR: passwordACR, AMR: passwordAMR(), AuthTime: s.deps.Clock(), Device: device(e.in.Origin),
	}
}

func device(from audit.Origin) session.Device {
	return session.Device{Label: session.DeviceLabel(from.UserAgent), UserAgent: from.UserAgent, Address: from.Address}
}

// Reauthenticate proves the password again in a page session and answers the session's new cookie.
func (s *Service) Reauthenticate(ctx context.Context, c Caller, pw string) (cookie string, err error) {
	a, err := s.proveCaller(ctx, c, pw, ErrCredentials)
	if err != nil {
		return "", err
	}
	var commit func(context.Context) (string, error)
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if commit, err = s.deps.Sessions.Reauthenticated(ctx, tx, a.ID, c.Session); err != nil {
			return err
		}
		return s.record(ctx, tx, a.ID, "session.reauthenticated", c.Origin, map[string]string{"session": c.Session})
	})
	if err != nil {
		return "", err
	}
	return commit(ctx)
}

// proveCaller checks the password of somebody who is signed in, as limited as signing in: whoever found an open browser
// must not be able to guess on.
func (s *Service) proveCaller(ctx context.Context, c Caller, pw string, wrong error) (Account, error) {
	a, err := loadAccount(ctx, s.deps.DB.Reader(), c.Account)
	if err != nil {
		return Account{}, err
	}
	key := newAttemptKey("caller", a.ID)
	if _, err := s.attempts.take(ctx, key, s.cfg.Attempts.Account); err != nil {
		return Account{}, err
	}
	if _, err := s.prove(ctx, a, pw); errors.Is(err, ErrCredentials) {
		return Account{}, wrong
	} else if err != nil {
		return Account{}, err
	}
	return a, s.attempts.reset(ctx, s.deps.DB.Writer(), key)
}
