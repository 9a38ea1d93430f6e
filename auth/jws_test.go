package auth_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sumunio/sumun/auth"
)

// signRaw signs whatever header and payload say with the tests' ES256 key.
func signRaw(tb testing.TB, header, payload string) string {
	tb.Helper()
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, signers()[auth.ES256].(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + b64(signature)
}

const (
	goodHeader  = `{"alg":"ES256","typ":"at+jwt","kid":"ES256"}`
	goodPayload = `{"iss":"https://id.example","sub":"alice","aud":"https://api.example","client_id":"app","iat":1772366340,"exp":1772367240}`
)

// Two parsers must not be able to read two things in one token, and a token must not choose its judge. Every one of these is
// signed with the right key: the signature does not excuse anything.
func TestVerifyReadsStrictly(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	if _, err := v.Verify(t.Context(), signRaw(t, goodHeader, goodPayload)); err != nil {
		t.Fatal(err)
	}
	header := func(more string) string { return strings.TrimSuffix(goodHeader, "}") + "," + more + "}" }
	payload := func(more string) string { return strings.TrimSuffix(goodPayload, "}") + "," + more + "}" }
	for name, row := range map[string]struct {
		header, payload string
		want            error
	}{
		"alg twice":               {header(`"alg":"none"`), goodPayload, auth.ErrMalformed},
		"alg twice, escaped":      {header(`"\u0061lg":"ES256"`), goodPayload, auth.ErrMalformed},
		"kid twice":               {header(`"kid":"ES256"`), goodPayload, auth.ErrMalformed},
		"unknown member twice":    {header(`"x":1,"x":2`), goodPayload, auth.ErrMalformed},
		"alg in capitals":         {`{"ALG":"ES256","typ":"at+jwt","kid":"ES256"}`, goodPayload, auth.ErrSignature},
		"alg not a text":          {`{"alg":["ES256"],"typ":"at+jwt","kid":"ES256"}`, goodPayload, auth.ErrMalformed},
		"alg in lower case":       {`{"alg":"es256","typ":"at+jwt","kid":"ES256"}`, goodPayload, auth.ErrSignature},
		"crit":                    {header(`"crit":["exp"],"exp":1`), goodPayload, auth.ErrMalformed},
		"empty crit":              {header(`"crit":[]`), goodPayload, auth.ErrMalformed},
		"unencoded payload":       {header(`"b64":false`), goodPayload, auth.ErrMalformed},
		"compressed":              {header(`"zip":"DEF"`), goodPayload, auth.ErrMalformed},
		"encrypted":               {header(`"enc":"A128GCM"`), goodPayload, auth.ErrMalformed},
		"embedded key":            {header(`"jwk":{"kty":"EC"}`), goodPayload, auth.ErrMalformed},
		"embedded key, null":      {header(`"jwk":null`), goodPayload, auth.ErrMalformed},
		"key address":             {header(`"jku":"https://evil.example"`), goodPayload, auth.ErrMalformed},
		"certificates":            {header(`"x5c":[]`), goodPayload, auth.ErrMalformed},
		"certificate address":     {header(`"x5u":"https://evil.example"`), goodPayload, auth.ErrMalformed},
		"a path for a kid":        {`{"alg":"ES256","typ":"at+jwt","kid":"../../dev/null"}`, goodPayload, auth.ErrUnknownKey},
		"SQL for a kid":           {`{"alg":"ES256","typ":"at+jwt","kid":"' OR 1=1 --"}`, goodPayload, auth.ErrUnknownKey},
		"kid with a zero byte":    {`{"alg":"ES256","typ":"at+jwt","kid":"ES256\u0000"}`, goodPayload, auth.ErrUnknownKey},
		"a header of 2 KiB":       {header(`"x":"` + strings.Repeat("x", 2048) + `"`), goodPayload, auth.ErrMalformed},
		"header a list":           {`["ES256"]`, goodPayload, auth.ErrMalformed},
		"header null":             {`null`, goodPayload, auth.ErrMalformed},
		"two headers":             {goodHeader + goodHeader, goodPayload, auth.ErrMalformed},
		"a nested token":          {header(`"cty":"JWT"`), signRaw(t, goodHeader, goodPayload), auth.ErrMalformed},
		"sub twice":               {goodHeader, payload(`"sub":"bob"`), auth.ErrMalformed},
		"exp twice":               {goodHeader, payload(`"exp":9999999999`), auth.ErrMalformed},
		"sub in capitals instead": {goodHeader, strings.Replace(goodPayload, `"sub"`, `"Sub"`, 1), auth.ErrClaims},
		"sub null":                {goodHeader, strings.Replace(goodPayload, `"alice"`, `null`, 1), auth.ErrClaims},
		"exp beyond all dates":    {goodHeader, strings.Replace(goodPayload, `1772367240`, `1e300`, 1), auth.ErrMalformed},
		"exp negative":            {goodHeader, strings.Replace(goodPayload, `1772367240`, `-1`, 1), auth.ErrMalformed},
		"text after the payload":  {goodHeader, goodPayload + " {}", auth.ErrMalformed},
	} {
		if c, err := v.Verify(t.Context(), signRaw(t, row.header, row.payload)); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v (%+v), want %v", name, err, c, row.want)
		}
	}
	c, err := v.Verify(t.Context(), signRaw(t, goodHeader, payload(`"SUB":"bob","Roles":["admin"]`)))
	if err != nil || c.Subject != "alice" || len(c.Roles) != 0 {
		t.Errorf("names in other letters are other names: %+v, %v", c, err)
	}
}

// A claim is read only once the signature is right: what strangers send never reaches the claims' parser.
func TestVerifyReadsThePayloadLast(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	raw := signRaw(t, goodHeader, goodPayload)
	head, rest, _ := strings.Cut(raw, ".")
	_, signature, _ := strings.Cut(rest, ".")
	forged := head + "." + b64([]byte(`{"sub":`)) + "." + signature
	if _, err := v.Verify(t.Context(), forged); !errors.Is(err, auth.ErrSignature) {
		t.Errorf("got %v", err)
	}
}

// Requests that name two tokens are refused whichever of them is good: proxies differ in which one they look at.
func TestVerifyRequestRefuses(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	good := "Bearer " + token{}.sign(t)
	for name, row := range map[string]struct {
		headers []string
		want    error
	}{
		"two headers":        {[]string{good, good}, auth.ErrRequest},
		"a good one second":  {[]string{"Bearer x", good}, auth.ErrRequest},
		"two in one":         {[]string{good + ", " + good}, auth.ErrRequest},
		"a line break in it": {[]string{good + "\r\nX: y"}, auth.ErrRequest},
		"no token":           {[]string{"Bearer "}, auth.ErrRequest},
		"oversized":          {[]string{good + strings.Repeat("x", auth.MaxTokenSize)}, auth.ErrMalformed},
		"another scheme":     {[]string{"Basic eDp5"}, auth.ErrMissing},
		"in the address":     {nil, auth.ErrMissing},
	} {
		r := httptest.NewRequest(http.MethodGet, "/?access_token="+good[7:], nil)
		r.Header["Authorization"] = row.headers
		for range 2 { // the second time past the cache
			if _, err := v.VerifyRequest(r); !errors.Is(err, row.want) {
				t.Errorf("%s: got %v, want %v", name, err, row.want)
			}
		}
		r.Header["Authorization"] = []string{good}
		if _, err := v.VerifyRequest(r); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzHeader: whatever a rightly signed header says, what is accepted has exactly one alg, the key's own.
func FuzzHeader(f *testing.F) {
	v := newVerifier(f, nil)
	f.Add(goodHeader)
	f.Add(`{"alg":"ES256","typ":"at+jwt","kid":"ES256","crit":[]}`)
	f.Add(`{"alg":"none","alg":"ES256","typ":"application/at+jwt","kid":"ES256"}`)
	f.Fuzz(func(t *testing.T, header string) {
		_, err := v.Verify(t.Context(), signRaw(t, header, goodPayload))
		if err != nil {
			return
		}
		var all map[string]any
		if err := json.Unmarshal([]byte(header), &all); err != nil {
			t.Fatalf("accepted: %s, which is no JSON object: %v", header, err)
		}
		for _, refused := range []string{"jwk", "jku", "x5c", "x5u", "crit", "b64"} {
			if _, there := all[refused]; there {
				t.Errorf("accepted: %s", header)
			}
		}
		if all["alg"] != auth.ES256 || all["kid"] != auth.ES256 {
			t.Errorf("accepted: %s", header)
		}
	})
}
