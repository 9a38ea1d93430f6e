package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
)

const (
	// redisPatience bounds a look-up: who waits for it is a person at a sign-in.
	redisPatience = 250 * time.Millisecond
	// redisRest is how long Redis is left alone after it failed, so that not everybody waits for it in vain.
	redisRest = time.Second
	// silence is the least time between two log lines about a failing Redis.
	silence = time.Minute
)

// RedisConfig says how a limiter uses Redis.
type RedisConfig struct {
	// Prefix begins every key, "sumun:limit:" if it is empty. Installations that share a Redis have different ones.
	Prefix string
	// Secret keys the hash that stands for a key, so that nobody who sees Redis can try out addresses. It is the same on all
	// nodes.
	Secret []byte
	// Clock is what counting on this node goes by, and Log is told about it.
	Clock func() time.Time
	Log   *slog.Logger
}

// Redis is a limiter that counts in Redis, on Redis's clock, together with all nodes. While Redis fails, this node counts for
// itself: people then get a limit of their own at every node, and nobody is turned away because of an outage.
type Redis struct {
	db     *redisdb.DB
	cfg    RedisConfig
	memory *Memory
	rested atomic.Int64 // when Redis is asked again, in Unix microseconds
	logged atomic.Int64 // when the last line was logged, in Unix microseconds
}

// NewRedis makes a limiter. It does not close db.
func NewRedis(db *redisdb.DB, cfg RedisConfig) *Redis {
	if cfg.Prefix == "" {
		cfg.Prefix = "sumun:limit:"
	}
	return &Redis{db: db, cfg: cfg, memory: NewMemory(cfg.Clock)}
}

// take is pace.take: KEYS[1] holds the theoretical arrival time, ARGV are interval and limit, all in microseconds. It returns
// whether the event is allowed, and how far ahead the key is. Numbers stay below 2^53, so doubles hold them exactly; "%.0f"
// keeps Lua from writing them as 1.7e+15.
var take = redisdb.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = tonumber(redis.call('GET', KEYS[1]) or 0)
arrival = math.min(math.max(arrival, now), now + limit)
if arrival - now + interval > limit then
	return {0, arrival - now}
end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
return {1, arrival - now}`)

// Take implements Limiter.
func (r *Redis) Take(ctx context.Context, policy Policy, key string) (Verdict, error) {
	p, err := policy.pace()
	if err != nil {
		return Verdict{}, err
	}
	now := r.cfg.Clock().UnixMicro()
	if now < r.rested.Load() {
		return r.memory.Take(ctx, policy, key)
	}
	limited, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	answer, err := take.Exec(limited, r.db, []string{r.key(policy.Name, key)},
		[]string{strconv.FormatInt(p.interval, 10), strconv.FormatInt(p.limit, 10)}).Ints()
	if err == nil && len(answer) == 2 {
		return p.verdict(answer[1], answer[0] == 1), nil
	}
	if ctx.Err() != nil {
		return Verdict{}, ctx.Err()
	}
	r.rested.Store(now + redisRest.Microseconds())
	r.complain(now, err)
	return r.memory.Take(ctx, policy, key)
}

// key is what stands for a key in Redis. The policy's name is in clear, for operators who look.
func (r *Redis) key(name, key string) string {
	mac := hmac.New(sha256.New, r.cfg.Secret)
	mac.Write([]byte(key))
	return r.cfg.Prefix + name + ":" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// complain logs, at most once a minute.
func (r *Redis) complain(now int64, err error) {
	last := r.logged.Load()
	if now-last < silence.Microseconds() || !r.logged.CompareAndSwap(last, now) {
		return
	}
	r.cfg.Log.Warn("rate limits are counted by this node alone: Redis fails", "redis", r.db.Name(), "error", err)
}
