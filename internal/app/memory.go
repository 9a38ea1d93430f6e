package app

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryEvery is how often it is looked at how much garbage there is.
	memoryEvery = 5 * time.Second
	// busyCycles of the garbage collector in that time are worth more memory. It is calm when there was at most calmCycles in each
	// of calmLooks.
	busyCycles, calmCycles, calmLooks = 10, 1, 6
	// The heap may grow by so much, or to so many times of what lives, before it is collected under load.
	busyRoom, busyPercent = 64 << 20, 400
	calmPercent           = 100
)

// tendMemory lets garbage pile up while there is much of it, which costs a tenth less processor time under load, and gives the memory back
// once it is calm again. Where GOGC is set, that counts. GOMEMLIMIT counts in any case.
func tendMemory(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	defer debug.SetGCPercent(debug.SetGCPercent(calmPercent))
	// What starting has left behind is given back: migrations are read through buffers of megabytes, which their pool holds until the
	// second collection.
	runtime.GC()
	debug.FreeOSMemory()
	samples := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	p := pressure{percent: calmPercent, cycles: samples[0].Value.Uint64()}
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		metrics.Read(samples)
		before := p.percent
		if p.look(samples[0].Value.Uint64(), samples[1].Value.Uint64()); p.percent == before {
			continue
		}
		debug.SetGCPercent(p.percent)
		if p.percent == calmPercent {
			debug.FreeOSMemory()
		}
	}
}

// pressure is how busy the garbage collector is.
type pressure struct {
	percent int    // GOGC
	cycles  uint64 // since the start
	calm    int    // looks in a row
}

// look decides which GOGC follows, from the cycles since the start and the bytes that live.
func (p *pressure) look(cycles, live uint64) {
	since := cycles - p.cycles
	p.cycles = cycles
	if since <= calmCycles {
		p.calm++
	} else {
		p.calm = 0
	}
	switch {
	case p.calm >= calmLooks:
		p.percent = calmPercent
	case since >= busyCycles, p.percent != calmPercent && since > calmCycles:
		p.percent = int(min(busyPercent, max(calmPercent, 100*busyRoom/max(live, 1))))
	}
}
