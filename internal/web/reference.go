package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// APIReference is GET /docs: an OpenAPI 3.1 document, readable. Make it once with NewAPIReference; it does not change.
type APIReference struct {
	Title, Version string
	Description    []Paragraph
	Groups         []apiGroup
	Schemas        []apiSchema
}

func (APIReference) meta() meta { return meta{Template: "api_reference", Wide: true} }

// Paragraph is a paragraph of a description, cut into plain text and `code`.
type Paragraph []Span

// Span is a run of text.
type Span struct {
	Text string
	Code bool
}

type apiGroup struct {
	Name, Anchor string
	Description  []Paragraph
	Operations   []apiOperation
}

type apiOperation struct {
	ID, Method, Path, Summary string
	Description               []Paragraph
	Deprecated, Authorization bool
	Parameters                []apiField
	Body                      []apiField
	BodyKind                  string
	Responses                 []apiResponse
	Curl                      string
	// Answer is an example of the first successful response.
	Answer string
}

type apiField struct {
	Name, Kind, Ref, In string
	Required            bool
	Description         []Paragraph
	Limits              string
}

type apiResponse struct {
	Status, Description, Kind, Ref string
}

type apiSchema struct {
	Name        string
	Description []Paragraph
	Fields      []apiField
}

// NewAPIReference reads an OpenAPI 3.1 document in JSON. What it does not understand it leaves out. The words of the document
// stay in its own language, English.
func NewAPIReference(document []byte) (APIReference, error) {
	doc, err := parseOpenAPI(document)
	if err != nil {
		return APIReference{}, err
	}
	ref := APIReference{Title: doc.Info.Title, Version: doc.Info.Version, Description: paragraphs(doc.Info.Description)}
	if ref.Groups, err = doc.groups(); err != nil {
		return APIReference{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		if s := doc.Components.Schemas[name]; s != nil {
			ref.Schemas = append(ref.Schemas, apiSchema{Name: name, Description: paragraphs(s.Description), Fields: doc.fields(s)})
		}
	}
	return ref, nil
}

// groups returns the operations by their first tag: tags in the order of the document, then by name.
func (d *openAPI) groups() ([]apiGroup, error) {
	byTag := map[string][]apiOperation{}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		item := d.Paths[path]
		var shared []parameter
		if raw, ok := item["parameters"]; ok {
			if err := json.Unmarshal(raw, &shared); err != nil {
				return nil, fmt.Errorf("parse OpenAPI document: parameters of %s: %w", path, err)
			}
		}
		for _, method := range methods {
			raw, ok := item[method]
			if !ok {
				continue
			}
			var op operation
			if err := json.Unmarshal(raw, &op); err != nil {
				return nil, fmt.Errorf("parse OpenAPI document: %s %s: %w", method, path, err)
			}
			op.Parameters = append(slices.Clone(shared), op.Parameters...)
			tag := "API"
			if len(op.Tags) > 0 {
				tag = op.Tags[0]
			}
			byTag[tag] = append(byTag[tag], d.operation(strings.ToUpper(method), path, op))
		}
	}
	var groups []apiGroup
	add := func(name, description string) {
		if len(byTag[name]) > 0 {
			groups = append(groups, apiGroup{name, "tag-" + url.PathEscape(name), paragraphs(description), byTag[name]})
			delete(byTag, name)
		}
	}
	for _, tag := range d.Tags {
		add(tag.Name, tag.Description)
	}
	for _, name := range slices.Sorted(maps.Keys(byTag)) {
		add(name, "")
	}
	return groups, nil
}

func (d *openAPI) operation(method, path string, op operation) apiOperation {
	view := apiOperation{
		ID:     cmp.Or(op.OperationID, strings.ToLower(method)+strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path)),
		Method: method, Path: path, Summary: cmp.Or(op.Summary, method+" "+path), Deprecated: op.Deprecated,
		Description: paragraphs(op.Description), Authorization: d.needsToken(op),
	}
	var query []string
	for _, p := range op.Parameters {
		if p.Ref != "" {
			p = d.Components.Parameters[refName(p.Ref)]
		}
		f := d.field(p.Name, p.Schema, p.Required)
		f.In = p.In
		if p.Description != "" {
			f.Description = paragraphs(p.Description)
		}
		view.Parameters = append(view.Parameters, f)
		if p.In == "query" && p.Required {
			query = append(query, url.QueryEscape(p.Name)+"="+url.QueryEscape(p.Name))
		}
	}
	var body *schema
	contentType := ""
	if op.RequestBody != nil {
		rb := *op.RequestBody
		if rb.Ref != "" {
			rb = d.Components.RequestBodies[refName(rb.Ref)]
		}
		if contentType, body = preferred(rb.Content); body != nil {
			view.Body, view.BodyKind = d.fields(body), d.kind(body)
		}
	}
	view.Curl = d.curl(view, query, contentType, body)
	d.responses(&view, op)
	return view
}

func (d *openAPI) needsToken(op operation) bool {
	security := d.Security
	if op.Security != nil {
		security = *op.Security
	}
	// An empty requirement among the alternatives makes all of them optional (OpenAPI 3.1, section 4.8.30).
	return len(security) > 0 && !slices.ContainsFunc(security, func(s map[string][]string) bool { return len(s) == 0 })
}

func (d *openAPI) responses(view *apiOperation, op operation) {
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if r.Ref != "" {
			r = d.Components.Responses[refName(r.Ref)]
		}
		out := apiResponse{Status: status, Description: r.Description}
		if _, s := preferred(r.Content); s != nil {
			out.Kind, out.Ref = d.kind(s), d.link(s)
			if view.Answer == "" && strings.HasPrefix(status, "2") {
				view.Answer = d.example(s)
			}
		}
		view.Responses = append(view.Responses, out)
	}
}

// preferred returns the JSON content of a body, else the first one there is.
func preferred(content map[string]mediaType) (contentType string, s *schema) {
	types := slices.Sorted(maps.Keys(content))
	for _, t := range types {
		if t == "application/json" || t == "application/problem+json" {
			return t, content[t].Schema
		}
	}
	if len(types) > 0 {
		return types[0], content[types[0]].Schema
	}
	return "", nil
}

// link returns the name of the component that a schema, or the items of a list, refers to.
func (d *openAPI) link(s *schema) string {
	for range maxDepth {
		switch {
		case s == nil:
			return ""
		case s.Ref != "":
			if name := refName(s.Ref); d.Components.Schemas[name] != nil {
				return name
			}
			return ""
		}
		s = s.Items
	}
	return ""
}

func (d *openAPI) fields(s *schema) []apiField {
	properties, required := d.properties(s)
	fields := make([]apiField, 0, len(properties))
	for _, name := range names(properties, required) {
		fields = append(fields, d.field(name, properties[name], slices.Contains(required, name)))
	}
	return fields
}

func (d *openAPI) field(name string, s *schema, required bool) apiField {
	f := apiField{Name: name, Kind: d.kind(s), Ref: d.link(s), Required: required, Limits: s.limits()}
	if s != nil {
		f.Description = paragraphs(s.Description)
	}
	return f
}

// curl returns a command that can be pasted into a shell once $ACCESS_TOKEN is set.
func (d *openAPI) curl(op apiOperation, query []string, contentType string, body *schema) string {
	target := op.Path
	if len(d.Servers) > 0 {
		target = strings.TrimSuffix(d.Servers[0].URL, "/") + target
	}
	if len(query) > 0 {
		target += "?" + strings.Join(query, "&")
	}
	lines := []string{"curl " + quoted(target)}
	if op.Method != "GET" {
		lines[0] = "curl -X " + op.Method + " " + quoted(target)
	}
	if op.Authorization {
		lines = append(lines, `-H "Authorization: Bearer $ACCESS_TOKEN"`)
	}
	if body != nil {
		lines = append(lines, "-H "+quoted("Content-Type: "+contentType), "-d "+quoted(d.example(body)))
	}
	return strings.Join(lines, " \\\n  ")
}

// quoted quotes a word for a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// paragraphs cuts a description at blank lines, and each paragraph at backticks.
func paragraphs(text string) []Paragraph {
	var all []Paragraph
	for _, block := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		if block = strings.TrimSpace(block); block == "" {
			continue
		}
		var p Paragraph
		for i, part := range strings.Split(block, "`") {
			if part != "" {
				p = append(p, Span{Text: part, Code: i%2 == 1})
			}
		}
		all = append(all, p)
	}
	return all
}
