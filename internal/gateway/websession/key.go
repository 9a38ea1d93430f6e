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
	text   string // the cookie's value
	secret []byte
	id     string
}

// newKey returns a key that nobody has.
func newKey() *key {
	secret := make([]byte, secretSize)
	rand.Read(secret)
	return parseKey(base64.RawURLEncoding.EncodeToString(secret))
}

// parseKey reads the one canonical spelling of a cookie; nil: it is none.
func parseKey(text string) *key {
	if len(text) != base64.RawURLEncoding.EncodedLen(secretSize) {
		return nil
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	k := &key{text: text, secret: secret}
	sum := sha256.Sum256(append([]byte("sumun gateway session id "), secret...))
	k.id = base64.RawURLEncoding.EncodeToString(sum[:])
	return k
}

// sealing is what seals the pair. Most requests do not need it.
func (k *key) sealing() (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, k.secret, nil, "sumun gateway session seal", 32)
	if err != nil {
		return nil, fmt.Errorf("derive key of a session: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("key of a session: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// readCookie returns the key of a request; nil where there is none that can be one. Of two cookies of one name it takes neither: which
// of them the browser's own page set, nobody knows.
func readCookie(r *http.Request, name string) *key {
	cookies := r.CookiesNamed(name)
	if len(cookies) != 1 {
		return nil
	}
	return parseKey(cookies[0].Value)
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
	seal, err := k.sealing()
	if err != nil {
		return nil, err
	}
	return seal.Seal(nil, nil, text, []byte(k.id)), nil
}

func (k *key) open(sealed []byte) (p pair, err error) {
	seal, err := k.sealing()
	if err != nil {
		return p, err
	}
	text, err := seal.Open(nil, nil, sealed, []byte(k.id))
	if err != nil {
		return p, fmt.Errorf("open session: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("open session: %w", err)
	}
	return p, nil
}
