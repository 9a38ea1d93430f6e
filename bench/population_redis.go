package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"github.com/sumunio/sumun/internal/redisdb"
)

const (
	settleAtOnce = 1_000
	rotateAtOnce = 16
	rotateAtMost = 20_000
)

// population measures what a session takes in Redis, and what a refresh costs among few people, more, and many.
func (b *bench) population(ctx context.Context) (results []result, err error) {
	in, err := b.install(ctx, cheapMemory, cheapTime)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	all, err := b.settle(ctx, in, s)
	if err != nil {
		return nil, err
	}
	users, err := b.users(ctx, in, s, b.sessions)
	if err != nil {
		return nil, err
	}
	populations := []int{max(1, b.people/1000), max(1, b.people/10), b.people}
	l := load{workers: b.clients, duration: b.duration / time.Duration(len(populations))}
	empty, err := in.redis.memory(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range populations {
		if err := all.grow(ctx, n); err != nil {
			return nil, err
		}
		full, err := in.redis.memory(ctx)
		if err != nil {
			return nil, err
		}
		o, used, err := s.rotate(ctx, l, users)
		if err != nil {
			return nil, err
		}
		alone, err := all.rotate(ctx)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%d people", n)
		results = append(results,
			result{name, "memory of a session in Redis", (full - empty) / float64(n), "bytes", "below 500"},
			result{name, "refreshes over HTTP", o.perSecond(), "/s", ""},
			result{name, "Redis, processor time", 1e6 * used.redis / float64(len(o.latencies)), "us/request", ""},
			result{name, "the script alone, on anybody", 1e6 * alone, "us", "the same for all"})
	}
	return results, nil
}

// settlers are people with a session each: copies of one who signed in and has refreshed, under routing tags of their own. To
// Redis they are as good as a million who signed in, which would take hours.
type settlers struct {
	redis  *redisServer
	script redisdb.Script
	first  bareToken // the refresh token that all of them have
	dump   string
	tokens []bareToken // the same under the tags
	turned int         // of tokens, so many have been used
}

// settle must come before anybody else does.
func (b *bench) settle(ctx context.Context, in *installation, s *server) (*settlers, error) {
	dir, err := scripts(ctx)
	if err != nil {
		return nil, err
	}
	all := &settlers{redis: in.redis}
	if all.script, err = refreshScript(dir); err != nil {
		return nil, err
	}
	alone := &bench{options: options{clients: 1}}
	users, err := alone.users(ctx, in, s, 1)
	if err != nil {
		return nil, err
	}
	for range 2 {
		if err := users[0].refresh(); err != nil {
			return nil, err
		}
	}
	if all.first, err = parseBareToken(users[0].tokens[0]); err != nil {
		return nil, err
	}
	client := in.redis.db.Client()
	all.dump, err = client.Do(ctx, client.B().Dump().Key(all.first.key()).Build()).ToString()
	return all, err
}

// grow makes them so many.
func (all *settlers) grow(ctx context.Context, n int) error {
	client := all.redis.db.Client()
	for len(all.tokens) < n {
		var commands rueidis.Commands
		for range min(settleAtOnce, n-len(all.tokens)) {
			t := append(bareToken{}, all.first...)
			rand.Read(t[tokenRouting:tokenSession])
			all.tokens = append(all.tokens, t)
			commands = append(commands,
				client.B().Restore().Key(t.key()).Ttl(int64(7*24*time.Hour/time.Millisecond)).SerializedValue(all.dump).Build())
		}
		for _, r := range client.DoMulti(ctx, commands...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
	}
	// What is used next is taken from all over.
	rest := all.tokens[all.turned:]
	for i := range min(len(rest), rotateAtMost) {
		j := i + mathrand.IntN(len(rest)-i)
		rest[i], rest[j] = rest[j], rest[i]
	}
	return nil
}

// rotate runs the script once for each of some of them, and returns the seconds of processor time that it took Redis.
func (all *settlers) rotate(ctx context.Context) (float64, error) {
	some := all.tokens[all.turned:min(len(all.tokens), all.turned+rotateAtMost)]
	all.turned += len(some)
	before, err := all.redis.cpu(ctx)
	if err != nil {
		return 0, err
	}
	hash := all.first.hash()
	err = together(rotateAtOnce, func(worker int) error {
		for i := worker; i < len(some); i += rotateAtOnce {
			answer, err := all.script.Exec(ctx, all.redis.db, []string{some[i].key()}, some[i].arguments(hash, some[i].successor())).Strings()
			if err != nil || answer[0] != "rotated" {
				return fmt.Errorf("rotate: %q, %w", answer, err)
			}
		}
		return nil
	})
	after, errAfter := all.redis.cpu(ctx)
	return (after - before) / float64(len(some)), errors.Join(err, errAfter)
}
