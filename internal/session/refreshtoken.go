package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// A refresh token is opaque to clients. Inside it is, big-endian and without padding,
//
//	version 1 | MAC key id 4 | routing 8 | session 16 | grant 16 | generation 8 | secret 32 | HMAC-SHA256 32
//
// in base64url after a prefix that secret scanners can look for. The MAC covers everything before it, and the id of the client that
// the token is confined to, if any: presented by another one it is not a token of ours. Only a token that we
// made can therefore reach the store: who knows the ids, which are no secret, can do nothing with them. Routing is random
// per person and tells a sharded store where the person's sessions are.
const (
	// RefreshPrefix begins every refresh token, for secret scanners, and for who has to tell it from an access token.
	RefreshPrefix  = "srt_"
	refreshVersion = 1
	// MACPurpose is the keyring's name for the keys that refresh tokens are authenticated under.
	MACPurpose = "session.refresh"

	routingSize = 8
	secretSize  = 32
	nonceSize   = 12 // of AES-GCM
	signedSize  = 1 + 4 + routingSize + 16 + 16 + 8 + secretSize
	refreshSize = signedSize + sha256.Size
)

var errNotOurs = errors.New("not a refresh token of ours")

// refreshToken is a parsed or new refresh token. Its generation is one more than its predecessor's.
type refreshToken struct {
	keyID      uint32
	routing    [routingSize]byte
	session    uuid.UUID
	grant      uuid.UUID
	generation int64 // never negative
	secret     [secretSize]byte
	mac        [sha256.Size]byte

	client string // that it works together with, "" for any; covered by the MAC, and not in the token
}

// parseRefresh reads the one canonical spelling of a token. Whether its MAC is right is for authentic to say.
func parseRefresh(s string) (refreshToken, error) {
	text, found := strings.CutPrefix(s, RefreshPrefix)
	b, ok := decode(text, refreshSize)
	if !found || !ok || b[0] != refreshVersion {
		return refreshToken{}, errNotOurs
	}
	var t refreshToken
	t.keyID = binary.BigEndian.Uint32(b[1:])
	rest := b[5:]
	for _, field := range [][]byte{t.routing[:], t.session[:], t.grant[:]} {
		rest = rest[copy(field, rest):]
	}
	t.generation = int64(binary.BigEndian.Uint64(rest))
	rest = rest[8:]
	rest = rest[copy(t.secret[:], rest):]
	copy(t.mac[:], rest)
	if t.generation < 0 {
		return refreshToken{}, errNotOurs
	}
	return t, nil
}

// encode writes the token for the client. It is a secret: never log it.
func (t refreshToken) encode() string {
	return RefreshPrefix + base64.RawURLEncoding.EncodeToString(append(t.signed(), t.mac[:]...))
}

// signed returns what the MAC covers, with room for the MAC.
func (t refreshToken) signed() []byte {
	b := make([]byte, 0, refreshSize)
	b = append(b, refreshVersion)
	b = binary.BigEndian.AppendUint32(b, t.keyID)
	b = append(b, t.routing[:]...)
	b = append(b, t.session[:]...)
	b = append(b, t.grant[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.generation))
	return append(b, t.secret[:]...)
}

func (t refreshToken) computeMAC(key []byte) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(t.signed())
	h.Write([]byte(t.client))
	h.Sum(mac[:0])
	return mac
}

// authentic reports, in constant time, whether the MAC was made with the key.
func (t refreshToken) authentic(key []byte) bool {
	mac := t.computeMAC(key)
	return hmac.Equal(mac[:], t.mac[:])
}

// firstRefresh returns the first token of a grant, under the given key, for a client or for any.
func firstRefresh(keyID uint32, key []byte, client string, routing [routingSize]byte, session, grant uuid.UUID) refreshToken {
	t := refreshToken{keyID: keyID, client: client, routing: routing, session: session, grant: grant}
	rand.Read(t.secret[:])
	t.mac = t.computeMAC(key)
	return t
}

// next returns a new token of the same grant with a fresh secret, one generation on, under the given key.
func (t refreshToken) next(keyID uint32, key []byte) refreshToken {
	n := t
	n.keyID = keyID
	n.generation++
	rand.Read(n.secret[:])
	n.mac = n.computeMAC(key)
	return n
}

// hash is what the store knows of a token.
func (t refreshToken) hash() []byte {
	sum := sha256.Sum256(append(t.signed(), t.mac[:]...))
	return sum[:]
}

// sealer returns the cipher that only the holder of this token can make: what the store keeps of the successor opens with
// the presented token alone (RFC 5869). A token may seal more than one successor: their hashes are the nonces.
func (t refreshToken) sealer() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, t.secret[:], t.grant[:], "sumun refresh successor 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive successor key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive successor key: %w", err)
	}
	return cipher.NewGCM(block)
}

// seal encrypts the successor for the holder of t: its secret, all else follows from t; and its key, which may have been
// replaced since by the time that it is opened. The nonce is the beginning of the successor's hash, which is stored anyway.
func (t refreshToken) seal(successor refreshToken) ([]byte, error) {
	aead, err := t.sealer()
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, successor.keyID), aead.Seal(nil, successor.hash()[:nonceSize], successor.secret[:], nil)...), nil
}

// open decrypts the successor, of which the hash is known, that was sealed for the holder of t. Its MAC is still to be made, under
// the key that it names.
func (t refreshToken) open(sealed, hash []byte) (refreshToken, error) {
	aead, err := t.sealer()
	if err != nil {
		return refreshToken{}, err
	}
	if len(sealed) < 4 || len(hash) < nonceSize {
		return refreshToken{}, errors.New("open successor: it is cut short")
	}
	secret, err := aead.Open(nil, hash[:nonceSize], sealed[4:], nil)
	if err != nil {
		return refreshToken{}, fmt.Errorf("open successor: %w", err)
	}
	n := t
	n.keyID = binary.BigEndian.Uint32(sealed)
	n.generation++
	copy(n.secret[:], secret)
	n.mac = [sha256.Size]byte{}
	return n, nil
}
