package gateway

import (
	"errors"
	"strings"
)

// pattern is a path pattern of a route.
//
//	/a/b       that path, with or without a slash at its end
//	/a/b/      everything below, and /a/b itself
//	/a/{id}/b  any one segment in the place of {id}
//	/a/{$}     only /a/, with its slash
type pattern struct {
	segments []segment
	subtree  bool
}

// segment is one step of a pattern: text, or anything that is not empty.
type segment struct {
	text string
	any  bool
}

func parsePattern(text string) (pattern, error) {
	var p pattern
	if text == "" || text[0] != '/' {
		return p, errors.New("does not begin with a slash; write it like /shop/")
	}
	parts := strings.Split(text[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		switch {
		case last && part == "":
			p.subtree = true
		case last && part == "{$}":
			p.segments = append(p.segments, segment{})
		case part == "" || part == "." || part == "..":
			return p, errors.New("has a segment that no request has; write it like /shop/")
		case part[0] == '{' && part[len(part)-1] == '}':
			if name := part[1 : len(part)-1]; name == "" || strings.Trim(name, nameCharacters) != "" {
				return p, errors.New("has a {name} that is no name; write it like /shop/{id}")
			}
			p.segments = append(p.segments, segment{any: true})
		default:
			if strings.ContainsAny(part, "{}*%;\\?#") {
				return p, errors.New("has a character that patterns do not have; write paths decoded, and {id} for any one segment")
			}
			p.segments = append(p.segments, segment{text: part})
		}
	}
	return p, nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

// relation is how the paths of two patterns lie to each other.
type relation int

const (
	disjoint relation = iota
	equal
	narrower // all of the first's are the second's
	wider
	crossing // some are in both, and either has others: no one of them is the more specific
)

// compare tells how the paths that p matches lie to those that q does. The twin with a slash, of a pattern without one, is left
// out: anything else that matches it is the more specific.
func (p pattern) compare(q pattern) relation {
	isNarrower, isWider := false, false
	for i := range min(len(p.segments), len(q.segments)) {
		a, b := p.segments[i], q.segments[i]
		switch {
		case a.any && b.any:
		case a.any && b.text != "":
			isWider = true
		case b.any && a.text != "":
			isNarrower = true
		case a != b:
			return disjoint
		}
	}
	switch long, short := len(p.segments), len(q.segments); {
	case long > short && !q.subtree, long < short && !p.subtree:
		return disjoint
	case long > short, long == short && q.subtree && !p.subtree:
		isNarrower = true
	case long < short, long == short && p.subtree && !q.subtree:
		isWider = true
	}
	switch {
	case isNarrower && isWider:
		return crossing
	case isNarrower:
		return narrower
	case isWider:
		return wider
	default:
		return equal
	}
}

// node is a place in the tree of patterns of one host.
type node struct {
	children map[string]*node
	any      *node
	exact    *methods // the path ends here
	subtree  *methods // here, or anywhere below
}

func (n *node) add(p pattern) *node {
	for _, s := range p.segments {
		next := &n.any
		if !s.any {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			child := n.children[s.text]
			if child == nil {
				child = &node{}
				n.children[s.text] = child
			}
			n = child
			continue
		}
		if *next == nil {
			*next = &node{}
		}
		n = *next
	}
	return n
}

// find returns what the most specific pattern has for the rest of a path, which begins with a slash, or nil. Patterns that cross
// are not in one tree, so the first that matches, trying text before {name}, is the most specific.
func (n *node) find(rest string) *methods {
	if rest == "" {
		if n.exact != nil {
			return n.exact
		}
		return n.subtree
	}
	if rest == "/" {
		if child := n.children[""]; child != nil {
			return child.exact
		}
		if n.subtree != nil {
			return n.subtree
		}
		return n.exact
	}
	step, rest := rest[1:], ""
	if end := strings.IndexByte(step, '/'); end >= 0 {
		step, rest = step[:end], step[end:]
	}
	if child := n.children[step]; child != nil {
		if found := child.find(rest); found != nil {
			return found
		}
	}
	if n.any != nil {
		if found := n.any.find(rest); found != nil {
			return found
		}
	}
	return n.subtree
}
