package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/session"
)

// limiterPurpose is that of the key under which addresses are hashed before Redis sees them.
const limiterPurpose = "ratelimit.redis"

// openLimiter counts in Redis where there is one, and otherwise in memory.
func (f *foundation) openLimiter(ctx context.Context) error {
	switch {
	case !bool(f.cfg.Limits):
		f.limiter = ratelimit.Off{}
	case f.redis == nil:
		f.limiter = ratelimit.NewMemory(f.clock)
	default:
		secret, err := f.limiterSecret(ctx)
		if err != nil {
			return err
		}
		f.limiter = ratelimit.NewRedis(f.redis, ratelimit.RedisConfig{Secret: secret, Clock: f.clock, Log: f.log})
	}
	return nil
}

// limiterSecret is a key of the keyring. Where there is none, it is derived from how Redis is reached, which all nodes have in
// common, and who merely reads what is in Redis does not.
func (f *foundation) limiterSecret(ctx context.Context) ([]byte, error) {
	if f.keyring == nil {
		mac := hmac.New(sha256.New, []byte(f.cfg.Redis.Reveal()))
		mac.Write([]byte(limiterPurpose))
		return mac.Sum(nil), nil
	}
	key, err := f.keyring.Current(ctx, limiterPurpose)
	if err != nil {
		return nil, err
	}
	return key.Secret, nil
}

// checkRedis also says what Redis will do to sessions when its memory is full.
func checkRedis(ctx context.Context, cfg Config) (string, error) {
	db, err := redisdb.Open(ctx, cfg.Redis.Reveal())
	if err != nil {
		return "", err
	}
	defer db.Close()
	text := db.Name() + " answers"
	if cfg.Sessions.Store == session.InSQL {
		return text, nil
	}
	policy, err := db.Eviction(ctx)
	if err != nil {
		return text + "; which maxmemory-policy it has, it does not tell this user", nil
	}
	return fmt.Sprintf("%s; maxmemory-policy %s: %s", text, policy, whenFull(policy)), nil
}

// whenFull says what an eviction policy means for sessions. Every key of a session has a time to live.
func whenFull(policy string) string {
	switch {
	case policy == "noeviction":
		return "when memory is full nobody can sign in or refresh until there is room, and nobody is signed out"
	case strings.HasPrefix(policy, "volatile-"):
		return "when memory is full some people are signed out and must sign in again; volatile-lru takes those who have been " +
			"away the longest"
	default:
		return "warning: when memory is full some people are signed out, and keys without a time to live, which other programs " +
			"may have here, can go as well; use noeviction or volatile-lru"
	}
}
