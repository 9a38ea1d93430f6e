package reference_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/sumunio/sumun/internal/app"
)

var update = flag.Bool("update", false, "write the references instead of comparing them")

// root is the repository, from this package's folder.
const root = "../.."

// A reference that is not current sends people to settings that are gone.
func TestConfigurationReference(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := app.WriteConfigReference(&b); err != nil {
		t.Fatal(err)
	}
	current(t, "docs/reference/configuration.md", b.Bytes())
}

// Clients are written against codes: one that is missing here is one they do not handle.
func TestErrorReference(t *testing.T) {
	t.Parallel()
	all := faults(t)
	current(t, "docs/reference/errors.md", errorsMarkdown(all))
	current(t, "internal/app/errors.json", indented(t, all))
}

// The document that clients are generated from is the one that the program serves.
func TestOpenAPIReference(t *testing.T) {
	t.Parallel()
	s := serve(t, "--issuer", "https://id.example.com")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	document, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET /openapi.json: %s, %v", answer.Status, err)
	}
	current(t, "docs/reference/openapi.json", indented(t, json.RawMessage(document)))
}

// current compares a file with what it should be, or writes it.
func current(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(root, filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	is, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(is, want) {
		t.Errorf("%s is not current (%v); run: go test ./test/reference -update", name, err)
	}
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
