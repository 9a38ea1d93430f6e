package auth

import "context"

// CountAddition makes every token look for itself in the set again, as after an addition.
func CountAddition(s *RevocationSet) { s.additions.Add(1) }

// Signature is the stage of Verify that opens a token and checks its signature. It returns the algorithm.
func Signature(ctx context.Context, v *Verifier, raw string) (algorithm string, err error) {
	s, err := open(raw)
	if err != nil {
		return "", err
	}
	key, err := v.authenticate(ctx, s)
	return key.Algorithm, err
}

// VerifyBytes checks a signature of any bytes with a published key, as that stage does.
func VerifyBytes(k Key, text, signature []byte) error { return k.verify(string(text), signature) }
