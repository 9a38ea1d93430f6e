package pubsub_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/pubsub"
)

// BenchmarkLatency measures how long a message is on its way from one node to another, one at a time; then how many get there
// when the publisher does not wait.
func BenchmarkLatency(b *testing.B) {
	for name, build := range worlds() {
		b.Run(name, func(b *testing.B) {
			w := build(b)
			from, to := w.open(b), w.open(b)
			s := subject()
			meet(b, s, []node{from}, record(b, to, s))
			arrived := make(chan time.Duration, 1)
			stop, err := to.Subscribe(b.Context(), s, func(payload []byte) {
				if len(payload) == 8 {
					arrived <- time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(payload))))
				}
			}, func() {})
			must(b, err)
			b.Cleanup(stop)
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				sent := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
				must(b, from.Publish(b.Context(), s, sent))
				took = append(took, <-arrived)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
		})
	}
}

// BenchmarkPublish measures what publishing costs, from many goroutines, with one subscriber on another node.
func BenchmarkPublish(b *testing.B) {
	for name, build := range worlds() {
		b.Run(name, func(b *testing.B) {
			w := build(b)
			from, to := w.open(b), w.open(b)
			s := subject()
			r := record(b, to, s)
			meet(b, s, []node{from}, r)
			payload := make([]byte, 100)
			b.ReportAllocs()
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					must(b, from.Publish(b.Context(), s, payload))
				}
			})
		})
	}
}

// BenchmarkEmbedded measures starting and stopping a node that is alone.
func BenchmarkEmbedded(b *testing.B) {
	for b.Loop() {
		n, err := pubsub.OpenNATS(b.Context(), pubsub.DefaultConfig(), deps())
		must(b, err)
		n.Close()
	}
}
