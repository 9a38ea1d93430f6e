// Package settings fills a configuration struct from a YAML file, the environment and flags.
//
// It owns the names of the settings: they are derived from the struct's yaml tags, so that file, variable, flag and
// reference can never disagree. "tokens.lifetime" in the file is SUMUN_TOKENS_LIFETIME in the environment.
//
// It promises that nothing is ignored in silence (an unknown key or variable is a fault that suggests the nearest known
// one), that every fault is reported in one go with its origin, and that a secret never appears in a message.
//
// It refuses to know what the values mean: whether they make sense is said by each component's Validate.
package settings

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Prefix starts the name of every environment variable that is a setting.
const Prefix = "SUMUN_"

// A Key is one setting.
type Key struct {
	Name    string // as in the file: "tokens.lifetime"
	Env     string // as in the environment: "SUMUN_TOKENS_LIFETIME"
	Type    string // in words: "text", "duration", "list of text"
	Default string // as it would be written; "" for nothing
	Doc     string // one or two sentences; may be empty
	Secret  bool   // never shown
	// FileOf is the name of the secret that this key reads from a file, "" for every other key.
	FileOf string

	index []int // path of the field in the struct
	list  bool
	table *table // of a list of sections, which is written in the file only; nil for every other key
}

// A Schema knows every key of one configuration struct. It does not change once made.
type Schema struct {
	root     reflect.Type
	keys     []*Key
	byName   map[string]*Key
	byEnv    map[string]*Key
	sections map[string]string // name to documentation
	omitted  map[string]string // name to the name it is set under
}

// Of derives the schema from a struct that holds the defaults. The tags of a field are:
//
//	yaml:"name"      the name; "-" leaves the field out, "name,omitempty" is read as "name"; ",inline" puts the keys of a
//	                 section among those of the struct
//	doc:"..."        what it means, for the reference
//	omit:"a,b=c"     on a section: keys of it that are set elsewhere, b under the name c
//
// A slice of structs is a list of sections, such as routes. It is written in the file only, and its keys are named
// "gateway.routes[].name". An element begins with what its method SetDefaults gives it, if it has one.
//
// A secret whose section has no key of its own for it can also be read from a file: "mail.smtp.password" brings
// "mail.smtp.password_file". Of fails on a field type that has no written form.
func Of(defaults any) (*Schema, error) {
	value := reflect.ValueOf(defaults)
	if value.Kind() != reflect.Struct {
		return nil, fmt.Errorf("settings: %T is not a struct", defaults)
	}
	return schemaOf("", value)
}

func schemaOf(prefix string, value reflect.Value) (*Schema, error) {
	s := &Schema{
		root: value.Type(), byName: map[string]*Key{}, byEnv: map[string]*Key{},
		sections: map[string]string{}, omitted: map[string]string{},
	}
	if err := s.section(prefix, value, nil, nil); err != nil {
		return nil, err
	}
	s.addFileKeys()
	for _, k := range s.keys {
		s.byName[k.Name] = k
		if k.Env == "" {
			continue
		}
		if other, taken := s.byEnv[k.Env]; taken {
			return nil, fmt.Errorf("settings: %s and %s share the variable %s", k.Name, other.Name, k.Env)
		}
		s.byEnv[k.Env] = k
	}
	return s, nil
}

// Keys returns every key in the order of the struct. The caller must not change them.
func (s *Schema) Keys() []*Key { return s.keys }

func (s *Schema) section(prefix string, value reflect.Value, index []int, omit map[string]string) error {
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name, option, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if elsewhere, omitted := omit[name]; omitted {
			s.omitted[prefix+name] = elsewhere
			continue
		}
		if !field.IsExported() || name == "-" {
			continue
		}
		if option == "inline" {
			if err := s.section(prefix, value.Field(i), append(slices.Clone(index), i), omissions(field.Tag.Get("omit"))); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			return fmt.Errorf("settings: field %s of %s has no yaml tag", field.Name, value.Type())
		}
		path := append(slices.Clone(index), i)
		if isTable(field.Type) {
			k, err := tableKey(prefix+name, field, path)
			if err != nil {
				return err
			}
			s.keys = append(s.keys, k)
			continue
		}
		if field.Type.Kind() == reflect.Struct && !isText(field.Type) {
			s.sections[prefix+name] = field.Tag.Get("doc")
			if err := s.section(prefix+name+".", value.Field(i), path, omissions(field.Tag.Get("omit"))); err != nil {
				return err
			}
			continue
		}
		words, err := typeWords(field.Type)
		if err != nil {
			return fmt.Errorf("settings: %s: %w", prefix+name, err)
		}
		s.keys = append(s.keys, &Key{
			Name: prefix + name, Env: envName(prefix + name), Type: words, Default: format(value.Field(i)),
			Doc: field.Tag.Get("doc"), Secret: isSecret(field.Type), index: path, list: isList(field.Type),
		})
	}
	return nil
}

func omissions(tag string) map[string]string {
	omit := map[string]string{}
	for part := range strings.FieldsFuncSeq(tag, func(r rune) bool { return r == ',' }) {
		name, elsewhere, renamed := strings.Cut(part, "=")
		if !renamed {
			elsewhere = name
		}
		omit[name] = elsewhere
	}
	return omit
}

// addFileKeys puts "x_file" after every secret "x" that has none.
func (s *Schema) addFileKeys() {
	names := map[string]bool{}
	for _, k := range s.keys {
		names[k.Name] = true
	}
	var all []*Key
	for _, k := range s.keys {
		all = append(all, k)
		if name := k.Name + "_file"; k.Secret && !names[name] {
			all = append(all, &Key{
				Name: name, Env: envName(name), Type: "path", FileOf: k.Name, index: k.index,
				Doc: "A file that holds " + k.Name + ", for secrets that are mounted.",
			})
		}
	}
	s.keys = all
}

// envName is the variable of a key; "" for a key in a list of sections.
func envName(name string) string {
	if strings.Contains(name, "[]") {
		return ""
	}
	return Prefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
}

// nearest returns the known name that is closest to what was written, or "" when none is close.
func nearest(written string, known []string) string {
	best, bestDistance := "", max(2, len(written)/3)+1
	slices.Sort(known)
	for _, name := range known {
		if d := distance(written, name); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// nearestKey suggests a key for a name in the file: by its whole name, then by its last part in another section.
func (s *Schema) nearestKey(written string) string {
	known := append(slices.Collect(maps.Keys(s.byName)), slices.Collect(maps.Keys(s.sections))...)
	if name := nearest(written, known); name != "" {
		return name
	}
	last := written[strings.LastIndexByte(written, '.')+1:]
	for _, k := range s.keys {
		if strings.HasSuffix(k.Name, "."+last) {
			return k.Name
		}
	}
	return ""
}
