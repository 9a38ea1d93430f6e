package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// report is what a run found out.
type report struct {
	Machine  machine  `json:"machine"`
	Database string   `json:"database"`
	Results  []result `json:"results"`
}

// machine is where. Load is the average number of processes that ran or wanted to, over a minute: anything near the number of
// processors before the run means that others were at work too.
type machine struct {
	At         time.Time `json:"at"`
	Go         string    `json:"go"`
	Processors int       `json:"processors"`
	LoadBefore string    `json:"load_before,omitempty"`
	LoadAfter  string    `json:"load_after,omitempty"`
}

// result is one number.
type result struct {
	Benchmark string  `json:"benchmark"`
	What      string  `json:"what"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Aim       string  `json:"aim,omitempty"`
}

func describeMachine() machine {
	return machine{At: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Processors: runtime.NumCPU(), LoadBefore: loadAverage()}
}

// loadAverage is "" where the system does not tell.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

func (r report) table(to io.Writer) error {
	m := r.Machine
	fmt.Fprintf(to, "%s, %s, %d processors shared by server, database and load generator, load %s before and %s after\n\n",
		r.Database, m.Go, m.Processors, m.LoadBefore, m.LoadAfter)
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	last := ""
	for _, one := range r.Results {
		name := one.Benchmark
		if name == last {
			name = ""
		}
		last = one.Benchmark
		aim := ""
		if one.Aim != "" {
			aim = "aim: " + one.Aim
		}
		fmt.Fprintf(w, "%s\t%s\t%.*f %s\t%s\n", name, one.What, decimals(one.Value), one.Value, one.Unit, aim)
	}
	return w.Flush()
}

// decimals shows three digits or all before the point.
func decimals(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	default:
		return 2
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cpu is processor time in seconds, since the machine or a process started. machine is 0 where the system does not tell, redis
// where there is none of our own.
type cpu struct{ server, generator, redis, machine float64 }

func (s *server) cpu(ctx context.Context) (c cpu, err error) {
	c.generator, c.machine = ownCPU(), machineCPU()
	if c.redis, err = s.redis.cpu(ctx); err != nil {
		return c, err
	}
	c.server, err = s.metric(ctx, "process_cpu_seconds_total")
	return c, err
}

func (c cpu) minus(o cpu) cpu {
	return cpu{c.server - o.server, c.generator - o.generator, c.redis - o.redis, c.machine - o.machine}
}

// results tells what so many requests cost.
func (c cpu) results(requests int) []result {
	const name = "processor time"
	each := func(what string, seconds float64) result {
		return result{name, what, 1e6 * seconds / float64(max(1, requests)), "us/request", ""}
	}
	all := []result{
		each("server", c.server), each("load generator", c.generator),
		{name, "load generator's share of all", 100 * c.generator / (c.server + c.generator + c.redis), "%", ""},
	}
	if c.redis > 0 {
		all = append(all, each("Redis", c.redis))
	}
	if others := c.machine - c.server - c.generator - c.redis; c.machine > 0 {
		all = append(all, each("database and everybody else", others))
	}
	return all
}

// ownCPU is the processor time of this process.
func ownCPU() float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, _ := r.Gather() // what a system does not tell is left out
	for _, f := range families {
		if f.GetName() == "process_cpu_seconds_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// machineCPU is the processor time of everything that ran, from /proc/stat: user, nice, system, and irq, softirq after idle
// and iowait, in hundredths of a second.
func machineCPU() float64 {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	var sum float64
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 7 { // "cpu", idle, iowait; steal and guests
			continue
		}
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0
		}
		sum += ticks / 100
	}
	return sum
}
