package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxSecretFile bounds a mounted secret, in bytes.
const maxSecretFile = 16 << 10

// Sources say what was written, weakest first: a file, the environment, flags.
type Sources struct {
	File  string            // path of a YAML file; "" for none
	Env   []string          // "NAME=value", as os.Environ returns it; only SUMUN_ names are looked at
	Flags map[string]string // key name to value; a list is separated by commas
}

// Values tell where every setting came from. They do not change once loaded.
type Values struct {
	schema  *Schema
	origins map[string]string
}

// assignment is one setting as somebody wrote it.
type assignment struct {
	key    *Key
	texts  []string
	rows   []ast.Node // of a list of sections, instead of texts
	origin string     // "sumun.yaml:12", "SUMUN_LISTEN", "--listen"
}

// Load writes the sources over the defaults that dst, a pointer to the schema's struct, already holds. The error joins
// every fault there is; dst then holds what could be understood. Values are never nil.
func (s *Schema) Load(dst any, src Sources) (*Values, error) {
	root := reflect.ValueOf(dst).Elem()
	values := &Values{schema: s, origins: map[string]string{}}
	var faults []error
	for _, read := range []func() ([]assignment, []error){
		func() ([]assignment, []error) { return s.readFile(src.File) },
		func() ([]assignment, []error) { return s.readEnv(src.Env) },
		func() ([]assignment, []error) { return s.readFlags(src.Flags) },
	} {
		assignments, bad := read()
		faults = append(faults, bad...)
		faults = append(faults, values.apply(root, assignments)...)
	}
	return values, errors.Join(faults...)
}

// apply sets the fields that one source names. A secret and its file in the same source contradict each other.
func (v *Values) apply(root reflect.Value, assignments []assignment) []error {
	var faults []error
	origins := map[string]string{}
	for _, a := range assignments {
		target := a.key.Name
		if a.key.FileOf != "" {
			target = a.key.FileOf
		}
		if other, twice := origins[target]; twice {
			faults = append(faults, fmt.Errorf("%s (%s): is set by %s too; keep one of the two", a.key.Name, a.origin, other))
			continue
		}
		origins[target] = a.origin
		v.origins[target] = a.origin
		if a.key.table != nil {
			faults = append(faults, v.applyTable(root.FieldByIndex(a.key.index), a)...)
			continue
		}
		texts, err := a.texts, error(nil)
		if a.key.FileOf != "" {
			texts, err = readSecret(a.texts)
		}
		if err == nil {
			err = parse(root.FieldByIndex(a.key.index), texts)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", a.key.Name, a.origin, err))
		}
	}
	return faults
}

func readSecret(paths []string) ([]string, error) {
	if len(paths) != 1 {
		return nil, errors.New("takes a single path, not a list")
	}
	info, err := os.Stat(paths[0])
	if err != nil {
		return nil, fmt.Errorf("%w; create the file or correct the path", err)
	}
	if info.IsDir() || info.Size() > maxSecretFile {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes; correct the path", paths[0], maxSecretFile)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		return nil, fmt.Errorf("%w; let this user read the file", err)
	}
	return []string{strings.TrimRight(string(content), "\r\n")}, nil
}

var serviceVariable = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// ofKubernetes recognises what Kubernetes puts into every container for a Service whose name starts with "sumun".
func ofKubernetes(name, value string) bool {
	return serviceVariable.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// ofTests recognises the variables by which tests find what they need (CONTRIBUTING.md).
func ofTests(name string) bool {
	return strings.HasPrefix(name, Prefix+"TEST_") || strings.HasPrefix(name, Prefix+"E2E_") || name == Prefix+"WYCHEPROOF"
}

// readEnv reads the SUMUN_ variables. SUMUN_CONFIG names the file and is the caller's, others belong to tests;
// an empty variable counts as not set, because compose files pass unset variables on as empty ones.
func (s *Schema) readEnv(environ []string) (assignments []assignment, faults []error) {
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, Prefix) || name == ConfigVariable || ofTests(name) || value == "" {
			continue
		}
		key, known := s.byEnv[name]
		switch {
		case known:
			assignments = append(assignments, assignment{key: key, texts: key.split(value), origin: name})
		case ofKubernetes(name, value):
		default:
			faults = append(faults, unknown(name, "is not a known variable", nearest(name, slices.Collect(maps.Keys(s.byEnv)))))
		}
	}
	return assignments, faults
}

// ConfigVariable names the YAML file when no flag does.
const ConfigVariable = Prefix + "CONFIG"

func (s *Schema) readFlags(flags map[string]string) (assignments []assignment, faults []error) {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		key, known := s.byName[name]
		if !known || key.table != nil {
			faults = append(faults, fmt.Errorf("no setting is called %s", name))
			continue
		}
		origin := "--" + strings.NewReplacer(".", "-", "_", "-").Replace(name)
		assignments = append(assignments, assignment{key: key, texts: key.split(flags[name]), origin: origin})
	}
	return assignments, faults
}

func (k *Key) split(value string) []string {
	if !k.list {
		return []string{value}
	}
	var parts []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

func unknown(where, problem, suggestion string) error {
	if suggestion == "" {
		return fmt.Errorf("%s: %s; remove it (`sumun config default` lists every key)", where, problem)
	}
	return fmt.Errorf("%s: %s; did you mean %s?", where, problem, suggestion)
}

// Origin says where a setting was written: "sumun.yaml:12", "SUMUN_LISTEN", "--listen", or "" for a default.
func (v *Values) Origin(name string) string { return v.origins[name] }

// Attribute completes what a component's Validate found. Each fault of the component starts with a key or section, named from
// the section that is the component's; the result starts with the full name and its origin.
func (v *Values) Attribute(section string, err error) []error {
	var faults []error
	for _, fault := range Flatten(err) {
		written, rest, _ := strings.Cut(fault.Error(), " ")
		name := v.schema.resolve(section, strings.TrimRight(written, ":"))
		switch {
		case name == "" && section == "":
			faults = append(faults, fault)
		case name == "":
			faults = append(faults, fmt.Errorf("%s: %w", section, fault))
		default:
			faults = append(faults, fmt.Errorf("%s%s: %s", name, v.place(name), rest))
		}
	}
	return faults
}

// resolve returns the full name of a key or section of a section, where that is set elsewhere under the name it has there; ""
// when there is none.
func (s *Schema) resolve(section, written string) string {
	name := written
	if section != "" {
		name = section + "." + written
	}
	for omitted, elsewhere := range s.omitted {
		if rest, found := strings.CutPrefix(name, omitted); found && (rest == "" || rest[0] == '.') {
			name = elsewhere + rest
			break
		}
	}
	if !s.has(name) {
		return ""
	}
	return name
}

// Flatten takes what errors.Join joined apart, so that each fault can be shown on a line of its own.
func Flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return slices.DeleteFunc([]error{err}, func(e error) bool { return e == nil })
	}
	var texts []string
	var all []error
	for _, e := range joined.Unwrap() {
		texts = append(texts, e.Error())
		all = append(all, Flatten(e)...)
	}
	if err.Error() != strings.Join(texts, "\n") {
		return []error{err} // several causes wrapped in one message
	}
	return all
}
