// Package apikey owns the form of an API key: how one is made, told from other text, and kept.
//
// It promises that a key can be recognised in a log, a repository or a chat without asking anybody: it begins with a prefix of its
// own and ends with a checksum. It promises that two texts that differ in one letter are two keys, as the whole text is what is hashed.
//
// It refuses to know whose a key is and what it is good for, which is for package oidc.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/crc32"
	"strings"
)

// Prefix begins every key.
const Prefix = "sumun_"

// Pattern is a regular expression for scanners that look for keys where none should be.
const Pattern = `sumun_[a-z2-7]{16}_[a-z2-7]{52}[0-9a-f]{8}`

const (
	idSize     = 16 // of 32 letters: 80 bits
	secretSize = 52 // of 32 letters: 260 bits
	sumSize    = 8  // hexadecimal digits of a CRC-32
	size       = len(Prefix) + idSize + 1 + secretSize + sumSize
)

// ErrNotKey is what Parse says of text that no key looks like.
var ErrNotKey = errors.New("not an API key")

// Key is a key as its holder has it. It does not show itself when it is printed.
type Key struct{ id, text string }

// New returns a random key.
func New() Key {
	random := strings.ToLower(rand.Text() + rand.Text() + rand.Text()) // 26 letters each
	id, secret := random[:idSize], random[idSize:idSize+secretSize]
	text := Prefix + id + "_" + secret
	return Key{id: id, text: text + checksum(text)}
}

// Looks reports whether text is meant to be a key, right or wrong.
func Looks(text string) bool { return strings.HasPrefix(text, Prefix) }

// Parse reads a key, or returns ErrNotKey. That a text is a key does not say that it was ever given to anybody.
func Parse(text string) (Key, error) {
	if len(text) != size || !Looks(text) {
		return Key{}, ErrNotKey
	}
	body := text[:size-sumSize]
	id, secret, _ := strings.Cut(body[len(Prefix):], "_")
	if !IsID(id) || strings.Trim(secret, letters) != "" || checksum(body) != text[len(body):] {
		return Key{}, ErrNotKey
	}
	return Key{id: id, text: text}, nil
}

const letters = "abcdefghijklmnopqrstuvwxyz234567"

// IsID reports whether a key could have this id.
func IsID(id string) bool { return len(id) == idSize && strings.Trim(id, letters) == "" }

// ID names the key. It is no secret.
func (k Key) ID() string { return k.id }

// Reveal returns the key itself.
func (k Key) Reveal() string { return k.text }

// String implements fmt.Stringer.
func (k Key) String() string { return Prefix + k.id + "_..." }

// GoString implements fmt.GoStringer.
func (k Key) GoString() string { return k.String() }

// Hash is what is kept of the key. Random as it is, a plain hash is enough.
func (k Key) Hash() [sha256.Size]byte { return sha256.Sum256([]byte(k.text)) }

// Is reports whether hash is the key's. How long that takes tells nothing.
func (k Key) Is(hash []byte) bool {
	own := k.Hash()
	return subtle.ConstantTimeCompare(own[:], hash) == 1
}

// checksum tells a key from text that only looks like one. It keeps nobody out.
func checksum(text string) string {
	const digits = "0123456789abcdef"
	sum := crc32.ChecksumIEEE([]byte(text))
	var out [sumSize]byte
	for i := range out {
		out[sumSize-1-i] = digits[sum>>(4*i)&15]
	}
	return string(out[:])
}
