package password

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sumunio/sumun/internal/keyring"
)

// PepperPurpose is the purpose under which the keyring holds the peppers. Rotating that purpose gives every password a new
// pepper at its owner's next sign-in; the old ones go on verifying.
const PepperPurpose = "password.pepper"

// Peppers are the secrets mixed into every hash of ours and kept apart from the hashes. *keyring.Keyring satisfies it. Both
// methods are called for every password and are expected to answer from memory.
type Peppers interface {
	Current(ctx context.Context, purpose string) (keyring.Key, error)
	ByID(ctx context.Context, purpose string, id uint32) (keyring.Key, error)
}

// load takes a stored hash apart and fetches the pepper it was made with. Errors are ErrUnsupported, also for a pepper that is
// gone, and those of the peppers.
func (h *Hasher) load(ctx context.Context, stored string) (*encoded, error) {
	e, err := h.parse(stored)
	if err != nil || !e.peppered {
		return e, err
	}
	e.pepper, err = h.peppers.ByID(ctx, PepperPurpose, e.pepperID)
	if errors.Is(err, keyring.ErrUnknownKey) {
		return nil, fmt.Errorf("%w: its pepper is gone: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load pepper %d: %w", e.pepperID, err)
	}
	return e, nil
}

// secret returns what goes into the slow hash. A foreign hash was made over what the person typed then, so it gets that and
// not its normalised form.
func (e *encoded) secret(pw string) []byte {
	if !e.peppered {
		return []byte(pw)
	}
	return season(e.pepper, pw)
}

// season is HMAC-SHA-256 under the pepper over the normalised password.
func season(pepper keyring.Key, pw string) []byte {
	mac := hmac.New(sha256.New, pepper.Secret)
	mac.Write([]byte(normalise(pw)))
	return mac.Sum(nil)
}
