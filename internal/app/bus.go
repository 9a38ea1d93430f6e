package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sumunio/sumun/internal/pubsub"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/session"
)

// bus is how nodes tell each other news.
type bus interface {
	session.Wakes
	Name() string
	Healthy(ctx context.Context) error
	Close()
}

// openBus connects this node to the others. Only who serves needs it: what commands change, nodes find at their next poll.
func (f *foundation) openBus(ctx context.Context) (err error) {
	f.bus, err = newBus(ctx, f.cfg.Pubsub, f.redis, pubsub.Deps{Clock: f.clock, Log: f.log, Metrics: f.metrics})
	if err == nil {
		f.closers = append(f.closers, func() error { f.bus.Close(); return nil })
	}
	return err
}

func newBus(ctx context.Context, cfg pubsub.Config, redis *redisdb.DB, deps pubsub.Deps) (bus, error) {
	if cfg.IsRedis() {
		b, err := pubsub.OpenRedis(ctx, redis, cfg, deps)
		if err != nil {
			return nil, err // and not a bus that is a nil pointer
		}
		return b, nil
	}
	b, err := pubsub.OpenNATS(ctx, cfg, deps)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// checkBus connects and hangs up. An embedded server takes its port for a moment, and looks for no others.
func checkBus(ctx context.Context, cfg Config) (text string, err error) {
	var redis *redisdb.DB
	if cfg.Pubsub.IsRedis() {
		if redis, err = redisdb.Open(ctx, cfg.Redis.Reveal()); err != nil {
			return "", err
		}
		defer redis.Close()
	}
	cfg.Pubsub.Cluster.Routes = nil
	b, err := newBus(ctx, cfg.Pubsub, redis, pubsub.Deps{Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	defer b.Close()
	return b.Name() + " answers", b.Healthy(ctx)
}

// checkPubsub finds what neither the section nor the rest can see alone.
func (c *Config) checkPubsub() error {
	if c.Pubsub.IsRedis() && c.Redis == "" {
		return errors.New("pubsub.url: redis needs redis, which is empty; give its URL, or leave pubsub.url empty")
	}
	return nil
}
