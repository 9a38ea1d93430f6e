package password

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/scrypt"
)

// Bounds on the parameters of a stored hash. Whoever writes hashes into the database, an import above all, decides how much
// work a sign-in is; past these it is refused. The largest allowed hash takes some seconds.
const (
	maxMemory     = 1 << 20 // KiB, that is 1 GiB
	maxPassed     = 4 << 20 // KiB over all passes; libsodium's "sensitive" is 1 GiB four times
	maxThreads    = 64
	maxBcryptCost = 16
	maxIterations = 10_000_000
)

// A cost is what a hash of one algorithm takes. Two that are equal (==) take the same.
type cost interface {
	// algorithm is the name as in Config.
	algorithm() string
	// work grows in proportion to the time a hash takes, within one algorithm.
	work() float64
	// check refuses a cost outside the bounds.
	check() error
}

// A kdf is a slow function at a cost.
type kdf interface {
	cost
	// params are the parameters of a PHC string.
	params() string
	// derive returns size bytes. It is called with a cost that check accepts.
	derive(secret, salt []byte, size int) ([]byte, error)
}

// kdf returns the function that new passwords are hashed with.
func (c Config) kdf() kdf {
	if c.Algorithm == Argon2id {
		a := c.Argon2id
		return argon2KDF{true, uint64(max(0, a.Memory)), uint64(max(0, a.Time)), uint64(max(0, a.Parallelism))}
	}
	return pbkdf2KDF{name: c.Algorithm, iterations: uint64(max(0, c.PBKDF2Iterations))}
}

// argon2KDF is argon2id or argon2i, version 0x13 (RFC 9106).
type argon2KDF struct {
	id      bool   // argon2id
	memory  uint64 // KiB
	time    uint64
	threads uint64
}

func (k argon2KDF) algorithm() string {
	if k.id {
		return Argon2id
	}
	return Argon2i
}

func (k argon2KDF) params() string { return fmt.Sprintf("m=%d,t=%d,p=%d", k.memory, k.time, k.threads) }

// work leaves threads out: on a busy machine they run one after the other.
func (k argon2KDF) work() float64 { return float64(k.memory) * float64(k.time) }

func (k argon2KDF) check() error {
	switch {
	case k.time < 1, k.threads < 1, k.memory < 8*k.threads:
		return errors.New("parameters are below what argon2 allows (m>=8p, t>=1, p>=1)")
	case k.memory > maxMemory, k.threads > maxThreads, k.time > maxPassed/k.memory:
		return fmt.Errorf("parameters are too large (m<=%d, m*t<=%d, p<=%d)", maxMemory, maxPassed, maxThreads)
	}
	return nil
}

func (k argon2KDF) derive(secret, salt []byte, size int) ([]byte, error) {
	f := argon2.Key
	if k.id {
		f = argon2.IDKey
	}
	return f(secret, salt, uint32(k.time), uint32(k.memory), uint8(k.threads), uint32(size)), nil
}

// scryptKDF is scrypt (RFC 7914).
type scryptKDF struct {
	logN, r, p uint64
}

func (k scryptKDF) algorithm() string { return Scrypt }
func (k scryptKDF) params() string    { return fmt.Sprintf("ln=%d,r=%d,p=%d", k.logN, k.r, k.p) }
func (k scryptKDF) work() float64     { return float64(uint64(1)<<k.logN) * float64(k.r*k.p) }

func (k scryptKDF) check() error {
	if k.logN < 1 || k.r < 1 || k.p < 1 {
		return errors.New("parameters are below what scrypt allows (ln>=1, r>=1, p>=1)")
	}
	// One pass fills 128*N*r bytes; p passes run one after the other.
	if k.logN > 20 || k.r > 1024 || k.p > 1024 || (k.r<<k.logN)/8 > maxMemory || k.p*(k.r<<k.logN)/8 > maxPassed {
		return fmt.Errorf("parameters are too large (128*N*r at most %d KiB, 128*N*r*p at most %d KiB)", maxMemory, maxPassed)
	}
	return nil
}

func (k scryptKDF) derive(secret, salt []byte, size int) ([]byte, error) {
	return scrypt.Key(secret, salt, 1<<k.logN, int(k.r), int(k.p), size)
}

// pbkdf2KDF is PBKDF2 with HMAC-SHA-256 or HMAC-SHA-512 (RFC 8018).
type pbkdf2KDF struct {
	name       string
	iterations uint64
}

func (k pbkdf2KDF) algorithm() string { return k.name }
func (k pbkdf2KDF) params() string    { return fmt.Sprintf("i=%d", k.iterations) }
func (k pbkdf2KDF) work() float64     { return float64(k.iterations) }

func (k pbkdf2KDF) check() error {
	if k.iterations < 1 || k.iterations > maxIterations {
		return fmt.Errorf("iterations are not between 1 and %d", maxIterations)
	}
	return nil
}

func (k pbkdf2KDF) derive(secret, salt []byte, size int) ([]byte, error) {
	h := func() hash.Hash { return sha256.New() }
	if k.name == PBKDF2SHA512 {
		h = func() hash.Hash { return sha512.New() }
	}
	return pbkdf2.Key(h, string(secret), salt, int(k.iterations), size)
}

// bcryptCost is the binary logarithm of bcrypt's rounds. It is no kdf: bcrypt hashes are verified, never made, because
// everything past 72 bytes is lost on it.
type bcryptCost uint64

func (c bcryptCost) algorithm() string { return Bcrypt }
func (c bcryptCost) work() float64     { return float64(uint64(1) << c) }

func (c bcryptCost) check() error {
	if c < 4 || c > maxBcryptCost {
		return fmt.Errorf("cost is not between 4 and %d", maxBcryptCost)
	}
	return nil
}
