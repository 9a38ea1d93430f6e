package pubsub

import (
	"testing"
	"time"
)

// TestGaps goes through what can happen to the frames of a publisher on their way.
func TestGaps(t *testing.T) {
	t.Parallel()
	message := func(seq uint64, quiet time.Duration) frame {
		return frame{kind: kindMessage, stream: 7, seq: seq, quiet: quiet}
	}
	beat := func(seq uint64, quiet time.Duration) frame {
		return frame{kind: kindBeat, stream: 7, seq: seq, quiet: quiet}
	}
	// Frames arrive a second after one another, the first a second after the subscription.
	for name, test := range map[string]struct {
		frames []frame
		want   string // of each frame: m a message, g a gap, b both, . neither
	}{
		"all there":                         {[]frame{message(1, 0), message(2, time.Second), beat(2, time.Second)}, "mm."},
		"one lost":                          {[]frame{message(1, 0), message(3, time.Second)}, "mb"},
		"the first lost":                    {[]frame{message(2, time.Millisecond)}, "b"},
		"the only one lost":                 {[]frame{beat(1, time.Millisecond)}, "g"},
		"the last lost":                     {[]frame{message(1, 0), beat(2, time.Millisecond), beat(2, time.Second)}, "mg."},
		"sent before the subscription":      {[]frame{beat(9, time.Hour), message(10, time.Hour)}, ".m"},
		"sent before it, and one since":     {[]frame{message(10, time.Hour), message(12, time.Second)}, "mb"},
		"told of already":                   {[]frame{message(1, 0), message(3, time.Millisecond), message(5, 2*time.Second)}, "mbm"},
		"late":                              {[]frame{message(1, 0), message(3, time.Second), message(2, 0)}, "mb."},
		"twice":                             {[]frame{message(1, 0), message(1, 0)}, "m."},
		"a beat overtaken by what it tells": {[]frame{message(1, 0), message(2, 0), beat(1, 0)}, "mm."},
		"another life of the publisher":     {[]frame{message(4, time.Hour), {kind: kindMessage, stream: 8, seq: 1}}, "mm"},
	} {
		now := time.Now()
		s := newSubscription(nil, nil, nil)
		topic := &topic{owed: now, seen: map[uint64]heard{}, subs: []*subscription{s}}
		got := ""
		for _, f := range test.frames {
			now = now.Add(time.Second)
			delivered, gaps := topic.take(f, now)
			got += map[bool]map[bool]string{true: {true: "b", false: "m"}, false: {true: "g", false: "."}}[delivered][gaps > 0]
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestPublishersAreBounded: whoever sends under ever new numbers fills no memory, and what had to be forgotten is a gap.
func TestPublishersAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	full := newSubscription(nil, nil, nil)
	full.end() // takes nothing, and has no gaps of its own
	topic := &topic{owed: now, seen: map[uint64]heard{}, subs: []*subscription{full}}
	gaps := 0
	send := func(from, to uint64) {
		for id := from; id < to; id++ {
			_, n := topic.take(frame{kind: kindMessage, stream: id, seq: 1}, now)
			gaps += n
		}
	}
	send(0, maxPublishers)
	now = now.Add(publisherGone + time.Second)
	send(maxPublishers, 2*maxPublishers)
	if gaps != 0 {
		t.Errorf("%d gaps, although those forgotten were long gone", gaps)
	}
	send(2*maxPublishers, 2*maxPublishers+1)
	if gaps != 1 || len(topic.seen) > maxPublishers {
		t.Errorf("%d gaps and %d publishers, want one gap and at most %d", gaps, len(topic.seen), maxPublishers)
	}
}

// TestStreamsAreBounded: a node that publishes on ever new subjects keeps count of a bounded number.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	all := streams{byChannel: map[string]*stream{}}
	for i := range 2 * maxStreams {
		all.of(string(rune('a'+i%26)) + time.Duration(i).String()).lastAt.Store(int64(i))
	}
	if n := len(all.byChannel); n != maxStreams {
		t.Errorf("%d streams, want %d", n, maxStreams)
	}
}

// TestGapKeepsItsPlace: what a subscriber does at a gap must not be undone by an older message.
func TestGapKeepsItsPlace(t *testing.T) {
	t.Parallel()
	s := newSubscription(nil, nil, nil)
	gaps := 0
	for range maxPending + 100 {
		gaps += s.push([]byte("x"))
	}
	s.miss()
	if gaps != 1 || len(s.queue) != maxPending+1 {
		t.Fatalf("%d gaps and %d items, want one gap behind %d messages", gaps, len(s.queue), maxPending)
	}
	for i := range maxPending {
		if next, more := s.next(); !more || next.gap {
			t.Fatalf("item %d: %+v", i, next)
		}
	}
	s.push([]byte("y"))
	if next, _ := s.next(); !next.gap {
		t.Error("the gap is not where messages were lost")
	}
	if next, _ := s.next(); string(next.payload) != "y" {
		t.Errorf("after the gap: %+v", next)
	}
	big := make([]byte, MaxPayload)
	for range 2 * maxPendingBytes / MaxPayload {
		s.push(big)
	}
	if s.bytes > maxPendingBytes {
		t.Errorf("%d bytes are kept", s.bytes)
	}
}

// FuzzFrame: frames come from whoever reaches the server.
func FuzzFrame(f *testing.F) {
	f.Add(frame{kind: kindMessage, stream: 1, seq: 2, quiet: time.Second, payload: []byte("x")}.encode())
	f.Add(frame{kind: kindBeat, stream: 1 << 63, seq: 1}.encode())
	f.Add([]byte{kindMessage})
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := parseFrame(data)
		if err != nil {
			return
		}
		if read.quiet < 0 || read.seq == 0 || len(read.payload) > MaxPayload {
			t.Errorf("%+v", read)
		}
		again, err := parseFrame(read.encode())
		if err != nil || again.kind != read.kind || again.stream != read.stream || again.seq != read.seq ||
			again.quiet != read.quiet || string(again.payload) != string(read.payload) {
			t.Errorf("%+v, %v after writing and reading %+v", again, err, read)
		}
		topic := &topic{owed: time.Now(), seen: map[uint64]heard{}}
		topic.take(read, time.Now())
	})
}
