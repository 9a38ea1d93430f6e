package gateway_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/files"
	"github.com/sumunio/sumun/internal/httpd"
)

// site is a directory with files, and one beside it that nobody may read.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "secret.txt"), "secret")
	root, written := filepath.Join(dir, "site"), time.Now()
	for name, text := range map[string]string{
		"index.html": "<h1>home</h1>", "app.js": longText, "app.js.gz": "gz", "app.js.zst": "zst", "docs/index.html": "docs", "docs/한글 b.txt": "name",
		"assets/app-3f2a.js": "hashed", ".env": "secret", "docs/.git/config": "secret", ".well-known/security.txt": "contact",
		"empty/a.txt": "a", "old.css": "new", "old.css.gz": "old",
	} {
		put(t, filepath.Join(root, name), text)
		if err := os.Chtimes(filepath.Join(root, name), time.Time{}, written); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(root, "old.css.gz"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"out.txt": "../secret.txt", "outside": "..", "absolute.txt": filepath.Join(dir, "secret.txt"), "in.js": "app.js"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serving is a route that gives the files of a directory.
func serving(root string, changes ...func(*gateway.Route)) setting {
	r := public("files", "/s/")
	r.Strip, r.SecurityHeaders, r.Files = "/s", true, files.DefaultConfig()
	r.Files.Root = root
	for _, change := range changes {
		change(&r)
	}
	return func(c *gateway.Config, _ *gateway.Deps, _ *httpd.Config) { c.Routes = append(c.Routes, r) }
}

// A page must be found under the addresses that people write, and under no others.
func TestFiles(t *testing.T) {
	t.Parallel()
	w := setup(t, serving(site(t)))
	for path, want := range map[string]string{
		"/s/": "<h1>home</h1>", "/s/index.html": "<h1>home</h1>", "/s": "<h1>home</h1>", "/s/app.js": longText, "/s/in.js": longText, "/s/docs/": "docs",
		"/s/docs/%ED%95%9C%EA%B8%80%20b.txt": "name", "/s/.well-known/security.txt": "contact",
	} {
		if a := w.send(t, "GET "+path, "Accept-Encoding: gzip"); a.status != 200 || a.body != want || a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %d %.50q", path, a.status, a.body)
		}
	}
	if a := w.send(t, "GET /s/docs?x=1"); a.status != http.StatusMovedPermanently || a.header.Get("Location") != "/s/docs/?x=1" {
		t.Errorf("a directory without its slash: %d %v", a.status, a.header)
	}
	for _, path := range []string{"/s/none", "/s/app.js/", "/s/app.js/x", "/s/empty", "/s/empty/", "/s/" + strings.Repeat("x", 300)} {
		if a := w.send(t, "GET "+path); a.status != http.StatusNotFound || a.code() != "request.not_found" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	a := w.send(t, "GET /s/app.js")
	for name, want := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if a := w.send(t, method+" /s/app.js"); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, a.status, a.header)
		}
	}
}

// Nothing beside the files that are meant to be seen may be read.
func TestFilesKeepInside(t *testing.T) {
	t.Parallel()
	w := setup(t, serving(site(t)))
	for _, path := range []string{
		"/s/../secret.txt", "/s/%2e%2e/secret.txt", "/s/..%2fsecret.txt", "/s/docs/../../secret.txt", "/s//secret.txt", `/s/..\secret.txt`, "/s/%252e%252e/secret.txt",
		"/s/app.js%00.txt", "/s/out.txt", "/s/absolute.txt", "/s/outside/secret.txt", "/s/outside/", "/s/.env", "/s/docs/.git/config", "/s/docs/.well-known/x", "/s/pipe",
		"/s/docs/%2e%67it/config", "/secret.txt",
	} {
		if a := w.send(t, "GET "+path); a.status != http.StatusNotFound && a.status != http.StatusBadRequest || strings.Contains(a.body, "secret") {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

// Who has a file is not sent it again, and who has half of it gets the other half.
func TestFilesInParts(t *testing.T) {
	t.Parallel()
	root := site(t)
	w := setup(t, serving(root))
	whole := w.send(t, "GET /s/app.js")
	tag, changed := whole.header.Get("Etag"), whole.header.Get("Last-Modified")
	if !strings.HasPrefix(tag, `"`) || changed == "" {
		t.Fatalf("%v", whole.header)
	}
	for _, c := range []struct {
		fields []string
		status int
		body   string
	}{
		{[]string{"If-None-Match: " + tag}, 304, ""},
		{[]string{"If-None-Match: W/" + tag}, 304, ""},
		{[]string{"If-Modified-Since: " + changed}, 304, ""},
		{[]string{`If-None-Match: "other"`, "If-Modified-Since: " + changed}, 200, longText},
		{[]string{`If-Match: "other"`}, 412, ""},
		{[]string{"Range: bytes=4-7"}, 206, longText[4:8]},
		{[]string{"Range: bytes=-5"}, 206, longText[len(longText)-5:]},
		{[]string{"Range: bytes=4-7", "If-Range: " + tag}, 206, longText[4:8]},
		{[]string{"Range: bytes=4-7", `If-Range: "other"`}, 200, longText},
		{[]string{"Range: bytes=0-0" + strings.Repeat(",2-2", 20)}, 200, longText},
		{[]string{"Range: lines=1-2"}, 200, longText},
	} {
		a := w.send(t, "GET /s/app.js", c.fields...)
		if a.status != c.status || c.body != "" && a.body != c.body {
			t.Errorf("%q: %d, %d bytes", c.fields, a.status, len(a.body))
		}
	}
	if a := w.send(t, "GET /s/app.js", "Range: bytes=900000-"); a.status != 416 || !strings.HasPrefix(a.header.Get("Content-Range"), "bytes */") {
		t.Errorf("beyond the end: %d %v", a.status, a.header)
	}
	put(t, filepath.Join(root, "app.js"), "changed")
	if a := w.send(t, "GET /s/app.js", "If-None-Match: "+tag); a.status != 200 || a.body != "changed" {
		t.Errorf("after a change: %d %q", a.status, a.body)
	}
}

// What was compressed beforehand saves the work, and must never be given to who cannot read it, nor after the file has changed.
func TestFilesCompressedBeforehand(t *testing.T) {
	t.Parallel()
	w := setup(t, serving(site(t), func(r *gateway.Route) {
		r.Files.Precompressed, r.Files.MaxAge, r.Files.Immutable = true, time.Minute, []string{"/assets/"}
	}))
	tags := map[string]bool{}
	for accept, want := range map[string][2]string{"": {"", longText}, "gzip": {"gzip", "gz"}, "br;q=1, gzip;q=0.5": {"gzip", "gz"}, "zstd, gzip": {"zstd", "zst"}, "gzip;q=0, *;q=0": {"", longText}} {
		a := w.send(t, "GET /s/app.js", "Accept-Encoding: "+accept)
		if a.header.Get("Content-Encoding") != want[0] || a.body != want[1] || a.header.Get("Vary") != "Accept-Encoding" ||
			a.header.Get("Content-Type") != "text/javascript; charset=utf-8" || a.header.Get("Content-Length") == "" || a.header.Get("Cache-Control") != "max-age=60" {
			t.Errorf("%q: %.20q %v", accept, a.body, a.header)
		}
		tags[a.header.Get("Etag")] = true
		if again := w.send(t, "GET /s/app.js", "Accept-Encoding: "+accept, "If-None-Match: "+a.header.Get("Etag")); again.status != 304 {
			t.Errorf("%q again: %d", accept, again.status)
		}
	}
	if len(tags) != 3 {
		t.Errorf("%d tags for 3 codings", len(tags))
	}
	if a := w.send(t, "GET /s/old.css", "Accept-Encoding: gzip"); a.body != "new" || a.header.Get("Content-Encoding") != "" {
		t.Errorf("an outdated twin: %q", a.body)
	}
	if a := w.send(t, "GET /s/assets/app-3f2a.js"); a.header.Get("Cache-Control") != "max-age=31536000, immutable" {
		t.Errorf("%v", a.header)
	}
}

// An application in the browser lives at any address, but a script that is missing must not be a page.
func TestFilesOfAnApplication(t *testing.T) {
	t.Parallel()
	w := setup(t, serving(site(t), func(r *gateway.Route) { r.Files.Missing, r.Authentication = "/index.html", gateway.Required }))
	if a := w.send(t, "GET /s/orders/7", "Accept: text/html", as("kim")); a.status != 200 || a.body != "<h1>home</h1>" || a.header.Get("Cache-Control") != "private, no-cache" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	for _, fields := range [][]string{{"GET /s/gone.js", "Accept: text/html"}, {"GET /s/orders/7", "Accept: */*"}, {"GET /s/.git", "Accept: text/html"}} {
		if a := w.send(t, fields[0], fields[1], as("kim")); a.status != http.StatusNotFound {
			t.Errorf("%q: %d", fields, a.status)
		}
	}
	if a := w.send(t, "GET /s/app.js"); a.status != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", a.status)
	}
}

// A new version is a link that points elsewhere, and is there at once; a directory that is not there is a mistake that changes nothing.
func TestFilesExchanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "1", "v.txt"), "one")
	put(t, filepath.Join(dir, "2", "v.txt"), "two")
	current := filepath.Join(dir, "current")
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(to, current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	point("1")
	w := setup(t, serving(current))
	if a := w.send(t, "GET /s/v.txt"); a.body != "one" {
		t.Errorf("%q", a.body)
	}
	point("2")
	if a := w.send(t, "GET /s/v.txt"); a.body != "two" {
		t.Errorf("%q", a.body)
	}
	bad := w.config
	bad.Routes = append([]gateway.Route(nil), bad.Routes...)
	bad.Routes[0].Files.Root = filepath.Join(dir, "none")
	if err := w.gateway.Load(bad); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("accepted: %v", err)
	}
}

// Mistakes are told before they are served.
func TestFilesValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*gateway.Route){
		"files.root:":    func(r *gateway.Route) { r.Files.Root = "site" },
		"files.index:":   func(r *gateway.Route) { r.Files.Index = "../x" },
		"files.missing:": func(r *gateway.Route) { r.Files.Missing = "/../x" },
		"upstream:":      func(r *gateway.Route) { r.Upstream = gateway.Identity },
		"files:":         func(r *gateway.Route) { r.Cache.Enabled = true },
	} {
		cfg := gateway.DefaultConfig()
		serving("/srv", change)(&cfg, nil, nil)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "routes[0]."+want) {
			t.Errorf("%s %v", want, err)
		}
	}
}
