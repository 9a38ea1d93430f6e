package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// binary is the program under test. TestMain sets it before any test runs.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of the time a test waits for a process, so that twice as many as processors keep those busy.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "sumun-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "sumun")
	// A profile makes the program faster, and the build slower; nobody looks at it with a debugger.
	args := []string{"build", "-pgo=off", "-ldflags=-w", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/sumunio/sumun/cmd/sumun")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// environment is that of this process without any setting of Sumun's, with more added.
func environment(more ...string) []string {
	var clean []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SUMUN_") {
			clean = append(clean, entry)
		}
	}
	return append(clean, more...)
}

// demanded returns what a variable names that a test cannot do without. Where it is not set, the test is skipped; in CI, which
// promises to have everything, it fails.
func demanded(t *testing.T, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	switch {
	case value == "" && os.Getenv("CI") != "":
		t.Fatalf("%s is not set", variable)
	case value == "":
		t.Skipf("%s is not set (CONTRIBUTING.md)", variable)
	}
	return value
}
