package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/httpd"
)

// remoteVerifier verifies with the keys of an identity module elsewhere, and follows its feed.
func (e *entrance) remoteVerifier() (*auth.Verifier, error) {
	cfg := e.cfg.Gateway
	source := e.identityAddress()
	remote := auth.Config{
		Issuer: e.cfg.Issuer, Audience: cfg.Audience, MaxStale: cfg.Staleness, Clock: e.clock, Log: e.log,
		FeedURL: source + "/v1/revocations", ClientCertificate: httpd.ClientCertificate,
	}
	var err error
	if remote.Keys, err = auth.NewRemoteKeys(auth.RemoteConfig{URL: source + "/.well-known/jwks.json", Clock: e.clock}); err != nil {
		return nil, fmt.Errorf("keys of the identity module: %w", err)
	}
	if e.proofs, err = auth.NewProofs(auth.ProofConfig{Secure: secure, Clock: e.clock}); err != nil {
		return nil, err
	}
	remote.Proofs = e.proofs
	secret := cfg.Feed.ClientSecret.Reveal()
	if cfg.Feed.ClientID == "" {
		e.log.Warn("revocations are not followed: gateway.feed.client_id is empty, so tokens live on after a sign-out until they expire")
		return auth.New(remote)
	}
	if remote.Credentials, err = auth.NewClientCredentials(auth.ClientCredentialsConfig{
		URL: source + "/oauth/token", ID: cfg.Feed.ClientID, Secret: secret, Clock: e.clock,
	}); err != nil {
		return nil, fmt.Errorf("gateway.feed: %w", err)
	}
	if cfg.Feed.Snapshot != "" {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte("gateway.snapshot"))
		remote.Snapshot = auth.SnapshotConfig{Path: cfg.Feed.Snapshot, Key: mac.Sum(nil)}
	}
	return auth.New(remote)
}

// opaqueVerifier verifies tokens that only the identity module can read, by asking it about each one.
func (e *entrance) opaqueVerifier(asked auth.Opener) (*auth.Verifier, error) {
	cfg := auth.Config{
		Issuer: e.cfg.Issuer, Opener: asked, Keys: noKeys{}, Cache: auth.NoCache{}, Proofs: e.proofs, ClientCertificate: httpd.ClientCertificate,
		Clock: e.clock, Log: e.log,
	}
	if e.remote != nil {
		cfg.Audience = e.cfg.Gateway.Audience
	}
	return auth.New(cfg)
}

// noKeys are those of tokens that nobody signs.
type noKeys struct{}

// Key implements auth.KeySource.
func (noKeys) Key(context.Context, string) (auth.Key, error) { return auth.Key{}, auth.ErrUnknownKey }

// identityAddress is where keys and feed are asked for: at the identity module itself, where the way there cannot be tampered with,
// and otherwise at its public address.
func (e *entrance) identityAddress() string {
	u, err := url.Parse(e.cfg.Gateway.IdentityURL)
	if err == nil && (u.Scheme == "https" || u.Scheme == "http" && httpd.IsLoopbackHost(u.Hostname())) {
		return strings.TrimSuffix(e.cfg.Gateway.IdentityURL, "/")
	}
	return e.cfg.Issuer
}

// load reads keys and feed before traffic is served. When the identity module is down, the gateway starts all the same: with its
// snapshot it stands, and without one it asks again with every token. Keys at the public address may lie behind this very gateway, so
// they are not waited for.
func (e *entrance) load(ctx context.Context) error {
	if e.identityAddress() == e.cfg.Issuer {
		return nil
	}
	if err := e.remote.Load(ctx); err != nil {
		e.log.LogAttrs(ctx, slog.LevelWarn, "started without keys", slog.Any("error", err))
	}
	return nil
}

// watchVerifier shows operators what the verifier knows.
func (e *entrance) watchVerifier() error {
	for name, gauge := range map[string]struct {
		help  string
		value func(auth.Stats) float64
	}{
		"sumun_gateway_feed_age_seconds": {"How old the knowledge of what has been revoked is; -1 where the feed is not followed.", func(s auth.Stats) float64 {
			if s.Staleness == auth.Unknown {
				return -1
			}
			return s.Staleness.Seconds()
		}},
		"sumun_gateway_keys_age_seconds": {"How long ago the issuer's keys were fetched; -1 before they were.", func(s auth.Stats) float64 {
			if s.KeysAge == auth.Unknown {
				return -1
			}
			return s.KeysAge.Seconds()
		}},
		"sumun_gateway_revocations": {"Revocations that are kept.", func(s auth.Stats) float64 { return float64(s.Revocations) }},
	} {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: gauge.help}, func() float64 { return gauge.value(e.remote.Stats()) })
		if err := e.metrics.Register(g); err != nil {
			return fmt.Errorf("gateway metrics: %w", err)
		}
	}
	return nil
}
