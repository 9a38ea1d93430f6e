package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A worker that is gone without a word would leave mail unsent or sessions unrevoked for days.
func TestAWorkerThatEndsBringsTheProcessDown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"fails":          {func(context.Context) error { return errors.New("no more paper") }, "mail: no more paper"},
		"panics":         {func(context.Context) error { panic("no more ink") }, "mail: panic: no more ink"},
		"ends by itself": {func(context.Context) error { return nil }, "mail: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			running, cancel := context.WithCancelCause(t.Context())
			n := &node{foundation: &foundation{log: slog.New(slog.NewTextHandler(&log, nil))}, cancel: cancel}
			other := make(chan struct{})
			g := n.start(t.Context(),
				worker{"mail", test.run},
				worker{"other", func(ctx context.Context) error { <-ctx.Done(); close(other); return nil }})
			<-running.Done()
			g.stop()
			<-other
			if err := n.problems.join(); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if context.Cause(running).Error() != test.want {
				t.Errorf("the reason is %v", context.Cause(running))
			}
			if panicked := name == "panics"; panicked != strings.Contains(log.String(), "run_internal_test.go") {
				t.Errorf("the log says: %s", log.String())
			}
		})
	}
}

func TestWorkersThatAreStoppedAreNoProblem(t *testing.T) {
	t.Parallel()
	n := &node{foundation: &foundation{log: slog.New(slog.DiscardHandler)}, cancel: func(err error) { t.Errorf("cancelled: %v", err) }}
	g := n.start(t.Context(), worker{"mail", func(ctx context.Context) error { <-ctx.Done(); return nil }})
	g.stop()
	g.stop()
	if err := n.problems.join(); err != nil {
		t.Error(err)
	}
}

// A load balancer is given time to notice; a part that fails meanwhile leaves nothing to wait for.
func TestDrainEndsWhenAPartFails(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	failed, fail := context.WithCancelCause(t.Context())
	n := &node{foundation: &foundation{log: slog.New(slog.DiscardHandler), cfg: Config{Drain: time.Hour}}, cancel: fail}
	n.serving.Store(true)
	done := make(chan struct{})
	go func() { n.wait(ctx, failed); close(done) }()
	stop()
	n.start(t.Context(), worker{"mail", func(context.Context) error { return errors.New("no more paper") }}).done.Wait()
	<-done
	if n.serving.Load() {
		t.Error("it still claims to be ready")
	}
}

func TestDrainLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		n := &node{foundation: &foundation{log: slog.New(slog.DiscardHandler), cfg: Config{Drain: 10 * time.Second}}}
		began := time.Now()
		stop()
		n.wait(ctx, t.Context())
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("drained for %v", took)
		}
	})
}

// An operator must learn what a full Redis does to the people who are signed in, before it is full.
func TestWhenFull(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		"noeviction": "nobody is signed out", "volatile-lru": "must sign in again", "volatile-ttl": "must sign in again",
		"allkeys-lru": "warning", "allkeys-lfu": "warning",
	} {
		if got := whenFull(policy); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not say %q", policy, got, want)
		}
	}
}
