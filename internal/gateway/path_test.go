package gateway_test

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sumunio/sumun/internal/gateway"
)

// A path that the gateway and a service read differently is a way around the policy.
func TestCanonicalPath(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/":                   "/",
		"/a/b/":               "/a/b/",
		"/a-b_c.d~e!$&'()*+,": "/a-b_c.d~e!$&'()*+,",
		"/.well-known/x":      "/.well-known/x",
		"/%61%7e":             "/a~",
		"/%ed%95%9c":          "/%ED%95%9C",
		"/한":                  "/%ED%95%9C",
		"/a%20b":              "/a%20b",
		"/a%3fb%23":           "/a%3Fb%23",
		"/100%25":             "/100%25",
		"/a...b/..c":          "/a...b/..c",

		"/a//b": "", "//": "", "/a/./b": "", "/a/../b": "", "/..": "", "/.": "", "/%2e%2e/a": "", "/.%2E": "",
		"/a%2fb": "", "/a%5cb": "", "/a\\b": "", "/a%00": "", "/a%0d%0ab": "", "/a;b": "", "/a%3bb": "",
		"/%252e%252e": "", "/a%252f": "", "/%ff": "", "/%c0%af": "", "/%7f": "", "*": "",
	} {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		_, got, err := gateway.Canonical(u)
		if got != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, gateway.ErrPath) {
			t.Errorf("%s: %q, %v, want %q", raw, got, err, want)
		}
	}
}

// FuzzCanonical checks that what is accepted has one spelling and hides nothing.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"/a/b", "/%2e./x", "/a%2Fb", "/%25%32%65", "/한/글", "/..%00", "/a;x=%3b", "//x", "/.a", "/a/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		decoded, escaped, err := gateway.Canonical(u)
		if err != nil {
			return
		}
		again, err := url.ParseRequestURI(escaped)
		if err != nil {
			t.Fatalf("%q is sent as %q, which is no request target: %v", raw, escaped, err)
		}
		if d, e, err := gateway.Canonical(again); err != nil || d != decoded || e != escaped {
			t.Fatalf("%q has the spellings %q and %q (%v)", raw, escaped, e, err)
		}
		if naive(escaped) != strings.TrimSuffix(decoded, "/") && decoded != "/" {
			t.Fatalf("%q was matched as %q and is read as %q", raw, decoded, naive(escaped))
		}
	})
}

// naive reads a path as the most obliging service would: it decodes as long as there is something to decode, takes "\" for "/",
// drops parameters and repeated slashes, and resolves dots.
func naive(escaped string) string {
	text := escaped
	for {
		next, err := url.PathUnescape(text)
		if err != nil || next == text {
			break
		}
		text = next
	}
	text = strings.ReplaceAll(text, "\\", "/")
	segments := strings.Split(text, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.TrimSuffix(path.Clean("/"+strings.Join(segments, "/")), "/")
}

// Whatever way somebody finds to write a protected path, it must not reach a service that reads it as that path, unless the policy
// was asked.
func TestPolicyCannotBeWalkedAround(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("all", "/"), required("admin", "/admin/"), required("exact", "/api/secret"), required("item", "/items/{id}/price")))
	pieces := rapid.SampledFrom([]string{
		"/", "//", "/.", "/..", "%2f", "%2F", "\\", "%5c", "admin", "%61dmin", "adm%69n", "api", "secret", "s%65cret", "items", "7", "price",
		";", ";x=y", "%3b", "%00", "%20", ".", "%2e", "%252f", "%252e", "%25%32%66", "x", "?", "#", "/admin", "/api/secret", "/items/7/price", "ADMIN",
	})
	rapid.Check(t, func(rt *rapid.T) {
		target := "/" + strings.Join(rapid.SliceOfN(pieces, 1, 8).Draw(rt, "pieces"), "")
		before := len(w.requests())
		answers := w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
		for _, r := range w.requests()[before:] {
			got, _, _ := strings.Cut(r.RequestURI, "?")
			read := naive(got)
			item := strings.HasPrefix(read, "/items/") && strings.HasSuffix(read, "/price") && strings.Count(read, "/") == 3
			if read == "/admin" || strings.HasPrefix(read, "/admin/") || read == "/api/secret" || item {
				rt.Fatalf("%q reached the service as %q without a token", target, got)
			}
		}
		if len(answers) == 1 && answers[0].status == http.StatusInternalServerError {
			rt.Fatalf("%q: %s", target, answers[0].body)
		}
	})
}

// What was matched is what is sent, to the letter.
func TestUpstreamSeesWhatWasMatched(t *testing.T) {
	t.Parallel()
	stripped := public("shop", "/shop/")
	stripped.Strip = "/shop"
	w := setup(t, routes(public("all", "/"), stripped))
	for target, want := range map[string]string{
		"/a/%7eb?x=%2F..&y": "/a/~b?x=%2F..&y",
		"/%ED%95%9C":        "/%ED%95%9C",
		"/shop/a?b":         "/a?b",
		"/shop":             "/",
		"/shop/":            "/",
		"/shopping":         "/shopping",
		"http://x.example/": "/",
	} {
		if a := w.send(t, "GET "+target); a.status != 200 || a.header.Get("X-Got") != want {
			t.Errorf("%s: %d, the service got %q, want %q", target, a.status, a.header.Get("X-Got"), want)
		}
	}
}
