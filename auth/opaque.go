package auth

import "context"

// Opener reads access tokens that are no JWTs: without dots, opaque to everybody but who issued them. It is called by several
// goroutines at once.
type Opener interface {
	// Open returns what a token says, as the JSON object that would be the payload of a JWT, and the id of the key under which it was
	// made, "" for none. Lifetime, issuer, audience, revocation and binding are judged by the [Verifier]. What is no token of the
	// issuer's is an [*Error], such as [ErrMalformed]; any other error means that nobody can say.
	Open(ctx context.Context, raw string) (claims []byte, keyID string, err error)
}

// readOpaque has a token opened. Its key is none that is published.
func (v *Verifier) readOpaque(ctx context.Context, raw string) ([]byte, Key, error) {
	if len(raw) > MaxTokenSize {
		return nil, Key{}, ErrMalformed
	}
	claims, keyID, err := v.cfg.Opener.Open(ctx, raw)
	return claims, Key{ID: keyID}, err
}
