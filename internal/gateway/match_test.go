package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sumunio/sumun/internal/gateway"
)

// Whatever routes there are, as long as they are accepted, a request goes to the one whose pattern is the most specific of all that
// match it, found the slow way.
func TestMostSpecificRouteWins(t *testing.T) {
	t.Parallel()
	segment := rapid.SampledFrom([]string{"a", "b", "{x}"})
	rapid.Check(t, func(rt *rapid.T) {
		var c gateway.Config
		for i, path := range rapid.SliceOfNDistinct(rapid.Custom(func(rt *rapid.T) string {
			end := rapid.SampledFrom([]string{"", "/", "/{$}"}).Draw(rt, "end")
			return "/" + strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(rt, "segments"), "/") + end
		}), 1, 5, rapid.ID).Draw(rt, "paths") {
			c.Routes = append(c.Routes, public("r"+string(rune('0'+i)), path))
		}
		find, err := gateway.Finder(c)
		if err != nil {
			return // they cross
		}
		path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 4).Draw(rt, "path"), "/") +
			rapid.SampledFrom([]string{"", "/"}).Draw(rt, "slash")
		got := find(path)
		var all []gateway.Route
		for _, r := range c.Routes {
			if matches(r.Paths[0], path) {
				all = append(all, r)
			}
		}
		if len(all) == 0 {
			if got != "" {
				rt.Fatalf("%s goes to %s, which does not match it", path, got)
			}
			return
		}
		best := slices.MaxFunc(all, func(p, q gateway.Route) int { return weight(p.Paths[0], path) - weight(q.Paths[0], path) })
		if got != best.Name {
			rt.Fatalf("%s goes to %q, want %s of %v", path, got, best.Name, c.Routes)
		}
	})
}

// matches is the definition of patterns, as the guide has it.
func matches(pattern, path string) bool {
	switch {
	case strings.HasSuffix(pattern, "/{$}"):
		return strings.HasSuffix(path, "/") && sameSegments(strings.TrimSuffix(pattern, "/{$}"), strings.TrimSuffix(path, "/"))
	case strings.HasSuffix(pattern, "/"):
		n := strings.Count(pattern, "/")
		parts := strings.SplitN(path, "/", n+1)
		return len(parts) >= n && sameSegments(strings.TrimSuffix(pattern, "/"), strings.Join(parts[:n], "/"))
	default:
		return sameSegments(pattern, strings.TrimSuffix(path, "/"))
	}
}

func sameSegments(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(p, q, func(a, b string) bool { return a == b || a == "{x}" && b != "" })
}

// weight orders patterns that match one path: text counts more than {x} and more than nothing, and an end more than a subtree. The twin
// with a slash is the last of those of its length.
func weight(pattern, path string) int {
	total, unit := 0, 1<<20
	for _, s := range strings.Split(strings.Trim(strings.TrimSuffix(pattern, "{$}"), "/"), "/") {
		if s == "{x}" {
			total += unit
		} else {
			total += 2 * unit
		}
		unit /= 3
	}
	slash := strings.HasSuffix(path, "/")
	switch {
	case strings.HasSuffix(pattern, "/{$}"):
		total += 3
	case !strings.HasSuffix(pattern, "/") && !slash:
		total += 2
	case strings.HasSuffix(pattern, "/"):
		total++
	}
	return total
}
