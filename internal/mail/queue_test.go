package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

var sets = []sqldb.Migrations{mail.Migrations}

// recorder is a transport that counts what it is given, and does what answer says.
type recorder struct {
	mu     sync.Mutex
	sent   map[string]int // by letter id
	last   mail.Message
	answer func(ctx context.Context, m mail.Message) error
}

func (r *recorder) Send(ctx context.Context, id string, m mail.Message) error {
	r.mu.Lock()
	if r.sent == nil {
		r.sent = map[string]int{}
	}
	r.sent[id]++
	r.last = m
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		return answer(ctx, m)
	}
	return nil
}

func (r *recorder) setAnswer(answer func(context.Context, mail.Message) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// attempts is how often anything was sent, letters how many different ones.
func (r *recorder) counts() (attempts, letters int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.sent {
		attempts += n
	}
	return attempts, len(r.sent)
}

func compose(_ context.Context, l mail.Letter) (*mail.Message, error) {
	return &mail.Message{To: l.Address, Subject: "Hello", Text: "Hello " + l.Data["name"]}, nil
}

// syncBuffer is a log that may be written and read at once.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type fixture struct {
	db        *sqldb.DB
	clock     *clocktest.Clock
	transport *recorder
	queue     *mail.Queue
	log       *syncBuffer
	metrics   *prometheus.Registry
}

func setup(t *testing.T, db *sqldb.DB, composer mail.Composer) fixture {
	t.Helper()
	f := fixture{db: db, clock: clocktest.Noon(), transport: &recorder{}, log: &syncBuffer{}, metrics: prometheus.NewRegistry()}
	f.queue = node(t, f, db)
	f.queue.Handle("", composer)
	return f
}

// node is a queue of another process on the same database.
func node(t *testing.T, f fixture, db *sqldb.DB) *mail.Queue {
	t.Helper()
	q, err := mail.NewQueue(mail.DefaultConfig(), mail.Deps{
		DB: db, Transport: f.transport, Clock: f.clock.Now, Log: slog.New(slog.NewTextHandler(f.log, nil)), Metrics: f.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (f fixture) enqueue(t *testing.T, l mail.Letter) {
	t.Helper()
	if err := f.queue.Enqueue(t.Context(), f.db.Writer(), l); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) drain(t *testing.T) {
	t.Helper()
	if err := f.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// row is what the outbox knows about its only letter.
type row struct {
	attempts, nextAt, parkedAt int64
	lastError                  string
}

func (f fixture) rows(t *testing.T) []row {
	t.Helper()
	rows, err := sqldb.All(t.Context(), f.db.Reader(), func(r sqldb.Row) (x row, err error) {
		err = r.Scan(&x.attempts, &x.nextAt, &x.parkedAt, &x.lastError)
		return x, err
	}, `SELECT attempts, next_at, parked_at, last_error FROM mail_letters`)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func eachQueue(t *testing.T, composer mail.Composer, fn func(t *testing.T, f fixture)) {
	t.Helper()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) { fn(t, setup(t, db, composer)) })
}

var kim = mail.Letter{Kind: "identity.confirm", Address: "kim@example.com", Data: map[string]string{"name": "Kim"}}

// People would not get their mail, or get it again and again.
func TestLetterIsDeliveredOnceAndForgotten(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		f.enqueue(t, kim)
		f.drain(t)
		f.drain(t)
		if attempts, _ := f.transport.counts(); attempts != 1 {
			t.Errorf("%d attempts, want 1", attempts)
		}
		if got := f.transport.last; got.To != "kim@example.com" || got.Text != "Hello Kim" {
			t.Errorf("sent %+v", got)
		}
		if left := f.rows(t); len(left) != 0 {
			t.Errorf("left in the outbox: %+v", left)
		}
	})
}

// Somebody would get mail about something that did not happen.
func TestLetterOfARolledBackTransactionIsNotSent(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		failed := errors.New("failed")
		err := f.db.Write(t.Context(), func(tx sqldb.Tx) error {
			if err := f.queue.Enqueue(t.Context(), tx, kim); err != nil {
				return err
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		f.drain(t)
		if attempts, _ := f.transport.counts(); attempts != 0 {
			t.Errorf("%d attempts, want none", attempts)
		}
	})
}

// With several nodes people would get everything twice.
func TestTwoNodesDeliverEachLetterExactlyOnce(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		const letters = 500
		err := f.db.Write(t.Context(), func(tx sqldb.Tx) error {
			for i := range letters {
				l := mail.Letter{Kind: "identity.confirm", Address: fmt.Sprintf("user%d@example.com", i)}
				if err := f.queue.Enqueue(t.Context(), tx, l); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		all := make(chan struct{}, letters)
		f.transport.setAnswer(func(context.Context, mail.Message) error { all <- struct{}{}; return nil })
		f.metrics = prometheus.NewRegistry()
		other := node(t, f, sqldbtest.Reopen(t, f.db))
		other.Handle("", compose)

		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var nodes sync.WaitGroup
		for _, q := range []*mail.Queue{f.queue, other} {
			nodes.Go(func() {
				if err := q.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		for range letters {
			<-all
		}
		stop()
		nodes.Wait()
		if attempts, distinct := f.transport.counts(); attempts != letters || distinct != letters {
			t.Errorf("%d attempts at %d letters, want %d at %d", attempts, distinct, letters, letters)
		}
		if left := f.rows(t); len(left) != 0 {
			t.Errorf("%d letters left; the log: %s", len(left), f.log)
		}
	})
}

// Mail would be held up until the process restarts, or sent at the pace of a storm.
func TestFailuresBackOffAndAreParkedAfterThreeDays(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		f.transport.setAnswer(func(_ context.Context, m mail.Message) error { return fmt.Errorf("450 <%s> busy", m.To) })
		start := f.clock.Now()
		f.enqueue(t, kim)
		f.drain(t)
		attempts := 1
		for wait := 10 * time.Second; f.rows(t)[0].parkedAt == 0; wait = min(2*wait, time.Hour) {
			f.clock.Advance(wait - time.Microsecond)
			f.drain(t)
			if got, _ := f.transport.counts(); got != attempts {
				t.Fatalf("attempt %d came early", got)
			}
			f.clock.Advance(time.Microsecond)
			f.drain(t)
			attempts++
			if got, _ := f.transport.counts(); got != attempts {
				t.Fatalf("%d attempts after %s, want %d", got, f.clock.Now().Sub(start), attempts)
			}
		}
		if took := f.clock.Now().Sub(start); took < 72*time.Hour || took > 73*time.Hour {
			t.Errorf("parked after %s, want three days", took)
		}
		parked := f.rows(t)[0]
		if parked.lastError != "send: 450 <k***@example.com> busy" {
			t.Errorf("last error %q", parked.lastError)
		}
		f.clock.Advance(24 * time.Hour)
		f.drain(t)
		if got, _ := f.transport.counts(); got != attempts {
			t.Error("a parked letter was tried again")
		}
		log := f.log.String()
		if strings.Contains(log, "kim@example.com") || !strings.Contains(log, "level=ERROR msg=\"mail letter given up") ||
			!strings.Contains(log, "k***@example.com") {
			t.Errorf("log: %s", log)
		}
	})
}

// A refused letter would be tried for three days, to the annoyance of a mail server that judges us by that; parked
// ones would stay for ever.
func TestRefusedLetterIsParkedAtOnceAndSweptLater(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		f.transport.setAnswer(func(context.Context, mail.Message) error { return fmt.Errorf("550: %w", mail.ErrRefused) })
		f.enqueue(t, kim)
		f.drain(t)
		if got := f.rows(t); len(got) != 1 || got[0].parkedAt == 0 {
			t.Fatalf("outbox: %+v", got)
		}
		f.queue.Tidy(t.Context())
		want := `# HELP sumun_mail_attempts_total Attempts to deliver a letter, by result: delivered, dropped, retried, parked.
# TYPE sumun_mail_attempts_total counter
sumun_mail_attempts_total{result="parked"} 1
# HELP sumun_mail_letters Letters in the outbox, by state: waiting, parked. Counted once a minute.
# TYPE sumun_mail_letters gauge
sumun_mail_letters{state="parked"} 1
sumun_mail_letters{state="waiting"} 0
`
		if err := testutil.GatherAndCompare(f.metrics, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		f.clock.Advance(30 * 24 * time.Hour)
		f.queue.Tidy(t.Context())
		if got := f.rows(t); len(got) != 0 {
			t.Errorf("after a month: %+v", got)
		}
	})
}

// A mistake in one letter's composer would stop all mail, or lose the letter.
func TestComposerDecides(t *testing.T) {
	t.Parallel()
	composers := map[string]struct {
		compose mail.Composer
		left    int
	}{
		"nothing to send": {func(context.Context, mail.Letter) (*mail.Message, error) { return nil, nil }, 0},
		"error":           {func(context.Context, mail.Letter) (*mail.Message, error) { return nil, errors.New("no database") }, 1},
		"panic":           {func(context.Context, mail.Letter) (*mail.Message, error) { panic("bug") }, 1},
		"header in subject": {func(_ context.Context, l mail.Letter) (*mail.Message, error) {
			return &mail.Message{To: l.Address, Subject: "Hi\r\nBcc: lee@example.com", Text: "x"}, nil
		}, 1},
		"bad recipient": {func(context.Context, mail.Letter) (*mail.Message, error) {
			return &mail.Message{To: "kim@example.com, lee@example.com", Subject: "Hi", Text: "x"}, nil
		}, 1},
		"no text": {func(_ context.Context, l mail.Letter) (*mail.Message, error) {
			return &mail.Message{To: l.Address, Subject: "Hi"}, nil
		}, 1},
	}
	for name, c := range composers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachQueue(t, c.compose, func(t *testing.T, f fixture) {
				f.enqueue(t, kim)
				f.drain(t)
				if attempts, _ := f.transport.counts(); attempts != 0 {
					t.Errorf("sent %+v", f.transport.last)
				}
				left := f.rows(t)
				if len(left) != c.left {
					t.Fatalf("%d letters left, want %d", len(left), c.left)
				}
				if c.left == 1 && (left[0].attempts != 1 || left[0].parkedAt != 0 || left[0].lastError == "") {
					t.Errorf("left: %+v", left[0])
				}
			})
		})
	}
}

// A letter that a newer version wrote would be lost to an older node.
func TestKindSelectsTheComposer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := fixture{db: db, clock: clocktest.Noon(), transport: &recorder{}, log: &syncBuffer{}, metrics: prometheus.NewRegistry()}
		f.queue = node(t, f, db)
		f.queue.Handle("identity", compose)
		for _, kind := range []string{"identity", "identity.confirm", "identityx", "order.shipped"} {
			f.enqueue(t, mail.Letter{Kind: kind, Address: "kim@example.com"})
		}
		f.drain(t)
		if _, letters := f.transport.counts(); letters != 2 {
			t.Errorf("%d letters sent, want 2", letters)
		}
		if left := f.rows(t); len(left) != 2 || left[0].parkedAt != 0 {
			t.Errorf("left: %+v", left)
		}
	})
}

// A node that dies would take the letters that it had claimed with it.
func TestClaimOfADeadNodeExpires(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		f.enqueue(t, kim)
		if n, err := f.queue.Abandon(t.Context(), 10); n != 1 || err != nil {
			t.Fatalf("claimed %d, %v", n, err)
		}
		f.clock.Advance(2 * time.Minute)
		f.drain(t)
		if attempts, _ := f.transport.counts(); attempts != 0 {
			t.Error("a claimed letter was sent")
		}
		f.clock.Advance(time.Minute)
		f.drain(t)
		if attempts, _ := f.transport.counts(); attempts != 1 {
			t.Error("the letter is lost")
		}
	})
}

// A node that was only slow would undo what the one that took over has written down.
func TestSlowNodeDoesNotDisturbItsSuccessor(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		stuck, release := make(chan struct{}), make(chan struct{})
		f.transport.setAnswer(func(context.Context, mail.Message) error {
			close(stuck)
			<-release
			return errors.New("slow")
		})
		f.enqueue(t, kim)
		var slow sync.WaitGroup
		slow.Go(func() { f.drain(t) })
		<-stuck
		f.transport.setAnswer(func(context.Context, mail.Message) error { return errors.New("quick") })
		f.clock.Advance(5 * time.Minute)
		f.drain(t)
		before := f.rows(t)
		f.clock.Advance(time.Second)
		close(release)
		slow.Wait()
		if after := f.rows(t); len(after) != 1 || after[0] != before[0] || after[0].lastError != "send: quick" {
			t.Errorf("before %+v, after %+v", before, after)
		}
	})
}

// A deployment would send letters twice, or cut them off.
func TestRunFinishesLettersInFlight(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		stuck, release := make(chan struct{}), make(chan struct{})
		f.transport.setAnswer(func(ctx context.Context, _ mail.Message) error {
			close(stuck)
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error)
		go func() { done <- f.queue.Run(ctx) }()
		f.enqueue(t, kim)
		f.queue.Wake()
		<-stuck
		stop()
		close(release)
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if left := f.rows(t); len(left) != 0 {
			t.Errorf("left: %+v; the log: %s", left, f.log)
		}
	})
}

// A burst of letters would open as many connections to the mail server.
func TestParallelismIsBounded(t *testing.T) {
	t.Parallel()
	eachQueue(t, compose, func(t *testing.T, f fixture) {
		var mu sync.Mutex
		inside, most, full := 0, 0, make(chan struct{})
		f.transport.setAnswer(func(context.Context, mail.Message) error {
			mu.Lock()
			inside++
			if most = max(most, inside); inside == 4 && most == 4 {
				select {
				case <-full:
				default:
					close(full)
				}
			}
			mu.Unlock()
			<-full // nobody leaves before four are inside
			mu.Lock()
			inside--
			mu.Unlock()
			return nil
		})
		for range 20 {
			f.enqueue(t, kim)
		}
		f.drain(t)
		if attempts, _ := f.transport.counts(); attempts != 20 || most != 4 {
			t.Errorf("%d sent, %d at a time; want 20, 4", attempts, most)
		}
	})
}

func TestEnqueueRefuses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := setup(t, db, compose)
		for name, l := range map[string]mail.Letter{
			"no kind":     {Address: "kim@example.com"},
			"bad address": {Kind: "identity.confirm", Address: "kim@example.com\r\nBcc: lee@example.com"},
			"much data":   {Kind: "identity.confirm", Data: map[string]string{"x": strings.Repeat("x", 17<<10)}},
		} {
			if err := f.queue.Enqueue(t.Context(), db.Writer(), l); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}
