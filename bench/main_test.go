package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// A benchmark that nobody ran for a while must still run when it is needed.
func TestRefreshRuns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := run(t.Context(), []string{"refresh", "--duration", "200ms", "--clients", "2", "--sessions", "3", "--json"}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Results) == 0 || got.Results[0].What != "refreshes" || got.Results[0].Value <= 0 {
		t.Errorf("report %+v", got)
	}
	var table bytes.Buffer
	if err := got.table(&table); err != nil || !strings.Contains(table.String(), "refresh, closed loop") {
		t.Errorf("table, %v:\n%s", err, &table)
	}
}

// A mistake in the command line must be told before anything is started.
func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"logout"}, {"refresh", "start"}, {"--clients", "0"}, {"--rate", "-1"}, {"--duration", "0s"},
		{"--clients", "9", "--sessions", "8"}, {"--database", "sqlite:x.db"}, {"--fast"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
