package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/stage"
)

// table is the routes, compiled. It does not change.
type table struct {
	hosts    map[string]*node // exact names
	suffixes []suffix         // the longest first
	anywhere *node            // routes without a host
	outside  *cleaner         // what a request that a proxy asks about may not say
}

// suffix holds the routes of all names below one, written "*.example.com".
type suffix struct {
	end  string // ".example.com"
	root *node
}

// methods are the routes of one pattern. A path belongs to the most specific pattern; a method that it does not list is refused,
// and not looked for in less specific ones.
type methods struct {
	named map[string]*variants
	rest  *variants // for every other method; nil where there is none
	allow string    // for the header of that name

	isDefault bool
}

// route is one route, compiled.
type route struct {
	name   string
	handle stage.Handler
	// judge is what a proxy that asks about the request is answered; nil where nobody may ask.
	judge stage.Handler
	// isDefault says that a route of the configuration with the same host and path takes its place.
	isDefault bool
}

// find returns the routes of a request, one for each version. Where there is none, allow says which methods there are; "" where there
// is nothing at all.
func (t *table) find(host, method, path string) (found *variants, allow string) {
	m := t.methods(host, path)
	if m == nil {
		return nil, ""
	}
	if v := m.named[method]; v != nil {
		return v, ""
	}
	if method == http.MethodHead {
		if v := m.named[http.MethodGet]; v != nil {
			return v, ""
		}
	}
	return m.rest, m.allow
}

// methods goes from the most specific host to the least.
func (t *table) methods(host, path string) *methods {
	if len(t.hosts)+len(t.suffixes) > 0 {
		host = hostName(host)
		if root := t.hosts[host]; root != nil {
			if m := root.find(path); m != nil {
				return m
			}
		}
		for _, s := range t.suffixes {
			if len(host) > len(s.end) && strings.HasSuffix(host, s.end) {
				if m := s.root.find(path); m != nil {
					return m
				}
			}
		}
	}
	return t.anywhere.find(path)
}

// hostName is a Host header without its port and without the dot that ends an absolute name, in lower case.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// root returns the tree of a host, which is made if it is not there.
func (t *table) root(host string) *node {
	if host == "" {
		return t.anywhere
	}
	if end, any := strings.CutPrefix(host, "*"); any {
		i := slices.IndexFunc(t.suffixes, func(s suffix) bool { return s.end == end })
		if i >= 0 {
			return t.suffixes[i].root
		}
		s := suffix{end, &node{}}
		t.suffixes = append(t.suffixes, s)
		slices.SortStableFunc(t.suffixes, func(a, b suffix) int { return len(b.end) - len(a.end) })
		return s.root
	}
	if t.hosts[host] == nil {
		t.hosts[host] = &node{}
	}
	return t.hosts[host]
}

// add puts a route where its configuration says. That it is there once was validated.
func (t *table) add(cfg Route, rt *route) {
	for _, host := range cfg.hosts() {
		for _, text := range cfg.Paths {
			p, err := parsePattern(text)
			if err != nil {
				continue // validated
			}
			n := t.root(host).add(p)
			m := &n.exact
			if p.subtree {
				m = &n.subtree
			}
			if *m == nil || (*m).isDefault && !rt.isDefault {
				*m = &methods{named: map[string]*variants{}, isDefault: rt.isDefault}
			}
			(*m).add(cfg, rt)
		}
	}
}

func (m *methods) add(cfg Route, rt *route) {
	if len(cfg.Methods) == 0 {
		if m.rest == nil {
			m.rest = &variants{}
		}
		m.rest.add(cfg.Versions, rt)
	}
	for _, name := range cfg.Methods {
		if m.named[name] == nil {
			m.named[name] = &variants{}
		}
		m.named[name].add(cfg.Versions, rt)
	}
	var all []string
	for name := range m.named {
		all = append(all, name)
		if name == http.MethodGet && m.named[http.MethodHead] == nil {
			all = append(all, http.MethodHead)
		}
	}
	slices.Sort(all)
	m.allow = strings.Join(all, ", ")
}
