package password_test

import (
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/identity/password"
)

// A round of bcrypt takes 50 µs in these tests, so that the usual cost of 12 is 205 ms.
const perRound = 50 * time.Microsecond

func rounds(cost int) time.Duration { return perRound << cost }

func TestPaceExpectsUsualImports(t *testing.T) {
	t.Parallel()
	// Nobody with such a hash has signed in yet, and still the first one must not stand out.
	if got := password.NewPace(perRound).Slowest(); got < rounds(12) || got > 3*rounds(12)/2 {
		t.Errorf("failures take %v, want somewhat more than %v", got, rounds(12))
	}
}

func TestPaceLearnsOfDearerHashes(t *testing.T) {
	t.Parallel()
	p := password.NewPace(perRound)
	p.Observe(14, rounds(14))
	if got := p.Slowest(); got < rounds(14) {
		t.Errorf("after a hash of %v failures take %v", rounds(14), got)
	}
	for range 100 {
		p.Observe(12, rounds(12))
	}
	if got := p.Slowest(); got < rounds(14) {
		t.Errorf("the dearer hash was forgotten: failures take %v", got)
	}
}

func TestPaceFollowsTheMachineNotItsHiccups(t *testing.T) {
	t.Parallel()
	p := password.NewPace(perRound)
	for range 20 {
		p.Observe(12, rounds(12))
	}
	p.Observe(12, 100*rounds(12))
	if got := p.Slowest(); got > 3*rounds(12) {
		t.Errorf("one hiccup made failures take %v", got)
	}
	for range 50 {
		p.Observe(12, 2*rounds(12))
	}
	if got := p.Slowest(); got < 2*rounds(12) || got > 3*rounds(12) {
		t.Errorf("on a machine half as fast failures take %v, want somewhat more than %v", got, 2*rounds(12))
	}
}

func TestPaceIgnoresCheapHashes(t *testing.T) {
	t.Parallel()
	p := password.NewPace(perRound)
	before := p.Slowest()
	for range 50 {
		p.Observe(4, 10*rounds(4)) // mostly noise
	}
	if got := p.Slowest(); got != before {
		t.Errorf("cheap hashes changed the pace from %v to %v", before, got)
	}
}

func TestPaceIsBounded(t *testing.T) {
	t.Parallel()
	p := password.NewPace(perRound)
	p.Observe(16, rounds(16)*4)
	if got := p.Slowest(); got > 3*time.Second {
		t.Errorf("one absurd hash makes every failure take %v", got)
	}
}
