package waf_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/gateway/waf"
)

func blocking(tb testing.TB, engines *waf.Engines, next stage.Handler) stage.Handler {
	tb.Helper()
	cfg := waf.DefaultConfig()
	cfg.Mode = waf.Blocking
	s, err := waf.New(cfg, waf.Deps{Engines: engines, Count: func(bool) {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	return s(next)
}

func request(method, target, kind, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("User-Agent", "curl/8.5.0")
	r.Header.Set("Accept", "*/*")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r
}

var call = &stage.Call{Route: "w", Client: netip.MustParseAddr("192.0.2.1")}

// Whatever body comes with whatever type, it is refused or arrives as it was sent.
func FuzzBody(f *testing.F) {
	for _, kind := range []string{"application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/xml", "text/plain"} {
		for _, body := range []string{`{"a":[1]}`, "a=b&c=%zz", "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\r\n", "<a><b/></a>", "\x00"} {
			f.Add(kind, []byte(body))
		}
	}
	var arrived []byte
	handle := blocking(f, &waf.Engines{}, func(_ http.ResponseWriter, r *http.Request, _ *stage.Call) error {
		var err error
		arrived, err = io.ReadAll(r.Body)
		return err
	})
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		arrived = nil
		if err := handle(nil, request(http.MethodPost, "/x", kind, string(body)), call); err == nil && !bytes.Equal(arrived, body) {
			t.Fatalf("%q became %q", body, arrived)
		}
	})
}

// Routes that ask for the same share an engine, and one that nobody asks for any more is gone: each takes megabytes.
func TestEnginesAreShared(t *testing.T) {
	t.Parallel()
	var engines waf.Engines
	pass := func(http.ResponseWriter, *http.Request, *stage.Call) error { return nil }
	for range 3 {
		engines.Begin()
		blocking(t, &engines, pass)
		handle := blocking(t, &engines, pass)
		if n := engines.Len(); n != 1 {
			t.Errorf("%d engines for one configuration", n)
		}
		engines.Commit()
		if err := handle(nil, request(http.MethodGet, "/x?q=%3Cscript%3Ealert(1)%3C/script%3E", "", ""), call); err == nil {
			t.Error("an attack passes")
		}
	}
	engines.Begin()
	engines.Commit()
	if n := engines.Len(); n != 0 {
		t.Errorf("%d engines for nobody", n)
	}
}

// What a request costs that is inspected: the numbers in docs/guides/gateway-policies.md.
func BenchmarkInspect(b *testing.B) {
	handle := blocking(b, &waf.Engines{}, func(http.ResponseWriter, *http.Request, *stage.Call) error { return nil })
	for _, c := range []struct{ name, method, target, kind, body string }{
		{"get", http.MethodGet, "/orders?page=2&sort=-created", "", ""},
		{"json", http.MethodPost, "/orders", "application/json", `{"sku":"a-1","count":2,"note":"please ring twice","address":{"city":"Seoul","zip":"04524"}}`},
		{"json-16KiB", http.MethodPost, "/orders", "application/json", `{"note":"` + strings.Repeat("all work and no play ", 770) + `"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := handle(nil, request(c.method, c.target, c.kind, c.body), call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEngine measures what making one takes, in time and in memory that stays.
func BenchmarkEngine(b *testing.B) {
	pass := func(http.ResponseWriter, *http.Request, *stage.Call) error { return nil }
	var kept []*waf.Engines
	before := heap()
	for b.Loop() {
		engines := &waf.Engines{}
		blocking(b, engines, pass)
		kept = append(kept, engines)
	}
	b.ReportMetric(float64(heap()-before)/float64(len(kept))/(1<<20), "MiB/engine")
	runtime.KeepAlive(kept)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
