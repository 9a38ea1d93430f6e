package token

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/keyring"
)

// An opaque access token is the claims of a JWT that nobody but this installation can read: after a prefix, in base64url,
//
//	version 1 | key id 4 | nonce 24 | sealed claims
//
// sealed with XChaCha20-Poly1305 under a key of the keyring, with all that comes before the nonce authenticated. Its nonces are long
// enough to be drawn at random for as many tokens as there will ever be. No store is asked to open one.
const (
	// OpaquePrefix begins every opaque access token, for secret scanners, and for who has to tell it from others.
	OpaquePrefix  = "sat_"
	opaqueVersion = 1
	opaqueHeader  = 1 + 4
	// OpaquePurpose is the keyring's name for the keys that opaque tokens are sealed under.
	OpaquePurpose = "token.opaque"
)

var _ auth.Opener = (*Service)(nil)

// seal makes an opaque token of claims.
func (s *Service) seal(ctx context.Context, c claims) (string, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	key, err := s.keyring.Current(ctx, OpaquePurpose)
	if err != nil {
		return "", ErrNoKey.Wrap(fmt.Errorf("seal token: %w", err))
	}
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	b := make([]byte, opaqueHeader+chacha20poly1305.NonceSizeX, opaqueHeader+chacha20poly1305.NonceSizeX+len(plain)+aead.Overhead())
	b[0] = opaqueVersion
	binary.BigEndian.PutUint32(b[1:], key.ID)
	nonce := b[opaqueHeader:]
	rand.Read(nonce)
	b = aead.Seal(b, nonce, plain, authenticated(b[:opaqueHeader]))
	return OpaquePrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// Open implements [auth.Opener]. What was not sealed here, or was changed since, is [auth.ErrMalformed].
func (s *Service) Open(ctx context.Context, raw string) (plain []byte, keyID string, err error) {
	text, found := strings.CutPrefix(raw, OpaquePrefix)
	if !found || strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, "", auth.ErrMalformed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < opaqueHeader+chacha20poly1305.NonceSizeX || b[0] != opaqueVersion {
		return nil, "", auth.ErrMalformed
	}
	id := binary.BigEndian.Uint32(b[1:])
	key, err := s.keyring.ByID(ctx, OpaquePurpose, id)
	if errors.Is(err, keyring.ErrUnknownKey) {
		return nil, "", auth.ErrUnknownKey
	}
	if err != nil {
		return nil, "", fmt.Errorf("open token: %w", err)
	}
	var aead cipher.AEAD
	if aead, err = chacha20poly1305.NewX(key.Secret); err != nil {
		return nil, "", fmt.Errorf("open token: %w", err)
	}
	rest := b[opaqueHeader:]
	plain, err = aead.Open(nil, rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:], authenticated(b[:opaqueHeader]))
	if err != nil {
		return nil, "", auth.ErrMalformed
	}
	if !livesAsOurs(plain) {
		return nil, "", auth.ErrMalformed
	}
	return plain, OpaqueKeyID(id), nil
}

// livesAsOurs reports whether what a token says of its time is what we would say. Who has got hold of a key could make one that lives
// longer than it is remembered that the key was withdrawn, and whoever has verified it once would go on taking it.
//
// Names are compared exactly, as package auth does: in a struct package json would also read EXP, and the later of the two would count
// here and the other one there.
func livesAsOurs(plain []byte) bool {
	var c map[string]json.RawMessage
	if json.Unmarshal(plain, &c) != nil {
		return false
	}
	var issued, expires float64
	if json.Unmarshal(c["iat"], &issued) != nil || json.Unmarshal(c["exp"], &expires) != nil {
		return false
	}
	return issued > 0 && expires-issued <= maxLifetime.Seconds()
}

// OpaqueKeyID is the name under which everything that a key has sealed is revoked, where a signed token has its kid.
func OpaqueKeyID(id uint32) string { return "opaque-" + strconv.FormatUint(uint64(id), 10) }

// authenticated is what an opaque token is sealed with besides its claims.
func authenticated(header []byte) []byte {
	return append([]byte("sumun opaque access token "), header...)
}
