package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"

	"github.com/google/uuid"
)

// cookie is the session cookie of our own pages. It is
//
//	version 1 | routing 8 | session 16 | secret 32
//
// in base64url. The store keeps only a hash of the secret. Routing is the person's, as in refresh tokens.
type cookie struct {
	routing [routingSize]byte
	session uuid.UUID
	secret  [secretSize]byte
}

const (
	cookieVersion = 1
	cookieSize    = 1 + routingSize + 16 + secretSize
)

func newCookie(routing [routingSize]byte, session uuid.UUID) cookie {
	c := cookie{routing: routing, session: session}
	rand.Read(c.secret[:])
	return c
}

// parseCookie reads the one canonical spelling of a cookie.
func parseCookie(s string) (cookie, bool) {
	b, ok := decode(s, cookieSize)
	if !ok || b[0] != cookieVersion {
		return cookie{}, false
	}
	var c cookie
	rest := b[1:]
	for _, field := range [][]byte{c.routing[:], c.session[:], c.secret[:]} {
		rest = rest[copy(field, rest):]
	}
	return c, true
}

func (c cookie) encode() string {
	return base64.RawURLEncoding.EncodeToString(slices.Concat([]byte{cookieVersion}, c.routing[:], c.session[:], c.secret[:]))
}

func (c cookie) hash() []byte {
	sum := sha256.Sum256(c.secret[:])
	return sum[:]
}

// matches compares with the stored hash in constant time; of one that has been in Redis there is the beginning.
func (c cookie) matches(hash []byte) bool {
	return len(hash) >= cookieHash && subtle.ConstantTimeCompare(c.hash()[:cookieHash], hash[:cookieHash]) == 1
}
