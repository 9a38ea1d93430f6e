package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// maxHeaderSize bounds the protected header in bytes, decoded. A header of ours has some 60.
const maxHeaderSize = 1 << 10

// signed is a token of which nothing has been believed yet (RFC 7515 section 7.1).
type signed struct {
	text      string // header and payload as they were signed
	payload   []byte
	signature []byte
	algorithm string
	keyID     string
	typ       string
}

// refusedMembers of a header would let the token bring its own key, or change how it is read (RFC 7515 section 4.1, RFC 7797).
func refusedMember(name string) bool {
	switch name {
	case "crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc":
		return true
	}
	return false
}

// open takes a token apart. It reads the header, and leaves the payload alone: nobody has vouched for it yet.
func open(raw string) (*signed, error) {
	if len(raw) > MaxTokenSize || !compact(raw) {
		return nil, ErrMalformed
	}
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	header, errHeader := decode(raw[:first])
	payload, errPayload := decode(raw[first+1 : last])
	signature, errSignature := decode(raw[last+1:])
	if err := errors.Join(errHeader, errPayload, errSignature); err != nil {
		return nil, ErrMalformed.wrap(err)
	}
	if len(header) > maxHeaderSize {
		return nil, ErrMalformed.wrap(fmt.Errorf("a header of %d bytes", len(header)))
	}
	s := &signed{text: raw[:last], payload: payload, signature: signature}
	if err := members(header, s.headerMember); err != nil {
		return nil, ErrMalformed.wrap(err)
	}
	return s, nil
}

func (s *signed) headerMember(name string, value json.RawMessage) error {
	switch name {
	case "alg":
		return text(value, &s.algorithm)
	case "kid":
		return text(value, &s.keyID)
	case "typ":
		return text(value, &s.typ)
	}
	if refusedMember(name) {
		return fmt.Errorf("header %q is refused", name)
	}
	return nil
}

// compact reports whether raw is made of exactly three parts of base64url characters (RFC 7515 section 7.1). The decoder
// would skip line breaks, so that one token could be spelt in many ways.
func compact(raw string) bool {
	dots := 0
	for _, c := range []byte(raw) {
		switch {
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

func decode(part string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(part)
}

// authenticate returns the key with which s is rightly signed. The key, not the token, decides about the algorithm
// (RFC 8725 section 3.1).
func (v *Verifier) authenticate(ctx context.Context, s *signed) (Key, error) {
	if !v.accepts(s.algorithm) {
		return Key{}, ErrSignature.wrap(fmt.Errorf("algorithm %q is not accepted", s.algorithm))
	}
	if s.keyID == "" {
		return Key{}, ErrUnknownKey
	}
	key, err := v.key(ctx, s.keyID)
	if err != nil {
		return Key{}, err
	}
	if key.Algorithm != s.algorithm {
		return Key{}, ErrSignature.wrap(fmt.Errorf("key %q is for %s only", s.keyID, key.Algorithm))
	}
	if err := key.check(); err != nil {
		return Key{}, ErrUnknownKey.wrap(err)
	}
	if err := key.verify(s.text, s.signature); err != nil {
		return Key{}, ErrSignature.wrap(err)
	}
	return key, nil
}

// key asks the source. What comes back carries the id that was asked for.
func (v *Verifier) key(ctx context.Context, id string) (Key, error) {
	key, err := v.cfg.Keys.Key(ctx, id)
	switch {
	case errors.Is(err, ErrUnknownKey):
		return Key{}, ErrUnknownKey
	case err != nil:
		return Key{}, ErrKeysUnavailable.wrap(err)
	}
	key.ID = id
	return key, nil
}

// verify is the one place where a signature is checked.
func (k Key) verify(text string, signature []byte) error {
	method := jwt.GetSigningMethod(k.Algorithm)
	if method == nil {
		return fmt.Errorf("algorithm %q is not known", k.Algorithm)
	}
	return method.Verify(text, signature, k.Public)
}
