package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"github.com/google/uuid"
)

// cookie is the session cookie of our own pages: the session's id and a secret, in base64url. The store keeps only a hash
// of the secret.
type cookie struct {
	session uuid.UUID
	secret  [secretSize]byte
}

func newCookie(session uuid.UUID) cookie {
	c := cookie{session: session}
	rand.Read(c.secret[:])
	return c
}

// parseCookie reads the one canonical spelling of a cookie.
func parseCookie(s string) (cookie, bool) {
	var c cookie
	b, ok := decode(s, len(c.session)+secretSize)
	if !ok {
		return cookie{}, false
	}
	copy(c.secret[:], b[copy(c.session[:], b):])
	return c, true
}

func (c cookie) encode() string {
	return base64.RawURLEncoding.EncodeToString(append(c.session[:], c.secret[:]...))
}

func (c cookie) hash() []byte {
	sum := sha256.Sum256(c.secret[:])
	return sum[:]
}

// matches compares with the stored hash in constant time.
func (c cookie) matches(hash []byte) bool { return subtle.ConstantTimeCompare(c.hash(), hash) == 1 }
