package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/cache"
)

// A client must get the version that it names, by whichever of the usual spellings, and what it says must be weighed as it means it.
func TestVersionOfARequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		accept, want, kept string
	}{
		{"", "none", ""},
		{"*/*", "none", "*/*"},
		{"application/json", "none", "application/json"},
		{"text/html;version=9", "", ""},
		{"application/vnd.example.v2+json", "2", "application/vnd.example.v2+json"},
		{"application/vnd.example.orders.V2.1+json", "2.1", "application/vnd.example.orders.V2.1+json"},
		{"application/vnd.example.v2.raw+json", "2", "application/vnd.example.v2.raw+json"},
		{"application/json; version=2", "2", "application/json; version=2"},
		{`application/json;Version="v2"`, "2", `application/json;Version="v2"`},
		{"application/json;version=2024-05-01", "2024-05-01", "application/json;version=2024-05-01"},
		{"application/vnd.example.v3+json", "", ""},
		{"application/vnd.example.v3+json, application/vnd.example.v2+json;q=0.5", "2", "application/vnd.example.v2+json;q=0.5"},
		{"application/vnd.example.v1+json;q=0.5, application/vnd.example.v2+json", "2", "application/vnd.example.v2+json"},
		{"application/vnd.example.v1+json, application/vnd.example.v2+json", "1", "application/vnd.example.v1+json"},
		{"*/*, application/vnd.example.v2+json", "2", "application/vnd.example.v2+json"},
		{"application/vnd.example.v2+json;q=0.9, */*", "none", "*/*"},
		{"application/vnd.example.v2+json;q=0", "", ""},
		{"application/vnd.example.v2+json;version=1", "", ""},
		{"application/json;version=1;version=2", "", ""},
		{"application/json;q=1;q=0", "", ""},
		{",, ,", "none", ",, ,"},
		{"application/json;q=2", "", ""},
		{`application/json;a="b;version=2;c"`, "", ""},
		{`application/json;a="b, application/vnd.example.v2+json, c"`, "2", "application/vnd.example.v2+json"},
		{"nonsense", "", ""},
	} {
		got, kept := gateway.PickVersion([]string{c.accept}, "1", "2", "2.1", "2024-05-01", "none")
		if got != c.want || got != "" && strings.Join(kept, ", ") != c.kept {
			t.Errorf("%q: %q, and the service is told %q", c.accept, got, kept)
		}
	}
}

func versioned(name string, versions ...string) gateway.Route {
	r := public(name, "/api/")
	r.Versions = versions
	return r
}

// A version's requests go to its own service under its own policy, who names none that there is is told so, and caches are told what the
// answer depends on.
func TestVersions(t *testing.T) {
	t.Parallel()
	two := versioned("two", "2")
	two.Authentication = gateway.Required
	w := setup(t, routes(versioned("one", "1", "none"), two, public("old", "/v1/")))
	for _, c := range []struct {
		accept, token string
		status        int
		code          string
	}{
		{"application/vnd.example.v1+json", "", 200, ""},
		{"*/*", "", 200, ""},
		{"application/vnd.example.v2+json", "", 401, "auth.missing"},
		{"application/vnd.example.v2+json", "kim", 200, ""},
		{"application/vnd.example.v3+json", "kim", 406, "gateway.version"},
	} {
		fields := []string{"Accept: " + c.accept}
		if c.token != "" {
			fields = append(fields, as(c.token))
		}
		a := w.send(t, "GET /api/x", fields...)
		if a.status != c.status || a.code() != c.code || !slices.Contains(a.header["Vary"], "Accept") {
			t.Errorf("%q: %d %s %v", c.accept, a.status, a.code(), a.header)
		}
	}
	if a := w.send(t, "GET /v1/x", "Accept: application/vnd.example.v3+json"); a.status != 200 || a.header["Vary"] != nil {
		t.Errorf("a route without versions: %d %v", a.status, a.header)
	}
	// The service must not serve a version whose policy nobody asked.
	a := w.send(t, "GET /api/x", "Accept: application/vnd.example.v1+json, application/vnd.example.v2+json", "Accept: application/json;version=2")
	if got := w.last(t).Header["Accept"]; a.status != 200 || !slices.Equal(got, []string{"application/vnd.example.v1+json"}) {
		t.Errorf("%d, and the service is told %q", a.status, got)
	}
}

// Kept answers of one version must not be given to who asked for another.
func TestVersionsAndTheCache(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write([]byte(r.Header.Get("Accept")))
	})
	var kept []gateway.Route
	for _, version := range []string{"1", "2"} {
		r := versioned("v"+version, version)
		r.Upstream, r.Cache = "origin", cache.DefaultConfig()
		r.Cache.Enabled = true
		kept = append(kept, r)
	}
	w := setup(t, o.cached(nil), routes(kept...))
	for range 2 {
		for _, accept := range []string{"application/vnd.example.v1+json", "application/vnd.example.v2+json"} {
			if a := w.send(t, "GET /api/x", "Accept: "+accept); a.body != accept || !slices.Contains(a.header["Vary"], "Accept") {
				t.Errorf("%q: %q %v", accept, a.body, a.header)
			}
		}
	}
}

// Which route takes a request must not depend on their order.
func TestVersionsThatBothTake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b []string
		ok   bool
	}{
		{[]string{"1"}, []string{"2"}, true},
		{[]string{"1"}, nil, true},
		{[]string{"1", "2"}, []string{"2"}, false},
		{nil, []string{"none"}, false},
		{[]string{"v1"}, nil, false},
		{[]string{"1", "1"}, nil, false},
	} {
		w := gateway.DefaultConfig()
		w.Upstreams = []gateway.Upstream{newUpstream("echo", "http://127.0.0.1:1")}
		routes(versioned("a", c.a...), versioned("b", c.b...))(&w, nil, nil)
		if err := w.Validate(); (err == nil) != c.ok {
			t.Errorf("%v and %v: %v", c.a, c.b, err)
		}
	}
}

// Whatever a client writes, the service is told of the version that was picked, and of no other.
func FuzzAcceptVersion(f *testing.F) {
	for _, seed := range []string{"*/*", "application/vnd.a.v2+json, application/json;version=1;q=0.5", `a/b;version="2`, `a/b;c="d,e/f;version=2"`, "a/vnd.v1.v2", ";;,q="} {
		f.Add(seed, "application/json")
	}
	offers := []string{"1", "2", "none"}
	f.Fuzz(func(t *testing.T, a, b string) {
		version, kept := gateway.PickVersion([]string{a, b}, offers...)
		if version == "" {
			return
		}
		again, unchanged := gateway.PickVersion(kept, offers...)
		if again != version || !slices.Equal(kept, unchanged) {
			t.Fatalf("%q, %q: %q, then %q of %q", a, b, version, again, kept)
		}
		for _, offer := range offers {
			if other, _ := gateway.PickVersion(kept, offer, "0"); offer != version && other != "" {
				t.Fatalf("%q, %q: %q, but also %q of %q", a, b, version, other, kept)
			}
		}
	})
}
