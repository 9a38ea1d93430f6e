package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

// TestMain is the bare handler where it is started as such.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bareRole {
		main()
		return
	}
	os.Exit(m.Run())
}

// A benchmark that nobody ran for a while must still run when it is needed.
func TestBenchmarksRun(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "sumun")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-pgo=off", "-ldflags=-w", "-o", binary, "../cmd/sumun").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cases := map[string]string{ // what each must have measured
		"refresh": "refreshes", "refresh --rate 100": "refreshes", "revoke": "p99",
	}
	if redisdbtest.Listed() {
		cases["compare --redis redis-server"] = "Sumun as a part of the bare handler"
		cases["population --redis redis-server --people 2000"] = "memory of a session in Redis"
		cases["storm --redis redis-server"] = "sign-ins meanwhile"
		if packages := os.Getenv("SUMUN_TEST_NODE_MODULES"); packages != "" {
			cases["provider --redis redis-server --zitadel= --node-modules "+packages] = "rate as a multiple of oidc-provider"
		}
	}
	for args, what := range cases {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			all := append(strings.Fields(args), "--binary", binary, "--duration", "300ms", "--clients", "2", "--sessions", "3", "--json")
			if err := run(t.Context(), all, &out, io.Discard); err != nil {
				t.Fatal(err)
			}
			var got report
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(got.Results, func(r result) bool { return r.What == what && r.Value > 0 }) {
				t.Errorf("no %q in %+v", what, got)
			}
			var table bytes.Buffer
			if err := got.table(&table); err != nil || !strings.Contains(table.String(), what) {
				t.Errorf("table, %v:\n%s", err, &table)
			}
		})
	}
}

// A mistake in the command line must be told before anything is started.
func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"logout"}, {"refresh", "start"}, {"--clients", "0"}, {"--rate", "-1"}, {"--duration", "0s"},
		{"--clients", "9", "--sessions", "8"}, {"--database", "sqlite:x.db"}, {"--fast"},
		{"compare"}, {"population"}, {"provider"}, {"storm", "--people", "0"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
