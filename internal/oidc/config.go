package oidc

import (
	"errors"
	"fmt"
	"time"
)

// Config holds what operators decide about OAuth clients.
type Config struct {
	Requests      int           `yaml:"requests" doc:"Requests of one client from one network address to the endpoints that clients call directly, per minute. More are answered with 429."`
	Failures      int           `yaml:"failures" doc:"Failed proofs of being a client from one network address, per minute. More are answered with 429."`
	CodeLifetime  time.Duration `yaml:"code_lifetime" doc:"How long a client may take to exchange an authorization code."`
	SecretOverlap time.Duration `yaml:"secret_overlap" doc:"For so long after a client's secret was replaced the old one goes on working, unless the command says otherwise."`
}

// DefaultConfig suits clients that are services with many people behind one address.
func DefaultConfig() Config {
	return Config{Requests: 12_000, Failures: 60, CodeLifetime: time.Minute, SecretOverlap: 24 * time.Hour}
}

// maxOverlap bounds how long two secrets work.
const maxOverlap = 30 * 24 * time.Hour

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		key   string
		value int
	}{{"requests", c.Requests}, {"failures", c.Failures}} {
		if n.value < 1 || n.value > 10_000_000 {
			errs = append(errs, fmt.Errorf("%s: %d is not between 1 and 10000000; use a value such as 600", n.key, n.value))
		}
	}
	if c.CodeLifetime < time.Second || c.CodeLifetime > 10*time.Minute {
		errs = append(errs, fmt.Errorf("code_lifetime: %v is not between 1s and 10m (RFC 6749); use a value such as 1m", c.CodeLifetime))
	}
	if c.SecretOverlap < 0 || c.SecretOverlap > maxOverlap {
		errs = append(errs, fmt.Errorf("secret_overlap: %v is not between 0s and %v; use a value such as 24h", c.SecretOverlap, maxOverlap))
	}
	return errors.Join(errs...)
}

// SecretOverlap is how long an old secret works on where nothing else is said.
func (s *Service) SecretOverlap() time.Duration { return s.cfg.SecretOverlap }
