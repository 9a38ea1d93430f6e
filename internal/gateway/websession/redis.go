package websession

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
)

// redisPatience bounds each look-up.
const redisPatience = time.Second

// Redis is a store that nodes share. What Redis loses, people sign in again for.
type Redis struct {
	db     *redisdb.DB
	prefix string
}

// NewRedis returns a store whose keys begin with prefix; "": sumun:websession:. It does not close db.
func NewRedis(db *redisdb.DB, prefix string) *Redis {
	if prefix == "" {
		prefix = "sumun:websession:"
	}
	return &Redis{db: db, prefix: prefix}
}

// create makes a record: a hash of s, the sealed pair, and g, its generation. ARGV are the pair and its lifetime in milliseconds.
var create = redisdb.NewScript(`
redis.call('HSET', KEYS[1], 's', ARGV[1], 'g', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`)

// Create implements Store.
func (s *Redis) Create(ctx context.Context, id string, sealed []byte, lifetime time.Duration) error {
	return s.exec(ctx, "keep session", create, id, string(sealed), milliseconds(lifetime))
}

var get = redisdb.NewScript(`return {redis.call('HGET', KEYS[1], 's') or ''}`)

// Get implements Store.
func (s *Redis) Get(ctx context.Context, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	answer, err := get.Exec(ctx, s.db, []string{s.prefix + id}, nil).Strings()
	switch {
	case err != nil:
		return nil, fmt.Errorf("get session: %w", err)
	case len(answer) != 1 || answer[0] == "":
		return nil, ErrNotKept
	}
	return []byte(answer[0]), nil
}

// replace changes a record that is there and earlier. ARGV are the pair, its lifetime in milliseconds, and its generation.
var replace = redisdb.NewScript(`
local had = redis.call('HGET', KEYS[1], 'g')
if not had or tonumber(had) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 's', ARGV[1], 'g', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`)

// Replace implements Store.
func (s *Redis) Replace(ctx context.Context, id string, generation int64, sealed []byte, lifetime time.Duration) error {
	return s.exec(ctx, "replace session", replace, id, string(sealed), milliseconds(lifetime), strconv.FormatInt(generation, 10))
}

var remove = redisdb.NewScript(`return redis.call('DEL', KEYS[1])`)

// Delete implements Store.
func (s *Redis) Delete(ctx context.Context, id string) error {
	return s.exec(ctx, "delete session", remove, id)
}

func (s *Redis) exec(ctx context.Context, what string, script redisdb.Script, id string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	if err := script.Exec(ctx, s.db, []string{s.prefix + id}, args).Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
