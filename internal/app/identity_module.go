package app

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/federation"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
	"github.com/sumunio/sumun/internal/web"
)

// identityModule is accounts, sessions, tokens and their pages, which are deployed together.
func identityModule() module {
	return module{
		name: "identity",
		sections: func(cfg *Config) map[string]validator {
			return map[string]validator{
				"tokens": cfg.Tokens, "sessions": cfg.Sessions, "passwords": cfg.Passwords,
				"identity": cfg.Identity, "oauth": cfg.OAuth, "federation": cfg.Federation, "directory": cfg.Directory, "mail": cfg.Mail, "audit": cfg.Audit,
			}
		},
		migrations: []sqldb.Migrations{
			audit.Migrations, mail.Migrations, replay.Migrations, token.Migrations, session.Migrations, identity.Migrations,
			oidc.Migrations, federation.Migrations,
		},
		build: func(f *foundation, _ []*unit) (*unit, error) {
			s, err := newIdentity(f)
			if err != nil {
				return nil, err
			}
			return s.unit(f)
		},
	}
}

// identityServices is the module before it is mounted, as the command line uses it too.
type identityServices struct {
	trail    *audit.Log
	mailbox  *mail.Mailbox // nil when mail really leaves
	queue    *mail.Queue
	tokens   *token.Service
	sessions *session.Service
	policy   *password.Policy
	pages    *web.Renderer
	people   *identity.Service
	clients  *oidc.Service
	others   *federation.Service
}

func newIdentity(f *foundation) (s *identityServices, err error) {
	s = &identityServices{trail: audit.New(f.cfg.Audit, f.clock)}
	if err = s.openMail(f); err != nil {
		return nil, err
	}
	proofs, err := session.NewProofs(f.cfg.Sessions, f.keyring, auth.ProofConfig{
		PublicURLs: []string{f.cfg.Issuer}, Replays: replay.Scoped(f.replays, "dpop"), Clock: f.clock,
	})
	if err != nil {
		return nil, err
	}
	if err = s.openSessions(f, proofs); err != nil {
		return nil, err
	}
	if s.pages, err = web.New(web.Config{
		Service: f.cfg.Service, Providers: f.cfg.Federation.Buttons(), Cookies: f.cfg.cookies(), RequestID: httpd.RequestID,
	}); err != nil {
		return nil, err
	}
	if s.policy, err = password.OpenPolicy(f.cfg.Passwords.Policy, f.log); err != nil {
		return nil, err
	}
	if err = s.openPeople(f, proofs); err != nil {
		return nil, errors.Join(err, s.policy.Close())
	}
	s.queue.Handle("", identity.NewLetters(s.people, s.pages).Compose)
	return s, nil
}

// openPeople makes what knows people: their accounts, the clients that they use, the other services that they sign in with.
func (s *identityServices) openPeople(f *foundation, proofs *auth.Proofs) error {
	if err := s.openAccounts(f); err != nil {
		return err
	}
	if err := s.openClients(f, proofs); err != nil {
		return err
	}
	return s.openFederation(f)
}

func (s *identityServices) openMail(f *foundation) error {
	transport, err := s.newTransport(f)
	if err != nil {
		return err
	}
	s.queue, err = mail.NewQueue(f.cfg.Mail, mail.Deps{DB: f.db, Transport: transport, Clock: f.clock, Log: f.log, Metrics: f.metrics})
	return err
}

func (s *identityServices) openSessions(f *foundation, proofs *auth.Proofs) (err error) {
	if s.tokens, err = newTokens(f); err != nil {
		return err
	}
	s.sessions, err = session.New(f.cfg.Sessions, session.Deps{
		DB: f.db, Redis: f.redis, Keyring: f.keyring, Tokens: s.tokens, Proofs: proofs,
		Audit: s.trail, Mail: s.queue, Wakes: f.bus, Clock: f.clock, Log: f.log, Metrics: f.metrics,
	})
	return err
}

func (s *identityServices) openAccounts(f *foundation) error {
	hasher, err := password.NewHasher(f.cfg.Passwords, f.keyring, f.metrics)
	if err != nil {
		return err
	}
	directories, err := directory.New(f.cfg.Directory, f.clock, f.log)
	if err != nil {
		return err
	}
	s.people, err = identity.New(f.cfg.Identity, identity.Deps{
		DB: f.db, Hasher: hasher, Policy: s.policy, Sessions: s.sessions, Audit: s.trail, Mail: s.queue,
		Limiter: f.limiter, Directories: directories, Issuer: f.cfg.Issuer, Limits: bool(f.cfg.Limits),
		Frames: func(ctx context.Context, id string) ([]string, error) { return s.clients.Frames(ctx, id) }, // made after this
		Clock:  f.clock, Log: f.log,
	})
	return err
}

func (s *identityServices) openClients(f *foundation, proofs *auth.Proofs) error {
	authorities, err := f.clientAuthorities()
	if err != nil {
		return err
	}
	certificates := f.cfg.HTTP.TLS.ClientCertificates
	s.clients, err = oidc.New(f.cfg.OAuth, oidc.Deps{
		Certificates: certificates.Request || certificates.Header, Authorities: authorities,
		DB: f.db, Sessions: s.sessions, People: s.people, Tokens: s.tokens, Keyring: f.keyring, Audit: s.trail, Limiter: f.limiter, Proofs: proofs,
		Replays: replay.Scoped(f.replays, "client"), Issuer: f.cfg.Issuer,
		Clock: f.clock, Log: f.log, Metrics: f.metrics,
	})
	return err
}

func (s *identityServices) openFederation(f *foundation) (err error) {
	s.others, err = federation.New(f.cfg.Federation, federation.Deps{
		DB: f.db, People: s.people, Sealer: f.keyring, Replays: replay.Scoped(f.replays, "federation"), Limiter: f.limiter, Issuer: f.cfg.Issuer,
		Clock: f.clock, Log: f.log,
	})
	return err
}

// clientAuthorities are those that vouch for clients' certificates; nil where none are configured.
func (f *foundation) clientAuthorities() (*httpd.Authorities, error) {
	file := f.cfg.HTTP.TLS.ClientCertificates.CAFile
	if file == "" {
		return nil, nil
	}
	return httpd.OpenAuthorities(file, f.clock, f.log)
}

func newTokens(f *foundation) (*token.Service, error) {
	return token.New(f.cfg.Tokens, token.Deps{
		DB: f.db, Keyring: f.keyring, Issuer: f.cfg.Issuer, Clock: f.clock, Log: f.log,
	})
}

func (s *identityServices) newTransport(f *foundation) (mail.Transport, error) {
	if f.cfg.Mail.Transport == mail.TransportMailbox {
		s.mailbox = mail.NewMailbox(f.db, f.clock)
		return s.mailbox, nil
	}
	return mail.NewSMTP(f.cfg.Mail, f.clock)
}

// unit connects the services to the listeners. Its tokens are for Sumun itself: their audience is the issuer.
func (s *identityServices) unit(f *foundation) (*unit, error) {
	// Proofs are remembered by each node alone: a look-up for each request is what bound tokens must not cost either.
	proofs, errOwn := session.NewProofs(f.cfg.Sessions, f.keyring, auth.ProofConfig{PublicURLs: []string{f.cfg.Issuer}, Clock: f.clock})
	entryProofs, errEntry := session.NewProofs(f.cfg.Sessions, f.keyring, auth.ProofConfig{Secure: secure, Clock: f.clock})
	verifier, err := auth.New(auth.Config{
		Issuer: f.cfg.Issuer, Audience: f.cfg.Issuer, Keys: s.tokens, Revocations: s.sessions.Revocations(), Proofs: proofs, Clock: f.clock,
		ClientCertificate: httpd.ClientCertificate, Age: s.sessions.RevocationsAge, MaxStale: f.cfg.Gateway.Staleness, Log: f.log,
	})
	if err := errors.Join(errOwn, errEntry, err); err != nil {
		return nil, errors.Join(err, s.policy.Close())
	}
	mailboxToken := ""
	if s.mailbox != nil && httpd.IsLoopback(f.cfg.OpsListen) {
		mailboxToken = rand.Text()
	}
	return &unit{
		verifier:    verifier,
		entryProofs: entryProofs,
		revocations: s.sessions.Follow,
		keys:        ownKeys{s.clients},
		pages:       s.pages,
		crossOrigin: append(oidc.CrossOrigin(), federation.CrossOrigin()...),
		mount: func(mux *http.ServeMux, api huma.API) {
			s.tokens.Mount(mux)
			s.pages.Mount(mux)
			s.sessions.MountAPI(api, f.cfg.cookies())
			s.sessions.MountFeed(mux, api, func(r *http.Request) (*auth.Claims, error) { return verified(r, verifier) })
			s.people.MountAPI(api, f.cfg.cookies())
			s.people.MountPages(mux, s.pages, f.cfg.cookies())
			s.others.Mount(mux, s.pages, f.cfg.cookies())
			s.clients.Mount(mux, s.pages, f.cfg.cookies())
		},
		mountOps: func(mux *http.ServeMux) {
			if mailboxToken != "" {
				page := mail.NewMailboxPage(s.mailbox, mailboxToken)
				mux.Handle("/mailbox", page)
				mux.Handle("/mailbox/", page)
			}
		},
		load: func(ctx context.Context) error {
			return errors.Join(s.tokens.Load(ctx), s.sessions.Load(ctx), s.people.Load(ctx))
		},
		workers: s.workers(f, verifier),
		notices: func(ctx context.Context, opsAddress string) ([]notice, error) {
			return s.notices(ctx, opsAddress, mailboxToken)
		},
		close: s.policy.Close,
	}, nil
}

func (s *identityServices) workers(f *foundation, verifier *auth.Verifier) []worker {
	return []worker{
		{"signing keys", s.tokens.Run},
		{"sessions", s.sessions.Run},
		{"accounts", s.people.Run},
		{"directories", s.people.WatchDirectories},
		{"clients", s.clients.Run},
		{"mail", s.queue.Run},
		{"audit trail", s.sweepTrail(f)},
		{"clock", f.watchClock},
		{"verifier", verifier.Run},
		{"used proofs", f.runReplays},
	}
}

// notices are the links that a person needs once traffic is served.
func (s *identityServices) notices(ctx context.Context, opsAddress, mailboxToken string) ([]notice, error) {
	var all []notice
	if mailboxToken != "" {
		all = append(all, notice{"Mailbox", "http://" + opsAddress + "/mailbox?token=" + mailboxToken})
	}
	link, err := s.people.SetupLink(ctx)
	if err != nil {
		return nil, err
	}
	if link != "" {
		all = append(all, notice{"First administrator", link})
	}
	return all, nil
}

// sweepEvery is how often expired events leave the audit trail.
const sweepEvery = time.Hour

func (s *identityServices) sweepTrail(f *foundation) func(context.Context) error {
	return func(ctx context.Context) error {
		ticker := time.NewTicker(sweepEvery)
		defer ticker.Stop()
		for {
			if _, err := s.trail.Sweep(ctx, f.db); err != nil && ctx.Err() == nil {
				f.log.LogAttrs(ctx, slog.LevelWarn, "audit trail not swept", slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	}
}

// cookies are Secure where browsers will send them back: over TLS, and to this very machine.
func (c *Config) cookies() httpd.Cookies {
	return httpd.Cookies{Secure: strings.HasPrefix(c.Issuer, "https:") || httpd.IsLoopbackHost(c.issuerHost())}
}
