package web_test

import (
	"testing"

	"github.com/sumunio/sumun/internal/web"
)

// What nobody looks at costs nothing: a server starts, and stays small, without the pages of every language in memory.
func TestPagesAreParsedWhenShown(t *testing.T) {
	allocations := testing.AllocsPerRun(1, func() {
		if _, err := web.New(web.DefaultConfig()); err != nil {
			t.Fatal(err)
		}
	})
	if t.Logf("%.0f allocations", allocations); allocations > 20_000 {
		t.Errorf("a renderer that has shown nothing made %.0f allocations", allocations)
	}
}
