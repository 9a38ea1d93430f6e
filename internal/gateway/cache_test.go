package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/cache"
	"github.com/sumunio/sumun/internal/httpd"
)

// origin is a service whose answers have the header fields that the query names, and count.
type origin struct {
	*httptest.Server
	asked   atomic.Int64
	status  atomic.Int64
	instead atomic.Pointer[http.HandlerFunc]
	passed  atomic.Int64 // nanoseconds on the clock of the gateway in front
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	n := o.asked.Add(1)
	w.Header().Set("Date", time.Now().Add(time.Duration(o.passed.Load())).UTC().Format(http.TimeFormat))
	if instead := o.instead.Load(); instead != nil {
		(*instead)(w, r)
		return
	}
	for _, field := range r.URL.Query()["h"] {
		name, value, _ := strings.Cut(field, ":")
		w.Header().Add(name, value)
	}
	if tag := w.Header().Get("Etag"); tag != "" && r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if status := o.status.Load(); status != 0 {
		w.WriteHeader(int(status))
	}
	fmt.Fprintf(w, "answer %d for %q", n, r.Header.Get("X-Sumun-Subject"))
}

func (o *origin) answers(f http.HandlerFunc) { o.instead.Store(&f) }

// cached is a route to it with a cache.
func (o *origin) cached(change func(*gateway.Route)) setting {
	begin := time.Now()
	return func(c *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		u := newUpstream("origin", o.URL)
		u.Retry.Attempts = 1
		c.Upstreams = append(c.Upstreams, u)
		r := gateway.Route{Name: "pages", Paths: []string{"/c/"}, Upstream: "origin", Authentication: gateway.Optional, IdentityHeaders: true}
		r.Cache = cache.DefaultConfig()
		r.Cache.Enabled, r.Cache.MaxObject = true, 1000
		if change != nil {
			change(&r)
		}
		c.Routes = append(c.Routes, r)
		d.Clock = func() time.Time { return begin.Add(time.Duration(o.passed.Load())) }
	}
}

func (o *origin) later(d time.Duration) { o.passed.Add(int64(d)) }

// page is a path whose answer has these header fields.
func page(name string, fields ...string) string {
	q := url.Values{"h": fields}
	return "/c/" + name + "?" + q.Encode()
}

// get asks, and fails if the service was not asked as expected.
func (w *world) get(t *testing.T, o *origin, path string, asked bool, lines ...string) answer {
	t.Helper()
	before := o.asked.Load()
	a := w.send(t, "GET "+path, lines...)
	if got := o.asked.Load() != before; got != asked {
		t.Errorf("GET %s %q: service asked: %t, want %t (%s)", path, lines, got, asked, a.header["Cache-Status"])
	}
	return a
}

// head asks for the header alone.
func (w *world) head(t *testing.T, path string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+w.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.example"
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return answer{status: response.StatusCode, header: response.Header}
}

// What the service allows to keep is kept for so long, and nothing else.
func TestCacheKeepsWhatItMay(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	for fields, kept := range map[string]bool{
		"Cache-Control:max-age=60": true, "Cache-Control:s-maxage=60": true, "Cache-Control:max-age=0, s-maxage=60": true,
		"Cache-Control:max-age=60|Expires:Thu, 01 Jan 1970 00:00:00 GMT": true, "Cache-Control: MAX-AGE=\"60\"": true,
		"Expires:" + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): true,
		"": false, "Expires:0": false, "Cache-Control:max-age=0": false, "Cache-Control:max-age=x": false, "Cache-Control:max-age=60, max-age=90": false,
		"Cache-Control:max-age=60, no-store": false, "Cache-Control:max-age=60, private": false, "Cache-Control:private=\"x, y\", max-age=60": false,
		"Cache-Control:max-age=60, no-cache": false, "Cache-Control:max-age=60|Set-Cookie:a=b": false, "Cache-Control:max-age=60|Vary:*": false,
		"Cache-Control:max-age=60|Age:60": false, "Cache-Control:max-age=60|Vary:a,b,c,d,e,f,g,h,i": false, "Cache-Control:s-maxage=0, max-age=60": false,
		"Cache-Control:max-age=60|Content-Type:text/event-stream": false,
	} {
		path := page("keep", strings.Split(fields, "|")...)
		first := w.get(t, o, path, true)
		second := w.get(t, o, path, !kept)
		if kept && (second.body != first.body || !strings.Contains(second.header.Get("Cache-Status"), "sumun; hit; ttl=") || second.header.Get("Age") == "") {
			t.Errorf("%s: %q, then %q, %v", fields, first.body, second.body, second.header)
		}
		if kept && first.header.Get("Cache-Status") != "sumun; fwd=uri-miss; stored" {
			t.Errorf("%s: first %q", fields, first.header["Cache-Status"])
		}
	}
	path := page("age", "Cache-Control:max-age=60")
	w.get(t, o, path, true)
	o.later(59 * time.Second)
	if a := w.get(t, o, path, false); a.header.Get("Age") != "59" {
		t.Errorf("Age %s", a.header.Get("Age"))
	}
	o.later(2 * time.Second)
	w.get(t, o, path, true)
}

// Errors are not kept: one request that provokes one must not take a page from everybody.
func TestCacheKeepsNoErrors(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	for _, status := range []int64{400, 403, 405, 413, 429, 431, 500, 501, 503} {
		o.status.Store(status)
		path := page(fmt.Sprint(status), "Cache-Control:max-age=60")
		w.get(t, o, path, true)
		o.status.Store(0)
		if a := w.get(t, o, path, true); a.status != http.StatusOK {
			t.Errorf("after a %d: %d", status, a.status)
		}
	}
}

// Nobody may see what was made for somebody else (RFC 9111, section 3.5).
func TestCacheDoesNotCrossPersons(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	cookie := "Cookie: cart=1"
	for _, who := range []string{as("kim"), cookie} {
		path := page("implicit", "Cache-Control:max-age=60", who)
		w.get(t, o, path, true, who)
		w.get(t, o, path, true, who)
		w.get(t, o, path, true, as("lee"))
		w.get(t, o, path, true) // nothing of theirs is left for strangers
		w.get(t, o, path, false)
		w.get(t, o, path, true, who) // nor the strangers' page for them
	}
	for _, control := range []string{"public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"} {
		path := page("explicit", "Cache-Control:"+control)
		w.get(t, o, path, true, as("kim"))
		w.get(t, o, path, false, as("lee"))
		w.get(t, o, path, false, cookie)
		w.get(t, o, path, false)
	}
	// It depends on what the gateway tells services, which no key holds.
	for _, name := range []string{"X-Sumun-Subject", "x-forwarded-for", "X-User-Id"} {
		path := page("introduced", "Cache-Control:public, max-age=60", "Vary:"+name)
		if a := w.get(t, o, path, true, as("kim")); name == "X-Sumun-Subject" && !strings.Contains(a.body, "kim") {
			t.Fatalf("the test is wrong: %q", a.body)
		}
		w.get(t, o, path, true, as("lee"))
		w.get(t, o, path, true, "X-Sumun-Subject: kim")
	}
}

// On a route that keeps everybody's own answers, each person, client and set of roles has theirs.
func TestCachePerPerson(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(func(r *gateway.Route) { r.Cache.PerPerson = true }))
	path := page("own", "Cache-Control:private, max-age=60")
	kim := w.get(t, o, path, true, as("kim"))
	lee := w.get(t, o, path, true, as("lee"))
	if again := w.get(t, o, path, false, as("kim")); again.body != kim.body || !strings.Contains(kim.body, `"kim"`) {
		t.Errorf("kim: %q, then %q", kim.body, again.body)
	}
	if again := w.get(t, o, path, false, as("lee")); again.body != lee.body || !strings.Contains(lee.body, `"lee"`) {
		t.Errorf("lee: %q, then %q", lee.body, again.body)
	}
	w.get(t, o, path, true)
	w.get(t, o, path, true)
}

// Attackers must not be able to leave their page for others.
func TestCachePoisoning(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(func(r *gateway.Route) { r.Authentication = gateway.Public }))
	o.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		host := r.Host
		for _, name := range []string{"X-Forwarded-Host", "X-Host", "X-Original-Host", "X-HTTP-Host-Override", "Forwarded"} {
			if v := r.Header.Get(name); v != "" && v != r.Host {
				host = v
			}
		}
		fmt.Fprintf(w, "%s http://%s%s %s", r.Method, host, r.URL.Path, r.Header.Get("X-Original-Url"))
	})
	for i, line := range []string{
		"X-Forwarded-Host: evil.example", "X-Host: evil.example", "X-Original-Host: evil.example", "X-HTTP-Host-Override: evil.example",
		"Forwarded: host=evil.example", "X-Original-Url: /evil", "X-Forwarded-Scheme: evil", "X-Forwarded-Host: shop.example, evil.example",
	} {
		path := fmt.Sprintf("/c/%d", i)
		w.send(t, "GET "+path, line)
		if a := w.send(t, "GET "+path); strings.Contains(a.body, "evil") || !strings.Contains(a.header.Get("Cache-Status"), "hit") {
			t.Errorf("%s: %q, %s", line, a.body, a.header["Cache-Status"])
		}
	}
	// Another host is another page.
	w.raw(t, "GET /c/host HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
	if a := w.get(t, o, "/c/host", true); strings.Contains(a.body, "evil") {
		t.Errorf("host: %q", a.body)
	}
	// Spellings of a path that one might take for another are refused or are one.
	w.get(t, o, "/c/a%62", true)
	w.get(t, o, "/c/ab", false)
	w.get(t, o, "/c/ab/", true)
	w.get(t, o, "/c/ab?", true)
	for _, path := range []string{"/c/x/..%2fab", "/c//ab", "/c/ab;x", "/c/%2e%2e/ab"} {
		w.get(t, o, path, false)
	}
	// A body is nobody's key.
	w.raw(t, "GET /c/fat HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nContent-Length: 4\r\n\r\nevil")
	w.get(t, o, "/c/fat", true)
	// HEAD leaves nothing that GET would get, and gets what GET left.
	w.head(t, "/c/head")
	if a := w.get(t, o, "/c/head", true); !strings.HasPrefix(a.body, "GET") {
		t.Errorf("after HEAD: %q", a.body)
	}
	// Values that are selected by do not fill the memory.
	o.instead.Store(nil)
	path := page("vary", "Cache-Control:max-age=60", "Vary:X-Long")
	w.get(t, o, path, true, "X-Long: "+strings.Repeat("x", 5000))
	w.get(t, o, path, true, "X-Long: "+strings.Repeat("x", 5000))
}

// Languages and encodings do not mix, and no client gets bytes that it did not ask for.
func TestCacheVary(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	path := page("vary", "Cache-Control:max-age=60", "Vary:accept-language, Accept-Encoding")
	ko := w.get(t, o, path, true, "Accept-Language: ko", "Accept-Encoding: gzip, br")
	w.get(t, o, path, true, "Accept-Language: en", "Accept-Encoding: gzip, br")
	w.get(t, o, path, true, "Accept-Language: ko")
	w.get(t, o, path, true, "Accept-Language: ko", "Accept-Encoding: gzip;q=0, br")
	if a := w.get(t, o, path, false, "Accept-Language: ko", "Accept-Encoding: br,GZIP;q=0.5"); a.body != ko.body {
		t.Errorf("%q, want %q", a.body, ko.body)
	}
	if miss := w.get(t, o, path, true, "Accept-Language: fr"); !strings.Contains(miss.header.Get("Cache-Status"), "vary-miss") {
		t.Errorf("%s", miss.header["Cache-Status"])
	}
}

// A page that has not changed costs the service an answer without a body, and clients that have it get none either.
func TestCacheValidates(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	path := page("valid", "Cache-Control:max-age=60", `Etag:"v1"`)
	first := w.get(t, o, path, true, `If-None-Match: "v1"`) // the service is asked for all of it, or there were nothing to keep
	if first.status != http.StatusNotModified || first.body != "" {
		t.Errorf("condition at first: %d %q", first.status, first.body)
	}
	whole := w.get(t, o, path, false)
	for _, tags := range []string{`"v1"`, `W/"v1"`, `"v0" , "v1"`, `*`} {
		if a := w.get(t, o, path, false, "If-None-Match: "+tags); a.status != http.StatusNotModified || a.header.Get("Etag") != `"v1"` || a.header.Get("Content-Length") != "" {
			t.Errorf("%s: %d %v", tags, a.status, a.header)
		}
	}
	if a := w.get(t, o, path, false, `If-None-Match: "v`); a.status != http.StatusOK {
		t.Errorf("half a tag: %d", a.status)
	}
	o.later(61 * time.Second)
	if a := w.get(t, o, path, true); a.body != whole.body || a.header.Get("Cache-Status") != "sumun; fwd=stale; fwd-status=304; stored" {
		t.Errorf("validated: %q %v", a.body, a.header)
	}
	w.get(t, o, path, false)
	w.get(t, o, path, true, "Cache-Control: no-cache")
	if a := w.get(t, o, "/c/never", false, "Cache-Control: only-if-cached"); a.status != http.StatusGatewayTimeout {
		t.Errorf("only-if-cached: %d", a.status)
	}
	w.get(t, o, path, true, "Range: bytes=0-1")
	if a := w.head(t, path); a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(len(whole.body)) || !strings.Contains(a.header.Get("Cache-Status"), "hit") {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
}

// A change that went through the gateway is seen by the next reader, also where its answer was asked for before and came after.
func TestCacheForgetsWhatWasChanged(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	other := gateway.Route{Name: "changes", Paths: []string{"/c/"}, Methods: []string{"PUT", "POST"}, Upstream: "origin", Authentication: gateway.Public}
	w := setup(t, o.cached(func(r *gateway.Route) { r.Methods = []string{"GET"} }), routes(other))
	path := page("thing", "Cache-Control:max-age=60")
	w.get(t, o, path, true)
	o.status.Store(403)
	w.send(t, "PUT "+path, "Content-Length: 0")
	o.status.Store(0)
	w.get(t, o, path, false)
	w.send(t, "PUT "+path, "Content-Length: 0")
	w.get(t, o, path, true)
	w.send(t, "POST "+page("all", "Location:"+path), "Content-Length: 0")
	w.get(t, o, path, true)

	slow, goOn := make(chan struct{}), make(chan struct{})
	o.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Method == http.MethodGet {
			close(slow)
			<-goOn
		}
	})
	var group sync.WaitGroup
	group.Go(func() { w.send(t, "GET /c/race") })
	<-slow
	w.send(t, "PUT /c/race", "Content-Length: 0")
	close(goOn)
	group.Wait()
	o.instead.Store(nil)
	w.get(t, o, "/c/race", true)
}

// A thousand who want the same page at once cost the service one request.
func TestCacheAsksOnce(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	arrived, goOn := make(chan struct{}), make(chan struct{})
	o.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived) // panics for a second one
		<-goOn
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write([]byte("once"))
	})
	var group sync.WaitGroup
	ask := func() {
		if a := w.send(t, "GET /c/once"); a.body != "once" {
			t.Errorf("%d %q", a.status, a.body)
		}
	}
	group.Go(ask)
	<-arrived
	for range 50 {
		group.Go(ask)
	}
	close(goOn)
	group.Wait()
	if n := o.asked.Load(); n != 1 {
		t.Errorf("the service was asked %d times", n)
	}
}

// Who waits for somebody's answer that is not to be shared asks for themselves, and whoever fails by their own fault fails alone.
func TestCacheWaitsForNothingInVain(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	o.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "private")
		_, _ = w.Write([]byte("mine"))
	})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if a := w.send(t, "GET /c/private"); a.body != "mine" {
				t.Errorf("%d %q", a.status, a.body)
			}
		})
	}
	group.Wait()
	if n := o.asked.Load(); n != 20 {
		t.Errorf("20 people got %d answers", n)
	}
}

// While the service is slow or fails, a page that says so is given a little longer.
func TestCacheGivesStaleAnswers(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(func(r *gateway.Route) { r.Cache.StaleIfError = 5 * time.Minute }))
	quick := page("quick", "Cache-Control:max-age=60, stale-while-revalidate=30")
	first := w.get(t, o, quick, true)
	o.later(70 * time.Second)
	if a := w.send(t, "GET "+quick); a.body != first.body || !strings.Contains(a.header.Get("Cache-Status"), "hit; ttl=-10") {
		t.Errorf("%q %v", a.body, a.header)
	}
	w.eventually(t, func() (answer, bool) {
		a := w.send(t, "GET "+quick)
		return a, a.body != first.body && strings.Contains(a.header.Get("Cache-Status"), "hit; ttl=")
	})
	if n := o.asked.Load(); n != 2 {
		t.Errorf("the service was asked %d times", n)
	}

	said := page("said", "Cache-Control:max-age=60, stale-if-error=300")
	routes := page("routes", "Cache-Control:max-age=60")
	strict := page("strict", "Cache-Control:max-age=60, must-revalidate")
	for _, path := range []string{said, routes, strict} {
		w.get(t, o, path, true)
	}
	o.later(120 * time.Second)
	for _, failing := range []func(){func() { o.status.Store(500) }, o.Close} {
		failing()
		for _, path := range []string{said, routes} {
			a := w.send(t, "GET "+path)
			if a.status != http.StatusOK || !strings.Contains(a.header.Get("Cache-Status"), "detail=stale-if-error") {
				t.Errorf("%s: %d %v", path, a.status, a.header)
			}
		}
		if a := w.send(t, "GET "+strict); a.status < 500 {
			t.Errorf("must-revalidate: %d", a.status)
		}
	}
	o.later(10 * time.Minute)
	if a := w.send(t, "GET "+said); a.status < 500 {
		t.Errorf("long after: %d %v", a.status, a.header)
	}
}

// What is too large to keep arrives whole, and the memory does not grow.
func TestCacheStreamsWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	w := setup(t, o.cached(nil))
	for _, known := range []bool{true, false} {
		large := strings.Repeat("x", 1_000_000)
		o.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			if known {
				w.Header().Set("Content-Length", fmt.Sprint(len(large)))
			}
			_, _ = w.Write([]byte(large))
		})
		path := fmt.Sprintf("/c/large-%t", known)
		for range 2 {
			if a := w.get(t, o, path, true); a.body != large {
				t.Errorf("length known %t: %d bytes", known, len(a.body))
			}
		}
	}
}
