package app_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/app"
)

// An operator who reads the file must not have to guess what a key does.
func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	var reference bytes.Buffer
	if err := app.WriteConfigReference(&reference); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(reference.String()) {
		if strings.HasPrefix(line, "| `") && strings.HasSuffix(line, "|  |\n") {
			t.Errorf("no explanation: %s", line)
		}
	}
}
