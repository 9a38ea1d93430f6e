package settings

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// WriteYAML writes every key with its default and what it means. The result loads back to the defaults.
func (s *Schema) WriteYAML(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString("# Sumun's configuration: every key with its default. A file needs only what differs.\n" +
		"# Stronger than this file: environment variables (" + Prefix + " and the key in capitals, dots as\n" +
		"# underscores: SUMUN_LOG_LEVEL), and flags above all.\n")
	var open []string
	for _, k := range s.keys {
		parts := strings.Split(k.Name, ".")
		sections := parts[:len(parts)-1]
		for depth := range sections {
			if depth < len(open) && open[depth] == sections[depth] {
				continue
			}
			open = append(open[:depth:depth], sections[depth])
			b.WriteByte('\n')
			writeComment(&b, depth, s.sections[strings.Join(sections[:depth+1], ".")])
			fmt.Fprintf(&b, "%s%s:\n", indent(depth), sections[depth])
		}
		open = open[:len(sections)]
		depth := len(sections)
		if depth == 0 {
			b.WriteByte('\n')
		}
		writeComment(&b, depth, k.Doc)
		if k.table != nil {
			k.table.writeYAML(&b, depth)
			continue
		}
		if k.FileOf != "" || k.Secret {
			fmt.Fprintf(&b, "%s# %s: \n", indent(depth), parts[depth])
			continue
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent(depth), parts[depth], k.yamlDefault())
	}
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte(": \n"), []byte(":\n")))
	return err
}

// writeYAML writes an empty list, and what a section of it may hold as a comment.
func (t *table) writeYAML(b *bytes.Buffer, depth int) {
	var names []string
	for _, k := range t.row.All() {
		names = append(names, strings.TrimPrefix(k.Name, t.name+"[]."))
	}
	writeComment(b, depth, "Each section may have: "+strings.Join(names, ", ")+".")
	fmt.Fprintf(b, "%s%s: []\n", indent(depth), t.name[strings.LastIndexByte(t.name, '.')+1:])
}

func (k *Key) yamlDefault() string {
	if k.list {
		parts := k.split(k.Default)
		for i, part := range parts {
			parts[i] = yamlScalar(part)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	switch k.Type {
	case "whole number", "number", "true or false", "duration", "on or off":
		return k.Default
	}
	return yamlScalar(k.Default)
}

// yamlScalar quotes only what YAML would read as something else than the text itself.
func yamlScalar(text string) string {
	for _, r := range text {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("./_-@", r)
		if !plain {
			return strconv.Quote(text)
		}
	}
	if text == "" || strings.ContainsRune("-.@0123456789", rune(text[0])) || text == "true" || text == "false" || text == "null" {
		return strconv.Quote(text)
	}
	return text
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// writeComment wraps the text at about 100 columns.
func writeComment(b *bytes.Buffer, depth int, text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > 96-2*depth {
			fmt.Fprintf(b, "%s#%s\n", indent(depth), line)
			line = ""
		}
		line += " " + word
	}
	if line != "" {
		fmt.Fprintf(b, "%s#%s\n", indent(depth), line)
	}
}

// WriteMarkdown writes the reference: a table for each section.
func (s *Schema) WriteMarkdown(w io.Writer) error {
	var b bytes.Buffer
	section := "\x00"
	for _, k := range s.All() {
		own := ""
		if i := strings.LastIndexByte(k.Name, '.'); i >= 0 {
			own = k.Name[:i]
		}
		if own != section {
			section = own
			s.writeHeading(&b, section)
		}
		text := strings.ReplaceAll(k.Doc, "|", `\|`)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, code(k.Env), k.Type, code(k.Default), text)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (s *Schema) writeHeading(b *bytes.Buffer, section string) {
	title := section
	if section == "" {
		title = "General"
	}
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if text := s.about(section); text != "" {
		fmt.Fprintf(b, "%s\n\n", text)
	}
	b.WriteString("| Key | Variable | Type | Default | Meaning |\n|---|---|---|---|---|\n")
}

// about is the documentation of a section, which may lie in a list.
func (s *Schema) about(section string) string {
	if text := s.sections[section]; text != "" {
		return text
	}
	for _, k := range s.keys {
		switch {
		case k.table == nil || !strings.HasPrefix(section, k.Name+"[]"):
		case section == k.Name+"[]":
			return k.Doc
		default:
			return k.table.row.about(section)
		}
	}
	return ""
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
