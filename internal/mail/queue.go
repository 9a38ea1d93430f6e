package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	pollEvery   = 2 * time.Second
	tidyEvery   = time.Minute
	attemptTime = time.Minute     // for composing and sending one letter
	claimTime   = 3 * time.Minute // longer than an attempt, by more than the clocks of two nodes should differ
	stopGrace   = 8 * time.Second // for the letters in flight when Run is told to stop
	settleTime  = 5 * time.Second // for claiming letters, and for writing down how an attempt ended

	backoffMin = 10 * time.Second
	backoffMax = time.Hour
	giveUp     = 3 * 24 * time.Hour
	parkedFor  = 30 * 24 * time.Hour
)

// Deps are what a Queue works with. All are required, except Metrics.
type Deps struct {
	DB        *sqldb.DB
	Transport Transport
	Clock     func() time.Time
	Log       *slog.Logger
	Metrics   prometheus.Registerer
}

// Queue is the outbox. It is safe for concurrent use; several processes may work on one database.
type Queue struct {
	workers   int
	db        *sqldb.DB
	transport Transport
	clock     func() time.Time
	log       *slog.Logger
	composers map[string]Composer // by domain; fixed once Run has begun
	wake      chan struct{}
	attempts  *prometheus.CounterVec
	letters   *prometheus.GaugeVec
}

// NewQueue returns the outbox. It does no I/O; see [Queue.Run].
func NewQueue(cfg Config, deps Deps) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	q := &Queue{
		workers: cfg.Workers, db: deps.DB, transport: deps.Transport, clock: deps.Clock, log: deps.Log,
		composers: map[string]Composer{}, wake: make(chan struct{}, 1),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sumun_mail_attempts_total",
			Help: "Attempts to deliver a letter, by result: delivered, dropped, retried, parked.",
		}, []string{"result"}),
		letters: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sumun_mail_letters",
			Help: "Letters in the outbox, by state: waiting, parked. Counted once a minute.",
		}, []string{"state"}),
	}
	if deps.Metrics != nil {
		for _, c := range []prometheus.Collector{q.attempts, q.letters} {
			if err := deps.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("mail metrics: %w", err)
			}
		}
	}
	return q, nil
}

// Handle makes c the composer of the letters whose kind is the domain's name, or begins with it and a dot ("order",
// "order.shipped"). The empty domain stands for all letters that have no composer of their own. Handle is called
// before Run; it panics when the domain has a composer already, as two packages would be writing each other's letters.
func (q *Queue) Handle(domain string, c Composer) {
	if _, taken := q.composers[domain]; taken {
		panic(fmt.Sprintf("mail: domain %q has two composers", domain))
	}
	q.composers[domain] = c
}

// Enqueue puts a letter into the outbox with db, the transaction that made it necessary. It is sent once that has
// committed; call [Queue.Wake] then to have it sent at once.
func (q *Queue) Enqueue(ctx context.Context, db sqldb.Queryer, letter Letter) error {
	data, err := letter.encode()
	if err != nil {
		return fmt.Errorf("enqueue letter %q: %w", letter.Kind, err)
	}
	if letter.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("enqueue letter: %w", err)
		}
		letter.ID = id.String()
	}
	if letter.CreatedAt.IsZero() {
		letter.CreatedAt = q.clock()
	}
	if err := insertLetter(ctx, db, letter, data); err != nil {
		return fmt.Errorf("enqueue letter %q: %w", letter.Kind, err)
	}
	return nil
}

// Wake makes Run look at the outbox now instead of at its next poll. It never blocks.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run delivers letters until ctx ends, then waits for those in flight, at most some seconds, and returns nil. While
// the database does not answer, it tries again at each poll.
func (q *Queue) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d := q.newDispatcher()
	defer func() {
		defer time.AfterFunc(stopGrace, cancel).Stop()
		d.inFlight.Wait()
	}()

	poll, tidy := time.NewTicker(pollEvery), time.NewTicker(tidyEvery)
	defer poll.Stop()
	defer tidy.Stop()

	failing := false
	for ctx.Err() == nil {
		more, err := d.dispatch(ctx, work)
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			q.log.Error("mail outbox cannot be read; trying again", "error", err)
		case err == nil && failing:
			q.log.Info("mail outbox can be read again")
		}
		failing = err != nil
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-poll.C:
		case <-tidy.C:
			q.tidy(ctx)
		}
	}
	return nil
}

// Drain delivers every letter that is due and returns when none is left, whether or not Run is running. It serves
// programs that do not stay, and tests.
func (q *Queue) Drain(ctx context.Context) error {
	d := q.newDispatcher()
	defer d.inFlight.Wait()
	for {
		more, err := d.dispatch(ctx, ctx)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// dispatcher hands claimed letters to a bounded number of goroutines.
type dispatcher struct {
	queue    *Queue
	slots    chan struct{}
	inFlight sync.WaitGroup
}

func (q *Queue) newDispatcher() *dispatcher {
	return &dispatcher{queue: q, slots: make(chan struct{}, q.workers)}
}

// dispatch waits for a free slot, claims as many letters as there are free slots, so that no claimed letter waits, and
// starts their delivery under work. more says that all slots could be filled: there may be more to do.
func (d *dispatcher) dispatch(ctx, work context.Context) (more bool, err error) {
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	free := 1
	for filled := false; !filled && free < cap(d.slots); {
		select {
		case d.slots <- struct{}{}:
			free++
		default:
			filled = true
		}
	}
	claiming, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	claimed, err := d.queue.claim(claiming, free)
	for range free - len(claimed) {
		<-d.slots
	}
	for _, c := range claimed {
		d.inFlight.Go(func() {
			defer func() { <-d.slots }()
			d.queue.deliver(work, c)
		})
	}
	return err == nil && len(claimed) == free, err
}

// deliver makes one attempt and writes down how it ended.
func (q *Queue) deliver(ctx context.Context, c claim) {
	attempt, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	sent, err := q.attempt(attempt, c)

	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	result, settled := q.settle(settle, c, sent, err)
	if settled != nil {
		// The claim expires by itself, and the letter is sent again with the same id.
		q.log.Error("mail attempt not recorded; the letter will be sent again", "letter", c.ID, "error", settled)
	}
	q.attempts.WithLabelValues(result).Inc()
}

// attempt composes and sends. sent is false when there was nothing to send. A panic is as good as an error: one letter
// must not stop the others.
func (q *Queue) attempt(ctx context.Context, c claim) (sent bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.log.Error("mail attempt panicked", "kind", c.Kind, "stack", string(debug.Stack()))
			sent, err = false, fmt.Errorf("panic: %v", p)
		}
	}()
	if err := json.Unmarshal([]byte(c.data), &c.Data); err != nil {
		return false, fmt.Errorf("data: %w", err)
	}
	m, err := q.compose(ctx, c.Letter)
	if err != nil || m == nil {
		return false, err
	}
	if err := m.check(); err != nil {
		return false, fmt.Errorf("message: %w", err)
	}
	if err := q.transport.Send(ctx, c.ID, *m); err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	return true, nil
}

func (q *Queue) compose(ctx context.Context, letter Letter) (*Message, error) {
	domain, _, _ := strings.Cut(letter.Kind, ".")
	c := q.composers[domain]
	if c == nil {
		c = q.composers[""]
	}
	if c == nil {
		// Perhaps a newer version wrote it, and will deliver it.
		return nil, errors.New("nothing here composes this kind of letter")
	}
	m, err := c(ctx, letter)
	if err != nil {
		return nil, fmt.Errorf("compose: %w", err)
	}
	return m, nil
}

// settle removes a letter that is done with, and otherwise says when to try again, or parks it.
func (q *Queue) settle(ctx context.Context, c claim, sent bool, failure error) (result string, err error) {
	now := q.clock()
	switch {
	case failure == nil && sent:
		return "delivered", q.remove(ctx, c)
	case failure == nil:
		return "dropped", q.remove(ctx, c)
	}
	text := maskText(failure.Error())
	log := q.log.With("letter", c.ID, "kind", c.Kind, "address", MaskAddress(c.Address), "attempt", c.attempt, "error", text)
	switch {
	case errors.Is(failure, ErrRefused): // a mistyped address is nobody's duty
		log.Warn("mail letter refused; it will not be delivered")
		return "parked", q.park(ctx, c, now, text)
	case now.Sub(c.CreatedAt) >= giveUp:
		log.Error("mail letter given up; it will not be delivered")
		return "parked", q.park(ctx, c, now, text)
	}
	wait := backoff(c.attempt)
	log.Warn("mail letter not delivered; trying again", "wait", wait)
	return "retried", q.retry(ctx, c, now.Add(wait), text)
}

// backoff is the wait after the nth attempt: 10 s, doubled each time, at most an hour.
func backoff(attempt int64) time.Duration {
	shift := min(max(attempt-1, 0), 10)
	return min(backoffMin<<shift, backoffMax)
}

// tidy removes what has been parked long enough, and counts what is there.
func (q *Queue) tidy(ctx context.Context) {
	if err := q.sweep(ctx); err != nil && ctx.Err() == nil {
		q.log.Warn("mail outbox not tidied", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	waiting, parked, err := q.count(ctx)
	if err != nil {
		return // the poll reports it
	}
	q.letters.WithLabelValues("waiting").Set(float64(waiting))
	q.letters.WithLabelValues("parked").Set(float64(parked))
}
