package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"time"
)

// NonceKey returns the key that nonces are made with: for id 0 the current one with its id, for another the one of that id. It
// fails when there is no such key.
type NonceKey func(ctx context.Context, id uint32) (actual uint32, secret []byte, err error)

// Nonces makes the nonces of DPoP proofs (RFC 9449 section 8) and knows them again. Nothing is stored: a nonce names a minute
// and is authenticated under a key, so every process with the key makes the same and accepts what the others made. It is good
// in its minute and the two after it, and a minute earlier by a clock that is late.
type Nonces struct{ key NonceKey }

// NewNonces returns nonces under the given keys.
func NewNonces(key NonceKey) *Nonces { return &Nonces{key} }

// StaticNonceKey is the one key of a service whose processes share a secret of 32 random bytes.
func StaticNonceKey(secret []byte) NonceKey {
	return func(context.Context, uint32) (uint32, []byte, error) { return 1, secret, nil }
}

const (
	nonceStep  = time.Minute
	nonceSteps = 3 // that one is good for
	nonceEarly = 1 // that one may be ahead
	nonceSize  = 4 + 8 + 16
)

func (n *Nonces) current(ctx context.Context, now time.Time) (string, error) {
	id, secret, err := n.key(ctx, 0)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(makeNonce(id, uint64(now.Unix())/uint64(nonceStep/time.Second), secret)), nil
}

// expiry returns until when a nonce is good, or ErrNonce when it is not.
func (n *Nonces) expiry(ctx context.Context, nonce string, now time.Time) (time.Time, error) {
	if len(nonce) != base64.RawURLEncoding.EncodedLen(nonceSize) {
		return time.Time{}, ErrNonce
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != nonceSize {
		return time.Time{}, ErrNonce
	}
	id, minute := binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:])
	if minute > math.MaxUint32 {
		return time.Time{}, ErrNonce
	}
	start := time.Unix(int64(minute)*int64(nonceStep/time.Second), 0)
	until := start.Add(nonceSteps * nonceStep)
	if now.Before(start.Add(-nonceEarly*nonceStep)) || !now.Before(until) {
		return time.Time{}, ErrNonce
	}
	actual, secret, err := n.key(ctx, id)
	if err != nil {
		return time.Time{}, ErrNonce.wrap(err)
	}
	if actual != id || !hmac.Equal(b, makeNonce(id, minute, secret)) {
		return time.Time{}, ErrNonce
	}
	return until, nil
}

func makeNonce(id uint32, minute uint64, secret []byte) []byte {
	b := make([]byte, 0, nonceSize)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint64(b, minute)
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("sumun dpop nonce 1"))
	h.Write(b)
	return append(b, h.Sum(nil)[:16]...)
}
