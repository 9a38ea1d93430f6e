package federation

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations are the tables of this package. They follow identity's.
var Migrations = sqldb.Migrations{Name: "federation", FS: files}

// Deps is what the service works with.
type Deps struct {
	DB        *sqldb.DB
	People    *identity.Service
	Sealer    Sealer
	Replays   replay.Store
	Limiter   ratelimit.Limiter
	Issuer    string            // public address, without a trailing slash
	Transport http.RoundTripper // to providers; nil: the usual one
	Clock     func() time.Time
	Log       *slog.Logger
}

// Service is the use cases of signing in with others. It is safe for concurrent use.
type Service struct {
	cfg       Config
	deps      Deps
	providers map[string]*connected
	order     []string
}

// connected is a configured provider.
type connected struct {
	Provider
	provider
}

// New checks the configuration; it does no I/O. Providers are asked for their endpoints when somebody first signs in.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, deps: deps, providers: map[string]*connected{}}
	client := newClient(cfg.Timeout, deps.Transport)
	for _, p := range cfg.Providers {
		p = p.complete()
		s.providers[p.Name] = &connected{p, newProvider(p, deps.Issuer+callbackPath(p.Name), client, deps.Clock)}
		s.order = append(s.order, p.Name)
	}
	return s, nil
}

// maxReturnTo bounds where a person wanted to go, in bytes: with the rest it fits into the 4 KiB of a cookie.
const maxReturnTo = 2048

func callbackPath(provider string) string { return "/federation/" + provider + "/callback" }

func (s *Service) provider(name string) (*connected, error) {
	p, ok := s.providers[name]
	if !ok {
		return nil, ErrProvider
	}
	return p, nil
}

// admit counts a request by which a stranger costs us, or a provider, work.
func (s *Service) admit(ctx context.Context) error {
	perMinute := s.cfg.RequestsPerClient
	v, err := s.deps.Limiter.Take(ctx, ratelimit.Policy{Name: "federation.requests", Rate: perMinute, Period: time.Minute, Burst: max(1, perMinute/2)},
		ratelimit.Network(httpd.ClientAddr(ctx)))
	if err == nil && !v.Allowed {
		err = ErrTooMany.After(v.RetryAfter)
	}
	return err
}

// begin returns the address to send the person to, and the flow for their browser to keep. A caller is needed unless it is to sign in.
func (s *Service) begin(ctx context.Context, name string, i intent, caller *identity.Caller, returnTo string) (address, sealed string, err error) {
	p, err := s.provider(name)
	if err != nil {
		return "", "", err
	}
	if len(returnTo) > maxReturnTo {
		returnTo = "" // browsers drop a cookie that is too large, and the sign-in with it
	}
	f := newFlow(name, i, returnTo, s.deps.Clock())
	if i != intentSignIn {
		if caller == nil {
			return "", "", identity.ErrRecentSignIn
		}
		f.Account, f.Session = caller.Account, caller.Session
	}
	if i == intentConnect {
		if err := s.deps.People.Recent(*caller); err != nil {
			return "", "", err
		}
	}
	if address, err = p.begin(ctx, f); err != nil {
		return "", "", s.noted(ctx, name, err)
	}
	sealed, err = seal(s.deps.Sealer, sealFlow, f)
	return address, sealed, err
}

// finish verifies an answer that came to a provider's address in a browser with this flow, and returns who the person is.
func (s *Service) finish(ctx context.Context, name, sealed string, a answer) (flow, Identity, error) {
	var f flow
	p, err := s.provider(name)
	if err != nil {
		return f, Identity{}, err
	}
	if err := unseal(s.deps.Sealer, sealFlow, sealed, &f); err != nil {
		return flow{}, Identity{}, err
	}
	if !f.answeredBy(name, a.State, s.deps.Clock()) {
		return flow{}, Identity{}, ErrState
	}
	first, err := s.deps.Replays.Once(ctx, f.State, 2*flowLifetime)
	if err != nil {
		return f, Identity{}, err
	}
	if !first {
		return flow{}, Identity{}, ErrState
	}
	who, err := s.identify(ctx, p, f, a)
	if err == nil && a.Said != nil {
		err = s.firstUse(ctx, p, *a.Said)
	}
	return f, who, s.noted(ctx, name, err)
}

// firstUse lets an assertion count once (saml-profiles section 4.1.4.5).
func (s *Service) firstUse(ctx context.Context, p *connected, said statement) error {
	first, err := s.deps.Replays.Once(ctx, p.Issuer+"\x00"+said.Assertion, 2*flowLifetime)
	if err == nil && !first {
		err = ErrState
	}
	return err
}

func (s *Service) identify(ctx context.Context, p *connected, f flow, a answer) (Identity, error) {
	issuer, required, err := p.expects(ctx)
	switch {
	case err != nil:
		return Identity{}, err
	case a.Issuer != "" && issuer != "" && a.Issuer != issuer, a.Issuer == "" && required:
		return Identity{}, ErrAnswer.Wrap(fmt.Errorf("the answer names the issuer %.256q", a.Issuer)) // RFC 9207, section 2.4
	}
	if err := a.refusal(); err != nil {
		return Identity{}, err
	}
	if a.Code == "" && a.Said == nil {
		return Identity{}, ErrAnswer.Wrap(errors.New("the answer has no code"))
	}
	who, err := p.finish(ctx, f, a)
	if err != nil {
		return Identity{}, err
	}
	return who.checked()
}

// noted writes to the log what operators have to look at.
func (s *Service) noted(ctx context.Context, provider string, err error) error {
	switch {
	case errors.Is(err, ErrRefused):
		s.deps.Log.ErrorContext(ctx, "a provider refuses to work with this client; check its configuration", "provider", provider, "error", err)
	case errors.Is(err, ErrAnswer), errors.Is(err, ErrUnavailable):
		s.deps.Log.WarnContext(ctx, "a sign-in with a provider failed", "provider", provider, "error", err)
	}
	return err
}

// arrival is a browser in which an identity was proved.
type arrival struct {
	who         Identity
	deviceToken string
	visitor     *identity.Visitor // who was signed in there before, nil for nobody
	origin      audit.Origin
}

// amr says that the person was proved by another provider. RFC 8176 has no word for it; this one is in use.
func amr() []string { return []string{"fed"} }

// signIn lets the owner of the account in that the identity opens. found is false when it opens none.
func (s *Service) signIn(ctx context.Context, a arrival) (signed identity.SignedIn, found bool, err error) {
	account, err := opens(ctx, s.deps.DB.Reader(), a.who)
	if err != nil {
		return signed, false, err
	}
	permit := func(ctx context.Context, tx sqldb.Tx) error { return use(ctx, tx, a.who, account, s.deps.Clock()) }
	if account == "" {
		owner, err := s.trusted(ctx, a.who)
		if err != nil || owner == nil {
			return signed, false, err
		}
		account, permit = owner.ID, s.connectTrusted(a, *owner)
	}
	in := identity.Proved{Account: account, Way: a.who.Provider, AMR: amr(),
		DeviceToken: a.deviceToken, Browser: true, Origin: a.origin, Permit: permit}
	if a.visitor != nil {
		in.Replaces = a.visitor.Session
	}
	signed, err = s.deps.People.SignInProved(ctx, in)
	return signed, true, err
}

// trusted returns the account whose confirmed address the provider has verified, where the configuration lets that suffice.
func (s *Service) trusted(ctx context.Context, who Identity) (*identity.Account, error) {
	if !who.EmailVerified || !s.providers[who.Provider].LinkVerifiedEmail {
		return nil, nil
	}
	a, err := s.owner(ctx, who)
	if err != nil || a == nil || !a.EmailVerified || !mail.Same(a.Email, who.Email) {
		return nil, err
	}
	return a, nil
}

func (s *Service) connectTrusted(a arrival, owner identity.Account) func(context.Context, sqldb.Tx) error {
	return func(ctx context.Context, tx sqldb.Tx) error {
		now, err := s.deps.People.AccountByAddressTx(ctx, tx, a.who.Email)
		if err != nil || now.ID != owner.ID || !now.EmailVerified {
			return errors.Join(err, ErrState)
		}
		if err := connect(ctx, tx, a.who, owner.ID, s.deps.Clock()); err != nil {
			return err
		}
		return s.deps.People.WayChanged(ctx, tx, owner, s.added(a.who), a.origin)
	}
}

// owner returns the account with the identity's verified address, nil for none. What is not verified is not looked up: nobody learns
// whether there is an account for an address that is not theirs.
func (s *Service) owner(ctx context.Context, who Identity) (*identity.Account, error) {
	if !who.EmailVerified {
		return nil, nil
	}
	a, err := s.deps.People.AccountByAddress(ctx, who.Email)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &a, nil
}

func (s *Service) added(who Identity) identity.WayChange {
	return identity.WayChange{Action: "way.added", Letter: "way_added", Way: s.providers[who.Provider].Label}
}

// create makes an account for a new person whose address the provider has verified.
func (s *Service) create(ctx context.Context, who Identity, n identity.NewAccount, from audit.Origin) (identity.Account, error) {
	if !who.EmailVerified {
		return identity.Account{}, ErrState
	}
	if !s.providers[who.Provider].SignUp {
		return identity.Account{}, ErrNoSignUp
	}
	n.Email, n.Verified = who.Email, true
	return s.deps.People.CreateProved(ctx, n, s.way(who), from)
}

// confirm makes an account for a new person who has followed the mailed link.
func (s *Service) confirm(ctx context.Context, who Identity, token string, n identity.NewAccount, from audit.Origin) (identity.Account, error) {
	if !s.providers[who.Provider].SignUp {
		return identity.Account{}, ErrNoSignUp
	}
	return s.deps.People.ConfirmSignUpProved(ctx, token, n, s.way(who), from)
}

func (s *Service) way(who Identity) identity.Way {
	return func(ctx context.Context, tx sqldb.Tx, account string) error {
		return connect(ctx, tx, who, account, s.deps.Clock())
	}
}

// connect makes an identity that was proved at the given time open the caller's account.
func (s *Service) connect(ctx context.Context, c identity.Caller, who Identity, at time.Time) error {
	if s.deps.Clock().Sub(at) > flowLifetime {
		return ErrExpired
	}
	change := s.added(who)
	change.Change = func(ctx context.Context, tx sqldb.Tx, a identity.Account) error {
		return connect(ctx, tx, who, a.ID, s.deps.Clock())
	}
	return s.deps.People.ChangeWays(ctx, c, change)
}

// disconnect takes an identity from the caller's account, or answers ErrLastWay. Of two at once, the second sees what the first has
// left.
func (s *Service) disconnect(ctx context.Context, c identity.Caller, provider string) error {
	label := provider
	if p, known := s.providers[provider]; known {
		label = p.Label
	}
	return s.deps.People.ChangeWays(ctx, c, identity.WayChange{Action: "way.removed", Letter: "way_removed", Way: label,
		Change: func(ctx context.Context, tx sqldb.Tx, a identity.Account) error {
			all, err := connections(ctx, tx, a.ID)
			if err != nil {
				return err
			}
			if !s.deps.People.PasswordOpens(a) && !s.anyOther(all, provider) {
				return ErrLastWay
			}
			res, err := tx.ExecContext(ctx, deleteIdentity, a.ID, provider)
			if err != nil {
				return err
			}
			if done, err := changed(res); err != nil || !done {
				return errors.Join(err, ErrProvider)
			}
			return nil
		}})
}

// anyOther reports whether one of the connections, other than the provider's, can be used today.
func (s *Service) anyOther(all []Connection, provider string) bool {
	for _, c := range all {
		if p, known := s.providers[c.Provider]; known && c.Provider != provider && p.Issuer == c.authority {
			return true
		}
	}
	return false
}

// reauthenticate takes an identity that opens the caller's account as proof that it is still the owner.
func (s *Service) reauthenticate(ctx context.Context, c identity.Caller, who Identity) (cookie string, err error) {
	account, err := opens(ctx, s.deps.DB.Reader(), who)
	if err != nil {
		return "", err
	}
	if account != c.Account {
		return "", ErrNotConnected
	}
	return s.deps.People.ReauthenticateProved(ctx, c, who.Provider)
}

// Connections lists what opens an account.
func (s *Service) Connections(ctx context.Context, account string) ([]Connection, error) {
	return connections(ctx, s.deps.DB.Reader(), account)
}
