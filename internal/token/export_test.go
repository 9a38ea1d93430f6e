package token

import (
	"context"
	"crypto"
)

// Tick is one round of Run.
func (s *Service) Tick(ctx context.Context) error { return s.tick(ctx) }

// Thumbprint is the id of a key.
func Thumbprint(public crypto.PublicKey) (string, error) { return thumbprint(public) }
