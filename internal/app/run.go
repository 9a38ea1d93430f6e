package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

// node is one process that serves.
type node struct {
	*foundation
	units        []*unit
	public, ops  *httpd.Server
	publicRoutes http.Handler // what they serve, once the modules are built
	opsRoutes    http.Handler
	serving      atomic.Bool
	cancel       context.CancelCauseFunc // asks for the end, with the reason
	problems     problems
}

var (
	errStarting = errors.New("starting or stopping")
	errStopped  = errors.New("stopped")
)

// serve runs the selected modules until ctx ends or a part of them fails. It returns nil when ctx ended and everything has
// stopped in order.
func serve(ctx context.Context, cfg Config, from source, stdout, stderr io.Writer) (err error) {
	log := cfg.Log.logger(stderr)
	n := &node{}
	// The ports come first: when one is taken, nothing has been made yet. Who connects meanwhile waits.
	defer func() { err = errors.Join(err, n.release()) }()
	if err := n.listen(ctx, cfg, log); err != nil {
		return err
	}
	cfg.deriveIssuer(n.public.Addr())
	if n.foundation, err = open(ctx, cfg, log, tables(from.selected)); err != nil {
		return err
	}
	n.from = from
	defer func() { err = errors.Join(err, n.close()) }()
	if n.db != nil {
		if err := n.openBus(ctx); err != nil {
			return err
		}
	}
	if err := n.build(ctx, from.selected); err != nil {
		return err
	}
	failed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errStopped)
	n.cancel = cancel

	lasting := context.WithoutCancel(ctx) // each part is told to stop at its turn
	workers := n.start(lasting, n.workers()...)
	defer workers.stop()
	ops := n.start(lasting, worker{"operators' listener", n.ops.Run})
	defer ops.stop()
	public := n.start(lasting, worker{"public listener", n.public.Run})
	defer public.stop()

	if err := n.announce(ctx, stdout, stderr); err != nil {
		return errors.Join(err, n.problems.join())
	}
	n.wait(ctx, failed)
	public.stop()
	workers.stop()
	ops.stop()
	return n.problems.join()
}

// wait returns when ctx has ended and load balancers have had the time to notice, or when a part has failed.
func (n *node) wait(ctx, failed context.Context) {
	select {
	case <-ctx.Done():
		n.serving.Store(false)
		n.log.Info("stopping", "reason", context.Cause(ctx).Error())
		drained := time.NewTimer(n.cfg.Drain)
		defer drained.Stop()
		select {
		case <-drained.C:
			return
		case <-failed.Done():
		}
	case <-failed.Done():
		n.serving.Store(false)
	}
	n.log.Info("stopping at once", "reason", context.Cause(failed).Error())
}

// listen binds the ports. What they serve is known once the modules are built.
func (n *node) listen(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	opsConfig := httpd.DefaultConfig()
	opsConfig.Listen = cfg.OpsListen
	opsConfig.WriteTimeout = opsWriteTimeout
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.opsRoutes.ServeHTTP(w, r) })
	if n.ops, err = httpd.NewServer(opsConfig, late, log); err != nil {
		return err
	}
	late = func(w http.ResponseWriter, r *http.Request) { n.publicRoutes.ServeHTTP(w, r) }
	if n.public, err = httpd.NewServer(cfg.HTTP, late, log); err != nil {
		return err
	}
	if err := n.ops.Listen(ctx); err != nil {
		return fmt.Errorf("%w (ops_listen)", err)
	}
	if err := cfg.Pubsub.Cluster.CheckPort(); err != nil {
		return err
	}
	return n.public.Listen(ctx)
}

// release gives the ports back, if the servers have not.
func (n *node) release() error {
	var errs []error
	for _, s := range []*httpd.Server{n.ops, n.public} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// build connects the modules and loads what they need in memory.
func (n *node) build(ctx context.Context, selected []module) (err error) {
	for _, m := range selected {
		u, err := m.build(n.foundation, n.units)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		n.units = append(n.units, u)
		if u.close != nil {
			n.closers = append(n.closers, u.close)
		}
	}
	for _, u := range n.units {
		if u.load == nil {
			continue
		}
		if err := u.load(ctx); err != nil {
			return err
		}
	}
	n.opsRoutes = n.newOpsRoutes()
	n.publicRoutes, err = n.newPublicRoutes()
	return err
}

// opsWriteTimeout lets an operator record a profile of some minutes.
const opsWriteTimeout = 5 * time.Minute

func (n *node) workers() []worker {
	all := []worker{{"memory", tendMemory}}
	for _, u := range n.units {
		all = append(all, u.workers...)
	}
	return all
}

// ready answers /readyz.
func (n *node) ready(ctx context.Context) error {
	if !n.serving.Load() {
		return errStarting
	}
	if n.db == nil {
		return nil
	}
	return n.db.Ping(ctx)
}

// notes are what operators should know although traffic is served.
func (n *node) notes() []string {
	var all []string
	for _, u := range n.units {
		if u.notes != nil {
			all = append(all, u.notes()...)
		}
	}
	return all
}

// problems collects what went wrong in goroutines.
type problems struct {
	mu   sync.Mutex
	errs []error
}

func (p *problems) add(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
}

func (p *problems) join() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.errs...)
}

// group is workers that stop together.
type group struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start runs workers. One that fails, panics or ends by itself brings the whole process down.
func (n *node) start(ctx context.Context, workers ...worker) *group {
	ctx, cancel := context.WithCancel(ctx)
	g := &group{cancel: cancel}
	for _, w := range workers {
		g.done.Go(func() {
			err := guard(ctx, w, n.log)
			if err == nil && ctx.Err() == nil {
				err = errors.New("ended by itself")
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", w.name, err)
				n.problems.add(err)
				n.cancel(err)
			}
		})
	}
	return g
}

// stop asks the workers to end and waits for them. It may be called twice.
func (g *group) stop() {
	g.cancel()
	g.done.Wait()
}

// guard turns a panic into an error, and logs where it came from.
func guard(ctx context.Context, w worker, log *slog.Logger) (err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("worker panicked", "worker", w.name, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return w.run(ctx)
}
