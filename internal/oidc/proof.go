package oidc

import (
	"errors"
	"net/http"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
)

// proveKey judges the proof of a key that a request for tokens brings (RFC 9449, section 5), and returns its thumbprint; "" where there is
// none. Tokens that are given for it are bound to the key.
func (s *Service) proveKey(w http.ResponseWriter, r *http.Request) (thumbprint string, err error) {
	if s.deps.Proofs == nil || !auth.Sent(r) {
		return "", nil
	}
	if nonce := s.deps.Proofs.NonceFor(r); nonce != "" {
		w.Header().Set("DPoP-Nonce", nonce)
	}
	thumbprint, err = s.deps.Proofs.Check(r)
	return thumbprint, proofError(err)
}

// proofError puts what is wrong with a proof into the words of RFC 9449, section 5. That nobody can tell stays an outage.
func proofError(err error) error {
	var refused *auth.Error
	switch {
	case errors.Is(err, auth.ErrProofsUnavailable):
		return ErrUnavailable.Wrap(err)
	case errors.Is(err, auth.ErrNonce):
		return ErrUseDPoPNonce.Wrap(err)
	case errors.As(err, &refused):
		return ErrInvalidDPoPProof.With(refused.Description()).Wrap(err)
	case errors.Is(err, session.ErrProofRequired), errors.Is(err, session.ErrWrongKey), errors.Is(err, session.ErrUnbound):
		return ErrInvalidDPoPProof.With("The grant is bound to a key. Send a proof of it.").Wrap(err)
	}
	return err
}

// scheme is the type of an access token (RFC 6749, section 7.1).
func scheme(thumbprint string) string {
	if thumbprint != "" {
		return "DPoP"
	}
	return "Bearer"
}
