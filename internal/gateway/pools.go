package gateway

import (
	"context"
	"reflect"
	"slices"
	"sync"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// services are the upstreams of the table that is served, by name. Those that a reload leaves as they are keep their connections and
// what is known about them.
type services struct {
	deps upstream.Deps

	mu      sync.Mutex
	current map[string]*service
	running context.Context // of Run; nil before and after it
	group   sync.WaitGroup
}

// service is one upstream and what it was made of.
type service struct {
	cfg      Upstream
	pool     *upstream.Pool
	fallback *service
	stop     context.CancelFunc // of its Run; nil before
}

// plan returns the services of a configuration, those of before where they are still the same. Nothing changes until commit.
func (s *services) plan(all []Upstream) (map[string]*service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	planned := map[string]*service{}
	for _, u := range all {
		if _, err := s.planOne(planned, all, u); err != nil {
			return nil, err
		}
	}
	return planned, nil
}

func (s *services) planOne(planned map[string]*service, all []Upstream, u Upstream) (*service, error) {
	if there := planned[u.Name]; there != nil {
		return there, nil
	}
	next := &service{cfg: u}
	if i := slices.IndexFunc(all, func(other Upstream) bool { return other.Name == u.Fallback }); i >= 0 {
		fallback, err := s.planOne(planned, all, all[i])
		if err != nil {
			return nil, err
		}
		next.fallback = fallback
	}
	if before := s.current[u.Name]; before != nil && before.sameBut(next) {
		next.pool, next.stop = before.pool, before.stop
	} else {
		deps := s.deps
		if next.fallback != nil {
			deps.Fallback = next.fallback.pool
		}
		pool, err := upstream.New(u.Config, deps)
		if err != nil {
			return nil, err
		}
		next.pool = pool
	}
	planned[u.Name] = next
	return next, nil
}

// sameBut reports whether two services differ in their endpoints at most, which a pool can exchange.
func (s *service) sameBut(next *service) bool {
	a, b := s.cfg, next.cfg
	a.Endpoints, b.Endpoints = nil, nil
	sameFallback := s.fallback == nil && next.fallback == nil ||
		s.fallback != nil && next.fallback != nil && s.fallback.pool == next.fallback.pool
	return sameFallback && reflect.DeepEqual(a, b)
}

// commit makes planned services the current ones. Those that are left out finish what is in flight.
func (s *services) commit(planned map[string]*service) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current
	s.current = planned
	for name, next := range planned {
		if old := before[name]; old != nil && old.pool == next.pool {
			if err := next.pool.SetEndpoints(next.cfg.Endpoints); err != nil {
				return err // validated, so it cannot be
			}
			continue
		}
		s.start(next)
	}
	for name, old := range before {
		if next := planned[name]; (next == nil || next.pool != old.pool) && old.stop != nil {
			old.stop()
		}
	}
	return nil
}

// start runs a service, if services are running.
func (s *services) start(one *service) {
	if s.running == nil {
		return
	}
	var ctx context.Context
	ctx, one.stop = context.WithCancel(s.running)
	s.group.Go(func() { _ = one.pool.Run(ctx) }) // it returns nil
}

// run runs the services until ctx ends.
func (s *services) run(ctx context.Context) {
	s.mu.Lock()
	s.running = ctx
	for _, one := range s.current {
		s.start(one)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.running = nil // whoever commits now starts nothing
	s.mu.Unlock()
	s.group.Wait()
}
