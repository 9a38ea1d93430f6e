package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The part of an OpenAPI 3.1 document that the reference shows.
type (
	openAPI struct {
		Info       struct{ Title, Version, Description string }
		Servers    []struct{ URL string }
		Tags       []struct{ Name, Description string }
		Paths      map[string]map[string]json.RawMessage
		Security   []map[string][]string
		Components struct {
			Schemas       map[string]*schema
			Parameters    map[string]parameter
			RequestBodies map[string]requestBody
			Responses     map[string]response
		}
	}
	operation struct {
		OperationID, Summary, Description string
		Tags                              []string
		Parameters                        []parameter
		RequestBody                       *requestBody
		Responses                         map[string]response
		Security                          *[]map[string][]string
		Deprecated                        bool
	}
	parameter struct {
		Ref                   string `json:"$ref"`
		Name, In, Description string
		Required              bool
		Schema                *schema
		Example               any
	}
	requestBody struct {
		Ref         string `json:"$ref"`
		Description string
		Content     map[string]mediaType
	}
	response struct {
		Ref         string `json:"$ref"`
		Description string
		Content     map[string]mediaType
	}
	mediaType struct {
		Schema  *schema
		Example any
	}
	schema struct {
		Ref                  string   `json:"$ref"`
		Type                 typeList `json:"type"`
		Format, Description  string
		Properties           map[string]*schema
		Required             []string
		Items                *schema
		Enum, Examples       []any
		Const, Default       any
		AllOf, OneOf, AnyOf  []*schema
		AdditionalProperties json.RawMessage
		MinLength, MaxLength *int
		Minimum, Maximum     *float64
	}
	// typeList is "string" or ["string", "null"].
	typeList []string
)

func (t *typeList) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*t = typeList{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(t))
}

// methods in the order in which one path's operations are shown.
var methods = []string{"get", "post", "put", "patch", "delete", "head", "options"}

// maxDepth bounds how deep examples go into nested schemas.
const maxDepth = 6

func parseOpenAPI(document []byte) (*openAPI, error) {
	var doc openAPI
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("parse OpenAPI document: %w", err)
	}
	return &doc, nil
}

// refName returns the last part of a reference: "User" of "#/components/schemas/User".
func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// resolve follows the references from a schema to where it is spelt out; nil when it leads nowhere or in a circle.
func (d *openAPI) resolve(s *schema) *schema {
	for range maxDepth {
		if s == nil || s.Ref == "" {
			return s
		}
		s = d.Components.Schemas[refName(s.Ref)]
	}
	return nil
}

// properties returns the fields of an object schema, those it takes from allOf included, and which of them are required.
func (d *openAPI) properties(s *schema) (map[string]*schema, []string) {
	all, required, seen := map[string]*schema{}, []string(nil), map[*schema]bool{}
	var collect func(*schema)
	collect = func(s *schema) {
		if s = d.resolve(s); s == nil || seen[s] {
			return
		}
		seen[s] = true
		maps.Copy(all, s.Properties)
		required = append(required, s.Required...)
		for _, part := range s.AllOf {
			collect(part)
		}
	}
	collect(s)
	return all, required
}

// names returns the properties in the order in which to show them: required ones first, then by name. "$schema", which tools
// add, is left out.
func names(properties map[string]*schema, required []string) []string {
	order := func(name string) int {
		if slices.Contains(required, name) {
			return 0
		}
		return 1
	}
	all := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return name == "$schema" })
	slices.SortStableFunc(all, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	return all
}

// kind names the type of a schema in a few words: "string (email)", "array of User".
func (d *openAPI) kind(s *schema) string {
	switch {
	case s == nil:
		return "any"
	case s.Ref != "":
		return refName(s.Ref)
	case s.Items != nil:
		return "array of " + d.kind(s.Items)
	}
	types := slices.DeleteFunc(slices.Clone(s.Type), func(t string) bool { return t == "null" })
	name := strings.Join(types, " or ")
	if name == "" {
		name = "any"
		if len(s.Properties)+len(s.AllOf) > 0 {
			name = "object"
		}
	}
	if s.Format != "" {
		name += " (" + s.Format + ")"
	}
	return name
}

// limits says which values a schema takes, in English like the rest of the document.
func (s *schema) limits() string {
	if s == nil {
		return ""
	}
	var parts []string
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		parts = append(parts, "one of "+strings.Join(values, ", "))
	}
	add := func(word string, bound any, set bool) {
		if set {
			parts = append(parts, fmt.Sprintf(word, bound))
		}
	}
	add("at least %v characters", deref(s.MinLength), s.MinLength != nil && *s.MinLength > 0)
	add("at most %v characters", deref(s.MaxLength), s.MaxLength != nil)
	add("at least %v", deref(s.Minimum), s.Minimum != nil)
	add("at most %v", deref(s.Maximum), s.Maximum != nil)
	add("default %v", s.Default, s.Default != nil)
	return strings.Join(parts, ", ")
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// formats gives examples for what a schema says of its strings.
var formats = map[string]string{
	"email": "kim@example.com", "date-time": "2026-01-31T09:30:00Z", "date": "2026-01-31", "uri": "https://example.com/",
	"uuid": "019c1a2b-3c4d-7e5f-8a9b-0c1d2e3f4a5b", "password": "correct horse battery", "ipv4": "192.0.2.1", "ip": "192.0.2.1",
}

// exampleBudget bounds the values of one example: schemas can refer to each other in ways that multiply.
const exampleBudget = 500

// example returns JSON for a schema, indented, its fields in the order of names.
func (d *openAPI) example(s *schema) string {
	var b strings.Builder
	budget := exampleBudget
	d.writeExample(&b, s, "", maxDepth, &budget)
	return b.String()
}

func (d *openAPI) writeExample(b *strings.Builder, s *schema, indent string, depth int, budget *int) {
	s = d.resolve(s)
	*budget--
	if s == nil || depth == 0 || *budget < 0 {
		b.WriteString("null")
		return
	}
	if v, ok := s.given(); ok {
		writeJSON(b, v)
		return
	}
	if choices := slices.Concat(s.OneOf, s.AnyOf); len(choices) > 0 {
		d.writeExample(b, choices[0], indent, depth-1, budget)
		return
	}
	properties, required := d.properties(s)
	shown := names(properties, required)
	switch {
	case len(shown) > 0:
		b.WriteString("{\n")
		for i, name := range shown {
			b.WriteString(indent + "  ")
			writeJSON(b, name)
			b.WriteString(": ")
			d.writeExample(b, properties[name], indent+"  ", depth-1, budget)
			if i < len(shown)-1 {
				b.WriteByte(',')
			}
			b.WriteByte('\n')
		}
		b.WriteString(indent + "}")
	case s.Items != nil:
		b.WriteByte('[')
		d.writeExample(b, s.Items, indent, depth-1, budget)
		b.WriteByte(']')
	default:
		writeJSON(b, s.placeholder())
	}
}

// given returns the value that the document itself gives as an example.
func (s *schema) given() (any, bool) {
	switch {
	case s.Const != nil:
		return s.Const, true
	case len(s.Examples) > 0:
		return s.Examples[0], true
	case s.Default != nil:
		return s.Default, true
	case len(s.Enum) > 0:
		return s.Enum[0], true
	}
	return nil, false
}

// placeholder returns a value of the schema's type.
func (s *schema) placeholder() any {
	switch {
	case slices.Contains(s.Type, "string"):
		return cmp.Or(formats[s.Format], "…")
	case slices.Contains(s.Type, "integer"), slices.Contains(s.Type, "number"):
		return max(1, deref(s.Minimum))
	case slices.Contains(s.Type, "boolean"):
		return true
	case slices.Contains(s.Type, "array"):
		return []any{}
	default:
		return struct{}{}
	}
}

func writeJSON(b *strings.Builder, v any) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(v) != nil {
		text.WriteString("null")
	}
	b.WriteString(strings.TrimSuffix(text.String(), "\n"))
}
