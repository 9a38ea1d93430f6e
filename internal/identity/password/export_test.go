package password

import (
	"context"
	"time"
)

// Pace gives tests the measurements without the hashes behind them. Costs are bcrypt's.
type Pace struct{ p *pace }

// NewPace expects what is usual, on a machine that takes perUnit for one round of bcrypt (there are 2^cost).
func NewPace(perUnit time.Duration) Pace {
	p := newPace(0, []string{Bcrypt}, bcryptCost(10))
	p.calibrated = time.Now()
	p.start(bcryptCost(6), perUnit<<6)
	return Pace{p}
}

func (p Pace) Observe(cost int, took time.Duration) { p.p.observe(bcryptCost(cost), took) }
func (p Pace) Slowest() time.Duration               { return p.p.slowest() }

// Gate gives tests the gate without the work behind it.
type Gate = gate

var NewGate = newGate

func (g *gate) Enter(ctx context.Context) (leave func(), err error) { return g.enter(ctx) }

func (g *gate) Waiting() int64 { return g.waiting.Load() }

// Reencode parses a stored hash and writes it again, "" when it is not one that Hash could have made.
func Reencode(stored string) (string, error) {
	e, err := parse(stored)
	if err != nil || !e.peppered {
		return "", err
	}
	return e.String(), nil
}

// OnSleep has drawing out a failure told instead of done: for how long, and how long a failure is to take.
func (h *Hasher) OnSleep(tell func(d, slowest time.Duration)) {
	h.sleep = func(_ context.Context, d time.Duration) error { tell(d, h.pace.slowest()); return nil }
}

// Score is score.
var Score = score

// Replaced is how many different characters of a text may stand for letters.
var Replaced = different
