package password

import (
	"slices"
	"sync"
	"time"
)

// maxPace bounds how far a failure is drawn out: one absurdly slow hash in the database must not make everyone wait. A
// failure of such a hash can be told from others by its time.
const maxPace = 3 * time.Second

// pace knows how long the slowest hash takes, so that a failure can be made to take that long.
//
// Per algorithm it keeps the time for a unit of work, measured on every hash that runs, and the most work it expects of a
// hash: what imports usually bring, or more when such a hash was met. Nothing needs to be known beforehand about the hashes
// in the database, and a class of hashes that nobody has tried lately is not forgotten. Time inside the gate is what is
// measured: there, at most as many hashes run as there are processors for, so it hardly depends on the load.
//
// What remains to be seen from outside is the tail of that distribution, and the first hash after a start that is costlier
// than usual. Either takes more attempts on one account than package identity allows.
type pace struct {
	fixed time.Duration // measures nothing, unless zero

	mu         sync.Mutex
	rates      map[string]*rate // by algorithm
	calibrated time.Time
}

// rate is what is known of one algorithm, smoothed as TCP does it with round trips (RFC 6298, section 2).
type rate struct {
	mean      float64 // seconds for a unit of work
	deviation float64 // seconds by which a hash differs from its mean, however long that is
	work      float64 // the most a hash is expected to be
	observed  bool    // since the last calibration
}

// expectation is a cost that is expected, and one of the same algorithm to measure with.
type expectation struct{ usual, probe cost }

// usual are the costs that imported hashes commonly have, the defaults of the libraries and frameworks they come from; probe
// is much cheaper and tells how fast this machine is.
var usual = []expectation{
	{argon2KDF{id: true, memory: 1 << 16, time: 3, threads: 1}, argon2KDF{id: true, memory: 2048, time: 1, threads: 1}},
	{argon2KDF{id: false, memory: 1 << 16, time: 3, threads: 1}, argon2KDF{id: false, memory: 2048, time: 1, threads: 1}},
	{bcryptCost(12), bcryptCost(6)},
	{scryptKDF{logN: 16, r: 8, p: 1}, scryptKDF{logN: 11, r: 8, p: 1}},
	{pbkdf2KDF{PBKDF2SHA256, 1_200_000}, pbkdf2KDF{PBKDF2SHA256, 10_000}},
	{pbkdf2KDF{PBKDF2SHA512, 210_000}, pbkdf2KDF{PBKDF2SHA512, 5_000}},
}

// newPace expects the enabled algorithms at their usual cost, and new hashes at current's.
func newPace(fixed time.Duration, enabled []string, current cost) *pace {
	p := &pace{fixed: fixed, rates: map[string]*rate{}}
	for _, u := range usual {
		if name := u.usual.algorithm(); slices.Contains(enabled, name) {
			p.rates[name] = &rate{work: u.usual.work()}
		}
	}
	r := p.rates[current.algorithm()]
	r.work = max(r.work, current.work())
	return p
}

// calibrateEvery is how long a measurement of an algorithm that nobody uses is believed. The machine may have been busy.
const calibrateEvery = 10 * time.Minute

// calibrate measures how fast this machine is with the algorithms of which no hash ran lately, in some 50 ms of one processor.
func (p *pace) calibrate() {
	if p.fixed > 0 {
		return
	}
	for _, u := range p.uncertain(time.Now()) {
		p.start(u.probe, probeTime(u.probe))
	}
}

// uncertain returns what is to be measured now, to one caller.
func (p *pace) uncertain(now time.Time) []expectation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.calibrated) < calibrateEvery {
		return nil
	}
	p.calibrated = now
	var todo []expectation
	for _, u := range usual {
		r := p.rates[u.probe.algorithm()]
		if r == nil {
			continue
		}
		if !r.observed {
			todo = append(todo, u)
		}
		r.observed = false
	}
	return todo
}

// probeTime is the median of three.
func probeTime(c cost) time.Duration {
	e := &encoded{cost: c, salt: make([]byte, newSalt), sum: make([]byte, newSum), bcrypt: []byte(probeBcrypt)}
	e.kdf, _ = c.(kdf)
	var times [3]time.Duration
	for i := range times {
		began := time.Now()
		_, _ = e.matches([]byte("probe"))
		times[i] = time.Since(began)
	}
	slices.Sort(times[:])
	return times[1]
}

// probeBcrypt is a bcrypt string of the probe's cost that nothing matches.
const probeBcrypt = "$2b$06$......................" + "..............................."

// start is the first observation of an algorithm. A cheap probe says less than a hash at full cost, hence the margin.
func (p *pace) start(c cost, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rates[c.algorithm()]
	r.mean = took.Seconds() / c.work()
	r.deviation = r.mean * r.work / 16
}

// observe learns from a hash that ran. One much cheaper than expected teaches nothing about the others: most of the time it
// takes is noise.
func (p *pace) observe(c cost, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rates[c.algorithm()]
	if c.work() < r.work/16 {
		return
	}
	r.observed = true
	// One hiccup of the machine must not make everyone wait: only a lasting change counts in full.
	x := min(took.Seconds()/c.work(), 2*r.mean)
	r.deviation += (max(x-r.mean, r.mean-x)*c.work() - r.deviation) / 4
	r.mean += (x - r.mean) / 8
	r.work = max(r.work, c.work())
}

// slowest returns how long a failure takes, maxPace at most.
func (p *pace) slowest() time.Duration {
	if p.fixed > 0 {
		return p.fixed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var seconds float64
	for _, r := range p.rates {
		seconds = max(seconds, r.mean*r.work+4*r.deviation)
	}
	return min(maxPace, time.Duration(seconds*float64(time.Second)))
}
