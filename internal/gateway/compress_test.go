package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/cache"
	"github.com/sumunio/sumun/internal/gateway/compress"
)

// page of the right length, and compressible.
var longText = strings.Repeat("all work and no play ", 1000)

func compressing(r *gateway.Route) {
	r.Authentication, r.Cache = gateway.Public, cache.Config{}
	r.Compress = compress.DefaultConfig()
	r.Compress.Enabled = true
}

// readable returns the body as its coding says, or fails the test.
func (a answer) readable(t *testing.T) string {
	t.Helper()
	var in io.Reader = strings.NewReader(a.body)
	var err error
	switch a.header.Get("Content-Encoding") {
	case "gzip":
		in, err = gzip.NewReader(in)
	case "zstd":
		in, err = zstd.NewReader(in)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// serveText answers with the header fields of the query, and a long text.
func serveText(w http.ResponseWriter, r *http.Request) {
	for _, field := range r.URL.Query()["h"] {
		name, value, _ := strings.Cut(field, ":")
		w.Header().Set(name, value)
	}
	if tag := w.Header().Get("Etag"); tag != "" && strings.TrimPrefix(r.Header.Get("If-None-Match"), "W/") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if w.Header().Get("Content-Length") != "" {
		w.Header().Set("Content-Length", fmt.Sprint(len(longText)))
	}
	_, _ = io.WriteString(w, longText)
}

// A page arrives smaller, and whole, in the coding that the client likes best.
func TestCompression(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.answers(serveText)
	w := setup(t, o.cached(compressing))
	for accept, want := range map[string]string{
		"gzip, deflate, br, zstd": "zstd", "gzip, br": "gzip", "gzip;q=1, zstd;q=0.5": "gzip", "zstd;q=0, gzip;q=0.1": "gzip", "*": "zstd",
		"br": "", "gzip;q=0": "", "*;q=0": "", "gzip;q=x": "", "": "", "identity": "",
	} {
		for _, length := range []string{"Content-Length:1", "X-None:1"} {
			a := w.send(t, "GET "+page("x", "Content-Type:application/json; charset=utf-8", `Etag:"v1"`, "Accept-Ranges:bytes", length), "Accept-Encoding: "+accept)
			if got := a.header.Get("Content-Encoding"); got != want || a.readable(t) != longText || a.header.Get("Vary") != "Accept-Encoding" {
				t.Fatalf("%q, %s: %q, %v", accept, length, got, a.header)
			}
			if tag := a.header.Get("Etag"); want != "" && (tag != `W/"v1"` || a.header.Get("Accept-Ranges") != "" || len(a.body) > len(longText)/10) || want == "" && tag != `"v1"` {
				t.Errorf("%q: tag %s, %d bytes, %v", accept, tag, len(a.body), a.header)
			}
		}
	}
}

// What must not be touched arrives as the service sent it.
func TestCompressionLeavesAlone(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.answers(serveText)
	w := setup(t, o.cached(compressing))
	for _, fields := range [][]string{
		{"Content-Type:image/png"}, {"Content-Type:text/event-stream"}, {"Content-Type:text/plain", "Content-Encoding:br"},
		{"Content-Type:text/plain", "Cache-Control:public, No-Transform"}, {"Content-Type:text/plain", "Content-Range:bytes 0-1/2"},
	} {
		a := w.send(t, "GET "+page("x", fields...), "Accept-Encoding: gzip")
		if got := a.header.Get("Content-Encoding"); got == "gzip" || a.body != longText {
			t.Errorf("%q: %q, %d bytes", fields, got, len(a.body))
		}
	}
	if a := w.send(t, "GET "+page("x", "Content-Type:text/plain"), "Accept-Encoding: gzip", "Cache-Control: no-transform"); a.body != longText {
		t.Errorf("a client that forbids it: %v", a.header)
	}
	o.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") })
	if a := w.send(t, "GET /c/short", "Accept-Encoding: gzip"); a.body != "short" {
		t.Errorf("short: %v", a.header)
	}
}

// A compressed answer that breaks off must not look whole.
func TestCompressionOfACutAnswer(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, longText)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	w := setup(t, o.cached(compressing))
	response, err := http.Get("http://" + w.address + "/c/cut") // asks for gzip by itself
	if err != nil {
		return // cut before its header
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("%d of %d bytes, and no error", len(text), len(longText))
	}
}

// Kept answers are compressed once, nobody gets a coding that they cannot read, and a validated answer keeps its own.
func TestCompressionBehindTheCache(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.answers(serveText)
	w := setup(t, o.cached(func(r *gateway.Route) {
		compressing(r)
		r.Cache = cache.DefaultConfig()
		r.Cache.Enabled = true
	}))
	path := page("kept", "Content-Type:text/plain", "Cache-Control:max-age=60", `Etag:"v1"`)
	check := func(asked bool, accept string) answer {
		t.Helper()
		a := w.get(t, o, path, asked, "Accept-Encoding: "+accept)
		if a.header.Get("Content-Encoding") != accept || a.readable(t) != longText {
			t.Errorf("%q: %v", accept, a.header)
		}
		return a
	}
	for _, accept := range []string{"gzip", "zstd", ""} {
		check(true, accept)
		check(false, accept)
	}
	o.later(61 * time.Second)
	if a := check(true, "gzip"); !strings.Contains(a.header.Get("Cache-Status"), "fwd-status=304") || strings.Count(strings.Join(a.header["Vary"], ","), "Accept-Encoding") != 1 {
		t.Errorf("validated: %v", a.header)
	}
	o.later(-61 * time.Second)
	check(false, "gzip")
	check(false, "")
	if a := w.get(t, o, path, false, "Accept-Encoding: gzip", `If-None-Match: W/"v1"`); a.status != http.StatusNotModified {
		t.Errorf("%d", a.status)
	}
}

// Secrets in answers must not be found out by their size because somebody copied a line of configuration.
func TestCompressionBesideSecrets(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := required("secret", "/secret")
	r.Upstream, r.Compress = "echo", compress.DefaultConfig()
	r.Compress.Enabled = true
	cfg := w.config
	cfg.Routes = append(cfg.Routes, r)
	if err := w.gateway.Load(cfg); err == nil || !strings.Contains(err.Error(), "with_secrets") {
		t.Errorf("accepted: %v", err)
	}
	cfg.Routes[0].Compress.WithSecrets = true
	if err := w.gateway.Load(cfg); err != nil {
		t.Error(err)
	}
	cfg.Upstreams[0].Elsewhere, cfg.Upstreams[0].Endpoints = true, nil
	if err := w.gateway.Load(cfg); err == nil || !strings.Contains(err.Error(), "do nothing") {
		t.Errorf("compression where no answer passes: %v", err)
	}
}

// Whatever a client writes, it gets a coding that it named, or none.
func FuzzAcceptEncoding(f *testing.F) {
	for _, seed := range []string{"gzip", "zstd;q=0.5, gzip", "*;q=0", "x-gzip", ";;q=,", "gzip;q=NaN", "GZIP;Q=1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got := compress.Choose([]string{string(line)}, "zstd", "gzip")
		lower := bytes.ToLower(line)
		if got != "" && !bytes.Contains(lower, []byte(got)) && !bytes.ContainsRune(line, '*') {
			t.Errorf("%q gives %q", line, got)
		}
		if compress.Choose([]string{"gzip;q=0, zstd;q=0," + string(line)}, "zstd", "gzip") != "" {
			t.Errorf("%q overrides a refusal", line)
		}
	})
}
