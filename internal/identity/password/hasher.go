package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Hasher makes and verifies stored passwords. It is safe for concurrent use.
//
// It does not keep argon2's memory between hashes. Making 19 MiB anew costs less than can be told from noise (BenchmarkVerify
// against BenchmarkBare); the garbage makes the runtime collect after every second hash, 5 ms of another processor. With one
// slot a process grows to some 75 MB in a storm and is at some 50 MB again after the collection that the runtime makes every
// two minutes, without being told to.
type Hasher struct {
	current kdf
	enabled []string
	peppers Peppers
	gate    *gate // for hashes as we make them, and for those that match nothing
	foreign *gate // for all others: how long they hold a slot must not show to those who wait for the first gate
	pace    *pace
	sleep   func(context.Context, time.Duration) error // sleep, which tests replace
	hashes  *prometheus.HistogramVec
}

// NewHasher makes a hasher. Metrics are registered with reg, unless that is nil.
func NewHasher(cfg Config, peppers Peppers, reg prometheus.Registerer) (*Hasher, error) {
	if err := errors.Join(cfg.validateHash(), cfg.Gate.validate()); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	h := &Hasher{
		current: cfg.kdf(),
		enabled: slices.Clone(cfg.Enabled),
		peppers: peppers,
		gate:    newGate(cfg.Gate),
		foreign: newGate(GateConfig{Concurrency: 1, Queue: cfg.Gate.Queue, Wait: cfg.Gate.Wait}),
		pace:    newPace(cfg.FailureTime, cfg.Enabled, cfg.kdf()),
		sleep:   sleep,
	}
	return h, h.register(reg)
}

// Hash returns what to store for a password: a PHC string with a new salt, under the current pepper. It returns ErrBusy when
// too many hashes run. The password is expected to have passed a Policy; one beyond MaxBytes is an error.
func (h *Hasher) Hash(ctx context.Context, pw string) (string, error) {
	if len(pw) > MaxBytes || len(normalise(pw)) > MaxBytes {
		return "", fmt.Errorf("hash password: it has more than %d bytes", MaxBytes)
	}
	pepper, err := h.peppers.Current(ctx, PepperPurpose)
	if err != nil {
		return "", fmt.Errorf("load current pepper: %w", err)
	}
	e := &encoded{cost: h.current, kdf: h.current, peppered: true, pepperID: pepper.ID, salt: make([]byte, newSalt)}
	_, _ = rand.Read(e.salt) // never fails (see crypto/rand)
	_, err = h.run(ctx, e.cost, func() error {
		e.sum, err = e.kdf.derive(season(pepper, pw), e.salt, newSum)
		return err
	})
	if err != nil {
		return "", err
	}
	return e.String(), nil
}

// Verify reports whether pw is the password of a stored hash. If it is, upgrade says that Hash would now make a stronger one:
// another algorithm or cost, another pepper.
//
// Whatever is not a success takes as long as the slowest enabled hash, apart from the wait for the gate, which has nothing to
// do with whose password it is. Errors are ErrBusy, the context's, ErrUnsupported (the caller logs it and treats it as a
// mismatch: telling it apart would tell that the account exists), and those of the peppers. Once the password is known to be
// wrong there is no error of the context's any more: who hangs up early has guessed all the same.
//
// A mismatch is reported to mismatch, unless that is nil, before the answer is drawn out: what it does takes no time that
// can be seen, and guesses are counted before the next ones are let in.
func (h *Hasher) Verify(ctx context.Context, stored, pw string, mismatch func()) (ok, upgrade bool, err error) {
	ok, upgrade, refused, err := h.verify(ctx, stored, pw, mismatch)
	return ok, upgrade, errors.Join(err, refused)
}

// VerifyNothing does what Verify does for a wrong password and costs the same. It is for sign-ins to accounts that do not
// exist or have no password. It returns nil, ErrBusy, the context's error or one of the peppers'.
func (h *Hasher) VerifyNothing(ctx context.Context, pw string, mismatch func()) error {
	// With the pepper out of reach, existing accounts fail: so must this.
	_, pepperErr := h.peppers.Current(ctx, PepperPurpose)
	_, _, _, err := h.verify(ctx, "", pw, mismatch)
	return errors.Join(err, pepperErr)
}

// verify is Verify with what is wrong with the stored hash as refused, and every other error as err.
func (h *Hasher) verify(ctx context.Context, stored, pw string, mismatch func()) (ok, upgrade bool, refused, err error) {
	began := time.Now()
	e, refused := h.load(ctx, stored)
	if refused != nil {
		e = h.nothing()
	}
	spent := time.Since(began)
	ok, took, err := h.check(ctx, e, pw)
	switch {
	case errors.Is(err, ErrBusy):
		return false, false, nil, err
	case ok:
		return true, h.outdated(ctx, e), nil, nil
	}
	if err == nil && mismatch != nil {
		began = time.Now()
		mismatch()
		spent += time.Since(began)
	}
	_ = h.sleep(ctx, h.pace.slowest()-spent-took) // whoever has gone does not see when the answer comes
	return false, false, refused, err
}

// MatchesAny reports whether pw is the password of any of the stored hashes, such as earlier ones that must not be used
// again. It is for people who are signed in: how long it takes depends on the hashes. Those that cannot be verified any more
// match nothing.
func (h *Hasher) MatchesAny(ctx context.Context, stored []string, pw string) (bool, error) {
	for _, s := range stored {
		e, err := h.load(ctx, s)
		if errors.Is(err, ErrUnsupported) {
			continue
		}
		if err != nil {
			return false, err
		}
		if ok, _, err := h.check(ctx, e, pw); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// Supports returns nil for a hash that Verify can verify and ErrUnsupported with the reason for any other. Imports check what
// they bring with it. It says nothing about whether a pepper still exists.
func (h *Hasher) Supports(stored string) error {
	_, err := h.parse(stored)
	return err
}

func (h *Hasher) parse(stored string) (*encoded, error) {
	e, err := parse(stored)
	if err != nil {
		return nil, err
	}
	if name := e.cost.algorithm(); !slices.Contains(h.enabled, name) {
		return nil, fmt.Errorf("%w: %s is not enabled", ErrUnsupported, name)
	}
	return e, nil
}

// nothing is a hash of ours that no password matches.
func (h *Hasher) nothing() *encoded {
	return &encoded{cost: h.current, kdf: h.current, salt: make([]byte, newSalt), sum: make([]byte, newSum)}
}

// check runs a hash behind the gate. The time it took does not include the wait for the gate.
func (h *Hasher) check(ctx context.Context, e *encoded, pw string) (ok bool, took time.Duration, err error) {
	tooLong := len(pw) > MaxBytes
	if tooLong {
		pw = ""
	}
	took, err = h.run(ctx, e.cost, func() error {
		ok, err = e.matches(e.secret(pw))
		return err
	})
	return ok && !tooLong, took, err
}

// run calls hash behind the gate and tells the pace how long it took.
func (h *Hasher) run(ctx context.Context, c cost, hash func() error) (took time.Duration, err error) {
	lane := h.gate
	if c != cost(h.current) {
		lane = h.foreign
	}
	leave, err := lane.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	h.pace.calibrate()
	began := time.Now()
	if err := hash(); err != nil {
		return time.Since(began), fmt.Errorf("hash password: %w", err)
	}
	took = time.Since(began)
	h.pace.observe(c, took)
	h.hashes.WithLabelValues(c.algorithm()).Observe(took.Seconds())
	return took, nil
}

// outdated reports whether a hash differs from what Hash would make. While the current pepper cannot be had there is nothing
// to upgrade to.
func (h *Hasher) outdated(ctx context.Context, e *encoded) bool {
	if e.cost != h.current || !e.peppered || len(e.salt) < newSalt || len(e.sum) < newSum {
		return true
	}
	pepper, err := h.peppers.Current(ctx, PepperPurpose)
	return err == nil && pepper.ID != e.pepperID
}

// register declares the metrics.
func (h *Hasher) register(reg prometheus.Registerer) error {
	const prefix = "sumun_password_"
	h.hashes = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "hash_seconds", Help: "Time to run one password hash, without waiting for a slot.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5},
	}, []string{"algorithm"})
	if reg == nil {
		return nil
	}
	pace := func() float64 { return h.pace.slowest().Seconds() }
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		h.hashes,
		gauge("hashes_in_use", "Password hashes that run.", func() float64 { return float64(len(h.gate.slots) + len(h.foreign.slots)) }),
		gauge("hashes_queued", "Password hashes that wait for a slot.", func() float64 { return float64(h.gate.waiting.Load() + h.foreign.waiting.Load()) }),
		gauge("hash_slots", "Password hashes of today's kind that may run at once.", func() float64 { return float64(cap(h.gate.slots)) }),
		gauge("failure_seconds", "Time to which failed password checks are drawn out.", pace),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: prefix + "hashes_refused_total", Help: "Password hashes refused because too many ran and waited.",
		}, func() float64 { return float64(h.gate.refused.Load() + h.foreign.refused.Load()) }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("password: register metrics: %w", err)
		}
	}
	return nil
}

// sleep waits for d, not at all when that is negative, or until the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("draw out a failed password check: %w", ctx.Err())
	}
}
