package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/gateway/idempotency"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// gatewayModule stands in front of everything else, in this process or elsewhere.
func gatewayModule() module {
	return module{
		name:  "gateway",
		needs: []string{"identity"},
		sections: func(cfg *Config) map[string]validator {
			return map[string]validator{"gateway": cfg.Gateway}
		},
		absent: func(cfg *Config) error {
			var errs []error
			if cfg.Issuer == "" {
				errs = append(errs, errors.New("issuer: empty, and the identity module is not part of this process; "+
					"give the public address that it has"))
			}
			if cfg.Gateway.UsesIdentity() && !cfg.Gateway.KnowsIdentity() {
				errs = append(errs, errors.New("gateway.identity_url: empty, and the identity module is not part of this process; "+
					"give where it serves, such as http://10.0.0.5:8080, or set gateway.default_routes to false"))
			}
			return errors.Join(errs...)
		},
		build: func(f *foundation, before []*unit) (*unit, error) { return newEntrance(f, before) },
	}
}

// entrance is the gateway of this process.
type entrance struct {
	*foundation
	deps     gateway.Deps
	secrets  [][]byte       // from which the keys of assertions are derived; none where there is nothing to derive them from
	proofs   *auth.Proofs   // what judges the proofs of callers
	remote   *auth.Verifier // nil where the identity module is part of the process
	gateway  *gateway.Gateway
	fault    atomic.Pointer[string] // what keeps the configuration file from being served; nil when it is
	outdated prometheus.Gauge
}

func newEntrance(f *foundation, before []*unit) (*unit, error) {
	e := &entrance{foundation: f, outdated: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sumun_gateway_config_outdated",
		Help: "1 while the configuration file has a mistake, so that what it said before is still served; 0 otherwise.",
	})}
	if err := f.metrics.Register(e.outdated); err != nil {
		return nil, fmt.Errorf("gateway metrics: %w", err)
	}
	e.deps = gateway.Deps{MaxBody: f.cfg.HTTP.MaxBody, WriteTimeout: f.cfg.HTTP.WriteTimeout, Log: f.log, Metrics: f.metrics}
	if _, off := f.limiter.(ratelimit.Off); !off {
		e.deps.Limiter = f.limiter
	}
	if f.redis != nil {
		e.deps.Repeats = idempotency.NewRedis(f.redis, "")
	}
	built := &unit{load: e.loadSecrets, front: e.front, notes: e.notes, workers: []worker{{"gateway", e.run}, {"configuration file", e.follow}}}
	if f.cfg.Gateway.ForwardAuth.Listen != "" {
		built.workers = append(built.workers, worker{"forward-auth listener", e.answerProxies})
	}
	var err error
	for _, u := range before {
		if e.deps.APIKeys, err = e.holdKeys(u.keys); err != nil {
			return nil, err
		}
		if len(f.cfg.Gateway.Assertions.Keys) == 0 {
			built.workers = append(built.workers, worker{"keys of assertions", e.replaceSecrets(u.revocations)})
		}
		e.proofs = u.entryProofs
		e.deps.Verifier, e.deps.Render = entryVerifier{u.verifier, u.entryProofs}, u.pages.Fault
	}
	if len(before) > 0 {
		return built, nil
	}
	if e.remote, err = e.remoteVerifier(); err != nil {
		return nil, err
	}
	e.deps.Verifier = e.remote
	if feed := f.cfg.Gateway.Feed; feed.ClientID != "" {
		remote := apikeys.NewRemote(e.identityAddress()+"/oauth/token", feed.ClientID, feed.ClientSecret.Reveal())
		if e.deps.APIKeys, err = e.holdKeys(remote); err != nil {
			return nil, err
		}
	}
	built.load = func(ctx context.Context) error { return errors.Join(e.loadSecrets(ctx), e.load(ctx)) }
	built.workers = append(built.workers, worker{"verifier", e.remote.Run})
	return built, e.watchVerifier()
}

// entryVerifier verifies what will be verified again further inside this process: it remembers proofs by itself.
type entryVerifier struct {
	*auth.Verifier
	proofs *auth.Proofs
}

func (v entryVerifier) VerifyRequest(r *http.Request) (*auth.Claims, error) {
	return v.VerifyRequestWith(r, v.proofs)
}

func (v entryVerifier) DPoPNonce(r *http.Request) string { return v.proofs.NonceFor(r) }

// secure reports whether a client spoke TLS, with us or with a proxy that we trust.
func secure(r *http.Request) bool { return httpd.Secure(r.Context()) }

func (e *entrance) front(own http.Handler) (_ http.Handler, err error) {
	e.deps.Identity = own
	if len(e.secrets) > 0 {
		issuer := e.cfg.Gateway.Assertions.Issuer
		if issuer == "" {
			issuer = e.cfg.Issuer + "/gateway"
		}
		if e.deps.Assertions, err = assertion.New(issuer, e.secrets, e.clock); err != nil {
			return nil, err
		}
	}
	if err := e.askIdentity(own); err != nil {
		return nil, err
	}
	e.gateway, err = gateway.New(e.cfg.Gateway, e.deps)
	return e.gateway, err
}

// answerProxies serves those who ask about requests that do not pass through here, until ctx ends.
func (e *entrance) answerProxies(ctx context.Context) error {
	cfg := e.cfg.HTTP
	believed := cfg.TLS.ClientCertificates.Header
	cfg.Listen, cfg.TLS = e.cfg.Gateway.ForwardAuth.Listen, httpd.TLS{ClientCertificates: httpd.ClientCertificates{Header: believed}}
	s, err := httpd.NewServer(cfg, httpd.Edge(e.log, e.metrics, cfg)(e.gateway.Questions()), e.log)
	if err != nil {
		return err
	}
	if err := s.Listen(ctx); err != nil {
		return fmt.Errorf("%w (gateway.forward_auth.listen)", err)
	}
	return s.Run(ctx)
}

func (e *entrance) run(ctx context.Context) error { return e.gateway.Run(ctx) }

// notes tell why the configuration file is not what is served, and what is missing.
func (e *entrance) notes() []string {
	var all []string
	if why := e.fault.Load(); why != nil {
		all = append(all, "the configuration file is not served: "+*why)
	}
	if e.remote != nil && e.remote.Stats().KeysAge == auth.Unknown {
		all = append(all, "no token can be verified: the issuer's keys have not been fetched yet")
	}
	return all
}

// lookEvery is how often the configuration file is looked at. A change counts when two looks in a row saw the same, so that no
// half of a file is read.
const lookEvery = 500 * time.Millisecond

// follow serves what the configuration file says whenever that has changed, or at SIGHUP.
func (e *entrance) follow(ctx context.Context) error {
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	served := e.from.stamp // it may have changed since then
	seen := served
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangUp:
			seen = stampOf(e.from.file)
			served = seen
			e.reload(ctx)
		case <-ticker.C:
			now := stampOf(e.from.file)
			if now == seen && now != served {
				served = now
				e.reload(ctx)
			}
			seen = now
		}
	}
}

// reload serves the routes of the configuration as it is now, or says why not.
func (e *entrance) reload(ctx context.Context) {
	cfg, err := e.from.load()
	if err == nil {
		err = e.gateway.Load(cfg.Gateway)
	}
	if err != nil {
		why := oneLine(err.Error())
		e.fault.Store(&why)
		e.outdated.Set(1)
		e.log.LogAttrs(ctx, slog.LevelError, "configuration not reloaded", slog.String("file", e.from.file), slog.String("error", why))
		return
	}
	e.fault.Store(nil)
	e.outdated.Set(0)
	e.log.LogAttrs(ctx, slog.LevelInfo, "routes reloaded", slog.String("file", e.from.file), slog.Int("routes", len(cfg.Gateway.Routes)))
}

// stamp tells versions of a file apart.
type stamp struct {
	modified int64
	size     int64
}

// stampOf is zero where there is no file: it is being replaced, or was never named.
func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime().UnixNano(), info.Size()}
}
