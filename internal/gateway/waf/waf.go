// Package waf looks for known attacks in requests, with Coraza and the OWASP core rule set.
//
// It owns the engines, of which routes with the same configuration share one, and the stage that asks them. It promises that an engine is
// made only when a route asks for one; that while it blocks, what cannot be inspected is refused; that bodies wait in memory, bounded, and
// never on disk; and that a log says which rules matched, and never what they matched.
//
// It refuses to inspect answers, and what comes after the beginning of a WebSocket. It is no replacement for services that check what they
// are given: it knows attacks of the past.
package waf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sumunio/sumun/internal/gateway/stage"
)

// Mode is what is done about a request that looks like an attack.
type Mode string

// What can be done.
const (
	Off       Mode = "off"
	Detection Mode = "detection"
	Blocking  Mode = "blocking"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	return stage.OneOf(m, text, Off, Detection, Blocking)
}

// Config is what a route says about attacks. The zero Config is off.
type Config struct {
	Mode      Mode  `yaml:"mode" doc:"off; detection: requests that look like attacks are logged and counted; blocking: they are refused as well."`
	Paranoia  int   `yaml:"paranoia" doc:"How much looks like an attack, from 1 to 4. From 2 on, ordinary requests do too, until except is tuned."`
	Threshold int   `yaml:"threshold" doc:"How much has to come together before it is one. A critical rule counts 5."`
	Except    []int `yaml:"except" doc:"Ids of rules that are left out, such as 942100."`
	MaxBody   int   `yaml:"max_body" doc:"The largest body that is inspected, in bytes; 16 KiB can take a fifth of a second. While blocking, larger ones are refused; otherwise they pass uninspected."`
}

// DefaultConfig is off, and as cautious as the core rule set by default once it is on.
func DefaultConfig() Config { return Config{Mode: Off, Paranoia: 1, Threshold: 5, MaxBody: 16 << 10} }

// Enabled reports whether requests are inspected.
func (c Config) Enabled() bool { return c.Mode == Detection || c.Mode == Blocking }

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	if c.Paranoia < 1 || c.Paranoia > 4 {
		errs = append(errs, fmt.Errorf("paranoia: %d is outside 1 to 4; use 1", c.Paranoia))
	}
	if c.Threshold < 1 || c.Threshold > 1000 {
		errs = append(errs, fmt.Errorf("threshold: %d is outside 1 to 1000; use 5", c.Threshold))
	}
	if c.MaxBody < 1 || c.MaxBody > 16<<20 {
		errs = append(errs, fmt.Errorf("max_body: %d is outside 1 to %d; use 16384", c.MaxBody, 16<<20))
	}
	if i := slices.IndexFunc(c.Except, func(id int) bool { return id < 911_000 || id > 999_999 || id/1000 == 949 }); i >= 0 {
		errs = append(errs, fmt.Errorf("except: %d is no rule that can be left out; write ids from the log, like 942100", c.Except[i]))
	}
	return errors.Join(errs...)
}
