package password

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/sumunio/sumun/internal/keyring"
)

// ErrUnsupported says that a stored hash cannot be verified: its form is unknown, its algorithm is not enabled, or its
// parameters are out of bounds. It names the reason and never the hash.
var ErrUnsupported = errors.New("password: stored hash cannot be verified")

const (
	maxEncoded = 512 // bytes of a stored string
	maxSalt    = 64  // bytes
	minSum     = 16  // bytes; a shorter hash would match too easily
	maxSum     = 64  // bytes; PBKDF2's work grows with every block it returns

	newSalt = 16 // bytes of a new salt
	newSum  = 32 // bytes of a new hash
)

// b64 is the Base64 of PHC strings: standard alphabet, no padding.
var b64 = base64.RawStdEncoding

// encoded is a stored hash, taken apart.
type encoded struct {
	cost     cost
	kdf      kdf // cost, unless that is bcrypt's
	peppered bool
	pepperID uint32
	pepper   keyring.Key // filled in by Hasher.load
	salt     []byte
	sum      []byte
	bcrypt   []byte // the whole string, for bcrypt
}

// matches runs the hash over a secret (see encoded.secret).
func (e *encoded) matches(secret []byte) (bool, error) {
	if e.kdf == nil {
		err := bcrypt.CompareHashAndPassword(e.bcrypt, secret)
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, nil
		}
		return err == nil, err
	}
	sum, err := e.kdf.derive(secret, e.salt, len(e.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, e.sum) == 1, err
}

// String is the PHC form of a hash of ours:
//
//	$argon2id$v=19$m=19456,t=2,p=1,keyid=AAAAAQ$salt$hash
//
// keyid, the parameter that the PHC string format has for the purpose, is the pepper's id (four bytes, big-endian). The
// password goes through HMAC-SHA-256 under that pepper first.
func (e *encoded) String() string {
	version := ""
	if _, ok := e.kdf.(argon2KDF); ok {
		version = "v=19$"
	}
	return fmt.Sprintf("$%s$%s%s,keyid=%s$%s$%s", e.kdf.algorithm(), version, e.kdf.params(),
		b64.EncodeToString(binary.BigEndian.AppendUint32(nil, e.pepperID)), b64.EncodeToString(e.salt), b64.EncodeToString(e.sum))
}

// parse takes a stored hash apart: PHC strings, the modular crypt strings of bcrypt and passlib, and Django's. Errors are
// ErrUnsupported.
func parse(s string) (*encoded, error) {
	e, err := parseAny(s)
	if err == nil {
		err = e.cost.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return e, nil
}

func parseAny(s string) (*encoded, error) {
	if len(s) > maxEncoded {
		return nil, errors.New("it is too long")
	}
	if strings.ContainsAny(s, "\r\n") { // which the Base64 decoder would skip
		return nil, errors.New("it contains a line break")
	}
	// Django puts the name of its hasher in front of what the algorithm's own library made.
	if strings.HasPrefix(s, "argon2$") {
		s = strings.TrimPrefix(s, "argon2")
	}
	s = strings.TrimPrefix(s, "bcrypt$")
	switch {
	case strings.HasPrefix(s, "$2"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, "pbkdf2_"):
		return parseDjango(s)
	case strings.HasPrefix(s, "$"):
		return parsePHC(s)
	}
	return nil, errors.New("its form is unknown")
}

// parseBcrypt reads $2a$, $2b$ and $2y$, which differ in bugs long gone: 2 digits of cost, 22 of salt, 31 of hash.
func parseBcrypt(s string) (*encoded, error) {
	const length = len("$2b$12$") + 22 + 31
	if len(s) != length || !strings.Contains("aby", s[2:3]) || s[3] != '$' || s[6] != '$' {
		return nil, errors.New("it is not a bcrypt string of version 2a, 2b or 2y")
	}
	c, err := number(strings.TrimPrefix(s[4:6], "0"))
	if err != nil {
		return nil, errors.New("its bcrypt cost is not a number")
	}
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if strings.Trim(s[7:], alphabet) != "" {
		return nil, errors.New("its bcrypt salt or hash is damaged")
	}
	return &encoded{cost: bcryptCost(c), bcrypt: []byte(s)}, nil
}

// parseDjango reads pbkdf2_sha256$iterations$salt$hash: the salt is text, the hash padded Base64.
func parseDjango(s string) (*encoded, error) {
	f := strings.Split(s, "$")
	if len(f) != 4 {
		return nil, errors.New("it is not a PBKDF2 string as Django writes it")
	}
	k := pbkdf2KDF{name: "pbkdf2-" + strings.TrimPrefix(f[0], "pbkdf2_")}
	if k.name != PBKDF2SHA256 && k.name != PBKDF2SHA512 {
		return nil, errors.New("its algorithm is unknown")
	}
	var err error
	if k.iterations, err = number(f[1]); err != nil {
		return nil, errors.New("its iterations are not a number")
	}
	e := &encoded{cost: k, kdf: k, salt: []byte(f[2])}
	e.sum, err = decode(f[3])
	return e, errors.Join(err, e.checkSizes())
}

// parsePHC reads $algorithm[$v=version]$parameters$salt$hash. Passlib's PBKDF2 differs in that the parameters are the bare
// number of iterations, and in writing . for +.
func parsePHC(s string) (*encoded, error) {
	f := strings.Split(s[1:], "$")
	version := ""
	if len(f) == 5 && strings.HasPrefix(f[1], "v=") {
		version = f[1]
		f = append(f[:1], f[2:]...)
	}
	if len(f) != 4 {
		return nil, errors.New("it does not have the parts of a PHC string")
	}
	if argon := strings.HasPrefix(f[0], "argon2"); argon && version != "v=19" || !argon && version != "" {
		return nil, errors.New("its version is not supported")
	}
	p, err := parseParams(f[1])
	if err != nil {
		return nil, err
	}
	e := &encoded{}
	if e.kdf, err = p.kdf(f[0]); err != nil {
		return nil, err
	}
	e.cost = e.kdf
	if e.pepperID, e.peppered, err = p.keyID(); err != nil {
		return nil, err
	}
	salt, errSalt := decode(f[2])
	sum, errSum := decode(f[3])
	e.salt, e.sum = salt, sum
	if size, given := p["l"]; given && size != strconv.Itoa(len(sum)) {
		return nil, errors.New("its hash is not as long as it says")
	}
	return e, errors.Join(errSalt, errSum, e.checkSizes())
}

func (e *encoded) checkSizes() error {
	if len(e.salt) < 1 || len(e.salt) > maxSalt {
		return fmt.Errorf("its salt does not have 1 to %d bytes", maxSalt)
	}
	if len(e.sum) < minSum || len(e.sum) > maxSum {
		return fmt.Errorf("its hash does not have %d to %d bytes", minSum, maxSum)
	}
	return nil
}

// params are the parameters of a PHC string by name.
type params map[string]string

func parseParams(s string) (params, error) {
	p := params{}
	if !strings.Contains(s, "=") {
		p["i"] = s // passlib
		return p, nil
	}
	for pair := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(pair, "=")
		if _, twice := p[name]; twice {
			return nil, errors.New("it has a parameter twice")
		}
		p[name] = value
	}
	return p, nil
}

// kdf reads the cost. It fails on parameters that the algorithm does not have: they would change the result.
func (p params) kdf(algorithm string) (kdf, error) {
	var n [3]uint64
	read := func(names ...string) error {
		for i, name := range names {
			v, err := number(p[name])
			if err != nil {
				return fmt.Errorf("its parameter %s is not a number", name)
			}
			n[i] = v
		}
		known := len(names)
		for _, optional := range []string{"keyid", "l"} {
			if _, given := p[optional]; given {
				known++
			}
		}
		if known != len(p) {
			return errors.New("it has a parameter that is not known")
		}
		return nil
	}
	switch algorithm {
	case Argon2id, Argon2i:
		err := read("m", "t", "p")
		return argon2KDF{id: algorithm == Argon2id, memory: n[0], time: n[1], threads: n[2]}, err
	case Scrypt:
		err := read("ln", "r", "p")
		return scryptKDF{logN: n[0], r: n[1], p: n[2]}, err
	case PBKDF2SHA256, PBKDF2SHA512:
		err := read("i")
		return pbkdf2KDF{name: algorithm, iterations: n[0]}, err
	}
	return nil, errors.New("its algorithm is unknown")
}

func (p params) keyID() (id uint32, given bool, err error) {
	value, given := p["keyid"]
	if !given {
		return 0, false, nil
	}
	raw, err := decode(value)
	if err != nil || len(raw) != 4 {
		return 0, false, errors.New("its keyid is not one of ours")
	}
	return binary.BigEndian.Uint32(raw), true, nil
}

func number(s string) (uint64, error) { return strconv.ParseUint(s, 10, 32) }

// decode reads Base64 with or without padding, in the standard alphabet or passlib's.
func decode(s string) ([]byte, error) {
	b, err := b64.DecodeString(strings.ReplaceAll(strings.TrimRight(s, "="), ".", "+"))
	if err != nil {
		return nil, errors.New("its salt or hash is not Base64")
	}
	return b, nil
}
