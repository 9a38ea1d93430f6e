package app

import "testing"

// Under load memory is spent on speed, within bounds; a pause changes nothing yet, and a process that stays idle is small again.
func TestPressure(t *testing.T) {
	t.Parallel()
	p := pressure{percent: calmPercent}
	cycles := uint64(7)
	p.cycles = cycles
	for i, step := range []struct {
		cycles, live uint64
		looks, want  int
	}{
		{0, 8 << 20, 9, 100},    // idle
		{9, 8 << 20, 1, 100},    // some work
		{10, 8 << 20, 1, 400},   // much
		{0, 8 << 20, 5, 400},    // a pause
		{5, 32 << 20, 1, 200},   // a larger heap, with more room
		{50, 256 << 20, 1, 100}, // one that has room enough
		{50, 0, 1, 400},
		{1, 8 << 20, 5, 400},
		{1, 8 << 20, 1, 100}, // over
	} {
		for range step.looks {
			cycles += step.cycles
			p.look(cycles, step.live)
		}
		if p.percent != step.want {
			t.Fatalf("step %d: %d, want %d", i, p.percent, step.want)
		}
	}
}
