package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// wycheproof is the environment variable that names a folder with the test vectors of C2SP/wycheproof.
const wycheproof = "SUMUN_WYCHEPROOF"

// vectors is json_web_signature_test.json.
type vectors struct {
	TestGroups []struct {
		Comment string
		Public  json.RawMessage
		Tests   []struct {
			ID      int `json:"tcId"`
			Comment string
			JWS     any // a text, or an object in JSON serialisation
			Result  string
		}
	}
}

// The payloads of the vectors are not claims, so that no vector is an access token and Verify has to refuse them all. What
// they can show is that the keys and the signature primitives behind Verify tell valid from invalid: each group's key is
// read by RemoteKeys, as an issuer's would be, and the signature checked with what comes out.
func TestWycheproof(t *testing.T) {
	t.Parallel()
	folder := os.Getenv(wycheproof)
	if folder == "" {
		return
	}
	text, err := os.ReadFile(filepath.Join(folder, "json_web_signature_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	verified := map[string]int{} // valid signatures accepted, by algorithm
	for i, group := range all.TestGroups {
		t.Run(fmt.Sprintf("%d-%s", i, group.Comment), func(t *testing.T) {
			r := &remote{body: `{"keys":[` + string(group.Public) + `]}`}
			keys := r.keys(t)
			v := newVerifier(t, func(c *auth.Config) { c.Keys = keys })
			for _, vector := range group.Tests {
				raw, ok := vector.JWS.(string)
				if !ok {
					continue // another serialisation
				}
				if _, err := v.Verify(t.Context(), raw); err == nil {
					t.Errorf("%d %s: accepted as an access token", vector.ID, vector.Comment)
				}
				algorithm := signedWith(t, keys, raw)
				if algorithm != "" && vector.Result != "valid" {
					t.Errorf("%d %s: the signature is accepted", vector.ID, vector.Comment)
				}
				verified[algorithm]++
			}
		})
	}
	if verified[auth.ES256] < 2 || verified[auth.RS256] < 7 {
		t.Errorf("valid signatures were refused: accepted %v", verified)
	}
}

// signedWith returns the algorithm with which raw is rightly signed by the key it names, or nothing.
func signedWith(t *testing.T, keys auth.KeySource, raw string) string {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return ""
	}
	decode := base64.RawURLEncoding.Strict().DecodeString
	head, errHead := decode(parts[0])
	_, errPayload := decode(parts[1])
	signature, errSignature := decode(parts[2])
	var header struct{ Alg, Kid string }
	if errHead != nil || errPayload != nil || errSignature != nil || json.Unmarshal(head, &header) != nil {
		return ""
	}
	key, err := keys.Key(t.Context(), header.Kid)
	if err != nil || key.Algorithm != header.Alg {
		return ""
	}
	if jwt.GetSigningMethod(key.Algorithm).Verify(parts[0]+"."+parts[1], signature, key.Public) != nil {
		return ""
	}
	return key.Algorithm
}
