package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
)

// redisServer is a redis-server of our own: what is measured of it is of nobody else, and nothing of anybody is in danger.
type redisServer struct {
	url  string
	db   *redisdb.DB
	stop func() error
}

// startRedis starts the program of --redis, with nothing but memory; nil without --redis.
func (b *bench) startRedis(ctx context.Context) (*redisServer, error) {
	if b.redis == "" {
		return nil, nil
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(ports[0], ":")
	c := exec.Command(b.redis, "--port", port, "--bind", "127.0.0.1", "--dir", b.folder, "--save", "", "--appendonly", "no",
		"--logfile", filepath.Join(b.folder, "redis.log"))
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("--redis: %w", err)
	}
	r := &redisServer{url: "redis://" + ports[0]}
	r.stop = func() error {
		if r.db != nil {
			r.db.Close()
		}
		err := c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait() // as we told it
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for r.db == nil {
		if r.db, err = redisdb.Open(ctx, r.url); err != nil && pause(ctx, 10*time.Millisecond) != nil {
			return nil, errors.Join(err, r.stop())
		}
	}
	return r, nil
}

// info returns numbers of INFO; a name that is not there is 0.
func (r *redisServer) info(ctx context.Context, section string, names ...string) (map[string]float64, error) {
	text, err := r.db.Client().Do(ctx, r.db.Client().B().Info().Section(section).Build()).ToString()
	if err != nil {
		return nil, err
	}
	numbers := map[string]float64{}
	for line := range strings.Lines(text) {
		for _, name := range names {
			if value, found := strings.CutPrefix(strings.TrimSpace(line), name+":"); found {
				if numbers[name], err = strconv.ParseFloat(value, 64); err != nil {
					return nil, err
				}
			}
		}
	}
	return numbers, nil
}

// cpu is the processor time that Redis has used, in seconds.
func (r *redisServer) cpu(ctx context.Context) (float64, error) {
	if r == nil {
		return 0, nil
	}
	used, err := r.info(ctx, "cpu", "used_cpu_user", "used_cpu_sys")
	return used["used_cpu_user"] + used["used_cpu_sys"], err
}

// memory is used_memory, in bytes.
func (r *redisServer) memory(ctx context.Context) (float64, error) {
	used, err := r.info(ctx, "memory", "used_memory")
	return used["used_memory"], err
}
