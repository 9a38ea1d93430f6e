package app_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/web"
)

// Whoever starts from the example must be able to: it is loaded whole, and nothing in it is misspelt.
func TestGatewayExample(t *testing.T) {
	t.Parallel()
	r := run(t, "", "config", "check", "gateway", "--config", "../../docs/guides/gateway.yaml", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	if r.code != 0 || !strings.Contains(r.stdout, "ok     configuration") || strings.Contains(r.stdout, "database") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// Every mistake in a list is told with its place and the key that was meant.
func TestGatewayMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sumun.yaml")
	const text = `gateway:
  routes:
    - name: shop
      path: [/shop/]
      upstream: shop
    - name: pay
      paths: [/pay]
      authentication: perhaps
      upstream: sumun
      limits:
        - rate: many
  upstreams:
    - name: shop
      endpoints: http://127.0.0.1:8000
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "config", "check", "--config", file)
	for _, want := range []string{
		"gateway.routes[0].path (sumun.yaml:4): is not a known key; did you mean gateway.routes[0].paths?",
		"gateway.routes[0].paths (sumun.yaml:3): empty; write / for every path",
		`gateway.routes[1].authentication (sumun.yaml:8): "perhaps" is not accepted: write public, optional, required or upstream`,
		`gateway.routes[1].limits[0].rate (sumun.yaml:11): "many" is not a whole number in range; write digits only`,
		"gateway.upstreams[0].endpoints (sumun.yaml:14): is a list of sections; write each as `- key: value`",
	} {
		if r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("exit code %d, nothing says %s:\n%s", r.code, want, r.stderr)
		}
	}
}

// A person whose form is refused on the way must read why, in their language.
func TestGatewayFaultsHaveWords(t *testing.T) {
	t.Parallel()
	pages, err := web.New(web.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("errors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Code string }
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range all {
		if strings.HasPrefix(f.Code, "gateway.") || strings.HasPrefix(f.Code, "upstream.") {
			found++
			if !pages.HasText("error." + f.Code) {
				t.Errorf("%s has no words", f.Code)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d codes were found", found)
	}
}
