package reference_test

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/sumunio/sumun/internal/app"
)

// page is a Markdown file.
type page struct {
	name string // from the root
	text string
}

// pages returns every Markdown file of the repository.
func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err = filepath.Rel(root, path)
		all = append(all, page{filepath.ToSlash(name), string(text)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("only %d Markdown files were found", len(all))
	}
	return all
}

var (
	fence  = regexp.MustCompile("(?ms)^```([a-z]*)[^\n]*\n(.*?)^```")
	inline = regexp.MustCompile("`[^`\n]+`")
)

// block is the code between two fences.
type block struct{ language, code string }

func (p page) blocks() []block {
	var all []block
	for _, match := range fence.FindAllStringSubmatch(p.text, -1) {
		all = append(all, block{match[1], match[2]})
	}
	return all
}

// prose is the text without code.
func (p page) prose() string {
	return inline.ReplaceAllString(fence.ReplaceAllString(p.text, ""), "")
}

var link = regexp.MustCompile(`\]\(([^)\s]+)[^)\n]*\)|(?:src|srcset|href)="([^"]+)"`)

// A link that leads nowhere costs a reader the answer.
func TestLinks(t *testing.T) {
	t.Parallel()
	anchors := map[string][]string{}
	all := pages(t)
	for _, p := range all {
		anchors[p.name] = p.anchors()
	}
	for _, p := range all {
		for _, match := range link.FindAllStringSubmatch(p.prose(), -1) {
			target := match[1] + match[2]
			u, err := url.Parse(target)
			if err != nil {
				t.Errorf("%s: %q is no link: %v", p.name, target, err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			name := p.name
			if u.Path != "" {
				name = filepath.ToSlash(filepath.Join(filepath.Dir(p.name), u.Path))
			}
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s: %q leads nowhere", p.name, target)
				continue
			}
			if u.Fragment != "" && strings.HasSuffix(name, ".md") && !slices.Contains(anchors[name], u.Fragment) {
				t.Errorf("%s: %q: there is no such heading", p.name, target)
			}
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)

// anchors are the fragments that lead to the headings, as GitHub makes them.
func (p page) anchors() []string {
	var all []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, match[1])
		unique := slug
		for n := 1; slices.Contains(all, unique); n++ {
			unique = slug + "-" + strconv.Itoa(n)
		}
		all = append(all, unique)
	}
	return all
}

var (
	flagName     = regexp.MustCompile("(?m)(?:^|[\\s`(\\[])--([a-z][a-z0-9-]*)")
	variableName = regexp.MustCompile(`SUMUN_[A-Z0-9_]+`)
	dottedName   = regexp.MustCompile("`([a-z][a-z0-9_]*(?:\\.[a-z][a-z0-9_]*)+)`")
	keyRow       = regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)` \\| (?:`(SUMUN_[A-Z0-9_]+)`)? \\|") // in a list there is no variable
)

// A flag, a variable or a key that is written about and does not exist sends its reader into a wall.
func TestNames(t *testing.T) {
	t.Parallel()
	flags, variables, keys := flagsOf(t), testVariables(t), settings(t)
	names := map[string]bool{}    // keys, sections and codes
	families := map[string]bool{} // the first words of those
	note := func(name string) {
		first, _, _ := strings.Cut(name, ".")
		families[first] = true
		for ; name != ""; name = name[:max(0, strings.LastIndexByte(name, '.'))] {
			names[name] = true
		}
	}
	for key, variable := range keys {
		variables[variable] = true
		note(key)
	}
	for _, f := range faults(t) {
		note(f.Code)
	}
	for _, p := range pages(t) {
		for _, match := range flagName.FindAllStringSubmatch(p.text, -1) {
			if !flags[match[1]] {
				t.Errorf("%s: no command has the flag --%s", p.name, match[1])
			}
		}
		for _, name := range variableName.FindAllString(p.text, -1) {
			if !variables[name] && !strings.HasSuffix(name, "_") { // a beginning of names
				t.Errorf("%s: there is no variable %s", p.name, name)
			}
		}
		for _, match := range dottedName.FindAllStringSubmatch(p.text, -1) {
			first, _, _ := strings.Cut(match[1], ".")
			if families[first] && !names[match[1]] && !isFile(match[1]) {
				t.Errorf("%s: there is no key and no code %s", p.name, match[1])
			}
		}
		for _, b := range p.blocks() {
			if b.language == "yaml" {
				checkYAML(t, p.name, b.code, names)
			}
		}
	}
}

// isFile reports whether what looks like a key is the name of a file.
func isFile(name string) bool {
	return slices.Contains([]string{".go", ".md", ".db", ".key", ".json", ".yaml"}, filepath.Ext(name))
}

// flagsOf returns the flags of every command, as its help tells them.
func flagsOf(t *testing.T, command ...string) map[string]bool {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := app.Main(t.Context(), append(command, "--help"), bytes.NewReader(nil), &stdout, &stderr, nil); code != 0 {
		t.Fatalf("sumun %s --help: exit code %d: %s", strings.Join(command, " "), code, &stderr)
	}
	flags := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(stdout.String(), -1) {
		flags[match[1]] = true
	}
	_, list, _ := strings.Cut(stdout.String(), "\nCommands:\n")
	for _, match := range regexp.MustCompile(`(?m)^  ([a-z-]+(?: [a-z-]+)*)  `).FindAllStringSubmatch(list, -1) {
		words := strings.Fields(match[1])
		for name := range flagsOf(t, append(slices.Clone(command), words[len(words)-1])...) {
			flags[name] = true
		}
	}
	return flags
}

// settings returns the variable of each key of the configuration, "" where it has none.
func settings(t *testing.T) map[string]string {
	t.Helper()
	var reference bytes.Buffer
	if err := app.WriteConfigReference(&reference); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for _, match := range keyRow.FindAllStringSubmatch(reference.String(), -1) {
		keys[strings.ReplaceAll(match[1], "[]", "")] = match[2]
	}
	if len(keys) < 50 {
		t.Fatalf("only %d keys were found in the reference", len(keys))
	}
	return keys
}

// testVariables returns the variables that are no settings: the name of the file, and what tests and CI read.
func testVariables(t *testing.T) map[string]bool {
	t.Helper()
	variables := map[string]bool{"SUMUN_CONFIG": true}
	script, err := os.ReadFile(filepath.Join(root, ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range variableName.FindAllString(string(script), -1) {
		variables[name] = true
	}
	return variables
}

// checkYAML finds keys in an example of a configuration file that the program would refuse.
func checkYAML(t *testing.T, where, text string, known map[string]bool) {
	t.Helper()
	var content map[string]any
	if err := yaml.Unmarshal([]byte(text), &content); err != nil {
		t.Errorf("%s: an example is no YAML: %v", where, err)
		return
	}
	var walk func(prefix string, section map[string]any)
	walk = func(prefix string, section map[string]any) {
		for name, value := range section {
			if !known[prefix+name] {
				t.Errorf("%s: there is no key %s", where, prefix+name)
			}
			list, ok := value.([]any)
			if !ok {
				list = []any{value}
			}
			for _, one := range list {
				if inner, ok := one.(map[string]any); ok {
					walk(prefix+name+".", inner)
				}
			}
		}
	}
	walk("", content)
}
