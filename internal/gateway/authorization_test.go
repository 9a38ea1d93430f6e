package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/httpd"
)

// What a service gets of a caller's token is what its route says, however the caller sends it; strangers bring nothing of their own.
func TestWhatServicesGet(t *testing.T) {
	t.Parallel()
	signer, err := assertion.New("https://id.example.com/gateway", [][]byte{[]byte("a secret that all gateways share.")}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	told, token, none, open := required("told", "/told"), required("token", "/token"), required("none", "/none"), public("open", "/open")
	told.Forward, token.Forward, none.Forward, open.Forward = gateway.ForwardAssertion, gateway.ForwardToken, gateway.ForwardNone, gateway.ForwardAssertion
	w := setup(t, routes(told, token, none, open), func(_ *gateway.Config, d *gateway.Deps, _ *httpd.Config) { d.Assertions = signer })
	for path, want := range map[string]func(string) bool{
		"/told":  func(got string) bool { return strings.HasPrefix(got, "Bearer ey") && strings.Count(got, ".") == 2 },
		"/token": func(got string) bool { return got == "Bearer kim" },
		"/none":  func(got string) bool { return got == "" },
		"/open":  func(got string) bool { return got == "" },
	} {
		for _, more := range []string{"Accept: */*", "Connection: Authorization", "X_Authorization: Bearer root"} {
			if a := w.send(t, "GET "+path, as("kim"), more); a.status != 200 {
				t.Fatalf("%s: %d %s", path, a.status, a.body)
			}
			r := w.last(t)
			if got := r.Header.Get("Authorization"); !want(got) || len(r.Header["Authorization"]) > 1 {
				t.Errorf("%s with %s: the service gets %q", path, more, r.Header["Authorization"])
			}
		}
	}
	if a := w.send(t, "GET /gateway/.well-known/jwks.json"); a.status != 200 || !strings.Contains(a.body, `"kty":"EC"`) || strings.Contains(a.body, `"d":`) {
		t.Errorf("the keys: %d %s", a.status, a.body)
	}
}

// A gateway that cannot sign must say so before it serves, and not send requests without a word about who calls.
func TestAssertionsNeedASecret(t *testing.T) {
	t.Parallel()
	w := setup(t, routes(public("open", "/")))
	told := required("told", "/told")
	told.Upstream, told.Forward = "echo", gateway.ForwardAssertion
	cfg := w.config
	cfg.Routes = append(cfg.Routes[:1:1], told)
	if err := w.gateway.Load(cfg); err == nil || !strings.Contains(err.Error(), "gateway.assertions.keys") {
		t.Errorf("loaded: %v", err)
	}
}
