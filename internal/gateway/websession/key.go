package websession

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// secretSize is the entropy of a cookie, in bytes.
const secretSize = 32

// key is what a cookie says, and what follows from it. The store sees the id alone, from which neither the rest can be found out.
type key struct {
	text string // the cookie's value
	id   string
	seal cipher.AEAD
}

// newKey returns a key that nobody has.
func newKey() (*key, error) {
	secret := make([]byte, secretSize)
	rand.Read(secret)
	return parseKey(base64.RawURLEncoding.EncodeToString(secret))
}

// parseKey reads the one canonical spelling of a cookie.
func parseKey(text string) (*key, error) {
	if len(text) != base64.RawURLEncoding.EncodedLen(secretSize) {
		return nil, errNone
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errNone
	}
	k := &key{text: text}
	sum := sha256.Sum256(append([]byte("sumun gateway session id "), secret...))
	k.id = base64.RawURLEncoding.EncodeToString(sum[:])
	derived, err := hkdf.Key(sha256.New, secret, nil, "sumun gateway session seal", 32)
	if err != nil {
		return nil, fmt.Errorf("derive key of a session: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("key of a session: %w", err)
	}
	if k.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("key of a session: %w", err)
	}
	return k, nil
}

// readCookie returns the key of a request; nil where there is none that can be one. Of two cookies of one name it takes neither: which
// of them the browser's own page set, nobody knows.
func readCookie(r *http.Request, name string) (*key, error) {
	cookies := r.CookiesNamed(name)
	if len(cookies) != 1 {
		return nil, nil
	}
	k, err := parseKey(cookies[0].Value)
	if err == errNone {
		return nil, nil
	}
	return k, err
}

// pair is what is kept of a session.
type pair struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh"`
	// Generation counts renewals.
	Generation int64     `json:"generation"`
	Renew      time.Time `json:"renew"`   // when the access token has lived two thirds of its life
	Expires    time.Time `json:"expires"` // when the access token does
	Until      time.Time `json:"until"`   // when the refresh token does
}

func (k *key) close(p pair) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("seal session: %w", err)
	}
	return k.seal.Seal(nil, nil, text, []byte(k.id)), nil
}

func (k *key) open(sealed []byte) (p pair, err error) {
	text, err := k.seal.Open(nil, nil, sealed, []byte(k.id))
	if err != nil {
		return p, fmt.Errorf("open session: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("open session: %w", err)
	}
	return p, nil
}
