package httpd_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd"
)

// A stranger who names an address must not reach what only this machine can: metadata services, databases, the operators' listener.
func TestOutgoingStaysOutside(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"127.0.0.1", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.64.0.1",
		"224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1",
		"192.0.0.8", "198.18.0.1", "240.0.0.1", "2001:db8::1", "fec0::1",
	} {
		if httpd.IsPublic(netip.MustParseAddr(text)) {
			t.Errorf("%s passes for public", text)
		}
	}
	for _, text := range []string{"8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1111", "198.17.0.1", "172.32.0.1"} {
		if !httpd.IsPublic(netip.MustParseAddr(text)) {
			t.Errorf("%s does not pass for public", text)
		}
	}
	var asked int
	inside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inside.Close()
	client := httpd.NewOutgoing(false)
	for _, address := range []string{inside.URL, strings.Replace(inside.URL, "127.0.0.1", "localhost", 1)} {
		if _, err := httpd.Fetch(t.Context(), client, address, 100); !errors.Is(err, httpd.ErrNotPublic) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if asked > 0 {
		t.Error("it was asked")
	}
	for _, address := range []string{"http://8.8.8.8/", "file:///etc/passwd", "ftp://8.8.8.8/"} {
		if _, err := httpd.Fetch(t.Context(), client, address, 100); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := httpd.Fetch(t.Context(), httpd.NewOutgoing(true), "http://8.8.8.8/", 100); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("http elsewhere, in development: %v", err)
	}
}

// What comes is bounded, and nobody is sent on: a public address could lead inside.
func TestFetchIsBounded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = w.Write(make([]byte, 101))
		case "/elsewhere":
			http.Redirect(w, r, "/fits", http.StatusFound)
		case "/fits":
			_, _ = w.Write(make([]byte, 100))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	client := httpd.NewOutgoing(true)
	if got, err := httpd.Fetch(t.Context(), client, server.URL+"/fits", 100); err != nil || len(got) != 100 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, path := range []string{"/large", "/elsewhere", "/missing"} {
		if _, err := httpd.Fetch(t.Context(), client, server.URL+path, 100); err == nil {
			t.Errorf("%s is taken", path)
		}
	}
}
