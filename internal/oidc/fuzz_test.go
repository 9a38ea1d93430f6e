package oidc_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/oidc"
)

// Whatever a program sends as its registration: it is refused in the standard's words, or is something that can be kept, said again, and
// makes it nothing that only an operator may.
func FuzzRegistration(f *testing.F) {
	f.Add([]byte(`{"redirect_uris":["https://shop.example/cb"],"scope":"openid","jwks":{"keys":[]},"contacts":["a"]}`))
	f.Add([]byte(`{"Sumun_Trusted":true,"redirect_uris":["https://a.example"],"grant_types":["refresh_token"],"subject_type":"pairwise"}`))
	f.Add([]byte(`{"client_id":"x","client_secret":"y","token_endpoint_auth_method":"none","redirect_uris":["com.example:/cb"]}`))
	f.Add([]byte(`{"sumun_trusted":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := oidc.ReadMetadata(body)
		if err != nil {
			return
		}
		if m.Trusted || len(m.Resources) > 0 {
			t.Fatalf("a stranger's %+v", m)
		}
		text, err := json.Marshal(m)
		must(t, err)
		again, err := oidc.ReadMetadata(text)
		if err != nil {
			t.Fatalf("what was read of %q cannot be read again: %v", body, err)
		}
		if first, second := m.CheckAll(), again.CheckAll(); (first == nil) != (second == nil) {
			t.Fatalf("%v, then %v", first, second)
		}
	})
}

// Whatever is published as a key set: what is taken of it can be verified with.
func FuzzClientKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[null,7,{},{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		n, err := oidc.UsableKeys(document)
		if err == nil && (n < 1 || n > 20) {
			t.Fatalf("%d keys of %q", n, document)
		}
	})
}

// Whatever addresses a client has, their sector is one host in one spelling, or none.
func FuzzSector(f *testing.F) {
	f.Add("https://a.example/cb", "https://A.example:8443/x", "")
	f.Add("com.example:/cb", "http://127.0.0.1/cb", "https://s.example/list")
	f.Fuzz(func(t *testing.T, one, two, sector string) {
		m := oidc.Metadata{SubjectType: oidc.SubjectPairwise, RedirectURIs: []string{one, two}, SectorIdentifierURI: sector}
		host := oidc.Sector(m)
		if strings.ToLower(host) != host {
			t.Fatalf("the sector %q has two spellings", host)
		}
		if m.RedirectURIs = []string{two, one}; oidc.Sector(m) != host {
			t.Fatalf("the sector of %q and %q depends on their order", one, two)
		}
	})
}

// Whatever is presented as a hidden refresh token: what is read of it has one spelling, so that a token cannot be presented in two.
func FuzzVeil(f *testing.F) {
	f.Add("srt_p." + strings.Repeat("A", 200))
	f.Add("srt_p.AAAA")
	f.Add("srt_p." + strings.Repeat("A", 100) + "\n")
	f.Fuzz(func(t *testing.T, presented string) {
		if !strings.HasPrefix(presented, "srt_p.") {
			presented = "srt_p." + presented
		}
		if again, err := oidc.ParseVeil(presented); err == nil && again != presented {
			t.Fatalf("%q is written %q", presented, again)
		}
	})
}
