package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
)

// publicJWK writes the tests' key of an algorithm the way an issuer does.
func publicJWK(tb testing.TB, algorithm, kid string) map[string]any {
	tb.Helper()
	m := map[string]any{"kid": kid, "alg": algorithm, "use": "sig"}
	switch k := signers()[algorithm].Public().(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			tb.Fatal(err)
		}
		m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(k)
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	}
	return m
}

func document(tb testing.TB, keys ...map[string]any) string {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// remote is an issuer without a network, so that synctest can move the time.
type remote struct {
	mu      sync.Mutex
	body    string
	maxAge  string
	status  int
	err     error
	delay   time.Duration
	fetches int
}

func (r *remote) set(change func(*remote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *remote) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches
}

func (r *remote) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.fetches++
	c := remote{body: r.body, maxAge: r.maxAge, status: r.status, err: r.err, delay: r.delay}
	r.mu.Unlock()
	select {
	case <-time.After(c.delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if c.err != nil {
		return nil, c.err
	}
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: req, Body: io.NopCloser(strings.NewReader(c.body))}
	if c.status != 0 {
		res.StatusCode = c.status
	}
	if c.maxAge != "" {
		res.Header.Set("Cache-Control", "public, max-age="+c.maxAge)
	}
	return res, nil
}

func (r *remote) keys(tb testing.TB) *auth.RemoteKeys {
	tb.Helper()
	k, err := auth.NewRemoteKeys(auth.RemoteConfig{
		URL: "https://id.example/.well-known/jwks.json", Client: &http.Client{Transport: r},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustHave(t *testing.T, k *auth.RemoteKeys, kid string) {
	t.Helper()
	if key, err := k.Key(t.Context(), kid); err != nil || key.ID != kid {
		t.Fatalf("key %q: %+v, %v", kid, key, err)
	}
}

// A real service: tokens verify with nothing but the issuer's address.
func TestVerifyWithTheIssuersAddressOnly(t *testing.T) {
	t.Parallel()
	var fetches atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		_, _ = io.WriteString(w, document(t, publicJWK(t, auth.ES256, auth.ES256), publicJWK(t, auth.EdDSA, auth.EdDSA),
			publicJWK(t, auth.RS256, auth.RS256)))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	v := newVerifier(t, func(c *auth.Config) { c.Issuer, c.Keys = server.URL, nil })
	for _, algorithm := range algorithms {
		raw := token{algorithm: algorithm, claims: map[string]any{"iss": server.URL}}.sign(t)
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
	if fetches.Load() != 1 {
		t.Errorf("%d fetches for one key set", fetches.Load())
	}
}

// Keys are fetched once per max-age, within the bounds, and nobody waits for a renewal.
func TestRemoteKeysHonourMaxAge(t *testing.T) {
	t.Parallel()
	for maxAge, fresh := range map[string]time.Duration{
		"300": 5 * time.Minute, "0": time.Minute, "31536000": time.Hour, "": 5 * time.Minute, "nonsense": 5 * time.Minute,
		"-1": 5 * time.Minute, "99999999999999999999": 5 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{body: document(t, publicJWK(t, auth.ES256, "k1")), maxAge: maxAge}
			k := r.keys(t)
			mustHave(t, k, "k1")
			time.Sleep(fresh)
			mustHave(t, k, "k1")
			synctest.Wait()
			if n := r.count(); n != 1 {
				t.Errorf("max-age=%s: %d fetches while fresh", maxAge, n)
			}
			time.Sleep(time.Second)
			r.set(func(r *remote) { r.delay = 3 * time.Second })
			before := time.Now()
			mustHave(t, k, "k1")
			if waited := time.Since(before); waited != 0 {
				t.Errorf("max-age=%s: waited %v for a renewal", maxAge, waited)
			}
			time.Sleep(4 * time.Second)
			if n := r.count(); n != 2 {
				t.Errorf("max-age=%s: %d fetches when stale", maxAge, n)
			}
		})
	}
}

// The issuer rotates its key at once: services follow at once, and strangers cannot make them flood the issuer.
func TestRemoteKeysAskForAnUnknownKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &remote{body: document(t, publicJWK(t, auth.ES256, "k1"))}
		k := r.keys(t)
		mustHave(t, k, "k1")
		time.Sleep(10 * time.Second)
		r.set(func(r *remote) {
			r.body, r.delay = document(t, publicJWK(t, auth.ES256, "k1"), publicJWK(t, auth.EdDSA, "k2")), time.Second
		})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustHave(t, k, "k2") })
		}
		wg.Wait()
		if n := r.count(); n != 2 {
			t.Errorf("%d fetches for 50 waiting requests", n)
		}
		for range 100 { // ten seconds of a stranger's invented key ids
			if _, err := k.Key(t.Context(), "invented"); !errors.Is(err, auth.ErrUnknownKey) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := r.count(); n > 3 {
			t.Errorf("%d fetches", n)
		}
	})
}

// Promise one: services go on working while the issuer is down, for a week.
func TestRemoteKeysOutliveTheIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good := document(t, publicJWK(t, auth.ES256, "k1"))
		r := &remote{body: good}
		k := r.keys(t)
		mustHave(t, k, "k1")
		for name, fault := range map[string]func(*remote){
			"refused":     func(r *remote) { r.err = errors.New("connection refused") },
			"unavailable": func(r *remote) { r.status = http.StatusServiceUnavailable },
			"redirect":    func(r *remote) { r.status = http.StatusFound },
			"nonsense":    func(r *remote) { r.body = "<html>" },
			"empty":       func(r *remote) { r.body = `{"keys":[]}` },
			"too large":   func(r *remote) { r.body = good + strings.Repeat(" ", 256<<10) },
			"hangs":       func(r *remote) { r.delay = time.Hour },
		} {
			r.set(fault)
			for range 3 {
				time.Sleep(48 * time.Hour)
				mustHave(t, k, "k1")
				synctest.Wait()
			}
			time.Sleep(10 * time.Second)
			if _, err := k.Key(t.Context(), "k2"); err == nil || errors.Is(err, auth.ErrUnknownKey) {
				t.Errorf("%s: nobody can say that k2 does not exist, but: %v", name, err)
			}
			r.set(func(r *remote) { r.body, r.err, r.status, r.delay = good, nil, 0, 0 })
			time.Sleep(10 * time.Second)
			mustHave(t, k, "k1")
			synctest.Wait() // renewed
		}
	})
}

// Keys that nobody has confirmed for longer than is allowed are not used: one of them may have been withdrawn.
func TestRemoteKeysGoStaleInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &remote{body: document(t, publicJWK(t, auth.ES256, "k1"))}
		k, err := auth.NewRemoteKeys(auth.RemoteConfig{
			URL: "https://id.example/jwks", Client: &http.Client{Transport: r}, MaxStale: 2 * time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		mustHave(t, k, "k1")
		r.set(func(r *remote) { r.err = errors.New("connection refused") })
		time.Sleep(2 * time.Hour)
		mustHave(t, k, "k1")
		time.Sleep(time.Minute)
		if _, err := k.Key(t.Context(), "k1"); err == nil || errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("a key of two hours ago: %v", err)
		}
		r.set(func(r *remote) { r.err = nil })
		time.Sleep(10 * time.Second)
		mustHave(t, k, "k1")
	})
}

// A service that starts while the issuer is down works as soon as it is back, and does not hang until then.
func TestRemoteKeysBeforeTheFirstFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &remote{body: document(t, publicJWK(t, auth.ES256, "k1")), delay: time.Hour}
		k := r.keys(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := time.Now()
		if _, err := k.Key(ctx, "k1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != time.Second {
			t.Errorf("after %v: %v", time.Since(before), err)
		}
		if _, err := k.Key(t.Context(), "k1"); err == nil || time.Since(before) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(before), err)
		}
		r.set(func(r *remote) { r.delay = 0 })
		time.Sleep(time.Second)
		mustHave(t, k, "k1")
	})
}

// Keys that are not for us are left out; what is ambiguous is refused.
func TestRemoteKeysReadASet(t *testing.T) {
	t.Parallel()
	with := func(name string, value any) map[string]any {
		m := publicJWK(t, auth.ES256, "k")
		m[name] = value
		return m
	}
	zeros := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	other := publicJWK(t, auth.EdDSA, "k1")
	for name, body := range map[string]string{
		"for encryption":     document(t, with("use", "enc")),
		"not for verifying":  document(t, with("key_ops", []string{"sign"})),
		"other algorithm":    document(t, with("alg", "ES384")),
		"other curve":        document(t, with("crv", "P-384")),
		"not on the curve":   document(t, with("x", zeros)),
		"short coordinate":   document(t, with("x", "AQ")),
		"not base64url":      document(t, with("x", "+/+/")),
		"symmetric":          document(t, map[string]any{"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"}),
		"without kid":        document(t, with("kid", "")),
		"weak RSA":           document(t, map[string]any{"kty": "RSA", "kid": "k", "n": zeros, "e": "AQAB"}),
		"member not a text":  `{"keys":[{"kid":5},7,null]}`,
		"not a set":          `[]`,
		"the same id twice":  document(t, publicJWK(t, auth.ES256, "k1"), other),
		"more than 64 keys":  `{"keys":[` + strings.Repeat("{},", 64) + `{}]}`,
		"nothing but spaces": "   ",
	} {
		r := &remote{body: body}
		if _, err := r.keys(t).Key(t.Context(), "k"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := &remote{body: document(t, with("use", "enc"), publicJWK(t, auth.RS256, "k1"), map[string]any{"kty": "new"})}
	mustHave(t, r.keys(t), "k1")
}

func TestNewRemoteKeysWantsASafeAddress(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"https://id.example/jwks": true, "http://127.0.0.1:8080/jwks": true, "http://[::1]/jwks": true,
		"http://localhost:8080/jwks": true, "http://id.example/jwks": false, "http://127.0.0.1.evil.example/": false,
		"file:///etc/passwd": false, "id.example/jwks": false, "": false, "https://": false, "://": false,
	} {
		if _, err := auth.NewRemoteKeys(auth.RemoteConfig{URL: address}); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// The default client follows no redirect: an open one at the issuer would choose the keys.
func TestRemoteKeysFollowNoRedirect(t *testing.T) {
	t.Parallel()
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, document(t, publicJWK(t, auth.ES256, "k1")))
	}))
	t.Cleanup(evil.Close)
	server := httptest.NewServer(http.RedirectHandler(evil.URL, http.StatusFound))
	t.Cleanup(server.Close)
	k, err := auth.NewRemoteKeys(auth.RemoteConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Key(t.Context(), "k1"); err == nil {
		t.Error("the redirect was followed")
	}
}

func FuzzRemoteKeys(f *testing.F) {
	for _, algorithm := range algorithms {
		f.Add([]byte(document(f, publicJWK(f, algorithm, "k"))))
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &remote{body: string(bytes.Clone(body))}
		key, err := r.keys(t).Key(t.Context(), "k")
		if err != nil {
			return
		}
		switch pub := key.Public.(type) {
		case *ecdsa.PublicKey:
			if _, err := pub.Bytes(); err != nil || key.Algorithm != auth.ES256 {
				t.Errorf("%s key: %v", key.Algorithm, err)
			}
		case ed25519.PublicKey:
			if len(pub) != ed25519.PublicKeySize || key.Algorithm != auth.EdDSA {
				t.Errorf("%s key of %d bytes", key.Algorithm, len(pub))
			}
		case *rsa.PublicKey:
			if pub.N.BitLen() < 2048 || key.Algorithm != auth.RS256 {
				t.Errorf("%s key of %d bits", key.Algorithm, pub.N.BitLen())
			}
		default:
			t.Errorf("%T", pub)
		}
	})
}
