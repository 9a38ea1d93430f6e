package auth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
)

// site is an issuer's web site without a network: status and body by address.
type site struct {
	mu    sync.Mutex
	pages map[string]string // what is not there is 404; a number is a status
	asked []string
}

func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.URL.String())
	body, there := s.pages[r.URL.String()]
	status := 200
	if !there {
		status = 404
	}
	if _, err := fmt.Sscanf(body, "%d", &status); err == nil && len(body) == 3 {
		body = ""
	}
	return answerOf(r, status, nil, io.NopCloser(strings.NewReader(body))), nil
}

// Any standards-keeping issuer says where its keys are; services must find them with its address alone.
func TestKeysAreDiscovered(t *testing.T) {
	t.Parallel()
	keys := document(t, publicJWK(t, auth.ES256, "k1"))
	metadata := func(issuer, uri string) string { return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, uri) }
	const base, realm = "https://id.example", "https://id.example/realms/a"
	for name, row := range map[string]struct {
		issuer string
		pages  map[string]string
		ok     bool
	}{
		"OpenID Connect": {base, map[string]string{
			base + "/.well-known/openid-configuration": metadata(base, "https://keys.example/k"), "https://keys.example/k": keys}, true},
		"OAuth": {base, map[string]string{
			base + "/.well-known/oauth-authorization-server": metadata(base, base+"/k"), base + "/k": keys}, true},
		"OpenID Connect with a path": {realm, map[string]string{
			realm + "/.well-known/openid-configuration": metadata(realm, base+"/k"), base + "/k": keys}, true},
		"OAuth with a path": {realm, map[string]string{
			base + "/.well-known/oauth-authorization-server/realms/a": metadata(realm, base+"/k"), base + "/k": keys}, true},
		"neither":             {base, map[string]string{base + "/.well-known/jwks.json": keys}, true},
		"neither, and no key": {base, nil, false},
		"another issuer's": {base, map[string]string{
			base + "/.well-known/openid-configuration": metadata("https://evil.example", base+"/k"), base + "/k": keys}, false},
		"keys in the clear": {base, map[string]string{
			base + "/.well-known/openid-configuration": metadata(base, "http://id.example/k"), "http://id.example/k": keys}, false},
		"metadata that are none": {base, map[string]string{
			base + "/.well-known/openid-configuration": "<html>", base + "/.well-known/jwks.json": keys}, false},
		"metadata out of order": {base, map[string]string{
			base + "/.well-known/openid-configuration": "503", base + "/.well-known/jwks.json": keys}, false},
	} {
		s := &site{pages: row.pages}
		k, err := auth.NewRemoteKeys(auth.RemoteConfig{Issuer: row.issuer, Client: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Key(t.Context(), "k1"); (err == nil) != row.ok {
			t.Errorf("%s: %v, after %v", name, err, s.asked)
		}
	}
}

// The issuer moves its keys: services look again where it says, without being restarted.
func TestKeysAreFoundAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := document(t, publicJWK(t, auth.ES256, "k1"))
		const base = "https://id.example"
		s := &site{pages: map[string]string{
			base + "/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"https://id.example/old"}`,
			base + "/old": keys,
		}}
		v, err := auth.New(auth.Config{Issuer: base, Client: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		start(t, v)
		s.mu.Lock()
		s.pages = map[string]string{
			base + "/.well-known/openid-configuration": `{"issuer":"https://id.example","jwks_uri":"https://id.example/new"}`,
			base + "/new": keys,
		}
		s.mu.Unlock()
		time.Sleep(10 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !slices.Contains(s.asked, base+"/new") {
			t.Errorf("asked %v", s.asked)
		}
		if age := v.Stats().KeysAge; age > 6*time.Minute {
			t.Errorf("the keys are %v old although nobody used them: Run renews them", age)
		}
	})
}

// The default audience is the issuer's own API, so that the shortest configuration accepts no other service's tokens.
func TestAudienceOfTheShortestConfiguration(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Audience = "" })
	if _, err := v.Verify(t.Context(), token{}.sign(t)); !errors.Is(err, auth.ErrAudience) {
		t.Errorf("a token for another service: %v", err)
	}
	if _, err := v.Verify(t.Context(), token{claims: map[string]any{"aud": issuer}}.sign(t)); err != nil {
		t.Error(err)
	}
}
