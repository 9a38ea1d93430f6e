package oidc

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config holds what operators decide about OAuth clients.
type Config struct {
	Requests      int           `yaml:"requests" doc:"Requests of one client from one network address to the endpoints that clients call directly, per minute. More are answered with 429."`
	Failures      int           `yaml:"failures" doc:"Failed proofs of being a client from one network address, per minute. More are answered with 429."`
	CodeLifetime  time.Duration `yaml:"code_lifetime" doc:"How long a client may take to exchange an authorization code."`
	MTLSURL       string        `yaml:"mtls_url" doc:"The address under which clients are asked for their TLS certificates (RFC 8705, section 5), where it is another than the issuer's, such as https://mtls.id.example.com. It is published for clients."`
	SecretOverlap time.Duration `yaml:"secret_overlap" doc:"For so long after a client's secret was replaced the old one goes on working, unless the command says otherwise."`

	Registration        bool          `yaml:"registration" doc:"Whether programs that show an initial access token (sumun client registration-token add) may register themselves (RFC 7591)."`
	Registrations       int           `yaml:"registrations" doc:"Programs that may register or change themselves from one network address, per minute. More are answered with 429."`
	UnusedRegistrations time.Duration `yaml:"unused_registrations" doc:"After so long without obtaining a token, or changing itself, a program that registered itself is removed; one that ever obtained one stays. 0s: never."`

	PrivateAddresses bool `yaml:"private_addresses" doc:"For development: whether what programs register (jwks_uri, sector_identifier_uri, the backchannel_logout_uri of those that registered themselves) may lead into private networks and to this machine."`
}

// DefaultConfig suits clients that are services with many people behind one address.
func DefaultConfig() Config {
	return Config{Requests: 12_000, Failures: 60, CodeLifetime: time.Minute, SecretOverlap: 24 * time.Hour, Registrations: 20,
		UnusedRegistrations: 30 * 24 * time.Hour}
}

// maxOverlap bounds how long two secrets work.
const maxOverlap = 30 * 24 * time.Hour

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		key   string
		value int
	}{{"requests", c.Requests}, {"failures", c.Failures}, {"registrations", c.Registrations}} {
		if n.value < 1 || n.value > 10_000_000 {
			errs = append(errs, fmt.Errorf("%s: %d is not between 1 and 10000000; use a value such as 600", n.key, n.value))
		}
	}
	if c.CodeLifetime < time.Second || c.CodeLifetime > 10*time.Minute {
		errs = append(errs, fmt.Errorf("code_lifetime: %v is not between 1s and 10m (RFC 6749); use a value such as 1m", c.CodeLifetime))
	}
	if u, err := url.Parse(c.MTLSURL); c.MTLSURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "") {
		errs = append(errs, fmt.Errorf("mtls_url: %q is no address to connect to; write it like https://mtls.id.example.com, or leave it out", c.MTLSURL))
	}
	if c.SecretOverlap < 0 || c.SecretOverlap > maxOverlap {
		errs = append(errs, fmt.Errorf("secret_overlap: %v is not between 0s and 30d; use a value such as 1d", c.SecretOverlap))
	}
	if c.UnusedRegistrations != 0 && c.UnusedRegistrations < time.Hour {
		errs = append(errs, fmt.Errorf("unused_registrations: %v is below 1h; use a value such as 30d, or 0s to keep all", c.UnusedRegistrations))
	}
	return errors.Join(errs...)
}

// SecretOverlap is how long an old secret works on where nothing else is said.
func (s *Service) SecretOverlap() time.Duration { return s.cfg.SecretOverlap }
