package identity_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/web"
)

// faultNouns begin the codes of faults, and of fields that can be wrong.
var faultNouns = map[string]bool{"identity": true, "name": true, "user_name": true, "email": true, "confirm": true}

// What the trail and the forms of this package say must have words in both languages, or a person reads a code.
func TestEverythingShownHasWords(t *testing.T) {
	t.Parallel()
	pages, err := web.New(web.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	literals := 0
	for _, folder := range []string{".", "../session", "password"} {
		for text := range stringsIn(t, folder) {
			switch noun, verb, ok := strings.Cut(text, "."); {
			case !ok || verb == "" || strings.ContainsAny(text, " /%") || text == password.PepperPurpose:
			case faultNouns[noun] || noun == "password" && folder == "password":
				literals++
				if !pages.HasText("error." + text) {
					t.Errorf("the fault %s has no words", text)
				}
			case noun == "account" || noun == "address" || noun == "password" || noun == "session" && isAction(text):
				literals++
				if !pages.HasText("action." + text) {
					t.Errorf("the action %s has no words", text)
				}
			}
		}
	}
	if literals < 30 {
		t.Errorf("only %d codes were found", literals)
	}
}

// isAction tells what package session writes into the trail from its faults and keys.
func isAction(text string) bool {
	switch strings.TrimPrefix(text, "session.") {
	case "started", "reauthenticated", "signed_out", "ended", "others_ended", "limit", "theft":
		return true
	}
	return false
}

// stringsIn collects the string literals of a package's source.
func stringsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), file, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					found[text] = true
				}
			}
			return true
		})
	}
	return found
}
