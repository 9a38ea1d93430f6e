package settings

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// table is what is known of a list of sections.
type table struct {
	name string  // of the list: "gateway.routes"
	row  *Schema // of one section; its keys are named "gateway.routes[].name"
}

// defaulter is a section that does not begin with zeros.
type defaulter interface{ SetDefaults() }

func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && !isText(t) && t.Elem().Kind() == reflect.Struct && !isText(t.Elem())
}

func tableKey(name string, field reflect.StructField, index []int) (*Key, error) {
	row, err := schemaOf(name+"[].", newRow(field.Type.Elem()))
	if err != nil {
		return nil, err
	}
	return &Key{
		Name: name, Type: "list of sections", Doc: field.Tag.Get("doc"), index: index,
		table: &table{name: name, row: row},
	}, nil
}

// newRow returns a section as it is before anything of it is read.
func newRow(t reflect.Type) reflect.Value {
	row := reflect.New(t)
	if d, ok := row.Interface().(defaulter); ok {
		d.SetDefaults()
	}
	return row.Elem()
}

// applyTable replaces the list by the sections that the file holds.
func (v *Values) applyTable(list reflect.Value, a assignment) []error {
	var faults []error
	t := a.key.table
	rows := reflect.MakeSlice(list.Type(), len(a.rows), len(a.rows))
	for i, node := range a.rows {
		row := rows.Index(i)
		row.Set(newRow(row.Type()))
		file, _, _ := strings.Cut(a.origin, ":")
		r := &yamlReader{schema: t.row, file: file}
		r.mapping(t.name+"[]", node)
		read := &Values{schema: t.row, origins: map[string]string{}}
		number := strings.NewReplacer(t.name+"[]", t.name+"["+strconv.Itoa(i)+"]")
		for _, fault := range append(r.faults, read.apply(row, r.assignments)...) {
			faults = append(faults, errors.New(number.Replace(fault.Error())))
		}
		v.origins[number.Replace(t.name+"[]")] = r.at(node)
		for name, origin := range read.origins {
			v.origins[number.Replace(name)] = origin
		}
	}
	list.Set(rows)
	return faults
}

// rows returns the sections of a list; false when something else is written there.
func rows(node ast.Node) (all []ast.Node, ok bool) {
	switch node := node.(type) {
	case nil, *ast.NullNode:
		return nil, true
	case *ast.SequenceNode:
		return node.Values, true
	default:
		return nil, false
	}
}

var rowNumber = regexp.MustCompile(`\[\d+\]`)

// has reports whether there is a key or section of that name, which may name one row of a list: "gateway.routes[2].paths".
func (s *Schema) has(name string) bool {
	name = rowNumber.ReplaceAllString(name, "[]")
	if _, isKey := s.byName[name]; isKey {
		return true
	}
	if _, isSection := s.sections[name]; isSection {
		return true
	}
	for _, k := range s.keys {
		if k.table != nil && strings.HasPrefix(name, k.Name+"[]") {
			return name == k.Name+"[]" || k.table.row.has(name)
		}
	}
	return false
}

// place says where a setting was written, in brackets, for a key in a list where its section begins if nowhere else; "" for
// a default.
func (v *Values) place(name string) string {
	for {
		if origin := v.origins[name]; origin != "" {
			return fmt.Sprintf(" (%s)", origin)
		}
		end := strings.LastIndexByte(name, ']')
		if end < 0 {
			return ""
		}
		if end < len(name)-1 {
			name = name[:end+1]
		} else {
			name = name[:strings.LastIndexByte(name, '[')]
		}
	}
}

// All returns every key, those of lists of sections after the list.
func (s *Schema) All() []*Key {
	var all []*Key
	for _, k := range s.keys {
		all = append(all, k)
		if k.table != nil {
			all = append(all, k.table.row.All()...)
		}
	}
	return all
}
