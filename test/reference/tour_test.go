package reference_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The tour is what stands between these comments in the READMEs.
const (
	tourBegins = "<!-- tour: begin -->"
	tourEnds   = "<!-- tour: end -->"
	tourPublic = "http://localhost:8080" // where the tour expects the program
)

// readMail marks the step before which a reader waits for the mail.
const readMail = "messages.json"

// awaitMail is what a reader does with their eyes.
const awaitMail = `until curl -s -H "Authorization: Bearer ${MAILBOX#*token=}" "${MAILBOX%\?*}/messages.json" | grep -q confirm; do
  sleep 0.1
done
`

// A newcomer's first five minutes work exactly as written: from sign-up to a dead token family.
func TestTour(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		} else if os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else {
			t.Logf("NOT RUN, the tour of the README needs %s: %v", tool, err)
			return
		}
	}
	s := serve(t)
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, step := range tour(t, "README.md") {
		if strings.Contains(step, readMail) {
			script.WriteString(awaitMail)
		}
		script.WriteString(strings.ReplaceAll(step, tourPublic, s.issuer))
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	bash := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-c", script.String())
	bash.Dir = t.TempDir()
	bash.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + bash.Dir, "LC_ALL=C"}
	bash.Stdin = strings.NewReader(s.mailbox + "\n") // what the reader pastes
	out, err := bash.CombinedOutput()
	if err != nil {
		t.Fatalf("the tour ended with %v:\n%s", err, out)
	}
	statuses := regexp.MustCompile(`(?m)^\d{3}$`).FindAllString(string(out), -1)
	if want := []string{"202", "201", "200", "200", "204", "401", "401"}; !slices.Equal(statuses, want) {
		t.Errorf("the steps of the tour answered %v, not %v:\n%s", statuses, want, out)
	}
	for _, code := range []string{`"code":"auth.revoked"`, `"code":"session.ended"`} {
		if !strings.Contains(string(out), code) {
			t.Errorf("no answer of the tour holds %s:\n%s", code, out)
		}
	}
}

// Both languages show the same commands, so that testing one tests the other.
func TestREADMEsAgree(t *testing.T) {
	t.Parallel()
	english, korean := commands(t, "README.md"), commands(t, "README.ko.md")
	for i := range max(len(english), len(korean)) {
		if i >= len(english) || i >= len(korean) || english[i] != korean[i] {
			t.Fatalf("README.md and README.ko.md differ in block %d of %d and %d", i+1, len(english), len(korean))
		}
	}
	if !slices.Equal(tour(t, "README.md"), tour(t, "README.ko.md")) {
		t.Error("README.md and README.ko.md have different tours")
	}
}

// tour returns the steps of the tour.
func tour(t *testing.T, name string) []string {
	t.Helper()
	text := read(t, name).text
	_, text, begins := strings.Cut(text, tourBegins)
	text, _, ends := strings.Cut(text, tourEnds)
	var steps []string
	for _, b := range (page{name, text}).blocks() {
		if b.language == "bash" {
			steps = append(steps, b.code)
		}
	}
	if !begins || !ends || len(steps) < 8 {
		t.Fatalf("%s has no tour of at least eight steps between %q and %q", name, tourBegins, tourEnds)
	}
	return steps
}

// commands returns every block of code, whatever its language.
func commands(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	for _, b := range read(t, name).blocks() {
		all = append(all, b.code)
	}
	return all
}

func read(t *testing.T, name string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return page{name, string(text)}
}
