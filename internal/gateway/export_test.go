package gateway

import "net/url"

// Canonical is canonical, which tests ask directly.
func Canonical(u *url.URL) (decoded, escaped string, err error) { return canonical(u) }

// Finder returns which route takes a GET request, by path; "" for none. It fails where routes cross.
func Finder(c Config) (func(path string) string, error) {
	if err := c.checkAmbiguity(); err != nil {
		return nil, err
	}
	t := &table{hosts: map[string]*node{}, anywhere: &node{}}
	for _, r := range c.Routes {
		t.add(r, &route{name: r.Name})
	}
	return func(path string) string {
		if rt, _ := t.find("", "GET", path); rt != nil {
			return rt.plain.name
		}
		return ""
	}, nil
}

// PickVersion tells which version a client gets of those on offer, "none" for none, "" for a refusal, and what the service is told of Accept.
func PickVersion(accept []string, offers ...string) (version string, kept []string) {
	v := &variants{}
	for _, offer := range offers {
		v.add([]string{offer}, &route{name: offer})
	}
	rt, kept := v.pick(accept)
	if rt == nil {
		return "", kept
	}
	return rt.name, kept
}
