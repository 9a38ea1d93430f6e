package token_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
)

// reads returns the verifier of a service that is shown how opaque tokens are read.
func (f *fleet) reads(tb testing.TB, s *token.Service) *auth.Verifier {
	tb.Helper()
	v, err := auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: s, Opener: s, Clock: f.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// An opaque token says to nobody but the issuer what it says, and there it says the same as any other, on every node and whichever
// key is the newest.
func TestOpaque(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := newFleet(t, db)
		s, other := f.started(t, nil), f.started(t, nil)
		v := f.reads(t, other)
		grant := token.Grant{
			Subject: "alice", ClientID: "shop", Scope: "a b", SessionID: "s1", GrantID: "g1", Roles: []string{"member"}, Epoch: 3, Opaque: true,
		}
		access, err := s.Issue(t.Context(), grant)
		if err != nil {
			t.Fatal(err)
		}
		c, err := v.Verify(t.Context(), access.Token)
		if err != nil || c.Subject != "alice" || c.ClientID != "shop" || c.Scope != "a b" || c.SessionID != "s1" || c.GrantID != "g1" ||
			c.Epoch != 3 || c.ID != access.ID || !c.ExpiresAt.Equal(access.ExpiresAt) || c.KeyID != token.OpaqueKeyID(1) {
			t.Errorf("%+v, %v", c, err)
		}
		sealed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(access.Token, token.OpaquePrefix))
		if err != nil || strings.Contains(string(sealed), "alice") {
			t.Errorf("%q can be read, %v", sealed, err)
		}
		if _, err := f.verify(t, s, access.Token); !errors.Is(err, auth.ErrMalformed) {
			t.Errorf("where JWTs are expected: %v", err)
		}
		if _, err := f.keys.Rotate(t.Context(), token.OpaquePurpose); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(2 * time.Minute)
		next, err := s.Issue(t.Context(), grant)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := v.Verify(t.Context(), next.Token); err != nil || c.KeyID != token.OpaqueKeyID(2) {
			t.Errorf("after a rotation: %+v, %v", c, err)
		}
		if _, err := v.Verify(t.Context(), access.Token); err != nil {
			t.Errorf("of the key before: %v", err)
		}
		f.clock.Advance(time.Hour)
		if _, err := v.Verify(t.Context(), access.Token); !errors.Is(err, auth.ErrExpired) {
			t.Errorf("an hour later: %v", err)
		}
	})
}

// Every bit of an opaque token counts.
func TestOpaqueIsAuthentic(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, nil)
	access, err := s.Issue(t.Context(), token.Grant{Subject: "alice", ClientID: "shop", Opaque: true})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(access.Token, token.OpaquePrefix))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		raw := token.OpaquePrefix + base64.RawURLEncoding.EncodeToString(sealed)
		if _, _, err := s.Open(t.Context(), raw); !errors.Is(err, auth.ErrMalformed) && !errors.Is(err, auth.ErrUnknownKey) {
			t.Errorf("with byte %d changed: %v", i, err)
		}
		sealed[i] ^= 1
	}
	for _, raw := range []string{"", "sat_", access.Token[4:], access.Token + "=", access.Token[:40] + "\n" + access.Token[40:], "srt_" + access.Token[4:]} {
		if _, _, err := s.Open(t.Context(), raw); !errors.Is(err, auth.ErrMalformed) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// Who got hold of a key could make tokens of any age. After the key was withdrawn none may be taken where it was verified before: that is
// remembered for so long only as tokens of ours live.
func TestOpaqueLivesAsOurs(t *testing.T) {
	t.Parallel()
	f := newFleet(t, openSQLite(t))
	s := f.started(t, nil)
	if _, err := s.Issue(t.Context(), token.Grant{Subject: "alice", ClientID: "shop", Opaque: true}); err != nil {
		t.Fatal(err)
	}
	v, now := f.reads(t, s), f.clock.Now()
	verify := func(times string) error {
		claims := fmt.Sprintf(`{"iss":%q,"aud":%[1]q,"sub":"alice","client_id":"shop","jti":"j","roles":[],%s}`, issuer, times)
		_, err := v.Verify(t.Context(), f.forge(t, claims))
		return err
	}
	forge := func(issued, expires any) error {
		times, err := json.Marshal(map[string]any{"iat": issued, "exp": expires})
		if err != nil {
			t.Fatal(err)
		}
		return verify(strings.Trim(string(times), "{}"))
	}
	soon, later := now.Add(time.Minute).Unix(), now.AddDate(10, 0, 0).Unix()
	if err := forge(now.Unix(), now.Add(time.Hour).Unix()); err != nil {
		t.Errorf("the longest that we would make: %v", err)
	}
	for name, err := range map[string]error{
		"a second longer":   forge(now.Unix(), now.Add(time.Hour+time.Second).Unix()),
		"for years":         forge(now.Unix(), now.AddDate(10, 0, 0).Unix()),
		"made in years":     forge(now.AddDate(10, 0, 0).Unix(), now.AddDate(10, 0, 0).Add(time.Minute).Unix()),
		"without a time":    forge(nil, now.Add(time.Minute).Unix()),
		"without an end":    forge(now.Unix(), nil),
		"before there were": forge(0, now.Add(time.Minute).Unix()),

		// Names of claims are compared exactly, and not as package json does.
		"for years, by another name":   verify(fmt.Sprintf(`"iat":%d,"exp":%d,"EXP":%d`, now.Unix(), later, soon)),
		"made later, by another name":  verify(fmt.Sprintf(`"iat":%d,"exp":%d,"Iat":%[2]d`, now.Unix(), later)),
		"for years, said twice":        verify(fmt.Sprintf(`"iat":%d,"exp":%d,"exp":%d`, now.Unix(), later, soon)),
		"for years, with another sign": verify(fmt.Sprintf(`"iat":%d,"exp":%d,"\u0045xp":%d`, now.Unix(), later, soon)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// forge seals claims as who knows the key can.
func (f *fleet) forge(tb testing.TB, claims string) string {
	tb.Helper()
	key, err := f.keys.ByID(tb.Context(), token.OpaquePurpose, 1)
	if err != nil {
		tb.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, 5+aead.NonceSize())
	b[0], b[4] = 1, 1
	b = aead.Seal(b, b[5:], []byte(claims), append([]byte("sumun opaque access token "), b[:5]...))
	return token.OpaquePrefix + base64.RawURLEncoding.EncodeToString(b)
}

func FuzzOpen(f *testing.F) {
	fleet := newFleet(f, openSQLite(f))
	s := fleet.started(f, nil)
	access, err := s.Issue(context.Background(), token.Grant{Subject: "alice", ClientID: "shop", Opaque: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(access.Token)
	f.Add("sat_AQ")
	f.Fuzz(func(t *testing.T, raw string) {
		if plain, _, err := s.Open(t.Context(), raw); err == nil && raw != access.Token {
			t.Errorf("%q says %q", raw, plain)
		}
	})
}
