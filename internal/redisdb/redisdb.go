// Package redisdb owns the connection to Redis: opening it (one server, Sentinel, Cluster), scripts and health. It is, with
// files called *redis.go, the only place that knows the client.
//
// It promises that a URL says everything, that every call ends within a bound even if the server hangs, and that what an
// operator can mend (no server, wrong password, missing permission, too old) is reported as an error that says how.
//
// It refuses to print a password, to guess what kind of Redis it talks to, and to be the truth about anything: Redis may
// lose what it acknowledged.
package redisdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/internal/fault"
)

// ErrUnreachable says that Redis cannot be used at the moment: there is no connection, or it does not let us in. The cause
// says what to do.
var ErrUnreachable = fault.New(fault.Unavailable, "redis.unreachable", "A database cannot be reached at the moment.").
	After(5 * time.Second)

// oldest is the first version with everything that is used: ACL users (6.0) and GETDEL and the like (6.2).
const oldest = "6.2"

// DB is an open connection. It is safe for concurrent use.
type DB struct {
	client  rueidis.Client
	name    string
	timeout time.Duration
}

// Open connects to the Redis that a URL names (see Validate for its forms) and asks whether it answers and is recent
// enough. The caller closes the DB. Errors are ErrUnreachable, or say what is wrong with the URL or the version.
//
// An ACL user needs +ping, +select for another database than 0, and what the scripts use: +@scripting and their commands.
// Without +info the version is taken on trust.
func Open(ctx context.Context, url string) (*DB, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	option, err := t.option()
	if err != nil {
		return nil, err
	}
	client, err := dial(ctx, option)
	if err != nil {
		return nil, t.explain(err)
	}
	db := &DB{client: client, name: t.name(), timeout: t.timeout}
	if err := errors.Join(db.Ping(ctx), db.checkVersion(ctx)); err != nil {
		client.Close()
		return nil, err
	}
	return db, nil
}

// dial makes the client, which connects at once and knows no context.
func dial(ctx context.Context, option rueidis.ClientOption) (rueidis.Client, error) {
	type result struct {
		client rueidis.Client
		err    error
	}
	done := make(chan result, 1)
	go func() {
		client, err := rueidis.NewClient(option)
		done <- result{client, err}
	}()
	select {
	case r := <-done:
		return r.client, r.err
	case <-ctx.Done():
		go func() { // ends when the dial has timed out
			if r := <-done; r.err == nil {
				r.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// Client returns the client for commands that are not scripts.
func (db *DB) Client() rueidis.Client { return db.client }

// Name says which Redis this is, for messages: scheme, hosts and database, never a password.
func (db *DB) Name() string { return db.name }

// Close closes the connections. Commands in flight fail.
func (db *DB) Close() { db.client.Close() }

// Ping reports whether Redis answers, within the timeout of the URL. The error is ErrUnreachable.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	return db.explain(db.client.Do(ctx, db.client.B().Ping().Build()).Error())
}

// Eviction returns maxmemory-policy: what happens to keys when memory is full. It needs the permission for INFO.
func (db *DB) Eviction(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	info, err := db.client.Do(ctx, db.client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return "", db.explain(err)
	}
	for line := range strings.Lines(info) {
		if policy, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); found {
			return policy, nil
		}
	}
	return "", fmt.Errorf("redis: %s does not say which maxmemory-policy it has", db.name)
}

func (db *DB) checkVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	info, err := db.client.Do(ctx, db.client.B().Info().Section("server").Build()).ToString()
	if err != nil {
		return nil // an ACL user need not be allowed to ask
	}
	for line := range strings.Lines(info) {
		version, found := strings.CutPrefix(strings.TrimSpace(line), "redis_version:")
		if found && older(version, oldest) {
			return fmt.Errorf("redis: %s is version %s; update it to %s or later", db.name, version, oldest)
		}
	}
	return nil
}

// older compares the first two numbers of versions. What is not a version is not older.
func older(a, b string) bool {
	var x, y [2]int
	if _, err := fmt.Sscanf(a, "%d.%d", &x[0], &x[1]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(b, "%d.%d", &y[0], &y[1]); err != nil {
		return false
	}
	return x[0] < y[0] || x[0] == y[0] && x[1] < y[1]
}

// explain puts an error of a command into its class.
func (db *DB) explain(err error) error { return explain(db.name, err) }

func explain(name string, err error) error {
	if err == nil {
		return nil
	}
	remedy := ""
	if answer, ok := rueidis.IsRedisErr(err); ok {
		switch word, _, _ := strings.Cut(answer.Error(), " "); word {
		case "WRONGPASS", "NOAUTH":
			remedy = "check user and password in the URL"
		case "NOPERM":
			remedy = "give the user this permission (ACL SETUSER)"
		case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "TRYAGAIN":
			remedy = "wait for it to be ready"
		default:
			return fmt.Errorf("redis: %s: %w", name, err)
		}
		return ErrUnreachable.Wrap(fmt.Errorf("redis: %s refuses: %w; %s", name, err, remedy))
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rueidis.ErrClosing) ||
		errors.Is(err, rueidis.ErrNoSlot) || errors.Is(err, net.ErrClosed) {
		remedy = "check that it runs and that the URL is right"
		return ErrUnreachable.Wrap(fmt.Errorf("redis: %s does not answer: %w; %s", name, err, remedy))
	}
	return fmt.Errorf("redis: %s: %w", name, err)
}

// Script is a Lua script, kept by Redis and called by its hash. Make one per text, as a package variable: it does not change.
type Script struct{ lua *rueidis.Lua }

// NewScript makes a script. Its keys must share a {tag}, so that it also works on a Cluster.
func NewScript(text string) Script { return Script{rueidis.NewLuaScript(text)} }

// Exec runs the script, loading it if Redis does not have it. It is not run again after a lost connection, when nobody knows
// whether it ran.
func (s Script) Exec(ctx context.Context, db *DB, keys, args []string) Result {
	return Result{db, s.lua.Exec(ctx, db.client, keys, args)}
}

// Result is what a script returned. Every method returns ErrUnreachable when there was no answer.
type Result struct {
	db     *DB
	result rueidis.RedisResult
}

// Ints returns a list of whole numbers.
func (r Result) Ints() ([]int64, error) {
	n, err := r.result.AsIntSlice()
	return n, r.db.explain(err)
}

// Strings returns a list of texts; nil in it is "".
func (r Result) Strings() ([]string, error) {
	s, err := r.result.AsStrSlice()
	return s, r.db.explain(err)
}

// Err returns what went wrong, if what the script returned does not matter.
func (r Result) Err() error { return r.db.explain(r.result.Error()) }
