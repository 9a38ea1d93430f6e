package session

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
)

// NoncePurpose is the keyring's name for the keys that the nonces of DPoP proofs are made with.
const NoncePurpose = "session.dpop_nonce"

// NewProofs returns a judge of DPoP proofs: what of says, with nonces under a key of the keyring, which all nodes have. Endpoints
// that give out tokens share their Replays with all nodes, too; others remember by themselves.
func NewProofs(cfg Config, keys *keyring.Keyring, of auth.ProofConfig) (*auth.Proofs, error) {
	of.RequireNonce = cfg.DPoPNonce == NonceRequired
	of.Nonces = auth.NewNonces(func(ctx context.Context, id uint32) (uint32, []byte, error) {
		find := keys.Current
		if id != 0 {
			find = func(ctx context.Context, purpose string) (keyring.Key, error) { return keys.ByID(ctx, purpose, id) }
		}
		key, err := find(ctx, NoncePurpose)
		return key.ID, key.Secret, err
	})
	return auth.NewProofs(of)
}

type thumbprintKey struct{}

// Thumbprint returns the thumbprint of the key that the request being served has proved to have, or "".
func Thumbprint(ctx context.Context) string {
	thumbprint, _ := ctx.Value(thumbprintKey{}).(string)
	return thumbprint
}

// TakeProof is a huma middleware for operations that sign people in: it judges the proof of a key, if there is one, and
// refuses requests without one where that is required. Begin refuses them, too, but after the work of a sign-in.
func (s *Service) TakeProof(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		thumbprint, err := s.provedBy(ctx)
		if err == nil && thumbprint == "" && s.cfg.DPoP == DPoPRequired {
			err = ErrProofRequired
		}
		if err != nil {
			httpd.Refuse(api, ctx, err)
			return
		}
		next(huma.WithValue(ctx, thumbprintKey{}, thumbprint))
	}
}

// proverKey is for a function that returns the thumbprint of the key that a request proves to have besides a refresh token.
type proverKey struct{}

// withProver is TakeProof for refreshes, which judge the proof once they know that the token is ours: anybody can make proofs,
// and each one that is judged has to be remembered. RefreshWith refuses a token that is not.
func (s *Service) withProver(ctx huma.Context, next func(huma.Context)) {
	next(huma.WithValue(ctx, proverKey{}, func(presented string) (string, error) {
		if _, err := s.verify(ctx.Context(), presented, ""); err != nil {
			return "", nil
		}
		return s.provedBy(ctx)
	}))
}

// provedBy returns the key that a request proves to have, or "" when it does not try to.
func (s *Service) provedBy(ctx huma.Context) (string, error) {
	r, _ := humago.Unwrap(ctx)
	if s.deps.Proofs == nil || !auth.Sent(r) {
		return "", nil
	}
	if nonce := s.deps.Proofs.NonceFor(r); nonce != "" {
		ctx.SetHeader("DPoP-Nonce", nonce)
	}
	thumbprint, err := s.deps.Proofs.Check(r)
	var refused *auth.Error
	if !errors.As(err, &refused) {
		return thumbprint, err
	}
	status, challenge, code := auth.Challenge(refused)
	if status == http.StatusServiceUnavailable {
		return "", unavailable(err)
	}
	return "", fault.New(fault.KindOf(status), code, refused.Description()).Wrap(err).Challenge(challenge)
}

// checkStart settles which key a new grant is bound to. No session of a client of ours starts around it.
func (s *Service) checkStart(start *Start) error {
	if start.Page || s.cfg.DPoP == DPoPOff {
		start.Thumbprint = ""
	}
	if _, ok := decode(start.Form.Certificate, 32); !ok && start.Form.Certificate != "" {
		return errors.New("the thumbprint of a certificate is malformed")
	}
	if start.Thumbprint == "" {
		if s.cfg.DPoP == DPoPRequired && !start.Page && start.ClientID == FirstParty {
			return ErrProofRequired
		}
		return nil
	}
	if _, ok := decode(start.Thumbprint, 32); !ok {
		return errors.New("the thumbprint of a key is malformed")
	}
	return nil
}

// Bound reports whether the tokens of the session are bound to a key.
func (st *Starting) Bound() bool { return st.opening.start.Thumbprint != "" }
