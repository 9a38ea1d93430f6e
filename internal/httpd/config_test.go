package httpd_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
)

func TestDefaultConfigIsValidAndQuiet(t *testing.T) {
	t.Parallel()
	c := httpd.DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// Whoever corrects a configuration wants to see every mistake at once.
func TestValidateReportsEverything(t *testing.T) {
	t.Parallel()
	c := httpd.Config{
		Listen:         "nowhere",
		TrustedOrigins: []string{"shop.example"},
		TrustedProxies: []netip.Prefix{{}},
		TLS: httpd.TLS{CertFile: "cert.pem", ACME: httpd.ACME{
			Hosts: []string{"https://id.example", "192.0.2.1", "*.example"}, HTTPListen: "80",
		}},
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`listen: "nowhere"`, `trusted_origins: "shop.example"`, "trusted_proxies:", "max_body: 0", "max_header_bytes: 0",
		"read_header_timeout: 0s", "read_timeout: 0s", "write_timeout: 0s", "request_timeout: 0s", "idle_timeout: 0s", "shutdown_grace: 0s",
		`cert_file "cert.pem" and key_file ""`, "choose one", `"https://id.example"`, `"192.0.2.1"`, `"*.example"`,
		"tls.acme.cache_dir", `tls.acme.http_listen: "80"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not reported: %s", want)
		}
	}
	c = httpd.DefaultConfig()
	c.RequestTimeout = c.WriteTimeout
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "request_timeout: 30s is not below write_timeout") {
		t.Errorf("an answer after the last moment: %v", err)
	}
	c = httpd.DefaultConfig()
	c.TLS.ACME.Email = "ops@example.com"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "tls.acme.hosts") {
		t.Errorf("ACME without hosts: %v", err)
	}
	if _, err := httpd.NewServer(httpd.Config{}, http.NotFoundHandler(), nil); err == nil {
		t.Error("a server from an invalid configuration")
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]int{
		":8080": 1, "0.0.0.0:8080": 1, "[::]:8080": 1, "192.0.2.1:8080": 1, "id.example:80": 1,
		"127.0.0.1:8080": 0, "localhost:8080": 0, "[::1]:8080": 0, "127.9.9.9:80": 0, "[::ffff:127.0.0.1]:80": 0,
	} {
		c := httpd.DefaultConfig()
		c.Listen = listen
		if got := c.Warnings(); len(got) != want {
			t.Errorf("%s: %q", listen, got)
		}
		c.TLS = httpd.TLS{CertFile: "c", KeyFile: "k"}
		if got := c.Warnings(); len(got) != 0 {
			t.Errorf("%s with TLS: %q", listen, got)
		}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		if got := c.Warnings(); len(got) != 1 {
			t.Errorf("everybody trusted: %q", got)
		}
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	secure, plain := httpd.Cookies{Secure: true}, httpd.Cookies{}
	for _, tc := range []struct {
		cookie *http.Cookie
		want   string
	}{
		{secure.SessionCookie("v", time.Hour), "__Host-sumun_session=v; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{secure.RefreshCookie("v", 0), "__Secure-sumun_refresh=v; Path=/v1/sessions; HttpOnly; Secure; SameSite=Strict"},
		{secure.DeviceCookie("v", time.Minute), "__Host-sumun_device=v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"},
		{secure.LangCookie("ko", time.Minute), "sumun_lang=ko; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"},
		{secure.SessionCookie("", 0), "__Host-sumun_session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		{secure.RefreshCookie("v", -1), "__Secure-sumun_refresh=; Path=/v1/sessions; Max-Age=0; HttpOnly; Secure; SameSite=Strict"},
		{plain.SessionCookie("v", time.Hour), "sumun_session=v; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"},
		{plain.RefreshCookie("v", time.Hour), "sumun_refresh=v; Path=/v1/sessions; Max-Age=3600; HttpOnly; SameSite=Strict"},
	} {
		w := httptest.NewRecorder()
		http.SetCookie(w, tc.cookie)
		if got := w.Header().Get("Set-Cookie"); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
		if err := tc.cookie.Valid(); err != nil {
			t.Error(err)
		}
	}
}
