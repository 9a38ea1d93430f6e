// Package password owns everything about one password: how it is stored, how it is checked and how good it has to be.
//
// It promises that a stored password is a slow, salted hash (argon2id unless configured otherwise) over an HMAC under a
// pepper that is not in the database with it; that hashes from elsewhere (argon2, bcrypt, scrypt, PBKDF2) verify and say
// when they should be replaced; that a hash with absurd parameters is refused and never run; that no more hashes run at once
// than the machine bears, and that who comes too late is told to come again; and that a failure takes as long for an account
// that does not exist as for one whose hash is the slowest of those enabled.
//
// It refuses to know accounts: where hashes are kept, who may try how often, and what earlier passwords were is the business
// of package identity.
package password

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/sumunio/sumun/internal/fault"
)

// ErrBusy says that too many passwords are being checked at this moment. It carries a Retry-After.
var ErrBusy = fault.New(fault.Unavailable, "identity.busy", "Many people are signing in right now. Please try again in a moment.")

// MaxBytes bounds a password in its normalised form. A longer one is never set and never matches.
const MaxBytes = 1024

// The algorithms, as in Config.
const (
	Argon2id     = "argon2id"
	Argon2i      = "argon2i"
	Bcrypt       = "bcrypt"
	Scrypt       = "scrypt"
	PBKDF2SHA256 = "pbkdf2-sha256"
	PBKDF2SHA512 = "pbkdf2-sha512"
)

var (
	algorithms = []string{Argon2id, Argon2i, Bcrypt, Scrypt, PBKDF2SHA256, PBKDF2SHA512}
	makers     = []string{Argon2id, PBKDF2SHA256, PBKDF2SHA512}
)

// Config holds what operators decide about passwords.
type Config struct {
	Algorithm        string        `yaml:"algorithm" doc:"How new passwords are hashed: argon2id; or pbkdf2-sha256 or pbkdf2-sha512, where FIPS 140 is demanded."`
	Argon2id         Argon2Config  `yaml:"argon2id" doc:"The cost of an argon2id hash."`
	PBKDF2Iterations int           `yaml:"pbkdf2_iterations" doc:"The cost of a PBKDF2 hash."`
	Enabled          []string      `yaml:"enabled" doc:"Algorithms whose stored hashes are accepted: argon2id, argon2i, bcrypt, scrypt, pbkdf2-sha256, pbkdf2-sha512. Every refused sign-in takes as long as the slowest of them (failure_time)."`
	FailureTime      time.Duration `yaml:"failure_time" doc:"How long a refused password check takes at least; 0 measures the slowest of the enabled algorithms at its usual cost."`
	Gate             GateConfig    `yaml:"gate" doc:"How many passwords are hashed at once."`
	Policy           PolicyConfig  `yaml:"policy" doc:"What a new password must be like."`
}

// Argon2Config is the cost of an argon2id hash (RFC 9106, section 3.1).
type Argon2Config struct {
	Memory      int `yaml:"memory" doc:"Memory of one hash, in KiB."`
	Time        int `yaml:"time" doc:"Passes over that memory."`
	Parallelism int `yaml:"parallelism" doc:"Threads of one hash."`
}

// GateConfig bounds the hashes that run and wait.
type GateConfig struct {
	Concurrency int           `yaml:"concurrency" doc:"Passwords hashed at once; 0 is one less than there are processors."`
	Queue       int           `yaml:"queue" doc:"Requests that may wait for their turn; 0 is eight for each that may run."`
	Wait        time.Duration `yaml:"wait" doc:"The longest wait; who has waited longer is asked to come again."`
}

// PolicyConfig says what a new password must be like.
type PolicyConfig struct {
	Rules        string `yaml:"rules" doc:"nist (NIST SP 800-63B: length, strength, no composition) or kisa (the character classes of Korea's KISA)."`
	MinLength    int    `yaml:"min_length" doc:"The least characters a password has. NIST asks for 15 where the password is the only factor."`
	MaxLength    int    `yaml:"max_length" doc:"The most characters a password has."`
	MinScore     int    `yaml:"min_score" doc:"The least strength that the rules nist accept: zxcvbn's 0 (any) to 4 (very hard to guess)."`
	BreachedFile string `yaml:"breached_file" doc:"A list of passwords that are refused: one a line (up to 32 MiB), or SHA-1 hashes in order as Have I Been Pwned publishes them (any size)."`
}

// DefaultConfig follows OWASP's recommendations for hashes and NIST SP 800-63B revision 4 for rules.
func DefaultConfig() Config {
	return Config{
		Algorithm:        Argon2id,
		Argon2id:         Argon2Config{Memory: 19456, Time: 2, Parallelism: 1},
		PBKDF2Iterations: 600_000,
		Enabled:          slices.Clone(algorithms),
		Gate:             GateConfig{Wait: 2 * time.Second},
		Policy:           PolicyConfig{Rules: RulesNIST, MinLength: 8, MaxLength: 256, MinScore: 3},
	}
}

// Validate reports every value that cannot be used. It looks into the list of breached passwords, if there is one.
func (c Config) Validate() error {
	errs := []error{c.validateHash(), c.Gate.validate(), c.Policy.validate()}
	if c.FailureTime < 0 || c.FailureTime > maxPace {
		errs = append(errs, fmt.Errorf("failure_time: %v is not between 0 and %v; use 0 to have it measured", c.FailureTime, maxPace))
	}
	if c.Algorithm == Argon2id && c.Argon2id.Memory < 7168 {
		errs = append(errs, fmt.Errorf("argon2id.memory: %d is less than 7168 KiB, which is too cheap to guess against; use 19456",
			c.Argon2id.Memory))
	}
	if strings.HasPrefix(c.Algorithm, "pbkdf2") && c.PBKDF2Iterations < 100_000 {
		errs = append(errs, fmt.Errorf("pbkdf2_iterations: %d is less than 100000, which is too cheap to guess against; use 600000",
			c.PBKDF2Iterations))
	}
	return errors.Join(errs...)
}

// validateHash reports what would keep hashes from being made at all.
func (c Config) validateHash() error {
	var errs []error
	if !slices.Contains(makers, c.Algorithm) {
		errs = append(errs, fmt.Errorf("algorithm: %q is not known; use one of %s", c.Algorithm, strings.Join(makers, ", ")))
	} else if err := c.kdf().check(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w; use the default", c.Algorithm, err))
	}
	for _, name := range c.Enabled {
		if !slices.Contains(algorithms, name) {
			errs = append(errs, fmt.Errorf("enabled: %q is not known; use any of %s", name, strings.Join(algorithms, ", ")))
		}
	}
	if !slices.Contains(c.Enabled, c.Algorithm) {
		errs = append(errs, fmt.Errorf("enabled: %q is missing, although new passwords are hashed with it; add it", c.Algorithm))
	}
	return errors.Join(errs...)
}

func (c GateConfig) validate() error {
	var errs []error
	if c.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("gate.concurrency: %d is negative; use 0 for a number that suits the machine", c.Concurrency))
	}
	if c.Queue < 0 {
		errs = append(errs, fmt.Errorf("gate.queue: %d is negative; use 0 for a number that suits the machine", c.Queue))
	}
	if c.Wait <= 0 {
		errs = append(errs, fmt.Errorf("gate.wait: %v is not a positive duration; use a value such as 2s", c.Wait))
	}
	return errors.Join(errs...)
}

func (c PolicyConfig) validate() error {
	var errs []error
	if c.Rules != RulesNIST && c.Rules != RulesKISA {
		errs = append(errs, fmt.Errorf("policy.rules: %q is not known; use %s or %s", c.Rules, RulesNIST, RulesKISA))
	}
	if c.MinLength < 8 {
		errs = append(errs, fmt.Errorf("policy.min_length: %d is less than 8, the least that NIST and KISA allow; use 8 or more", c.MinLength))
	}
	if c.MaxLength < 64 || c.MaxLength > MaxBytes/4 {
		errs = append(errs, fmt.Errorf("policy.max_length: %d is not between 64 and %d; use %d", c.MaxLength, MaxBytes/4, MaxBytes/4))
	}
	if c.MinLength > c.MaxLength {
		errs = append(errs, fmt.Errorf("policy.min_length: %d is more than policy.max_length, %d; lower it", c.MinLength, c.MaxLength))
	}
	if c.MinScore < 0 || c.MinScore > 4 {
		errs = append(errs, fmt.Errorf("policy.min_score: %d is not between 0 and 4; use 3", c.MinScore))
	}
	if err := checkBreached(c.BreachedFile); err != nil {
		errs = append(errs, fmt.Errorf("policy.breached_file: %w", err))
	}
	return errors.Join(errs...)
}

// normalise makes the two ways to type one password equal: NFC, and every space the ASCII one (the mapping rules of
// OpaqueString, RFC 8265, section 4.2.2). The profile's list of assigned characters is left out: it would lock out people
// whose keyboard knows a newer Unicode than this program.
func normalise(pw string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if isSpace(r) {
			return ' '
		}
		return r
	}, pw))
}
