package auth_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/sumunio/sumun/auth"
)

// wycheproof is the environment variable that names a folder with the test vectors of C2SP/wycheproof.
const wycheproof = "SUMUN_WYCHEPROOF"

// vectors is any of the files that are used here.
type vectors struct {
	TestGroups []struct {
		Comment      string
		Public       json.RawMessage // of JWS: one key
		Private      json.RawMessage // of JWS: one key, or a set of them, symmetric ones too
		PublicKeyJwk json.RawMessage // of bare signatures, elliptic
		KeyJwk       json.RawMessage // of bare signatures, RSA
		Tests        []struct {
			ID       int `json:"tcId"`
			Comment  string
			Flags    []string
			JWS      any    // a text, or an object in JSON serialisation
			Msg, Sig string // hexadecimal
			Result   string
		}
	}
}

func readVectors(t *testing.T, name string) (all vectors, there bool) {
	t.Helper()
	folder := os.Getenv(wycheproof)
	if folder == "" {
		return all, false
	}
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all, true
}

// keySet makes a JWK Set of what a group calls its key.
func keySet(t *testing.T, key json.RawMessage) string {
	t.Helper()
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(key, &set); err != nil {
		t.Fatal(err)
	}
	if set.Keys != nil {
		return string(key)
	}
	return `{"keys":[` + string(key) + `]}`
}

// A published flaw in a signature library must not open this one. The payloads of these vectors are not claims, so that no vector
// is an access token. What runs is therefore the stage of Verify before the claims: the very functions that take a token apart,
// judge its header and check its signature, with keys that RemoteKeys has read as an issuer's. A vector passes when that stage
// accepts what is valid and refuses what is not; what is valid under algorithms that are not ours is refused, which is counted.
func TestWycheproofTokens(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		all, there := readVectors(t, file)
		if !there {
			return
		}
		accepted, refused, foreign := map[string]int{}, 0, 0
		for _, group := range all.TestGroups {
			key := group.Public
			if key == nil {
				key = group.Private
			}
			r := &remote{body: keySet(t, key)}
			keys := r.keys(t)
			v := newVerifier(t, func(c *auth.Config) { c.Keys = keys })
			for _, vector := range group.Tests {
				raw, ok := vector.JWS.(string)
				if !ok {
					continue // another serialisation: not a text that a header could carry
				}
				if _, err := v.Verify(t.Context(), raw); err == nil {
					t.Errorf("%s %d %s: accepted as an access token", file, vector.ID, vector.Comment)
				}
				algorithm, err := auth.Signature(t.Context(), v, raw)
				switch {
				case err == nil && vector.Result == "valid":
					accepted[algorithm]++
				case err == nil:
					t.Errorf("%s %d %s, %s: accepted", file, vector.ID, group.Comment, vector.Comment)
				case vector.Result == "valid" && ours(raw):
					t.Errorf("%s %d %s, %s: refused: %v", file, vector.ID, group.Comment, vector.Comment, err)
				case vector.Result == "valid":
					foreign++
				default:
					refused++
				}
			}
		}
		t.Logf("%s: valid and accepted %v, invalid and refused %d, valid under other algorithms and refused %d", file, accepted, refused, foreign)
		if file == "json_web_signature_test.json" && (accepted[auth.ES256] < 2 || accepted[auth.RS256] < 7 || refused < 100) {
			t.Errorf("too few vectors were run")
		}
	}
}

// ours reports whether a token claims an algorithm that this package has.
func ours(raw string) bool {
	algorithm, err := auth.HeaderAlgorithm(raw)
	return err == nil && (algorithm == auth.ES256 || algorithm == auth.EdDSA || algorithm == auth.RS256)
}

// The bare signatures behind the three algorithms: each key is read by RemoteKeys, each signature checked by the one function that
// checks tokens' signatures. "acceptable" vectors may go either way.
func TestWycheproofSignatures(t *testing.T) {
	t.Parallel()
	for file, algorithm := range map[string]string{
		"ecdsa_secp256r1_sha256_p1363_test.json": auth.ES256,
		"ed25519_test.json":                      auth.EdDSA,
		"rsa_signature_2048_sha256_test.json":    auth.RS256,
	} {
		all, there := readVectors(t, file)
		if !there {
			return
		}
		valid, invalid := 0, 0
		for _, group := range all.TestGroups {
			jwk := group.PublicKeyJwk
			if jwk == nil {
				jwk = group.KeyJwk
			}
			if jwk == nil {
				continue // the key has no form that an issuer could publish
			}
			key := publish(t, jwk)
			for _, vector := range group.Tests {
				text, errText := hex.DecodeString(vector.Msg)
				signature, errSignature := hex.DecodeString(vector.Sig)
				if errText != nil || errSignature != nil {
					t.Fatal(errText, errSignature)
				}
				err := auth.VerifyBytes(key, text, signature)
				switch {
				case vector.Result == "valid" && err != nil:
					t.Errorf("%s %d %s: refused: %v", file, vector.ID, vector.Comment, err)
				case vector.Result == "invalid" && err == nil:
					t.Errorf("%s %d %s: accepted", file, vector.ID, vector.Comment)
				case vector.Result == "valid":
					valid++
				case vector.Result == "invalid":
					invalid++
				}
			}
		}
		t.Logf("%s: %s, %d valid accepted, %d invalid refused", file, algorithm, valid, invalid)
		if valid < 9 || invalid < 50 {
			t.Errorf("%s: only %d valid and %d invalid signatures were run", file, valid, invalid)
		}
	}
}

// publish has RemoteKeys read a key, under an id that an issuer would give it.
func publish(t *testing.T, jwk json.RawMessage) auth.Key {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(jwk, &members); err != nil {
		t.Fatal(err)
	}
	members["kid"] = "k"
	delete(members, "alg") // a key's own algorithm follows from its type
	r := &remote{body: document(t, members)}
	key, err := r.keys(t).Key(t.Context(), "k")
	if err != nil {
		t.Fatalf("%s: %v", jwk, err)
	}
	return key
}
