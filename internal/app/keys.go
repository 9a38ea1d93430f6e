package app

import (
	"context"
	"errors"

	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/oidc"
)

// ownKeys are the API keys that the identity module of this process knows.
type ownKeys struct{ clients *oidc.Service }

// Exchange implements apikeys.Exchanger.
func (k ownKeys) Exchange(ctx context.Context, key apikey.Key) (apikeys.Token, error) {
	access, _, err := k.clients.KeyToken(ctx, key.Reveal())
	if errors.Is(err, oidc.ErrInvalidGrant) {
		err = apikeys.ErrInvalid
	}
	return apikeys.Token{Text: access.Token, Life: access.Lifetime}, err
}

// holdKeys keeps the tokens of keys for the gateway.
func (e *entrance) holdKeys(known apikeys.Exchanger) (*apikeys.Keys, error) {
	return apikeys.New(apikeys.Deps{Exchanger: known, Limiter: e.deps.Limiter, Clock: e.clock, Metrics: e.metrics})
}
