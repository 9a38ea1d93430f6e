package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sumunio/sumun/auth"
)

// assertionPurpose is the keyring's name for the keys from which those of assertions are derived.
const assertionPurpose = "gateway.assertions"

// loadSecrets finds what the keys of assertions are derived from: it is the same on every node.
func (e *entrance) loadSecrets(ctx context.Context) error {
	cfg := e.cfg.Gateway
	switch {
	case len(cfg.Assertions.Keys) > 0:
		for _, key := range cfg.Assertions.Keys {
			e.secrets = append(e.secrets, []byte(key.Reveal()))
		}
	case e.keyring != nil:
		key, err := e.keyring.Current(ctx, assertionPurpose)
		if err != nil {
			return fmt.Errorf("keys of assertions: %w", err)
		}
		e.secrets = [][]byte{key.Secret}
	case cfg.Feed.ClientSecret != "":
		e.secrets = [][]byte{[]byte(cfg.Feed.ClientSecret.Reveal())}
	}
	return nil
}

// secretsPause is how soon it is tried again to read a key that has taken the place of a withdrawn one.
const secretsPause = time.Second

// replaceSecrets has assertions signed with another key as soon as the one that there was is withdrawn.
func (e *entrance) replaceSecrets(follow func(context.Context, func(context.Context, []auth.Revocation))) func(context.Context) error {
	return func(ctx context.Context) error {
		follow(ctx, func(ctx context.Context, revocations []auth.Revocation) {
			if !slices.ContainsFunc(revocations, func(r auth.Revocation) bool { return r.Kind == auth.RevokeKey }) {
				return
			}
			for ctx.Err() == nil {
				err := e.replaceSecret(ctx)
				if err == nil || ctx.Err() != nil {
					return
				}
				e.log.LogAttrs(ctx, slog.LevelError, "the key of assertions is not read anew after one was withdrawn", slog.Any("error", err))
				select {
				case <-ctx.Done():
				case <-time.After(secretsPause):
				}
			}
		})
		return nil
	}
}

func (e *entrance) replaceSecret(ctx context.Context) error {
	if err := e.keyring.Reload(ctx); err != nil {
		return err
	}
	key, err := e.keyring.Current(ctx, assertionPurpose)
	if err != nil {
		return err
	}
	return e.deps.Assertions.Replace([][]byte{key.Secret})
}
