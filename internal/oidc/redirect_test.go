package oidc_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/oidc"
)

// A code that goes to another address is somebody else's: addresses are compared letter by letter, but for the port of a program on
// the same machine.
func TestRedirectsAreExact(t *testing.T) {
	t.Parallel()
	m := oidc.Metadata{RedirectURIs: []string{"https://web.example/cb", "http://127.0.0.1/cb", "http://[::1]:8000/cb?a=b", "http://localhost:3000/cb"}}
	for uri, want := range map[string]bool{
		"https://web.example/cb":             true,
		"https://web.example/cb/":            false,
		"https://web.example/cb?x=1":         false,
		"https://web.example:443/cb":         false,
		"https://WEB.example/cb":             false,
		"https://web.example/cb#f":           false,
		"https://web.example/x/../cb":        false,
		"https://web.example.evil/cb":        false,
		"http://web.example/cb":              false,
		"http://127.0.0.1:54321/cb":          true,
		"http://127.0.0.1/cb":                true,
		"http://127.0.0.1:/cb":               false,
		"http://127.0.0.1:80x/cb":            false,
		"http://127.0.0.1:1@evil.example/cb": false,
		"http://127.0.0.1.evil.example/cb":   false,
		"http://127.0.0.1:1/other":           false,
		"http://127.0.0.2:1/cb":              false,
		"https://127.0.0.1:1/cb":             false,
		"http://[::1]:9/cb?a=b":              true,
		"http://[::1]/cb?a=b":                true,
		"http://[::1]:9/cb":                  false,
		"http://localhost:3000/cb":           true,
		"http://localhost:3001/cb":           false,
		"":                                   false,
	} {
		if got := oidc.AllowsRedirect(m, uri); got != want {
			t.Errorf("%s: %t", uri, got)
		}
	}
}

// An address that our page loads and names in its policy is of an origin that the client has, and cannot end the directive.
func FuzzFrontChannel(f *testing.F) {
	for _, seed := range []string{"https://web.example/out", "https://web.example;x/out", "https://*/out", "http://[::1]/out?a=b", "https://web.example,x/out"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, uri, redirect string) {
		if oidc.CheckFrontchannel(oidc.Metadata{FrontchannelLogoutURI: uri, RedirectURIs: []string{redirect}}) != "" || oidc.CheckRedirect(redirect) != "" {
			return
		}
		u, err := url.Parse(uri)
		r, _ := url.Parse(redirect)
		if err != nil || u.Scheme != r.Scheme || u.Host != r.Host || u.User != nil || strings.ContainsAny(u.Host, "*;, '\"") {
			t.Errorf("%q goes with %q", uri, redirect)
		}
	})
}

// Whatever is allowed leads to a host that was registered, as browsers read it.
func FuzzRedirect(f *testing.F) {
	for _, seed := range []string{"http://127.0.0.1:1/cb", "http://127.0.0.1:1@evil/cb", "http://[::1]:1/cb", "https://web.example/cb", "com.example:/x"} {
		f.Add(seed)
	}
	m := oidc.Metadata{RedirectURIs: []string{"https://web.example/cb", "http://127.0.0.1/cb", "http://[::1]/cb"}}
	f.Fuzz(func(t *testing.T, uri string) {
		_ = oidc.CheckRedirect(uri)
		if !oidc.AllowsRedirect(m, uri) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.User != nil || u.Path != "/cb" || u.Hostname() != "web.example" && u.Hostname() != "127.0.0.1" && u.Hostname() != "::1" {
			t.Errorf("%q is allowed", uri)
		}
	})
}
