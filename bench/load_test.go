package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who offers a rate wants that rate, neither more nor less.
func TestRateIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, err := drive(t.Context(), load{workers: 4, rate: 100, duration: 2 * time.Second}, func(int) error {
			time.Sleep(3 * time.Millisecond)
			return nil
		})
		if err != nil || len(o.latencies) != 200 || o.quantile(0.99) != 3*time.Millisecond {
			t.Errorf("%d calls, 99 %% within %v, %v; want 200 within 3ms", len(o.latencies), o.quantile(0.99), err)
		}
	})
}

// A server that stalls must not look fast because it was not asked meanwhile.
func TestStallIsCountedFromWhenACallWasDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stalled := false
		o, err := drive(t.Context(), load{workers: 1, rate: 10, duration: time.Second}, func(int) error {
			if !stalled {
				stalled = true
				time.Sleep(450 * time.Millisecond)
			}
			return nil
		})
		want := []time.Duration{0, 50, 150, 250, 350, 450} // the calls due at 0, 400, 300, 200, 100 and 0 ms
		for i, d := range o.latencies[len(o.latencies)-5:] {
			if d != want[i+1]*time.Millisecond {
				t.Errorf("latencies %v end otherwise than %v", o.latencies, want)
				break
			}
		}
		if err != nil || len(o.latencies) != 10 {
			t.Errorf("%d calls, %v; want 10", len(o.latencies), err)
		}
	})
}

// A failed request must end the run instead of improving its numbers.
func TestFirstErrorEndsTheLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("refused")
		_, err := drive(t.Context(), load{workers: 8, duration: time.Hour}, func(worker int) error {
			time.Sleep(time.Millisecond)
			if worker == 5 {
				return failure
			}
			return nil
		})
		if !errors.Is(err, failure) {
			t.Errorf("got %v, want %v", err, failure)
		}
	})
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var values []time.Duration
	if got := quantile(values, 0.5); got != 0 {
		t.Errorf("median of nothing: %v", got)
	}
	for i := range 100 {
		values = append(values, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %g: %d, want %d", q, got, want)
		}
	}
}
