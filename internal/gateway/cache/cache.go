// Package cache answers requests with what a service has answered before, where the service allows it (RFC 9111).
//
// It owns the kept answers of all routes of a process, bounded in memory, and the stage that looks them up: freshness, Vary,
// validation, stale answers (RFC 5861), and what Cache-Status says about it (RFC 9211).
//
// It promises that no answer crosses persons: what was asked with credentials is kept only where the answer says public, s-maxage or
// must-revalidate (RFC 9111, section 3.5), and only such answers are given to who comes with credentials; on a route that is
// per_person, everybody has answers of their own. One request at a time asks for what is missing or stale, and the others wait for
// its answer. After a change was made through the gateway, nothing is given out that was asked for before it.
//
// It refuses to guess: an answer that does not say how long it is fresh is not kept without a validator; nor is one that sets a
// cookie, is an error, is a part, or varies by what the gateway itself tells services. Requests with a body, for a range, or for
// events pass by.
package cache

import (
	"errors"
	"fmt"
	"time"
)

// Config is what a route says about keeping answers. The zero Config is off.
type Config struct {
	Enabled      bool          `yaml:"enabled" doc:"Whether answers to GET are kept as long as they say that they are fresh."`
	PerPerson    bool          `yaml:"per_person" doc:"Whether everybody has answers of their own, so that private ones are kept too. Roles and scopes are part of who somebody is."`
	MaxObject    int64         `yaml:"max_object" doc:"The largest body that is kept, in bytes. Larger ones are streamed."`
	StaleIfError time.Duration `yaml:"stale_if_error" doc:"How long after it was fresh an answer is given while the service fails, where the answer itself does not say (and does not say must-revalidate)."`
}

// DefaultConfig keeps objects of up to a megabyte, once it is enabled.
func DefaultConfig() Config { return Config{MaxObject: 1 << 20} }

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	if c.MaxObject < 1 || c.MaxObject > maxObject {
		errs = append(errs, fmt.Errorf("max_object: %d is outside 1 to %d; use 1048576", c.MaxObject, maxObject))
	}
	if c.StaleIfError < 0 || c.StaleIfError > 30*24*time.Hour {
		errs = append(errs, fmt.Errorf("stale_if_error: %s is outside 0s to 720h; use 1h", c.StaleIfError))
	}
	return errors.Join(errs...)
}

const maxObject = 64 << 20
