package replay

import (
	"context"
	"encoding/base64"
	"strconv"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
)

// redisPrefix begins the name of every key.
const redisPrefix = "sumun:once:"

// Redis keeps each id in a key that goes away by itself.
type Redis struct {
	db     *redisdb.DB
	prefix string
}

// NewRedis returns a store whose keys begin with the prefix, "sumun:once:" if it is empty. It does not close db.
func NewRedis(db *redisdb.DB, prefix string) *Redis {
	if prefix == "" {
		prefix = redisPrefix
	}
	return &Redis{db, prefix}
}

// take is one SET; in a script, so that it is not sent again when its answer is lost, and finds its own id.
var take = redisdb.NewScript(`return {redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[1]) and 1 or 0}`)

// Once implements Store.
func (r *Redis) Once(ctx context.Context, id string, keep time.Duration) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := r.prefix + base64.RawURLEncoding.EncodeToString(digest(id)[:18])
	ms := strconv.FormatInt(max(1, keep.Milliseconds()), 10)
	taken, err := take.Exec(bounded, r.db, []string{key}, []string{ms}).Ints()
	if err != nil || len(taken) != 1 {
		return false, failed(ctx, err)
	}
	return taken[0] == 1, nil
}
