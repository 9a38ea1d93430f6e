package gateway

import (
	"strconv"
	"strings"
)

// unversioned stands in a route's versions for requests that name none.
const unversioned = "none"

// variants are the routes of one pattern and method: one for each version of an API, and one for requests that name none.
type variants struct {
	plain    *route
	versions map[string]*route // nil where no route names a version: Accept is nobody's business then
}

func (v *variants) add(versions []string, rt *route) {
	if len(versions) == 0 {
		v.plain = rt
	}
	for _, version := range versions {
		if version == unversioned {
			v.plain = rt
			continue
		}
		if v.versions == nil {
			v.versions = map[string]*route{}
		}
		v.versions[version] = rt
	}
}

// pick returns the route of the version that a client likes best, nil where there is none that it accepts. At equal weight a version
// comes before none, and otherwise what is named first. A wildcard names no version. kept is what the service is told of Accept: what
// names the version that was picked, and nothing else, so that it cannot pick another one than the route's policy is about. Where that is
// all there is, it stays as it was.
func (v *variants) pick(accept []string) (picked *route, kept []string) {
	if v.versions == nil {
		return v.plain, accept
	}
	ranges, whole := parseAccept(accept)
	if len(ranges) == 0 && whole { // it says nothing
		return v.plain, accept
	}
	var best mediaRange
	for _, one := range ranges {
		rt := v.plain
		if one.version != "" {
			rt = v.versions[one.version]
		}
		if rt != nil && (one.weight > best.weight || one.weight == best.weight && one.weight > 0 && best.version == "" && one.version != "") {
			best, picked = one, rt
		}
	}
	for _, one := range ranges {
		if one.version == best.version {
			kept = append(kept, one.text)
		}
	}
	if whole && len(kept) == len(ranges) {
		return picked, accept
	}
	return picked, []string{strings.Join(kept, ", ")}
}

// mediaRange is one of those that a client accepts (RFC 9110, section 12.5.1).
type mediaRange struct {
	text    string
	version string // "" for none
	weight  int    // in thousandths
}

// parseAccept reads media ranges. What cannot be read, or in two ways, is left out, such as what has a comma between quotes.
func parseAccept(lines []string) (all []mediaRange, whole bool) {
	whole = true
	for _, line := range lines {
		for text := range strings.SplitSeq(line, ",") {
			if text = strings.Trim(text, " \t"); text == "" {
				continue
			}
			if one, ok := parseRange(text); ok {
				all = append(all, one)
			} else {
				whole = false
			}
		}
	}
	return all, whole
}

// parseRange reads the version from a name such as application/vnd.example.v2+json, or from a parameter version=2.
func parseRange(text string) (mediaRange, bool) {
	parts := strings.Split(text, ";")
	kind, subtype, ok := strings.Cut(strings.ToLower(strings.Trim(parts[0], " \t")), "/")
	if !ok || kind == "" || subtype == "" || strings.ContainsAny(subtype, "/\" \t") {
		return mediaRange{}, false
	}
	one := mediaRange{text: text, version: versionOfType(subtype), weight: 1000}
	weighed := false
	for _, parameter := range parts[1:] {
		if strings.Count(parameter, `"`)%2 != 0 || strings.Contains(parameter, `\`) {
			return mediaRange{}, false
		}
		name, value, _ := strings.Cut(strings.Trim(parameter, " \t"), "=")
		switch strings.ToLower(strings.Trim(name, " \t")) {
		case "version":
			version, ok := parseVersion(value)
			if !ok || one.version != "" && one.version != version {
				return mediaRange{}, false
			}
			one.version = version
		case "q":
			if one.weight, ok = parseWeight(value); !ok || weighed {
				return mediaRange{}, false
			}
			weighed = true
		}
	}
	return one, true
}

// versionOfType returns 2.1 of vnd.example.v2.1+json, "" where a name has no version.
func versionOfType(subtype string) string {
	name, ok := strings.CutPrefix(subtype, "vnd.")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "+")
	parts := strings.Split(name, ".")
	for i, part := range parts {
		digits, ok := strings.CutPrefix(part, "v")
		if !ok || !isNumber(digits) {
			continue
		}
		for _, next := range parts[i+1:] {
			if !isNumber(next) {
				break
			}
			digits += "." + next
		}
		return digits
	}
	return ""
}

func isNumber(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// parseVersion reads the value of the parameter version, quoted or not; v2 is 2.
func parseVersion(value string) (string, bool) {
	value = strings.ToLower(strings.Trim(value, " \t"))
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	if rest, ok := strings.CutPrefix(value, "v"); ok && rest != "" && isNumber(rest[:1]) {
		value = rest
	}
	return value, isVersion(value)
}

// isVersion reports whether a text can be a version, as configurations write it.
func isVersion(text string) bool {
	return text != "" && len(text) <= 32 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == "" &&
		!(len(text) > 1 && text[0] == 'v' && isNumber(text[1:2]))
}

// parseWeight reads a weight in thousandths (RFC 9110, section 12.4.2).
func parseWeight(value string) (int, bool) {
	whole, rest, _ := strings.Cut(strings.Trim(value, " \t"), ".")
	if whole != "0" && whole != "1" || len(rest) > 3 || strings.Trim(rest, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(whole + rest + "000"[len(rest):])
	return n, err == nil && n <= 1000
}
