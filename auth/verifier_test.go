package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// A service that cannot read who is calling cannot work.
func TestVerifyReturnsTheClaims(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	for _, algorithm := range algorithms {
		for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt"} {
			raw := token{algorithm: algorithm, header: map[string]any{"typ": typ}}.sign(t)
			got, err := v.Verify(t.Context(), raw)
			if err != nil {
				t.Fatalf("%s %s: %v", algorithm, typ, err)
			}
			want := &auth.Claims{
				Issuer: issuer, Subject: "alice", Audience: []string{"other", audience}, ClientID: "sumun",
				Scope: "read write", SessionID: "session-1", ID: "token-1", KeyID: algorithm,
				IssuedAt: got.IssuedAt, ExpiresAt: got.ExpiresAt, AuthTime: got.AuthTime,
				ACR: "1", AMR: []string{"pwd"}, Roles: []string{"admin"}, Epoch: 7,
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, want %+v", algorithm, got, want)
			}
			if !got.IssuedAt.Equal(now.Add(-time.Minute)) || !got.ExpiresAt.Equal(now.Add(14*time.Minute)) ||
				!got.AuthTime.Equal(now.Add(-time.Hour)) {
				t.Errorf("times: %+v", got)
			}
		}
	}
}

// Each row is a token that would let somebody act for another person, service or time.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(signers()[auth.RS256].Public())
	if err != nil {
		t.Fatal(err)
	}
	header := func(name string, value any) token { return token{header: map[string]any{name: value}} }
	claim := func(name string, value any) token { return token{claims: map[string]any{name: value}} }
	for name, row := range map[string]struct {
		token token
		want  error
	}{
		"ID token":                {header("typ", "JWT"), auth.ErrType},
		"no typ":                  {header("typ", nil), auth.ErrType},
		"typ not a text":          {header("typ", 1), auth.ErrMalformed},
		"no kid":                  {header("kid", nil), auth.ErrUnknownKey},
		"unknown kid":             {header("kid", "nobody"), auth.ErrUnknownKey},
		"crit":                    {header("crit", []string{"exp"}), auth.ErrMalformed},
		"embedded key":            {header("jwk", map[string]any{"kty": "EC"}), auth.ErrMalformed},
		"key address":             {header("jku", "https://evil.example"), auth.ErrMalformed},
		"certificate address":     {header("x5u", "https://evil.example"), auth.ErrMalformed},
		"certificates":            {header("x5c", []string{}), auth.ErrMalformed},
		"somebody else's key":     {token{key: foreign}, auth.ErrSignature},
		"key of other algorithm":  {token{algorithm: auth.RS256, header: map[string]any{"kid": auth.ES256}}, auth.ErrSignature},
		"HMAC with a public key":  {token{algorithm: "HS256", key: public, header: map[string]any{"kid": auth.RS256}}, auth.ErrSignature},
		"algorithm not accepted":  {token{algorithm: "PS256", key: signers()[auth.RS256], header: map[string]any{"kid": auth.RS256}}, auth.ErrSignature},
		"no signature":            {token{algorithm: "none", key: jwt.UnsafeAllowNoneSignatureType, header: map[string]any{"kid": auth.ES256}}, auth.ErrSignature},
		"no issuer":               {claim("iss", nil), auth.ErrClaims},
		"no subject":              {claim("sub", nil), auth.ErrClaims},
		"no audience":             {claim("aud", nil), auth.ErrClaims},
		"no client":               {claim("client_id", nil), auth.ErrClaims},
		"no iat":                  {claim("iat", nil), auth.ErrClaims},
		"no exp":                  {claim("exp", nil), auth.ErrClaims},
		"exp not a number":        {claim("exp", "soon"), auth.ErrMalformed},
		"subject not a text":      {claim("sub", 1), auth.ErrMalformed},
		"epoch not whole":         {claim("epoch", 1.5), auth.ErrMalformed},
		"other issuer":            {claim("iss", issuer+"/"), auth.ErrIssuer},
		"other audience":          {claim("aud", "https://other.example"), auth.ErrAudience},
		"expired":                 {claim("exp", now.Unix()-60), auth.ErrExpired},
		"issued in the future":    {claim("iat", now.Unix()+61), auth.ErrNotYetValid},
		"valid in the future":     {claim("nbf", now.Unix()+61), auth.ErrNotYetValid},
		"longer than is accepted": {claim("scope", strings.Repeat("x", auth.MaxTokenSize)), auth.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := newVerifier(t, nil).Verify(t.Context(), row.token.sign(t))
			if !errors.Is(err, row.want) {
				t.Errorf("got %v (%+v), want %v", err, claims, row.want)
			}
		})
	}
}

func TestVerifyRefusesBrokenText(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	good := token{}.sign(t)
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	encode := base64.RawURLEncoding.EncodeToString
	for name, row := range map[string]struct {
		raw  string
		want error
	}{
		"nothing":            {"", auth.ErrMissing},
		"two parts":          {head + "." + payload, auth.ErrMalformed},
		"four parts":         {good + ".x", auth.ErrMalformed},
		"dots":               {"..", auth.ErrMalformed},
		"no signature":       {head + "." + payload + ".", auth.ErrSignature},
		"other payload":      {head + "." + encode([]byte(`{"sub":"bob"}`)) + "." + signature, auth.ErrSignature},
		"padding":            {head + "." + payload + "." + signature + "==", auth.ErrMalformed},
		"line break":         {head + "." + payload + "." + signature[:10] + "\n" + signature[10:], auth.ErrMalformed},
		"trailing document":  {head + "." + encode([]byte(`{}{}`)) + "." + signature, auth.ErrSignature},
		"header not JSON":    {encode([]byte("ES256")) + "." + payload + "." + signature, auth.ErrMalformed},
		"header without alg": {encode([]byte(`{"typ":"at+jwt","kid":"ES256"}`)) + "." + payload + "." + signature, auth.ErrSignature},
		"longer than 8 KiB":  {good + strings.Repeat("x", auth.MaxTokenSize), auth.ErrMalformed},
	} {
		if _, err := v.Verify(t.Context(), row.raw); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

// Clocks differ: a token must not die, nor live, because of a few seconds.
func TestVerifyAllowsForLeeway(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	for _, claims := range []map[string]any{
		{"exp": now.Unix() - 59},
		{"iat": now.Unix() + 60},
		{"nbf": now.Unix() + 60},
		{"aud": audience}, // a text instead of a list, RFC 7519 section 4.1.3
		{"exp": float64(now.Unix()) + 0.5},
	} {
		if _, err := v.Verify(t.Context(), token{claims: claims}.sign(t)); err != nil {
			t.Errorf("%v: %v", claims, err)
		}
	}
}

// A key source of the consumer's own must not weaken anything.
func TestVerifyRefusesUnfitKeys(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		key   auth.Key
		token token
	}{
		"weak RSA":    {auth.Key{Algorithm: auth.RS256, Public: weak.Public()}, token{algorithm: auth.RS256, key: weak}},
		"other curve": {auth.Key{Algorithm: auth.ES256, Public: p384.Public()}, token{}},
		"no key":      {auth.Key{Algorithm: auth.ES256}, token{}},
		"other type":  {auth.Key{Algorithm: auth.ES256, Public: signers()[auth.EdDSA].Public()}, token{}},
	} {
		v := newVerifier(t, func(c *auth.Config) { c.Keys = source{row.key.Algorithm: row.key} })
		if _, err := v.Verify(t.Context(), row.token.sign(t)); !errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// While keys are unavailable clients must keep their tokens: the answer is 503, not 401.
func TestVerifyWithoutKeys(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Keys = failing{errors.New("connection refused")} })
	_, err := v.Verify(t.Context(), token{}.sign(t))
	if status, _, _ := auth.Challenge(err); !errors.Is(err, auth.ErrKeysUnavailable) || status != 503 {
		t.Errorf("got %v, status %d", err, status)
	}
}

func TestVerifyNarrowsAlgorithms(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Algorithms = []string{auth.EdDSA} })
	if _, err := v.Verify(t.Context(), token{algorithm: auth.EdDSA}.sign(t)); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), token{}.sign(t)); !errors.Is(err, auth.ErrSignature) {
		t.Errorf("ES256: got %v", err)
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{
		Leeway: time.Hour, Algorithms: []string{"HS256"}, Lenient: true, MaxStale: -1, Snapshot: auth.SnapshotConfig{Path: "x", Key: []byte("short")},
	})
	for _, key := range []string{"Issuer", "Audience", "Leeway", "Algorithms", "MaxStale", "Snapshot.Key"} {
		if err == nil || !strings.Contains(err.Error(), "auth.Config."+key) {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
	if _, err := auth.New(auth.Config{Issuer: "http://id.example", Audience: "a"}); err == nil {
		t.Error("keys would be fetched in the clear")
	}
}

func FuzzVerify(f *testing.F) {
	v := newVerifier(f, nil)
	good := token{}.sign(f)
	for _, algorithm := range algorithms {
		f.Add(token{algorithm: algorithm}.sign(f))
	}
	f.Add(good + "=")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		claims, err := v.Verify(t.Context(), raw)
		if (claims == nil) == (err == nil) {
			t.Fatalf("claims %+v and error %v", claims, err)
		}
		var own *auth.Error
		if err != nil && !errors.As(err, &own) {
			t.Fatalf("%T has no code", err)
		}
		if claims != nil && (claims.Subject != "alice" || claims.ID != "token-1") {
			t.Fatalf("forged: %+v", claims)
		}
	})
}
