package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/pubsub"
)

// TestLeavesNothingRunning runs before all others, alone: whoever starts a goroutine waits for it.
func TestLeavesNothingRunning(t *testing.T) {
	for name, build := range worlds() {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			once := func() {
				n, err := w.start(deps())
				must(t, err)
				for range 3 {
					_, err := n.Subscribe(t.Context(), "leak.check", func([]byte) {}, func() {})
					must(t, err)
				}
				must(t, n.Publish(t.Context(), "leak.check", nil))
				n.Close()
				n.Close() // closing twice changes nothing
				if err := n.Publish(t.Context(), "leak.check", nil); !errors.Is(err, pubsub.ErrUnavailable) {
					t.Errorf("publish after the end: %v", err)
				}
				if _, err := n.Subscribe(t.Context(), "leak.check", func([]byte) {}, func() {}); !errors.Is(err, pubsub.ErrUnavailable) {
					t.Errorf("subscribe after the end: %v", err)
				}
			}
			once() // what libraries start once and for all
			before := runtime.NumGoroutine()
			for range 3 {
				once()
			}
			deadline := time.Now().Add(10 * time.Second)
			for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
				runtime.Gosched()
			}
			if now := runtime.NumGoroutine(); now > before {
				var all bytes.Buffer
				_ = pprof.Lookup("goroutine").WriteTo(&all, 1)
				t.Errorf("%d goroutines, %d before:\n%s", now, before, &all)
			}
		})
	}
}

// TestConformance is what every implementation promises.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, build := range worlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := build(t)
			for what, test := range map[string]func(*testing.T, *world){
				"delivery": testDelivery, "order": testOrder, "payloads": testPayloads, "subjects": testSubjects,
				"stop": testStop, "panic": testPanic, "slow subscriber": testSlow, "caller gone": testCallerGone,
				"metrics": testMetrics, "no false gaps": testNoFalseGaps,
			} {
				t.Run(what, func(t *testing.T) {
					t.Parallel()
					test(t, w)
				})
			}
		})
		t.Run(name+"/outage", func(t *testing.T) {
			t.Parallel()
			testOutage(t, build(t))
		})
	}
}

// testDelivery: every subscriber on every node gets what any node publishes, and nobody else's.
func testDelivery(t *testing.T, w *world) {
	nodes := []node{w.open(t), w.open(t)}
	s, other := subject(), subject()
	var all []*recorder
	for range 3 {
		for _, n := range nodes {
			all = append(all, record(t, n, s))
		}
	}
	elsewhere := record(t, nodes[0], other)
	meet(t, s, nodes, all...)
	for i := range 100 {
		for j, n := range nodes {
			publish(t, n, s, "message %d of %d", i, j)
		}
	}
	for i, r := range all {
		eventually(t, "all messages arrive", func() bool { got, _ := r.has("message"); return len(got) >= 200 })
		got, gaps := r.has("message")
		for j := range nodes {
			if missing := outOfOrder(got, fmt.Sprintf(" of %d", j), 100); missing != "" {
				t.Errorf("subscriber %d: %s", i, missing)
			}
		}
		if gaps != 0 && !w.alone { // in a cluster, word of the subscription may come after the first message
			t.Errorf("subscriber %d was told of %d gaps", i, gaps)
		}
	}
	if got, _ := elsewhere.has(""); len(got) != 0 {
		t.Errorf("on another subject: %q", got)
	}
}

// outOfOrder says what is wrong with the messages of one publisher.
func outOfOrder(got []string, suffix string, n int) string {
	next := 0
	for _, one := range got {
		if !strings.HasSuffix(one, suffix) {
			continue
		}
		if want := fmt.Sprintf("message %d%s", next, suffix); one != want {
			return fmt.Sprintf("%q instead of %q", one, want)
		}
		next++
	}
	if next != n {
		return fmt.Sprintf("%d messages%s, want %d", next, suffix, n)
	}
	return ""
}

// testOrder: however many publish through a node at once, each one's messages stay in order and none is taken for lost.
func testOrder(t *testing.T, w *world) {
	a, b := w.open(t), w.open(t)
	s := subject()
	r := record(t, b, s)
	meet(t, s, []node{a}, r)
	_, before := r.has("")
	const publishers, each = 8, 100
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				publish(t, a, s, "message %d of %d", i, p)
			}
		})
	}
	wg.Wait()
	eventually(t, "all messages arrive", func() bool { got, _ := r.has("message"); return len(got) >= publishers*each })
	got, gaps := r.has("message")
	for p := range publishers {
		if missing := outOfOrder(got, fmt.Sprintf(" of %d", p), each); missing != "" {
			t.Error(missing)
		}
	}
	if gaps != before {
		t.Errorf("%d gaps", gaps-before)
	}
}

func testPayloads(t *testing.T, w *world) {
	a, b := w.open(t), w.open(t)
	s := subject()
	r := record(t, b, s)
	meet(t, s, []node{a}, r)
	got := func() []string { got, _ := r.has(""); return got }
	publish(t, a, s, "now")
	eventually(t, "the mark arrives", func() bool { marks, _ := r.has("now"); return len(marks) > 0 })
	before := len(got())
	payload := make([]byte, pubsub.MaxPayload)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	want := []string{"", string(payload), "\x00\r\n$5\r\nMSG +OK\r\n", strings.Repeat("끝", 20_000)}
	for _, one := range want {
		must(t, a.Publish(t.Context(), s, []byte(one)))
	}
	eventually(t, "the payloads arrive", func() bool { return len(got()) >= before+len(want) })
	for i, one := range got()[before:] {
		if one != want[i] {
			t.Errorf("payload %d was changed: %d bytes, want %d", i, len(one), len(want[i]))
		}
	}
	if err := a.Publish(t.Context(), s, append(payload, 0)); !errors.Is(err, pubsub.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

// testSubjects: a name that comes from outside must not become a pattern, a command, or somebody else's subject.
func testSubjects(t *testing.T, w *world) {
	n := w.open(t)
	for _, bad := range []string{
		"", ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>", "$SYS", "$SYS.REQ.SERVER.PING", "_INBOX.>", "A", "ä", "한글", "a b", "a\tb",
		"a\r\nPUB x 1\r\nx", "a\x00b", "a/b", "a:b", "{a}", "a?", "[a]", "\xff", strings.Repeat("a", pubsub.MaxSubject+1), strings.Repeat("*", 1<<20),
	} {
		if err := n.Publish(t.Context(), bad, nil); !errors.Is(err, pubsub.ErrSubject) || len(err.Error()) > 1000 {
			t.Errorf("publish on %.40q: %v", bad, err)
		}
		stop, err := n.Subscribe(t.Context(), bad, func([]byte) {}, func() {})
		if !errors.Is(err, pubsub.ErrSubject) {
			t.Errorf("subscribe to %.40q: %v", bad, err)
		}
		if err == nil {
			stop()
		}
	}
	long := strings.Repeat("a-_.0z", pubsub.MaxSubject/6)
	meet(t, long, []node{n}, record(t, n, long))
}

// testStop: who has stopped may free what the handler uses.
func testStop(t *testing.T, w *world) {
	a, b := w.open(t), w.open(t)
	s := subject()
	stays := record(t, b, s)
	meet(t, s, []node{a}, stays)
	ctx, cancel := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	storm.Go(func() {
		for ctx.Err() == nil {
			_ = a.Publish(ctx, s, []byte("storm")) // fails once, at the end
		}
	})
	for range 20 {
		var calls, late atomic.Int64
		var stopped atomic.Bool
		count := func() {
			calls.Add(1)
			if stopped.Load() {
				late.Add(1)
			}
		}
		stop, err := b.Subscribe(t.Context(), s, func([]byte) { count() }, count)
		must(t, err)
		eventually(t, "a message", func() bool { return calls.Load() > 0 })
		var both sync.WaitGroup
		both.Go(stop)
		both.Go(stop)
		both.Wait()
		stopped.Store(true)
		before := calls.Load()
		meet(t, s, []node{a}, stays) // what was on its way has arrived
		if late.Load() != 0 || calls.Load() != before {
			t.Errorf("%d calls after stop", calls.Load()-before)
		}
	}
	cancel()
	storm.Wait()
	// The last one to go takes the subscription along; who comes later begins anew.
	alone := subject()
	for range 3 {
		r := &recorder{}
		stop, err := b.Subscribe(t.Context(), alone, r.message, r.gap)
		must(t, err)
		meet(t, alone, []node{a}, r)
		stop()
	}
}

// testPanic: one subscriber's mistake is neither the process's nor another subscriber's.
func testPanic(t *testing.T, w *world) {
	var log lockedBuffer
	d := deps()
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	n, err := w.start(d)
	must(t, err)
	t.Cleanup(n.Close)
	s := subject()
	good := record(t, n, s)
	bad := &recorder{}
	stop, err := n.Subscribe(t.Context(), s, func(payload []byte) {
		bad.message(payload)
		panic("a mistake")
	}, bad.gap)
	must(t, err)
	defer stop()
	meet(t, s, []node{n}, good, bad)
	publish(t, n, s, "after")
	eventually(t, "both go on", func() bool {
		x, _ := good.has("after")
		y, _ := bad.has("after")
		return len(x) > 0 && len(y) > 0
	})
	if text := log.String(); !strings.Contains(text, "a mistake") || !strings.Contains(text, s) || !strings.Contains(text, "stack") {
		t.Errorf("the log does not say what happened:\n%s", text)
	}
	if value(t, d.Metrics, "sumun_pubsub_handler_panics_total") == 0 {
		t.Error("the panic is not counted")
	}
}

// testSlow: a subscriber that hangs costs a bounded amount of memory, is told what it missed, and holds up nobody.
func testSlow(t *testing.T, w *world) {
	a, b := w.open(t), w.open(t)
	s := subject()
	fast := record(t, b, s)
	meet(t, s, []node{a}, fast)
	slow := &recorder{}
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	stop, err := b.Subscribe(t.Context(), s, func(payload []byte) {
		<-hold
		slow.message(payload[:min(len(payload), 40)])
	}, slow.gap)
	must(t, err)
	t.Cleanup(stop)
	t.Cleanup(release)
	payload := bytes.Repeat([]byte("x"), pubsub.MaxPayload-20)
	const messages = 200 // 12.5 MiB
	for i := range messages {
		must(t, a.Publish(t.Context(), s, append(fmt.Appendf(nil, "message %d ", i), payload...)))
		if i%20 == 0 {
			eventually(t, "the fast one keeps up", func() bool { got, _ := fast.has("message"); return len(got) > i })
		}
	}
	eventually(t, "the fast one gets all", func() bool { got, _ := fast.has("message"); return len(got) == messages })
	release()
	eventually(t, "the slow one is told", func() bool { _, gaps := slow.has(""); return gaps > 0 })
	meet(t, s, []node{a}, slow)
	got, gaps := slow.has("message")
	if len(got) == messages || len(got) > 4<<20/pubsub.MaxPayload+2 || gaps != 1 {
		t.Errorf("the slow one got %d of %d messages and %d gaps", len(got), messages, gaps)
	}
	if _, gaps := fast.has(""); gaps != 0 && !w.alone {
		t.Errorf("the fast one was told of %d gaps", gaps)
	}
}

func testCallerGone(t *testing.T, w *world) {
	n := w.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Publish(ctx, subject(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("publish: %v", err)
	}
	if _, err := n.Subscribe(ctx, subject(), func([]byte) {}, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("subscribe: %v", err)
	}
}

func testMetrics(t *testing.T, w *world) {
	d := deps()
	n, err := w.start(d)
	must(t, err)
	t.Cleanup(n.Close)
	s := subject()
	r := record(t, n, s)
	record(t, n, s)
	meet(t, s, []node{n}, r)
	publish(t, n, s, "now")
	eventually(t, "the mark arrives", func() bool { got, _ := r.has("now"); return len(got) > 0 })
	published, received := value(t, d.Metrics, "sumun_pubsub_published_total"), value(t, d.Metrics, "sumun_pubsub_received_total")
	for i := range 10 {
		publish(t, n, s, "message %d", i)
	}
	eventually(t, "they are counted", func() bool {
		return value(t, d.Metrics, "sumun_pubsub_published_total") == published+10 &&
			value(t, d.Metrics, "sumun_pubsub_received_total") == received+10
	})
	if value(t, d.Metrics, "sumun_pubsub_connected") != 1 {
		t.Error("it does not count as connected")
	}
	must(t, n.Healthy(t.Context()))
}

// testNoFalseGaps: beats of publishers who fell silent long before somebody subscribed, or all of whose messages arrived,
// are no reason to read everything again.
func testNoFalseGaps(t *testing.T, w *world) {
	a, b := w.open(t), w.open(t)
	s := subject()
	early := record(t, b, s)
	meet(t, s, []node{a}, early)
	_, before := early.has("")
	<-time.After(500 * time.Millisecond) // longer than a message may take
	late := record(t, b, s)
	later := record(t, w.open(t), s)
	<-time.After(2500 * time.Millisecond) // two beats
	for name, r := range map[string]*recorder{"before": early, "after": late, "after, on another node": later} {
		if _, gaps := r.has(""); gaps > before {
			t.Errorf("who subscribed %s was told of %d gaps", name, gaps)
		}
	}
}

// testOutage: what connects the nodes is killed and comes back. Nobody waits, who may have missed something is told, and
// everything goes on by itself.
func testOutage(t *testing.T, w *world) {
	d := deps()
	a := w.open(t)
	b, err := w.start(d)
	must(t, err)
	t.Cleanup(b.Close)
	s, silent := subject(), subject()
	ra, rb := record(t, a, s), record(t, b, s)
	quiet := record(t, b, silent)
	meet(t, s, []node{a, b}, ra, rb)
	meet(t, silent, []node{a}, quiet)
	_, gapsBefore := rb.has("")
	_, quietBefore := quiet.has("")

	w.down(t)
	if !w.alone {
		eventually(t, "a node notices", func() bool { return a.Healthy(t.Context()) != nil })
	}
	for i := range 20 {
		began := time.Now()
		err := a.Publish(t.Context(), s, fmt.Appendf(nil, "lost %d", i))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("publish took %v", took)
		}
		if failed := err != nil; failed == w.alone || failed && (!errors.Is(err, pubsub.ErrUnavailable) || fault.From(err).Kind() != fault.Unavailable) {
			t.Errorf("publish while nodes are cut off: %v", err)
		}
	}
	_ = a.Publish(t.Context(), silent, []byte("lost"))
	if !w.alone {
		if _, err := b.Subscribe(t.Context(), subject(), func([]byte) {}, func() {}); !errors.Is(err, pubsub.ErrUnavailable) {
			t.Errorf("subscribe while there is no connection: %v", err)
		}
		eventually(t, "the metric falls", func() bool { return value(t, d.Metrics, "sumun_pubsub_connected") == 0 })
	}
	w.up(t)

	eventually(t, "a gap", func() bool { _, gaps := rb.has(""); return gaps > gapsBefore })
	eventually(t, "a gap where nothing follows", func() bool { _, gaps := quiet.has(""); return gaps > quietBefore })
	meet(t, s, []node{a, b}, ra, rb)
	must(t, a.Healthy(t.Context()))
	for i := range 50 {
		publish(t, a, s, "message %d of a", i)
	}
	eventually(t, "messages arrive again", func() bool { got, _ := rb.has("message"); return len(got) == 50 })
	got, _ := rb.has("message")
	if wrong := outOfOrder(got, " of a", 50); wrong != "" {
		t.Error(wrong)
	}
	if lost, _ := rb.has("lost"); len(lost) != 0 {
		t.Errorf("%d messages of the outage arrived after it", len(lost))
	}
	if value(t, d.Metrics, "sumun_pubsub_gaps_total") == 0 {
		t.Error("the gaps are not counted")
	}
}

// value is that of a metric, summed over its labels.
func value(t testing.TB, r prometheus.Registerer, name string) (sum float64) {
	t.Helper()
	families, err := r.(*prometheus.Registry).Gather()
	must(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// lockedBuffer is a log that is written by several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
