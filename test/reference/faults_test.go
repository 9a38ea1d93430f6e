package reference_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/fault"
)

const faultPackage = "github.com/sumunio/sumun/internal/fault"

// declared is a failure that the program declares.
type declared struct {
	Code    string `json:"code"`
	Status  int    `json:"status"`
	Message string `json:"message"`

	in string // the package
}

// faults reads every declared failure from the source, sorted by code. A code that is declared twice, or where nobody can
// find it, is a failure of the test.
func faults(t *testing.T) []declared {
	t.Helper()
	var all []declared
	for _, folder := range []string{"auth", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				all = append(all, faultsOf(t, path)...)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(all, func(a, b declared) int { return strings.Compare(a.Code, b.Code) })
	for i := 1; i < len(all); i++ {
		if all[i].Code == all[i-1].Code {
			t.Errorf("%s is declared in %s and in %s; codes are permanent and mean one thing", all[i].Code, all[i-1].in, all[i].in)
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d declared faults were found", len(all))
	}
	return all
}

// source is one file of Go.
type source struct {
	t     *testing.T
	set   *token.FileSet
	in    string // the package, from the root
	fault string // the name of package fault in it, "" where it is not imported
	all   []declared
}

func faultsOf(t *testing.T, path string) []declared {
	t.Helper()
	s := &source{t: t, set: token.NewFileSet()}
	file, err := parser.ParseFile(s.set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	s.in = filepath.ToSlash(folder)
	for _, i := range file.Imports {
		if i.Path.Value == strconv.Quote(faultPackage) {
			s.fault = "fault"
			if i.Name != nil {
				s.fault = i.Name.Name
			}
		}
	}
	for _, declaration := range file.Decls {
		_, inFunction := declaration.(*ast.FuncDecl)
		ast.Inspect(declaration, func(n ast.Node) bool {
			s.visit(n, inFunction)
			return true
		})
	}
	return s.all
}

func (s *source) visit(n ast.Node, inFunction bool) {
	switch n := n.(type) {
	case *ast.CallExpr:
		switch {
		case s.isNew(n.Fun) && inFunction:
			// A function may repeat a fault that is declared elsewhere, by its code; it may not make one up.
			if _, literal := text(n.Args[1]); literal {
				s.t.Errorf("%s: declare the fault as a variable of the package", s.set.Position(n.Pos()))
			}
		case s.isNew(n.Fun):
			s.add(n, s.kindStatus(n.Args[0]), n.Args[1], n.Args[2])
		case s.in == "auth" && (isName(n.Fun, "refusal") || isName(n.Fun, "dpopRefusal")) && !inFunction:
			s.add(n, http.StatusUnauthorized, n.Args[0], n.Args[2])
		}
	case *ast.CompositeLit:
		if s.in == "auth" && isName(n.Type, "Error") && !inFunction {
			s.addError(n)
		}
	}
}

// isNew reports whether a call is to fault.New.
func (s *source) isNew(called ast.Expr) bool {
	if s.in == "internal/fault" {
		return isName(called, "New")
	}
	selector, ok := called.(*ast.SelectorExpr)
	return ok && s.fault != "" && isName(selector.X, s.fault) && selector.Sel.Name == "New"
}

func isName(e ast.Expr, name string) bool {
	ident, ok := e.(*ast.Ident)
	return ok && ident.Name == name
}

func (s *source) add(at ast.Node, status int, code, message ast.Expr) {
	c, okCode := text(code)
	m, okMessage := text(message)
	if !okCode || !okMessage || status == 0 {
		s.t.Errorf("%s: kind, code and message of a declared fault are written out", s.set.Position(at.Pos()))
		return
	}
	s.all = append(s.all, declared{Code: c, Status: status, Message: m, in: s.in})
}

// addError reads an auth.Error that is written out field by field.
func (s *source) addError(literal *ast.CompositeLit) {
	fields := map[string]ast.Expr{}
	for _, e := range literal.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if name, ok := pair.Key.(*ast.Ident); ok {
				fields[name.Name] = pair.Value
			}
		}
	}
	status := 0
	if selector, ok := fields["status"].(*ast.SelectorExpr); ok {
		for s := 400; s < 600; s++ {
			if "Status"+strings.ReplaceAll(http.StatusText(s), " ", "") == selector.Sel.Name {
				status = s
			}
		}
	}
	s.add(literal, status, fields["code"], fields["description"])
}

// kindStatus returns the status of a fault.Kind by its name in the source, 0 for anything else.
func (s *source) kindStatus(e ast.Expr) int {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	for k := range fault.Kind(64) { // more than there are; an unknown one is called internal
		if strings.EqualFold(strings.ReplaceAll(k.String(), "_", ""), name) {
			return k.Status()
		}
	}
	return 0
}

// text returns what a string literal, or a sum of them, says.
func text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		left, okLeft := text(e.X)
		right, okRight := text(e.Y)
		return left + right, okLeft && okRight
	}
	return "", false
}

const errorsHead = `# Errors

Generated from the program. A request that cannot be answered gets a problem document (RFC 9457,
` + "`application/problem+json`" + `) with one of these codes in its member ` + "`code`" + `. Codes are permanent and meant for programs;
messages are meant for people, may be more specific than here, and may change. Where values of the request are at fault, the
member ` + "`errors`" + ` names each of them, with a code and a message of its own.

| Code | Status | Message | Declared in |
|---|---|---|---|
`

func errorsMarkdown(all []declared) []byte {
	var b bytes.Buffer
	b.WriteString(errorsHead)
	for _, f := range all {
		fmt.Fprintf(&b, "| `%s` | %d | %s | `%s` |\n", f.Code, f.Status, strings.ReplaceAll(f.Message, "|", `\|`), f.in)
	}
	return b.Bytes()
}
