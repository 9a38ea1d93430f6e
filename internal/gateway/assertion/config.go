package assertion

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/sumunio/sumun/internal/keyring"
)

// Config says in whose name assertions are made, and with which keys.
type Config struct {
	Issuer string           `yaml:"issuer" doc:"The issuer of assertions: services find the keys below it, at /.well-known/jwks.json. Empty: the issuer, with /gateway."`
	Keys   []keyring.Secret `yaml:"keys" doc:"Secrets of at least 32 characters, from which the keys are derived, the same on all gateways: the first one signs, the keys of the others are published too. Empty: derived from the keyring, where identity is part of the process, and otherwise from feed.client_secret."`
}

// minSecret bounds secrets, in characters.
const minSecret = 32

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.Issuer); c.Issuer != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
		errs = append(errs, fmt.Errorf("issuer: %q is no address; write it like https://shop.example.com/gateway", c.Issuer))
	}
	for i, key := range c.Keys {
		if len(key.Reveal()) < minSecret {
			errs = append(errs, fmt.Errorf("keys[%d]: has fewer than %d characters; make one with: openssl rand -base64 32", i, minSecret))
		}
	}
	if len(c.Keys) > maxKeys {
		errs = append(errs, errors.New("keys: are more than 8; leave out those that sign nothing any more"))
	}
	return errors.Join(errs...)
}

const maxKeys = 8
