package cache_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway/cache"
)

// Whatever a service sends, no-store outside of quotes is seen, and no time is below "not given".
func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{"max-age=60", `private="a, no-store"`, "max-age=99999999999999999999", `x="`, `"\"`, "max-age=-1,,=,max-stale", "s-maxage = 5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d := cache.ParseControl([]string{line})
		for _, n := range d.Times() {
			if n < -1 {
				t.Errorf("%q: %d", line, n)
			}
		}
		if !strings.ContainsAny(line, `"\`) && !cache.ParseControl([]string{line + ", No-Store"}).NoStore() {
			t.Errorf("%q hides a no-store behind it", line)
		}
		if !cache.ParseControl([]string{line, "no-store"}).NoStore() {
			t.Errorf("%q hides a no-store in the next line", line)
		}
	})
}

// Whatever Vary says, the names are in order, each once, and few.
func FuzzVary(f *testing.F) {
	for _, seed := range []string{"Accept", "*", "a,,b", "accept-encoding, Accept-Encoding", " , ", "키"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		names, ok := cache.VaryNames([]string{line})
		if !ok && len(names) > 0 || len(names) > 8 {
			t.Errorf("%q: %q %t", line, names, ok)
		}
		for i, name := range names {
			if name == "" || name == "*" || i > 0 && names[i-1] >= name {
				t.Errorf("%q: %q", line, names)
			}
		}
	})
}

// No list of entity tags that lacks the tag makes a client believe that it has the page.
func FuzzEntityTags(f *testing.F) {
	for _, seed := range []string{`"a"`, `W/"a", "b"`, `"`, "W/", "*", `,,"a"`, `"a""b"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if cache.ListsTag(list, `"tag"`) && !strings.Contains(list, `"tag"`) && !strings.Contains(list, "*") {
			t.Errorf("%q", list)
		}
		if cache.Has(http.Header{"If-None-Match": {list}}, http.Header{}) {
			t.Errorf("%q matches an answer without a tag", list)
		}
	})
}

// However a client writes which encodings it takes, reading that again changes nothing.
func FuzzCodings(f *testing.F) {
	for _, seed := range []string{"gzip, br", "gzip;q=0", "GZIP ; q=0.000", "*;q=0", ";;;", ",q=0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if once := cache.Codings(value); cache.Codings(once) != once {
			t.Errorf("%q: %q, then %q", value, once, cache.Codings(once))
		}
	})
}
