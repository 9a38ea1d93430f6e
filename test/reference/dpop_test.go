package reference_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/app"
)

// Who copies the client with a key out of the guide has one that works, with and without nonces.
func TestDPoPExample(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Logf("NOT RUN, the example of DPoP needs node: %v", err)
		return
	}
	script := ""
	for _, p := range pages(t) {
		for _, b := range p.blocks() {
			if p.name == "docs/guides/api.md" && b.language == "js" {
				script += b.code
			}
		}
	}
	if script == "" {
		t.Fatal("the guide to the API has no example of DPoP")
	}
	for _, required := range []string{"optional", "required"} {
		t.Run(required, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			config := filepath.Join(folder, "sumun.yaml")
			if err := os.WriteFile(config, []byte("sessions:\n  dpop_nonce: "+required+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := serve(t, "--data", filepath.Join(folder, "data"), "--config", config)
			var out bytes.Buffer
			add := []string{"user", "add", "--email", "ada@example.com", "--password-stdin", "--verified", "--data", filepath.Join(folder, "data")}
			if code := app.Main(t.Context(), add, strings.NewReader("cobalt lantern orchard 58\n"), &out, &out, nil); code != 0 {
				t.Fatalf("user add: %s", &out)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			run := exec.CommandContext(ctx, node, "--input-type=module", "-")
			run.Stdin = strings.NewReader(strings.ReplaceAll(script, tourPublic, s.issuer))
			got, err := run.CombinedOutput()
			if want := "201 DPoP\n200 DPoP\n200 ada@example.com\n401 auth.bound\n"; err != nil || string(got) != want {
				t.Errorf("the example printed %q, %v, want %q", got, err, want)
			}
		})
	}
}
