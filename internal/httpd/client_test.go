package httpd_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd"
)

// identify returns what the chain makes of a peer and its headers.
func identify(x http.Handler, addr *netip.Addr, remote string, header http.Header) (id string) {
	r := httptest.NewRequest(http.MethodGet, "/who", nil)
	r.RemoteAddr = remote
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	x.ServeHTTP(w, r)
	*addr, _ = netip.ParseAddr(w.Body.String())
	return w.Header().Get("X-Request-Id")
}

func who() *fixture {
	x := setup()
	x.mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		if a := httpd.ClientAddr(r.Context()); a.IsValid() {
			_, _ = w.Write([]byte(a.String()))
		}
	})
	return x
}

// Limits and locks hang on this address: whoever can choose it escapes them, or locks out others.
func TestClientAddr(t *testing.T) {
	t.Parallel()
	x := who()
	for _, tc := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "192.0.2.1:99", nil, "192.0.2.1"},
		{"a stranger's claim", "192.0.2.1:99", []string{"198.51.100.1"}, "192.0.2.1"},
		{"one proxy", "10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a claim before the proxy", "10.0.0.1:99", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:99", []string{"1.2.3.4, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"two headers", "10.0.0.1:99", []string{"1.2.3.4, 198.51.100.1", "10.0.0.2"}, "198.51.100.1"},
		{"all trusted", "10.0.0.1:99", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"nothing forwarded", "10.0.0.1:99", nil, "10.0.0.1"},
		{"not an address", "10.0.0.1:99", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"an empty element", "10.0.0.1:99", []string{"198.51.100.1,"}, "10.0.0.1"},
		{"with port", "10.0.0.1:99", []string{"198.51.100.1:5555"}, "198.51.100.1"},
		{"IPv6", "[fd00::1]:99", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 with port", "[fd00::1]:99", []string{"[2001:db8::1]:5555"}, "2001:db8::1"},
		{"IPv6 in brackets", "[fd00::1]:99", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"mapped IPv4 peer", "[::ffff:10.0.0.1]:99", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"zone", "[fe80::1%eth0]:99", nil, "fe80::1"},
		{"Unix socket", "@", []string{"198.51.100.1"}, ""},
	} {
		var addr netip.Addr
		identify(x, &addr, tc.remote, http.Header{"X-Forwarded-For": tc.forwarded})
		got := ""
		if addr.IsValid() {
			got = addr.String()
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	x := who()
	var addr netip.Addr
	for _, tc := range []struct {
		name, remote, given string
		kept                bool
	}{
		{"from a trusted proxy", "10.0.0.1:9", "abc-DEF_1.2", true},
		{"from a stranger", "192.0.2.1:9", "abc", false},
		{"too long", "10.0.0.1:9", strings.Repeat("a", 65), false},
		{"log injection", "10.0.0.1:9", "a\nlevel=ERROR", false},
		{"markup", "10.0.0.1:9", "<b>", false},
		{"empty", "10.0.0.1:9", "", false},
	} {
		got := identify(x, &addr, tc.remote, http.Header{"X-Request-Id": {tc.given}})
		if (got == tc.given) != tc.kept || len(got) < 3 {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
	if a, b := identify(x, &addr, "192.0.2.1:9", nil), identify(x, &addr, "192.0.2.1:9", nil); a == b {
		t.Errorf("two requests share the id %q", a)
	}
}

// FuzzForwardedProto: only a trusted proxy's last word may make us promise that this host speaks HTTPS.
func FuzzForwardedProto(f *testing.F) {
	f.Add("10.0.0.1:9", "https", "http , HTTPS")
	f.Add("192.0.2.1:9", "https", ",")
	x := who()
	f.Fuzz(func(t *testing.T, remote, first, second string) {
		r := httptest.NewRequest(http.MethodGet, "/who", nil)
		r.RemoteAddr = remote
		r.Header["X-Forwarded-Proto"] = []string{first, second}
		w := httptest.NewRecorder()
		x.ServeHTTP(w, r)
		words := strings.Split(second, ",")
		said := strings.EqualFold(strings.TrimSpace(words[len(words)-1]), "https")
		ap, err := netip.ParseAddrPort(remote)
		proxy := err == nil && (netip.MustParsePrefix("10.0.0.0/8").Contains(ap.Addr().Unmap()) ||
			netip.MustParsePrefix("fd00::/8").Contains(ap.Addr().WithZone("")))
		if promised := w.Header().Get("Strict-Transport-Security") != ""; promised != (said && proxy) {
			t.Fatalf("promised is %v", promised)
		}
	})
}

func FuzzClientAddr(f *testing.F) {
	f.Add("10.0.0.1:9", "1.2.3.4, 198.51.100.1, 10.0.0.2", "10.0.0.3", "id")
	f.Add("[::ffff:10.0.0.1]:9", "[2001:db8::1%x]:7,,unknown", "", "\x00")
	f.Add("@", ",", "[", "]")
	x := who()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	isTrusted := func(a netip.Addr) bool { return trusted[0].Contains(a) || trusted[1].Contains(a) }
	f.Fuzz(func(t *testing.T, remote, first, second, id string) {
		var got netip.Addr
		gotID := identify(x, &got, remote, http.Header{"X-Forwarded-For": {first, second}, "X-Request-Id": {id}})
		ap, err := netip.ParseAddrPort(remote)
		peer := ap.Addr().Unmap().WithZone("")
		switch {
		case err != nil && got.IsValid():
			t.Fatalf("%v out of nothing", got)
		case err == nil && !isTrusted(peer) && (got != peer || gotID == id):
			t.Fatalf("a stranger at %v passes for %v, with id %q", peer, got, gotID)
		case got.Is4In6() || got.Zone() != "":
			t.Fatalf("%v is not in its plain form", got)
		}
		if gotID == "" || len(gotID) > 64 || strings.ContainsAny(gotID, "\r\n\" ") {
			t.Fatalf("request id %q", gotID)
		}
	})
}
