package identity

import (
	"context"
	"errors"
	"net/http"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// What package federation works with: people whom somebody else proved. They pass the same gate as people with a password, so that
// limits, disabled accounts, letters about new devices and the trail are the same however somebody signed in.

// ErrOvertaken answers a sign-in during which the account's password or status changed.
var ErrOvertaken = fault.New(fault.Conflict, "identity.sign_in_overtaken", "The account was changed meanwhile. Sign in again.")

// PathConfirmProved is the page to which SignUpProved's mail leads, served by the package that proved the person.
const PathConfirmProved = "/sign-up/connect"

// HasPassword reports whether the account can be entered with a password.
func (a Account) HasPassword() bool { return a.passwordHash != "" }

// asksPassword reports whether a password, here or in a directory, proves the account's owner.
func (a Account) asksPassword() bool { return a.HasPassword() || a.Directory != "" }

// Proved is a person whom somebody else has shown to be the owner of an account.
type Proved struct {
	Account     string
	Way         string   // who showed it, for the trail
	AMR         []string // RFC 8176
	DeviceToken string
	Browser     bool
	Thumbprint  string
	Replaces    session.Session
	Origin      audit.Origin
	// Permit takes part in the transaction that starts the session, and refuses what no longer holds there. It may run again.
	Permit func(context.Context, sqldb.Tx) error
}

// SignInProved starts a session as SignIn does. Faults: ErrNotFound, ErrDisabled, ErrTooManyRequests, ErrOvertaken, and Permit's.
func (s *Service) SignInProved(ctx context.Context, in Proved) (SignedIn, error) {
	a, err := s.Account(ctx, in.Account)
	if err != nil {
		return SignedIn{}, err
	}
	if a.Directory != "" {
		return SignedIn{}, ErrDirectory // else who has left the company would still come in
	}
	if len(in.DeviceToken) > maxSecretBytes {
		in.DeviceToken = ""
	}
	known, err := s.knowsDevice(ctx, a, in.DeviceToken)
	if err != nil {
		return SignedIn{}, err
	}
	if err := s.welcome(ctx, a); err != nil {
		return SignedIn{}, err
	}
	out, err := s.enter(ctx, entry{account: a, knownDevice: known, way: in.Way, amr: in.AMR, permit: in.Permit, in: SignIn{
		DeviceToken: in.DeviceToken, Thumbprint: in.Thumbprint, Browser: in.Browser, Replaces: in.Replaces, Origin: in.Origin,
	}})
	if errors.Is(err, ErrCredentials) {
		err = ErrOvertaken
	}
	return out, err
}

// Way records, in the transaction that makes an account without a password, how its owner gets in. It may run again.
type Way func(ctx context.Context, tx sqldb.Tx, account string) error

// CreateProved makes an account without a password. Whoever calls it answers for n.Email, if n.Verified says that it is proved. For
// addresses of a directory that is the directory alone: ErrDirectory.
func (s *Service) CreateProved(ctx context.Context, n NewAccount, way Way, from audit.Origin) (Account, error) {
	if s.directoryOf(n.Email) != nil {
		return Account{}, ErrDirectory
	}
	n.Roles, n.way = nil, way
	return s.create(ctx, n, "", from, nothingMore)
}

// SignUpProved asks, by mail, whether an address is the person's own. The letter leads to PathConfirmProved; where the address
// has an account it says so, and the answer is the same.
func (s *Service) SignUpProved(ctx context.Context, email, locale string, from audit.Origin) error {
	if s.directoryOf(email) != nil {
		return ErrDirectory
	}
	return s.requestLetter(ctx, letterSignUp, email, locale, from, map[string]string{"page": PathConfirmProved})
}

// ConfirmSignUpProved is ConfirmSignUp for an account without a password.
func (s *Service) ConfirmSignUpProved(ctx context.Context, token string, n NewAccount, way Way, from audit.Origin) (Account, error) {
	n.way = way
	return s.ConfirmSignUp(ctx, token, n, from)
}

// ReauthenticateProved is Reauthenticate for a person whom somebody else has proved again.
func (s *Service) ReauthenticateProved(ctx context.Context, c Caller, way string) (cookie string, err error) {
	a, err := s.Account(ctx, c.Account)
	if err != nil {
		return "", err
	}
	if a.Directory != "" {
		return "", ErrDirectory
	}
	return s.reauthenticated(ctx, c, way)
}

// Recent answers ErrRecentSignIn unless the caller signed in recently enough to change how the account is entered.
func (s *Service) Recent(c Caller) error { return c.recent(s.deps.Clock(), s.cfg.RecentSignIn) }

// WayChange adds a way into an account, or takes one away.
type WayChange struct {
	Action string // for the trail
	Letter string // the kind of letter that tells the owner
	Way    string // what it is called, for both
	// Change runs in a transaction that holds the account: of two changes, one sees what the other has done.
	Change func(ctx context.Context, tx sqldb.Tx, a Account) error
}

// ChangeWays carries out a change for a caller who has signed in recently.
func (s *Service) ChangeWays(ctx context.Context, c Caller, w WayChange) error {
	if err := s.Recent(c); err != nil {
		return err
	}
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		a, err := s.hold(ctx, tx, c.Account)
		if err != nil {
			return err
		}
		if a.Directory != "" {
			return ErrDirectory
		}
		if err := w.Change(ctx, tx, a); err != nil {
			return err
		}
		return s.WayChanged(ctx, tx, a, w, c.Origin)
	})
	s.deps.Mail.Wake()
	return err
}

// WayChanged records a change in the caller's transaction and tells the account's owner.
func (s *Service) WayChanged(ctx context.Context, tx sqldb.Tx, a Account, w WayChange, from audit.Origin) error {
	if err := s.tell(ctx, tx, w.Letter, a, from, map[string]string{"way": w.Way}); err != nil {
		return err
	}
	return s.record(ctx, tx, a.ID, w.Action, from, map[string]string{"way": w.Way})
}

// AccountByAddressTx is AccountByAddress within a transaction.
func (s *Service) AccountByAddressTx(ctx context.Context, tx sqldb.Tx, email string) (Account, error) {
	addr, err := parseEmail(email)
	if err != nil {
		return Account{}, err
	}
	return accountByAddress(ctx, tx, addr.Key)
}

// hold locks the row of an active account for the transaction.
func (s *Service) hold(ctx context.Context, tx sqldb.Tx, account string) (Account, error) {
	res, err := tx.ExecContext(ctx, holdAccount, sqldb.Micros(s.deps.Clock()), account)
	if err != nil {
		return Account{}, err
	}
	if done, err := changed(res); err != nil || !done {
		return Account{}, errors.Join(err, ErrNotFound)
	}
	return loadAccount(ctx, tx, account)
}

// Visitor is the person that the cookie of a page session proves.
type Visitor struct {
	Account Account
	Session session.Session
}

// Caller is the visitor asking for something.
func (v Visitor) Caller(ctx context.Context) Caller {
	return Caller{Account: v.Account.ID, Session: v.Session.ID, AuthTime: v.Session.AuthTime, Origin: OriginOf(ctx)}
}

// Visitor returns who is signed in at the browser, nil for nobody.
func (s *Service) Visitor(r *http.Request, cookies httpd.Cookies) (*Visitor, error) {
	v, err := pages{Service: s, cookies: cookies}.visitor(r)
	if err != nil && signedOut(err) {
		return nil, nil
	}
	if err != nil || v == nil {
		return nil, err
	}
	return &Visitor{Account: v.account, Session: v.session}, nil
}

// Remember gives the browser the cookies of a sign-in.
func (s *Service) Remember(w http.ResponseWriter, cookies httpd.Cookies, signed SignedIn) {
	p := pages{Service: s, cookies: cookies}
	p.remember(w, signed.Cookie)
	http.SetCookie(w, cookies.DeviceCookie(signed.DeviceToken, s.cfg.DeviceLifetime))
}

// RememberAgain gives the browser the new cookie of a session in which the person was proved again.
func (s *Service) RememberAgain(w http.ResponseWriter, cookies httpd.Cookies, cookie string) {
	pages{Service: s, cookies: cookies}.remember(w, cookie)
}

// DeviceToken is what the browser knows of earlier sign-ins, "" for nothing.
func DeviceToken(r *http.Request, cookies httpd.Cookies) string {
	c, err := r.Cookie(cookies.Device())
	if err != nil {
		return ""
	}
	return c.Value
}
