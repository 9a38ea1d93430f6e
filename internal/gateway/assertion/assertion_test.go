package assertion_test

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
	"github.com/sumunio/sumun/internal/gateway/assertion"
	"github.com/sumunio/sumun/internal/keyring"
)

const issuer = "https://id.example.com/gateway"

var secret = []byte("a secret that all gateways share.")

var kim = &auth.Claims{
	Subject: "kim", ClientID: "shop", SessionID: "s1", Scope: "read write", Roles: []string{"admin"}, ID: "j1",
	AuthTime: time.Unix(1e9, 0), ACR: "1", AMR: []string{"pwd"}, Epoch: 3, ClientEpoch: 4,
	Through: []auth.Party{{ClientID: "first", ClientEpoch: 5}},
}

func signer(t testing.TB, clock func() time.Time, secrets ...[]byte) *assertion.Signer {
	t.Helper()
	s, err := assertion.New(issuer, secrets, clock)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// assert returns what a service is told of kim.
func assert(t testing.TB, s *assertion.Signer, audience string) string {
	t.Helper()
	value, err := s.For(audience).Authorization(kim)
	if err != nil {
		t.Fatal(err)
	}
	token, bearer := strings.CutPrefix(value[0], "Bearer ")
	if !bearer || len(value) != 1 {
		t.Fatalf("Authorization: %q", value)
	}
	return token
}

// service verifies as one behind the gateway does, with the keys that s publishes.
func service(t testing.TB, s *assertion.Signer, cfg auth.Config) *auth.Verifier {
	t.Helper()
	published := httptest.NewServer(s)
	t.Cleanup(published.Close)
	var err error
	if cfg.Keys, err = auth.NewRemoteKeys(auth.RemoteConfig{URL: published.URL}); err != nil {
		t.Fatal(err)
	}
	v, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A service that was broken into must not be able to use what it is told anywhere else: not at another service, nor at Sumun.
func TestForOneServiceAlone(t *testing.T) {
	t.Parallel()
	s := signer(t, time.Now, secret)
	said := assert(t, s, "a")
	c, err := service(t, s, auth.Config{Issuer: issuer, Audience: "a", Type: auth.TypeAssertion}).Verify(t.Context(), said)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != kim.Subject || c.ClientID != kim.ClientID || c.SessionID != kim.SessionID || c.Scope != kim.Scope || c.ID != kim.ID ||
		!slices.Equal(c.Roles, kim.Roles) || !slices.Equal(c.AMR, kim.AMR) || c.ACR != kim.ACR || !c.AuthTime.Equal(kim.AuthTime) ||
		c.Epoch != kim.Epoch || c.ClientEpoch != kim.ClientEpoch || !slices.Equal(c.Through, kim.Through) || !slices.Equal(c.Audience, []string{"a"}) || c.ExpiresAt.Sub(c.IssuedAt) != time.Minute {
		t.Errorf("the service is told %+v", c)
	}
	for name, tc := range map[string]struct {
		cfg  auth.Config
		want error
	}{
		"another service":             {auth.Config{Issuer: issuer, Audience: "b", Type: auth.TypeAssertion}, auth.ErrAudience},
		"another gateway's service":   {auth.Config{Issuer: "https://other.example/gateway", Audience: "a", Type: auth.TypeAssertion}, auth.ErrIssuer},
		"whoever takes access tokens": {auth.Config{Issuer: issuer, Audience: "a"}, auth.ErrType},
		"Sumun":                       {auth.Config{Issuer: "https://id.example.com"}, auth.ErrType},
	} {
		if _, err := service(t, s, tc.cfg).Verify(t.Context(), said); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// Nor is a person's own access token good where the gateway's word is asked for, or they would get around its routes.
func TestAccessTokenIsNoAssertion(t *testing.T) {
	t.Parallel()
	people := authtest.New(t)
	cfg := people.Config()
	cfg.Type = auth.TypeAssertion
	v, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), people.Token()); !errors.Is(err, auth.ErrType) {
		t.Errorf("%v, want %v", err, auth.ErrType)
	}
}

// Several gateways behind a load balancer, and one that was started again, are one issuer; and a secret is replaced without a service noticing.
func TestKeysOfSeveralGateways(t *testing.T) {
	t.Parallel()
	next := []byte("another secret, which comes next.")
	one, two := signer(t, time.Now, secret), signer(t, time.Now, secret)
	turning := signer(t, time.Now, next, secret)
	cfg := auth.Config{Issuer: issuer, Audience: "a", Type: auth.TypeAssertion}
	for name, tc := range map[string]struct{ says, publishes *assertion.Signer }{
		"the other node": {one, two}, "an older node": {one, turning}, "a newer node": {turning, turning},
	} {
		if _, err := service(t, tc.publishes, cfg).Verify(t.Context(), assert(t, tc.says, "a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := service(t, one, cfg).Verify(t.Context(), assert(t, turning, "a")); !errors.Is(err, auth.ErrUnknownKey) {
		t.Errorf("a secret that a gateway does not know: %v", err)
	}
}

// However many requests come at once, a token is signed for once in half a minute; and what is used again has half of its life left.
func TestSignedOnce(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	a := signer(t, func() time.Time { return now }, secret).For("a")
	round := func() string {
		values := make([]string, 64)
		var group sync.WaitGroup
		for i := range values {
			group.Go(func() {
				if value, err := a.Authorization(kim); err == nil {
					values[i] = value[0]
				}
			})
		}
		group.Wait()
		if slices.Sort(values); values[0] == "" || values[0] != values[len(values)-1] {
			t.Error("requests at the same time are told different things")
		}
		return values[0]
	}
	first := round()
	now = now.Add(30*time.Second - 1)
	if round() != first {
		t.Error("signed again within half a minute")
	}
	now = now.Add(1)
	if round() == first {
		t.Error("used for longer than half of its life")
	}
	// The same person with another token is another caller.
	again := *kim
	value, err := a.Authorization(&again)
	if err != nil || value[0] == round() {
		t.Errorf("one token's assertion is given to another: %v", err)
	}
}

// A key that leaked must sign nothing any more, not even for who was told something with it a moment ago, and no longer be published.
func TestReplacedKey(t *testing.T) {
	t.Parallel()
	s := signer(t, time.Now, secret)
	a := s.For("a")
	before, err := a.Authorization(kim)
	if err != nil {
		t.Fatal(err)
	}
	other := []byte("another secret that they all share")
	if err := s.Replace([][]byte{other}); err != nil {
		t.Fatal(err)
	}
	after, err := a.Authorization(kim)
	if err != nil || after[0] == before[0] {
		t.Errorf("what the old key has signed is told again, %v", err)
	}
	published := httptest.NewRecorder()
	s.ServeHTTP(published, httptest.NewRequest("GET", "/", nil))
	for of, want := range map[string]bool{string(secret): false, string(other): true} {
		id, err := assertion.KeyID([]byte(of))
		if err != nil || strings.Contains(published.Body.String(), id) != want {
			t.Errorf("%s is published: %v, %v", of, !want, err)
		}
	}
	if err := s.Replace(nil); err == nil {
		t.Error("without a secret")
	}
}

// Weak secrets and addresses that nobody can fetch keys from are found before anything is served.
func TestValidate(t *testing.T) {
	t.Parallel()
	bad := assertion.Config{Issuer: "gateway", Keys: []keyring.Secret{"short"}}
	err := bad.Validate()
	for _, want := range []string{`issuer: "gateway"`, "keys[0]: has fewer than 32"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q: %v", want, err)
		}
	}
	if err := (assertion.Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkAuthorization(b *testing.B) {
	a := signer(b, time.Now, secret).For("a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authorization(kim); err != nil {
			b.Fatal(err)
		}
	}
}
