package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// The examples of RFC 9449: sections 4.1, 6.1 and 7.1.
const (
	rfcThumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	rfcHeader     = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
	rfcTokenProof = rfcHeader + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	rfcToken      = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	rfcProof      = rfcHeader + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)

func newProofs(tb testing.TB, change func(*auth.ProofConfig)) *auth.Proofs {
	tb.Helper()
	cfg := auth.ProofConfig{Clock: func() time.Time { return now }}
	if change != nil {
		change(&cfg)
	}
	p, err := auth.NewProofs(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func newProver(tb testing.TB, algorithm string) *auth.Prover {
	tb.Helper()
	p, err := auth.NewProver(signers()[algorithm])
	if err != nil {
		tb.Fatal(err)
	}
	p.Clock = func() time.Time { return now }
	return p
}

func prove(tb testing.TB, p *auth.Prover, method, url, token, nonce string) string {
	tb.Helper()
	made, err := p.Proof(method, url, token, nonce)
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

// request is one to api.example over TLS, with whatever is not empty.
func request(method, path, authorization string, proofs ...string) *http.Request {
	r := httptest.NewRequest(method, "https://api.example"+path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

// A client that follows the RFC to the letter gets in, and its key has the name that everybody gives it.
func TestExamplesOfRFC9449(t *testing.T) {
	t.Parallel()
	at := func(seconds int64) func(*auth.ProofConfig) {
		return func(c *auth.ProofConfig) { c.Clock = func() time.Time { return time.Unix(seconds, 0) } }
	}
	r := httptest.NewRequest("POST", "https://server.example.com/token", nil)
	r.Header.Set("DPoP", rfcTokenProof)
	thumbprint, err := newProofs(t, at(1562262616)).Check(r)
	if err != nil || thumbprint != rfcThumbprint {
		t.Errorf("thumbprint %q, %v, want %q", thumbprint, err, rfcThumbprint)
	}
	r = httptest.NewRequest("GET", "https://resource.example.org/protectedresource", nil)
	r.Header.Set("DPoP", rfcProof)
	key := auth.Confirmation{JKT: rfcThumbprint}
	if err := newProofs(t, at(1562262618)).CheckFor(r, rfcToken, key); err != nil {
		t.Error(err)
	}
	if err := newProofs(t, at(1562262618)).CheckFor(r, rfcToken+"x", key); !errors.Is(err, auth.ErrProof) {
		t.Errorf("with another token: %v, want %v", err, auth.ErrProof)
	}
	if err := newProofs(t, at(1562262618)).CheckFor(r, rfcToken, auth.Confirmation{JKT: "x"}); !errors.Is(err, auth.ErrProofKey) {
		t.Errorf("for another key: %v, want %v", err, auth.ErrProofKey)
	}
}

// A stolen token is worth nothing without the key; one that is bound to none must not look as if it were.
func TestBoundToken(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	for _, algorithm := range algorithms {
		mine := newProver(t, algorithm)
		bound := token{claims: map[string]any{"cnf": map[string]any{"jkt": mine.Thumbprint()}}}.sign(t)
		plain := token{}.sign(t)
		theirs, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		thief, err := auth.NewProver(theirs)
		if err != nil {
			t.Fatal(err)
		}
		thief.Clock = mine.Clock
		proof := func(p *auth.Prover, token string) string {
			return prove(t, p, "GET", "https://api.example/x", token, "")
		}
		challenge := `DPoP realm="sumun", algs="ES256 EdDSA RS256", error="`
		for name, c := range map[string]struct {
			authorization string
			proofs        []string
			want          error
			challenge     string
		}{
			"with its proof":     {"DPoP " + bound, []string{proof(mine, bound)}, nil, ""},
			"scheme in any case": {"dpop " + bound, []string{proof(mine, bound)}, nil, ""},
			"as bearer":          {"Bearer " + bound, []string{proof(mine, bound)}, auth.ErrBound, challenge + "invalid_token"},
			"as bearer alone":    {"Bearer " + bound, nil, auth.ErrBound, challenge + "invalid_token"},
			"without a proof":    {"DPoP " + bound, nil, auth.ErrProof, challenge + "invalid_dpop_proof"},
			"with two proofs":    {"DPoP " + bound, []string{proof(mine, bound), proof(mine, bound)}, auth.ErrProof, challenge + "invalid_dpop_proof"},
			"with another key":   {"DPoP " + bound, []string{proof(thief, bound)}, auth.ErrProofKey, challenge + "invalid_token"},
			"with no ath":        {"DPoP " + bound, []string{proof(mine, "")}, auth.ErrProof, challenge + "invalid_dpop_proof"},
			"with another's ath": {"DPoP " + bound, []string{proof(mine, plain)}, auth.ErrProof, challenge + "invalid_dpop_proof"},
			"unbound as DPoP":    {"DPoP " + plain, []string{proof(mine, plain)}, auth.ErrUnbound, challenge + "invalid_token"},
			"expired as DPoP":    {"DPoP " + token{claims: map[string]any{"exp": 1}}.sign(t), nil, auth.ErrExpired, challenge + "invalid_token"},
			"unbound as bearer":  {"Bearer " + plain, nil, nil, ""},
		} {
			claims, err := v.VerifyRequest(request("GET", "/x", c.authorization, c.proofs...))
			if !errors.Is(err, c.want) || (err == nil) != (claims != nil) {
				t.Errorf("%s %s: %v, want %v", algorithm, name, err, c.want)
			}
			if _, header, _ := auth.Challenge(err); c.challenge != "" && !strings.HasPrefix(header, c.challenge) {
				t.Errorf("%s %s: challenge %s", algorithm, name, header)
			}
		}
		if _, err := v.Verify(t.Context(), bound); !errors.Is(err, auth.ErrBound) {
			t.Errorf("a bound token alone: %v, want %v", err, auth.ErrBound)
		}
		if claims, err := v.VerifyBound(t.Context(), bound); err != nil || claims.Confirmation.JKT != mine.Thumbprint() {
			t.Errorf("its claims: %+v, %v", claims, err)
		}
	}
	for _, cnf := range []any{map[string]any{}, map[string]any{"jwk": map[string]any{}}, map[string]any{"jkt": ""}, map[string]any{"x5t#S256": ""}} {
		raw := token{claims: map[string]any{"cnf": cnf}}.sign(t)
		if _, err := v.VerifyRequest(request("GET", "/x", "Bearer "+raw)); !errors.Is(err, auth.ErrClaims) {
			t.Errorf("bound in a way that nobody checks, %v: %v, want %v", cnf, err, auth.ErrClaims)
		}
	}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// forged is a proof with changes; nil removes.
func forged(tb testing.TB, header, claims map[string]any) string {
	tb.Helper()
	point, err := signers()[auth.ES256].Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"jti": "1", "htm": "POST", "htu": "https://api.example/token", "iat": now.Unix(),
	})
	t.Header["typ"] = "dpop+jwt"
	t.Header["jwk"] = map[string]any{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	change(t.Header, header)
	change(t.Claims.(jwt.MapClaims), claims)
	if jwk, ok := t.Header["jwk"].(map[string]any); ok {
		if more, ok := header["more"].(map[string]any); ok {
			change(jwk, more)
			delete(t.Header, "more")
		}
	}
	signed, err := t.SignedString(signers()[auth.ES256])
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

// What is not a proof of a key opens nothing, and a client that sends its private key is told.
func TestRefusedProofs(t *testing.T) {
	t.Parallel()
	jwk := func(more map[string]any) map[string]any { return map[string]any{"more": more} }
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	none := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"jti": "1"})
	none.Header["typ"] = "dpop+jwt"
	unsigned, _ := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	symmetric := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"jti": "1", "htm": "POST", "htu": "https://api.example/token", "iat": now.Unix()})
	symmetric.Header["typ"], symmetric.Header["jwk"] = "dpop+jwt", map[string]any{"kty": "oct"}
	hs, _ := symmetric.SignedString([]byte("k"))
	good := forged(t, nil, nil)
	raw := func(header string) string { return encode([]byte(header)) + good[strings.IndexByte(good, '.'):] }
	for name, raw := range map[string]string{
		"nothing":            "",
		"garbage":            "x",
		"too long":           good + strings.Repeat("A", auth.MaxProofSize),
		"line break":         good[:40] + "\n" + good[40:],
		"alg none":           unsigned,
		"alg HS256":          hs,
		"signature changed":  good[:len(good)-8] + "AAAAAAAA",
		"typ JWT":            forged(t, map[string]any{"typ": "JWT"}, nil),
		"typ at+jwt":         forged(t, map[string]any{"typ": "at+jwt"}, nil),
		"no typ":             forged(t, map[string]any{"typ": nil}, nil),
		"no jwk":             forged(t, map[string]any{"jwk": nil}, nil),
		"jwk a string":       forged(t, map[string]any{"jwk": "x"}, nil),
		"crit":               forged(t, map[string]any{"crit": []string{"exp"}}, nil),
		"jku":                forged(t, map[string]any{"jku": "https://evil.example"}, nil),
		"private key":        forged(t, jwk(map[string]any{"d": "AAAA"}), nil),
		"symmetric key":      forged(t, jwk(map[string]any{"k": "AAAA"}), nil),
		"point off curve":    forged(t, jwk(map[string]any{"y": encode(make([]byte, 32))}), nil),
		"short coordinate":   forged(t, jwk(map[string]any{"x": "AAAA"}), nil),
		"other curve":        forged(t, jwk(map[string]any{"crv": "P-384"}), nil),
		"key for encryption": forged(t, jwk(map[string]any{"use": "enc"}), nil),
		"key of another alg": forged(t, jwk(map[string]any{"alg": "RS256"}), nil),
		"RSA key, ES256": forged(t, map[string]any{"jwk": map[string]any{"kty": "RSA", "e": "AQAB",
			"n": encode(signers()[auth.RS256].Public().(*rsa.PublicKey).N.Bytes())}}, nil),
		"weak RSA key": forged(t, map[string]any{"jwk": map[string]any{"kty": "RSA", "e": "AQAB", "n": encode(short.N.Bytes())}}, nil),
		"no jti":       forged(t, nil, map[string]any{"jti": nil}),
		"jti too long": forged(t, nil, map[string]any{"jti": strings.Repeat("a", 513)}),
		"jti a number": forged(t, nil, map[string]any{"jti": 1}),
		"no iat":       forged(t, nil, map[string]any{"iat": nil}),
		"iat huge":     forged(t, nil, map[string]any{"iat": 1e300}),
		"no htm":       forged(t, nil, map[string]any{"htm": nil}),
		"no htu":       forged(t, nil, map[string]any{"htu": nil}),
		"other method": forged(t, nil, map[string]any{"htm": "GET"}),
		"two jwk":      raw(`{"typ":"dpop+jwt","alg":"ES256","jwk":{},"jwk":{}}`),
		"method case":  forged(t, nil, map[string]any{"htm": "post"}),
		"too old":      forged(t, nil, map[string]any{"iat": now.Unix() - 61}),
		"in future":    forged(t, nil, map[string]any{"iat": now.Unix() + 61}),
	} {
		if _, err := newProofs(t, nil).Check(request("POST", "/token", "", raw)); !errors.Is(err, auth.ErrProof) {
			t.Errorf("%s: %v, want %v", name, err, auth.ErrProof)
		}
	}
	for name, raw := range map[string]string{
		"as it is":      good,
		"minute old":    forged(t, nil, map[string]any{"iat": now.Unix() - 60}),
		"minute ahead":  forged(t, nil, map[string]any{"iat": now.Unix() + 60}),
		"fraction":      forged(t, nil, map[string]any{"iat": float64(now.Unix()) + 0.5}),
		"typ uppercase": forged(t, map[string]any{"typ": "DPoP+JWT"}, nil),
		"more in jwk":   forged(t, jwk(map[string]any{"use": "sig", "alg": "ES256", "kid": "1"}), nil),
	} {
		if _, err := newProofs(t, nil).Check(request("POST", "/token", "", raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A proof opens the address that it was made for, however that is written, and no other.
func TestAddressOfAProof(t *testing.T) {
	t.Parallel()
	prover := newProver(t, auth.ES256)
	for _, c := range []struct {
		public, target, htu string
		good                bool
	}{
		{"", "/a", "https://api.example/a", true},
		{"", "/a?q=1", "https://api.example/a", true},
		{"", "/a?q=1", "https://api.example/a?other#fragment", true},
		{"", "/a", "HTTPS://API.Example/a", true},
		{"", "/a", "https://api.example:443/a", true},
		{"", "/a", "https://api.example:/a", true},
		{"", "/", "https://api.example", true},
		{"", "/%7Ea", "https://api.example/~a", true},
		{"", "/~a", "https://api.example/%7ea", true},
		{"", "/%e2%82%ac", "https://api.example/%E2%82%AC", true},
		{"", "/a/b", "https://api.example/a/./c/../b", true},
		{"", "/a/b", "https://api.example/%61/%2e/c/%2E%2e/b", true},
		{"", "/a/", "https://api.example/a", false},
		{"", "/a", "https://api.example/a/", false},
		{"", "/A", "https://api.example/a", false},
		{"", "/a%2Fb", "https://api.example/a/b", false},
		{"", "//a", "https://api.example/a", false},
		{"", "/a%252Fb", "https://api.example/a%2Fb", false},
		{"", "/a", "http://api.example/a", false},
		{"", "/a", "https://api.example:8443/a", false},
		{"", "/a", "https://api.example:80/a", false},
		{"", "/a", "https://api.example.evil/a", false},
		{"", "/a", "https://api.example@evil/a", false},
		{"", "/a", "https://user@api.example/a", false},
		{"", "/a", "https://evil/a", false},
		{"", "/a", "/a", false},
		{"", "/a", "//api.example/a", false},
		{"", "/a", "https:api.example/a", false},
		{"", "/a", "https:///a", false},
		{"", "/a", "https://api.example/%zz", false},
		{"", "/a", "ftp://api.example/a", false},
		{"https://shop.example", "/a", "https://shop.example/a", true},
		{"https://shop.example", "/a", "https://api.example/a", false},
		{"https://shop.example/", "/a", "https://SHOP.example:443/a", true},
		{"https://shop.example/orders", "/a", "https://shop.example/orders/a", true},
		{"https://shop.example/orders", "/a", "https://shop.example/a", false},
		{"http://[::1]:80", "/a", "http://[::1]/a", true},
	} {
		proofs := newProofs(t, func(cfg *auth.ProofConfig) {
			if c.public != "" {
				cfg.PublicURLs = []string{"https://elsewhere.example", c.public}
			}
		})
		r := request("GET", c.target, "", prove(t, prover, "GET", c.htu, "", ""))
		r.Header.Set("X-Forwarded-Host", "evil")
		r.URL.Path, r.URL.RawPath = "/rewritten", "" // as handlers on the way do
		if _, err := proofs.Check(r); (err == nil) != c.good || err != nil && !errors.Is(err, auth.ErrProof) {
			t.Errorf("%s at %s%s: %v, want accepted %v", c.htu, c.public, c.target, err, c.good)
		}
	}
}

// shared is a memory of proofs that two nodes have, or nobody.
type shared struct {
	mu   sync.Mutex
	seen map[string]bool
	fail error
}

func (s *shared) Once(_ context.Context, id string, _ time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.seen[id]
	s.seen[id] = true
	return first, s.fail
}

// Whoever saw a proof on its way cannot use it, at once or on another node; and when nobody can tell, it is not used.
func TestReplayedProof(t *testing.T) {
	t.Parallel()
	memory := &shared{seen: map[string]bool{}}
	with := func(c *auth.ProofConfig) { c.Replays = memory }
	one, two := newProofs(t, with), newProofs(t, with)
	prover := newProver(t, auth.ES256)
	raw := prove(t, prover, "POST", "https://api.example/token", "", "")
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		node := one
		if i%2 == 1 {
			node = two
		}
		wg.Go(func() {
			switch _, err := node.Check(request("POST", "/token", "", raw)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, auth.ErrProofReplayed):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("one proof was used %d times", won.Load())
	}
	memory.fail = errors.New("away")
	_, err := one.Check(request("POST", "/token", "", prove(t, prover, "POST", "https://api.example/token", "", "")))
	if status, _, _ := auth.Challenge(err); !errors.Is(err, auth.ErrProofsUnavailable) || status != 503 {
		t.Errorf("without its memory: %v, want %v", err, auth.ErrProofsUnavailable)
	}
}

// Within one process too, until the proof is too old anyway.
func TestReplayInMemory(t *testing.T) {
	t.Parallel()
	clock := now
	proofs := newProofs(t, func(c *auth.ProofConfig) { c.Clock = func() time.Time { return clock } })
	ahead := forged(t, nil, map[string]any{"iat": now.Unix() + 60})
	if _, err := proofs.Check(request("POST", "/token", "", ahead)); err != nil {
		t.Fatal(err)
	}
	for clock = now; clock.Before(now.Add(121 * time.Second)); clock = clock.Add(time.Second) {
		if _, err := proofs.Check(request("POST", "/token", "", ahead)); !errors.Is(err, auth.ErrProofReplayed) {
			t.Fatalf("after %v: %v, want %v", clock.Sub(now), err, auth.ErrProofReplayed)
		}
	}
	if _, err := proofs.Check(request("POST", "/token", "", ahead)); !errors.Is(err, auth.ErrProof) {
		t.Errorf("after its time: %v, want %v", err, auth.ErrProof)
	}
}

// Who has a wrong clock is helped by a nonce; who sends an old one, one from before a new key, or none is given another.
func TestNonces(t *testing.T) {
	t.Parallel()
	clock := now
	keys := map[uint32][]byte{1: []byte("one"), 2: []byte("two")}
	current := uint32(1)
	key := func(_ context.Context, id uint32) (uint32, []byte, error) {
		if id == 0 {
			id = current
		}
		if keys[id] == nil {
			return 0, nil, errors.New("no such key")
		}
		return id, keys[id], nil
	}
	node := func(required bool, skew time.Duration) *auth.Proofs {
		return newProofs(t, func(c *auth.ProofConfig) {
			c.Nonces, c.RequireNonce, c.Clock = auth.NewNonces(key), required, func() time.Time { return clock.Add(skew) }
		})
	}
	strict, lax, late, early := node(true, 0), node(false, 0), node(true, -30*time.Second), node(true, 30*time.Second)
	prover := newProver(t, auth.ES256)
	try := func(p *auth.Proofs, nonce string) (next string, err error) {
		r := request("POST", "/token", "", prove(t, prover, "POST", "https://api.example/token", "", nonce))
		_, err = p.Check(r)
		return p.NonceFor(r), err
	}
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	nonce, err := try(strict, "")
	want("none", err, auth.ErrNonce)
	if _, header, _ := auth.Challenge(err); !strings.Contains(header, `error="use_dpop_nonce"`) {
		t.Errorf("challenge %s", header)
	}
	_, err = try(lax, "")
	want("none, where none is needed", err, nil)
	for _, p := range []*auth.Proofs{strict, lax, late, early} {
		_, err = try(p, nonce)
		want("fresh", err, nil)
		theirs, _ := try(p, nonce)
		_, err = try(strict, theirs)
		want("of another node", err, nil)
	}
	prover.Clock = func() time.Time { return now.Add(-24 * time.Hour) }
	_, err = try(lax, "")
	want("a client whose clock is wrong", err, auth.ErrNonce)
	_, err = try(lax, nonce)
	want("the same with a nonce", err, nil)
	for _, bad := range []string{"x", nonce + "A", "B" + nonce[1:], nonce[:len(nonce)-2] + "AA", strings.Repeat("_", len(nonce))} {
		_, err = try(strict, bad)
		want("made up: "+bad, err, auth.ErrNonce)
	}
	clock = now.Add(179 * time.Second)
	_, err = try(strict, nonce)
	want("just before its end", err, nil)
	clock = now.Add(180 * time.Second)
	next, err := try(strict, nonce)
	want("at its end", err, auth.ErrNonce)
	_, err = try(strict, next)
	want("the next", err, nil)
	current = 2
	newest, err := try(strict, next)
	want("under the key before", err, nil)
	delete(keys, 1)
	_, err = try(strict, next)
	want("under a key that is gone", err, auth.ErrNonce)
	_, err = try(strict, newest)
	want("under the new key", err, nil)
}

// Middleware rolls nonces over without refusing anybody: each answer brings the one to use next.
func TestMiddlewareSendsNonces(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) {
		c.Proofs = newProofs(t, func(p *auth.ProofConfig) {
			p.Nonces, p.RequireNonce = auth.NewNonces(auth.StaticNonceKey([]byte("secret"))), true
		})
	})
	prover := newProver(t, auth.ES256)
	bound := token{claims: map[string]any{"cnf": map[string]any{"jkt": prover.Thumbprint()}}}.sign(t)
	h := v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	nonce := ""
	for _, status := range []int{401, 200, 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "/x", "DPoP "+bound, prove(t, prover, "GET", "https://api.example/x", bound, nonce)))
		if nonce = w.Header().Get("DPoP-Nonce"); w.Code != status || nonce == "" {
			t.Errorf("status %d with nonce %q, want %d", w.Code, nonce, status)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", "/x", "Bearer "+token{}.sign(t)))
	if w.Code != 200 || w.Header().Get("DPoP-Nonce") != "" {
		t.Errorf("status %d, header %v", w.Code, w.Header())
	}
}

func TestNewProofsTellsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := auth.NewProofs(auth.ProofConfig{PublicURLs: []string{"api.example"}, Window: time.Hour, RequireNonce: true})
	for _, want := range []string{`"api.example"`, "1h0m0s", "RequireNonce"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// FuzzProof: whatever is sent as a proof, the answer is a refusal that can be told, and never a panic.
func FuzzProof(f *testing.F) {
	for _, seed := range []string{rfcTokenProof, rfcProof, "..", ""} {
		f.Add(seed, "https://api.example/token")
	}
	f.Add(rfcProof, "https://[::1%25eth0]:443/%2e%2E/../%7e?x#y")
	proofs := newProofs(f, func(c *auth.ProofConfig) { c.Replays = &shared{seen: map[string]bool{}} })
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	prover, err := auth.NewProver(key)
	if err != nil {
		f.Fatal(err)
	}
	prover.Clock = func() time.Time { return now }
	f.Fuzz(func(t *testing.T, raw, url string) {
		for _, one := range []string{raw, prove(t, prover, "POST", url, "", "")} {
			r := request("POST", "/token", "")
			r.Header["Dpop"] = []string{one}
			thumbprint, err := proofs.Check(r)
			var refused *auth.Error
			if err != nil && (!errors.As(err, &refused) || thumbprint != "") {
				t.Errorf("%q: thumbprint %q, %v", one, thumbprint, err)
			}
		}
	})
}
