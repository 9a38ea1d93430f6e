package idempotency

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
)

// redisPatience bounds each look-up.
const redisPatience = time.Second

// Redis is a store that nodes share. Leases run by Redis's clock. What Redis loses, because it does not write to disk or in a failover,
// is forgotten: a request may then happen again.
type Redis struct {
	db     *redisdb.DB
	prefix string
}

// NewRedis returns a store whose keys begin with prefix; "": sumun:idempotency:. It does not close db.
func NewRedis(db *redisdb.DB, prefix string) *Redis {
	if prefix == "" {
		prefix = "sumun:idempotency:"
	}
	return &Redis{db: db, prefix: prefix}
}

// claim makes or reads a record: a hash of f, the fingerprint; h, the holder; u, the end of its lease in microseconds; and a, the
// answer. ARGV are fingerprint, holder, lease in microseconds, how long to keep it in milliseconds, and whether to repeat what was
// lost. Numbers stay below 2^53, so doubles hold them exactly.
var claim = redisdb.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local r = redis.call('HMGET', KEYS[1], 'f', 'h', 'u', 'a')
if r[1] then
	if r[1] ~= ARGV[1] then return {'differs', ''} end
	if r[4] then return {'answered', r[4]} end
	if tonumber(r[3]) > now then return {'in_use', ''} end
	if ARGV[5] ~= '1' then return {'unknown', ''} end
end
redis.call('HSET', KEYS[1], 'f', ARGV[1], 'h', ARGV[2], 'u', string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'claimed', ''}`)

// outcomes are what claim returns.
var outcomes = map[string]Outcome{
	"claimed": Claimed, "answered": Answered, "in_use": InUse, "differs": Differs, "unknown": Unknown,
}

// Claim implements Store.
func (s *Redis) Claim(ctx context.Context, c Claim) (Outcome, []byte, error) {
	repeat := "0"
	if c.Repeat {
		repeat = "1"
	}
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	answer, err := claim.Exec(ctx, s.db, []string{s.prefix + c.ID}, []string{
		c.Fingerprint, c.Holder, strconv.FormatInt(c.Lease.Microseconds(), 10), milliseconds(c.Keep), repeat,
	}).Strings()
	if err != nil {
		return 0, nil, fmt.Errorf("claim: %w", err)
	}
	outcome, known := outcomes[answer[0]]
	if !known || len(answer) != 2 {
		return 0, nil, fmt.Errorf("claim: Redis returned %d values, the first %q", len(answer), answer[0])
	}
	return outcome, []byte(answer[1]), nil
}

// renew sets the end of a lease: ARGV are the holder and the lease in microseconds.
var renew = redisdb.NewScript(`
if redis.call('HGET', KEYS[1], 'h') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', time[1] * 1000000 + time[2] + tonumber(ARGV[2])))
return 1`)

// Renew implements Store.
func (s *Redis) Renew(ctx context.Context, c Claim, alive bool) error {
	lease := c.Lease
	if !alive {
		lease = 0
	}
	return s.exec(ctx, "renew claim", renew, c, c.Holder, strconv.FormatInt(lease.Microseconds(), 10))
}

// keep ends a claim: ARGV are the holder, the answer, and how long to keep it in milliseconds.
var keep = redisdb.NewScript(`
if redis.call('HGET', KEYS[1], 'h') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'h', 'u')
redis.call('HSET', KEYS[1], 'a', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`)

// Keep implements Store.
func (s *Redis) Keep(ctx context.Context, c Claim, answer []byte) error {
	return s.exec(ctx, "keep answer", keep, c, c.Holder, string(answer), milliseconds(c.Keep))
}

// release forgets a claim: ARGV is the holder.
var release = redisdb.NewScript(`
if redis.call('HGET', KEYS[1], 'h') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`)

// Release implements Store.
func (s *Redis) Release(ctx context.Context, c Claim) error {
	return s.exec(ctx, "release claim", release, c, c.Holder)
}

func (s *Redis) exec(ctx context.Context, what string, script redisdb.Script, c Claim, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	if err := script.Exec(ctx, s.db, []string{s.prefix + c.ID}, args).Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
