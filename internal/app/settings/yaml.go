package settings

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// readFile reads a YAML file into assignments.
func (s *Schema) readFile(path string) ([]assignment, []error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, []error{fmt.Errorf("configuration file: %w; create it (`sumun config default > %s`) or correct the path", err, path)}
	}
	if info.IsDir() || info.Size() > maxFile {
		return nil, []error{fmt.Errorf("configuration file %s: not a file of at most 1 MiB; correct the path", path)}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, []error{fmt.Errorf("configuration file: %w; let this user read it", err)}
	}
	return s.readYAML(filepath.Base(path), content)
}

// readYAML walks the syntax tree, so that every fault can be reported with its line, not only the first.
func (s *Schema) readYAML(file string, content []byte) ([]assignment, []error) {
	tree, err := parser.ParseBytes(bytes.TrimPrefix(content, []byte("\ufeff")), 0)
	if err != nil {
		return nil, []error{syntaxFault(file, err)}
	}
	r := &yamlReader{schema: s, file: file}
	for i, document := range tree.Docs {
		if i > 0 && document.Body != nil {
			r.fault(document.Body, "", "a second document; keep everything in one")
			break
		}
		r.mapping("", document.Body)
	}
	return r.assignments, r.faults
}

func syntaxFault(file string, err error) error {
	var syntax yaml.Error
	if !errors.As(err, &syntax) || syntax.GetToken() == nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("%s: not YAML: %s; correct it", file, first)
	}
	return fmt.Errorf("%s:%d: not YAML: %s; correct this line", file, syntax.GetToken().Position.Line, syntax.GetMessage())
}

type yamlReader struct {
	schema      *Schema
	file        string
	assignments []assignment
	faults      []error
}

func (r *yamlReader) at(node ast.Node) string {
	return fmt.Sprintf("%s:%d", r.file, node.GetToken().Position.Line)
}

func (r *yamlReader) fault(node ast.Node, name, problem string) {
	if name == "" {
		r.faults = append(r.faults, fmt.Errorf("%s: %s", r.at(node), problem))
		return
	}
	r.faults = append(r.faults, fmt.Errorf("%s (%s): %s", name, r.at(node), problem))
}

// mapping reads one section; an empty one is no fault.
func (r *yamlReader) mapping(section string, node ast.Node) {
	switch node := node.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
	case *ast.MappingNode:
		for _, pair := range node.Values {
			r.pair(section, pair)
		}
	case *ast.MappingValueNode:
		r.pair(section, node)
	default:
		r.fault(node, section, "holds keys of its own; write them indented below it, as `key: value`")
	}
}

func (r *yamlReader) pair(section string, pair *ast.MappingValueNode) {
	name := pair.Key.GetToken().Value
	if section != "" {
		name = section + "." + name
	}
	if _, known := r.schema.sections[name]; known {
		r.mapping(name, pair.Value)
		return
	}
	key, known := r.schema.byName[name]
	if !known {
		r.faults = append(r.faults, unknown(fmt.Sprintf("%s (%s)", name, r.at(pair.Key)), "is not a known key", r.schema.nearestKey(name)))
		return
	}
	if key.table != nil {
		rows, ok := rows(pair.Value)
		if !ok {
			r.fault(pair.Key, name, "is a list of sections; write each as `- key: value`")
			return
		}
		r.assignments = append(r.assignments, assignment{key: key, rows: rows, origin: r.at(pair.Key)})
		return
	}
	texts, ok := r.texts(pair.Value)
	switch {
	case !ok:
		r.fault(pair.Key, name, "holds "+key.Type+"; write it out as a plain value")
	case texts != nil:
		r.assignments = append(r.assignments, assignment{key: key, texts: texts, origin: r.at(pair.Key)})
	}
}

// texts returns a scalar or the elements of a list as they were written; nil for a key without a value.
func (r *yamlReader) texts(node ast.Node) (texts []string, ok bool) {
	switch node := node.(type) {
	case nil, *ast.NullNode:
		return nil, true
	case *ast.StringNode:
		return []string{node.Value}, true
	case *ast.LiteralNode:
		return []string{node.Value.Value}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return []string{node.GetToken().Value}, true
	case *ast.SequenceNode:
		texts = []string{}
		for _, element := range node.Values {
			if _, nested := element.(*ast.SequenceNode); nested {
				return nil, false
			}
			one, ok := r.texts(element)
			if !ok {
				return nil, false
			}
			texts = append(texts, one...)
		}
		return texts, true
	default:
		return nil, false
	}
}
