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
	Thumbprint           string          // of the key that the tokens are to be bound to, or ""
	Browser              bool            // a page session with a cookie instead of tokens
	Replaces             session.Session // the page session that this browser had, ended by success; zero: none
	Origin               audit.Origin
	Program              *Program // whose tokens these are to be; nil: Sumun's own
}

// Program is a program that has taken a person's password itself. It gets a session of its own.
type Program struct {
	ClientID    string
	ClientEpoch int64
	Scope       string
	Audience    []string
	Thumbprint  string // of the key that the tokens are to be bound to, or ""
	Form        session.Form
	// Note is called in the transaction of the sign-in with the session and the id of the program's grant.
	Note func(ctx context.Context, tx sqldb.Tx, one session.Session, grantID string) error
}

// SignedIn is a successful sign-in. Tokens is filled for programs, Cookie for pages.
type SignedIn struct {
	Account     Account
	Session     session.Session
	Tokens      session.Tokens
	Cookie      string
	DeviceToken string
}

// identifier is what somebody typed to sign in, folded into what is looked up and counted. What can be neither an address nor
// a user name finds nobody, and is counted all the same.
type identifier struct {
	key   string // of the attempts
	query string
	arg   string
}

func parseIdentifier(typed string) identifier {
	typed = strings.TrimSpace(typed)
	if addr, err := mail.ParseAddress(typed); err == nil {
		return identifier{key: addr.Key, query: accountByEmail, arg: addr.Key}
	}
	_, key, err := parseUserName(norm.NFKC.String(typed))
	if err != nil {
		return identifier{key: strings.ToLower(typed), query: accountByUserName}
	}
	return identifier{key: key, query: accountByUserName, arg: key}
}

const maxIdentifier = 254

// SignIn proves a password and starts a session. Every failure is ErrCredentials, after the same work and time, whether
// or not the account exists; too many are ErrTooManyAttempts, likewise. ErrDisabled is told only to who knows the password.
// Whatever is not the person's fault (ErrBusy, an outage) costs no attempt.
func (s *Service) SignIn(ctx context.Context, in SignIn) (SignedIn, error) {
	if len(in.Identifier) > maxIdentifier {
		return SignedIn{}, ErrCredentials
	}
	if len(in.DeviceToken) > maxSecretBytes {
		in.DeviceToken = "" // not one of ours
	}
	id := parseIdentifier(in.Identifier)
	account, known, err := s.candidate(ctx, id, in.DeviceToken)
	if err != nil {
		return SignedIn{}, err
	}
	d := s.directoryOf(in.Identifier)
	if d != nil && !known {
		if known, err = s.entryKnowsDevice(ctx, d, in); err != nil {
			return SignedIn{}, err
		}
	}
	attempt, err := s.takeAttempt(ctx, id, known, in)
	if err != nil {
		return SignedIn{}, err
	}
	wrong := false
	e := entry{in: in, account: account, knownDevice: known}
	mismatch := func() {
		wrong = true
		s.countFailure(ctx, id, known, attempt, in.Origin)
	}
	var out SignedIn
	if d != nil {
		out, err = s.admitFromDirectory(ctx, d, e, mismatch)
	} else {
		out, err = s.admit(ctx, e, mismatch)
	}
	if err != nil {
		if !wrong {
			s.forgive(ctx, attempt)
		}
		return SignedIn{}, err
	}
	return out, nil
}

// admit is a sign-in whose attempt has been counted. It reports a wrong password to mismatch at once, before the answer is
// drawn out.
func (s *Service) admit(ctx context.Context, e entry, mismatch func()) (SignedIn, error) {
	newHash, err := s.prove(ctx, e.account, e.in.Password, mismatch)
	if err != nil {
		return SignedIn{}, err
	}
	if err := s.welcome(ctx, e.account); err != nil {
		return SignedIn{}, err
	}
	e.newHash = newHash
	return s.enter(ctx, e)
}

// welcome says whether an account may be entered by somebody who has proved to be its owner.
func (s *Service) welcome(ctx context.Context, a Account) error {
	if a.Status != Active {
		return ErrDisabled
	}
	return s.allow(ctx, allowance{"sign_ins", a.ID, s.cfg.Requests.SignInsPerAccount})
}

// candidate looks up the account that an identifier names and whether it knows the device. An account that does not
// exist costs the same statements and is the zero Account.
func (s *Service) candidate(ctx context.Context, id identifier, deviceToken string) (Account, bool, error) {
	q := s.deps.DB.Reader()
	a, err := sqldb.One(ctx, q, scanAccount, id.query, id.arg)
	if err != nil && !errors.Is(err, sqldb.ErrNotFound) {
		return Account{}, false, err
	}
	known, err := s.knowsDevice(ctx, a, deviceToken)
	return a, known, err
}

func (s *Service) knowsDevice(ctx context.Context, a Account, deviceToken string) (bool, error) {
	n, err := sqldb.One(ctx, s.deps.DB.Reader(), scanCount, knownDevice, a.ID, secretHash(deviceToken), sqldb.Micros(s.deps.Clock()))
	return n > 0, err
}

// takeAttempt counts the attempt on the account before it is made. A device that the account knows has a share of its own and
// is not held up by its network: strangers who lock the account, or the network, do not lock out its owner.
func (s *Service) takeAttempt(ctx context.Context, id identifier, knownDevice bool, in SignIn) (taken, error) {
	if knownDevice {
		return s.attempts.take(ctx, newAttemptKey("device", id.key, in.DeviceToken), s.cfg.Attempts.Account)
	}
	if err := s.attempts.check(ctx, networkKey(in.Origin.Address)); err != nil {
		return taken{}, err
	}
	return s.attempts.take(ctx, accountKey(id.key), s.cfg.Attempts.Account)
}

// countFailure is for a wrong password: the network is charged with it, and whoever has the identifier is told when it locked.
// It is finished also when who guessed has hung up.
func (s *Service) countFailure(ctx context.Context, id identifier, knownDevice bool, attempt taken, from audit.Origin) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	if !knownDevice {
		_, err := s.attempts.take(ctx, networkKey(from.Address), s.cfg.Attempts.Address)
		if err != nil && !errors.Is(err, ErrTooManyAttempts) {
			s.deps.Log.WarnContext(ctx, "a wrong password is not charged to its network", "error", err)
		}
	}
	if !attempt.locks() {
		return
	}
	if err := s.tellLocked(ctx, id, attempt, from); err != nil {
		s.deps.Log.WarnContext(ctx, "the owner is not told of a lock", "error", err)
	}
}

// tellLocked writes to whoever has the identifier that sign-in is locked; the letter's composer finds out whether anybody has.
func (s *Service) tellLocked(ctx context.Context, id identifier, attempt taken, from audit.Origin) error {
	until := s.deps.Clock().Add(attempt.limit.LockFor)
	err := s.deps.Mail.Enqueue(ctx, s.deps.DB.Writer(), mail.Letter{
		Kind: letterLocked, CreatedAt: s.deps.Clock(),
		Data: map[string]string{
			"identifier": id.key, "until": until.UTC().Format(time.RFC3339), "from": audit.AddressText(from.Address),
			"device": session.DeviceLabel(from.UserAgent),
		},
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return err
}

// forgive gives an attempt back, also when who made it has gone meanwhile.
func (s *Service) forgive(ctx context.Context, attempt taken) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	if err := s.attempts.giveBack(ctx, attempt); err != nil {
		s.deps.Log.WarnContext(ctx, "an attempt that was not a wrong password stays counted", "error", err)
	}
}

const countTimeout = 2 * time.Second

// prove checks the password, and answers a new hash if the stored one is weaker than today's.
func (s *Service) prove(ctx context.Context, a Account, pw string, mismatch func()) (newHash string, err error) {
	if !a.HasPassword() { // or no account at all
		if err := s.deps.Hasher.VerifyNothing(ctx, pw, mismatch); err != nil {
			return "", err
		}
		return "", ErrCredentials
	}
	ok, upgrade, err := s.deps.Hasher.Verify(ctx, a.passwordHash, pw, mismatch)
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
	newHash     string // "": the stored one is good enough
	// Where somebody else proved the person, instead of a password:
	way    string
	amr    []string
	permit func(context.Context, sqldb.Tx) error
	typed  string // the key of the attempts, where a directory has checked a password after all
}

func (s *Service) enter(ctx context.Context, e entry) (SignedIn, error) {
	out := SignedIn{DeviceToken: e.in.DeviceToken}
	if !e.knownDevice {
		out.DeviceToken = newSecret().text
	}
	news, err := s.newsworthy(ctx, e)
	if err != nil {
		return SignedIn{}, err
	}
	var starting *session.Starting
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.markSignIn(ctx, tx, e); err != nil {
			return err
		}
		if e.permit != nil {
			if err := e.permit(ctx, tx); err != nil {
				return err
			}
		}
		if err := s.rememberDevice(ctx, tx, e, out.DeviceToken, news); err != nil {
			return err
		}
		var err error
		if starting, err = s.deps.Sessions.Begin(ctx, tx, s.newSession(e)); err != nil {
			return err
		}
		if e.in.Program != nil {
			if err := e.in.Program.Note(ctx, tx, starting.Session, starting.GrantID()); err != nil {
				return err
			}
		}
		if out.Account, err = loadAccount(ctx, tx, e.account.ID); err != nil {
			return err
		}
		detail := map[string]string{"session": starting.Session.ID, "new_device": strconv.FormatBool(!e.knownDevice),
			"bound": strconv.FormatBool(starting.Bound())}
		if e.way != "" {
			detail["way"] = e.way
		}
		return s.record(ctx, tx, e.account.ID, "session.started", e.in.Origin, detail)
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
	s.endReplaced(ctx, e.in.Replaces)
	s.applied(ctx)
	return out, nil
}

// endReplaced ends the page session that the browser had before. It forgets the old cookie with this answer, so nobody holds
// that session if ending it does not work.
func (s *Service) endReplaced(ctx context.Context, old session.Session) {
	if old.ID == "" {
		return
	}
	err := s.deps.Sessions.End(ctx, old.Subject, old.ID, session.SignedOut)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		s.deps.Log.WarnContext(ctx, "the session that a sign-in replaces is not ended", "session", old.ID, "error", err)
	}
}

// markSignIn holds the account's row for the transaction: a password change, a reset or a disabling either came before and
// refuses this sign-in, or comes after and ends its session.
func (s *Service) markSignIn(ctx context.Context, tx sqldb.Tx, e entry) error {
	a := e.account
	res, err := tx.ExecContext(ctx, markSignIn, sqldb.Micros(s.deps.Clock()), a.ID, sqldb.Micros(a.PasswordChangedAt))
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || !done {
		return errors.Join(err, ErrCredentials)
	}
	if e.newHash != "" {
		if _, err := tx.ExecContext(ctx, upgradePassword, e.newHash, a.ID, a.passwordHash); err != nil {
			return err
		}
	}
	keys := attemptKeys(a, e.in.DeviceToken)
	switch {
	case e.typed != "":
		keys = append(keys, accountKey(e.typed), newAttemptKey("device", e.typed, e.in.DeviceToken))
	case e.way != "":
		return nil // who came in another way has not shown that the guesses at the password were their own
	}
	return s.attempts.empty(ctx, tx, keys...)
}

// attemptKeys are the buckets of an account, under both of its names, and of one of its devices.
func attemptKeys(a Account, deviceToken string) []attemptKey {
	var keys []attemptKey
	for _, name := range []string{a.emailKey, strings.ToLower(a.UserName)} {
		keys = append(keys, accountKey(name), newAttemptKey("device", name, deviceToken))
	}
	return keys
}

const maxDevices = 50

// newsworthy reports whether the owner is to hear of the device by mail: not of a known one, and of so many an hour.
func (s *Service) newsworthy(ctx context.Context, e entry) (bool, error) {
	if e.knownDevice {
		return false, nil
	}
	err := s.allow(ctx, allowance{"mails." + letterNewDevice, e.account.ID, s.cfg.Requests.MailsPerAddress})
	if errors.Is(err, ErrTooManyRequests) {
		return false, nil
	}
	return err == nil, err
}

// rememberDevice makes the device known to the account, and tells the owner of one that is news; the first device of a new
// account is none.
func (s *Service) rememberDevice(ctx context.Context, tx sqldb.Tx, e entry, token string, news bool) error {
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
	if !news || before == 0 {
		return nil
	}
	return s.tell(ctx, tx, letterNewDevice, e.account, e.in.Origin, map[string]string{"time": now.UTC().Format(time.RFC3339)})
}

// ACR is the authentication context of every sign-in: one factor.
const ACR = "1"

// passwordAMR says how the person proved who they are (RFC 8176).
func passwordAMR() []string { return []string{"pwd"} }

func (s *Service) newSession(e entry) session.Start {
	amr := e.amr
	if e.way == "" {
		amr = passwordAMR()
	}
	start := session.Start{
		Subject: e.account.ID, Page: e.in.Browser, ClientID: session.FirstParty, Roles: e.account.Roles,
		ACR: ACR, AMR: amr, AuthTime: s.deps.Clock(), Device: device(e.in.Origin),
		Thumbprint: e.in.Thumbprint,
	}
	if p := e.in.Program; p != nil {
		start.ClientID, start.ClientEpoch, start.Confined, start.Scope, start.Audience = p.ClientID, p.ClientEpoch, true, p.Scope, p.Audience
		start.Thumbprint, start.Form = p.Thumbprint, p.Form
	}
	return start
}

func device(from audit.Origin) session.Device {
	return session.Device{Label: session.DeviceLabel(from.UserAgent), UserAgent: from.UserAgent, Address: from.Address}
}

// Reauthenticate proves the password again in a page session and answers the session's new cookie.
func (s *Service) Reauthenticate(ctx context.Context, c Caller, pw string) (cookie string, err error) {
	if _, err := s.proveCaller(ctx, c, pw, ErrCredentials); err != nil {
		return "", err
	}
	return s.reauthenticated(ctx, c, "")
}

func (s *Service) reauthenticated(ctx context.Context, c Caller, way string) (cookie string, err error) {
	detail := map[string]string{"session": c.Session}
	if way != "" {
		detail["way"] = way
	}
	var commit func(context.Context) (string, error)
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if commit, err = s.deps.Sessions.Reauthenticated(ctx, tx, c.Account, c.Session); err != nil {
			return err
		}
		return s.record(ctx, tx, c.Account, "session.reauthenticated", c.Origin, detail)
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
	attempt, err := s.attempts.take(ctx, newAttemptKey("caller", a.ID), s.cfg.Attempts.Account)
	if err != nil {
		return Account{}, err
	}
	switch err := s.proveOwner(ctx, a, pw); {
	case errors.Is(err, ErrCredentials):
		return Account{}, wrong
	case err != nil:
		s.forgive(ctx, attempt)
		return Account{}, err
	}
	return a, s.attempts.empty(ctx, s.deps.DB.Writer(), attempt.key)
}
