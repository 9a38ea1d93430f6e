package app

import (
	"context"

	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
)

// limiterPurpose is that of the key under which addresses are hashed before Redis sees them.
const limiterPurpose = "ratelimit.redis"

// openLimiter counts in Redis where there is one, and otherwise in memory. Redis has to answer at the start.
func (f *foundation) openLimiter(ctx context.Context) error {
	switch {
	case !bool(f.cfg.Limits):
		f.limiter = ratelimit.Off{}
	case f.cfg.Redis == "":
		f.limiter = ratelimit.NewMemory(f.clock)
	default:
		db, err := redisdb.Open(ctx, f.cfg.Redis.Reveal())
		if err != nil {
			return err
		}
		f.closers = append(f.closers, func() error { db.Close(); return nil })
		key, err := f.keyring.Current(ctx, limiterPurpose)
		if err != nil {
			return err
		}
		f.limiter = ratelimit.NewRedis(db, ratelimit.RedisConfig{Secret: key.Secret, Clock: f.clock, Log: f.log})
	}
	return nil
}

func checkRedis(ctx context.Context, cfg Config) (string, error) {
	db, err := redisdb.Open(ctx, cfg.Redis.Reveal())
	if err != nil {
		return "", err
	}
	defer db.Close()
	return db.Name() + " answers", nil
}
