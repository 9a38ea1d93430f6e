// Package compress makes answers smaller on their way to clients that can read them so (RFC 9110, sections 8.4 and 12.5.3).
//
// It owns the choice of the coding, zstd or gzip, and the stage that applies it. It promises to leave alone what is encoded already,
// small, of a type that does not shrink, a part, events, or forbidden to be transformed; to say in Vary what the answer depends on, and
// to weaken entity tags, since the bytes are other ones than the service named; and that a cut answer stays a cut one.
//
// It refuses, unless told twice, to compress where callers are known: an attacker who can make a browser send requests and see the size
// of encrypted answers can find out secrets in them that stand beside what the attacker wrote (BREACH).
package compress

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is what a route says about compression. The zero Config is off.
type Config struct {
	Enabled     bool     `yaml:"enabled" doc:"Whether answers are compressed with zstd or gzip for clients that accept it."`
	WithSecrets bool     `yaml:"with_secrets" doc:"Whether also where callers are authenticated. Whoever can make a person's browser send requests, and sees the size of the answers, can then find out secrets that they contain (BREACH); set it where no answer has both a secret and text that a stranger chose."`
	MinSize     int      `yaml:"min_size" doc:"Answers that say they are smaller stay as they are, in bytes."`
	Types       []string `yaml:"types" doc:"Content types that are compressed. A star stands for any beginning, or any ending."`
}

// DefaultConfig compresses text, once it is enabled.
func DefaultConfig() Config {
	return Config{MinSize: 1024, Types: []string{
		"text/*", "application/json", "application/javascript", "application/xml", "application/wasm", "application/manifest+json",
		"*+json", "*+xml",
	}}
}

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	if c.MinSize < 0 {
		errs = append(errs, fmt.Errorf("min_size: %d is below 0; use 1024", c.MinSize))
	}
	if len(c.Types) == 0 {
		errs = append(errs, errors.New("types: empty; name some, such as text/*, or leave it out"))
	}
	for _, kind := range c.Types {
		bare := strings.TrimSuffix(strings.TrimPrefix(kind, "*"), "*")
		if bare == "" || strings.ContainsAny(bare, "*; ,") || bare != strings.ToLower(bare) {
			errs = append(errs, fmt.Errorf("types: %q is no content type; write it in lower case, like text/* or application/json", kind))
		}
	}
	return errors.Join(errs...)
}

// covers reports whether answers of a content type are compressed. Events are not: each has to arrive when it happens.
func (c Config) covers(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind != "" && kind != "text/event-stream" && slices.ContainsFunc(c.Types, func(pattern string) bool {
		if end, any := strings.CutPrefix(pattern, "*"); any {
			return strings.HasSuffix(kind, end)
		}
		if begin, any := strings.CutSuffix(pattern, "*"); any {
			return strings.HasPrefix(kind, begin)
		}
		return kind == pattern
	})
}
