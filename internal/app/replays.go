package app

import (
	"context"

	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
)

// openReplays remembers what may be used once in Redis where there is one, and otherwise in SQL: both are shared by all nodes.
// Where there is neither, no module gives out tokens.
func (f *foundation) openReplays() {
	if f.redis != nil {
		f.replays = replay.NewRedis(f.redis, "")
		return
	}
	if f.db != nil {
		f.replays = replay.NewSQL(f.db, f.clock, f.log)
	}
}

// runReplays removes what has expired, where that does not go by itself.
func (f *foundation) runReplays(ctx context.Context) error {
	if s, ok := f.replays.(*replay.SQL); ok {
		return s.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// explainDPoP says what the settings come to.
func explainDPoP(cfg Config) string {
	text := "sign-ins are not bound to keys"
	switch cfg.Sessions.DPoP {
	case session.DPoPOptional:
		text = "sign-ins over the API are bound to the client's key when it proves one"
	case session.DPoPRequired:
		text = "every sign-in and refresh over the API must prove a key; sessions that are bound to none end with their next refresh"
	}
	if cfg.Sessions.DPoPNonce == session.NonceRequired {
		text += ", and every proof needs a nonce"
	}
	where := "the database"
	if cfg.Redis != "" {
		where = "Redis"
	}
	return text + "; proofs are for addresses under " + cfg.Issuer + ", and used ones are remembered in " + where
}
