package token_test

import (
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/token"
)

// One signature in 128 has a half that begins with zeros, which ASN.1 leaves out and a JWT must not: that person's token would be refused
// by every service.
func TestSignaturesVerifyWhateverTheyBeginWith(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, func(c *token.Config) { c.Algorithm = auth.ES256 })
	short := 0
	for range 2000 {
		a, err := s.Issue(t.Context(), token.Grant{Subject: "alice", ClientID: "app"})
		if err != nil {
			t.Fatal(err)
		}
		signature := signatureOf(t, a.Token)
		if len(signature) != 64 {
			t.Fatalf("a signature of %d bytes", len(signature))
		}
		if signature[0] != 0 && signature[32] != 0 {
			continue
		}
		short++
		if _, err := f.verify(t, s, a.Token); err != nil {
			t.Errorf("signature %x: %v", signature, err)
		}
	}
	if short == 0 {
		t.Error("no signature of 2000 has a short half")
	}
}

// A machine whose random numbers repeat must not give the signing key away with them (RFC 8725 section 3.2).
func TestES256IsDeterministic(t *testing.T) {
	t.Parallel()
	s := newFleet(t, openSQLite(t)).started(t, func(c *token.Config) { c.Algorithm = auth.ES256 })
	var tokens [2]string
	for i := range tokens {
		var err error
		if tokens[i], err = s.Sign(t.Context(), "JWT", map[string]any{"sub": "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	if tokens[0] != tokens[1] {
		t.Errorf("two signatures of the same: %s and %s", tokens[0], tokens[1])
	}
}

func signatureOf(t *testing.T, text string) []byte {
	t.Helper()
	signature, err := jwt.NewParser().DecodeSegment(text[strings.LastIndexByte(text, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}
