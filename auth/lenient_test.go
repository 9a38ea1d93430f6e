package auth_test

import (
	"errors"
	"testing"

	"github.com/sumunio/sumun/auth"
)

// plain is a token as issuers write it that do not keep to RFC 9068.
func plain(claims map[string]any) token {
	all := map[string]any{"client_id": nil, "sid": nil, "jti": nil, "roles": nil, "epoch": nil, "scope": nil}
	for name, value := range claims {
		all[name] = value
	}
	return token{algorithm: auth.RS256, header: map[string]any{"typ": "JWT"}, claims: all}
}

// Services behind another issuer use the same library: whom its tokens are of must come out right.
func TestLenientReadsOtherIssuers(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Lenient, c.RolesClaim = true, "realm_access.roles" })
	for name, row := range map[string]struct {
		token               token
		client, scope, role string
	}{
		"Keycloak": {plain(map[string]any{
			"typ": "Bearer", "azp": "shop", "scope": "openid email", "realm_access": map[string]any{"roles": []string{"seller"}},
		}), "shop", "openid email", "seller"},
		"Entra": {plain(map[string]any{"appid": "shop", "scp": "read write"}), "shop", "read write", ""},
		"Okta":  {plain(map[string]any{"cid": "shop", "scp": []string{"read", "write"}}), "shop", "read write", ""},
		"no typ": {token{header: map[string]any{"typ": nil}, claims: map[string]any{"client_id": "shop", "scope": "a", "roles": nil}},
			"shop", "a", ""},
		"nobody's":        {plain(nil), "alice", "", ""},
		"no iat, but nbf": {plain(map[string]any{"iat": nil, "nbf": now.Unix() - 5, "azp": "shop"}), "shop", "", ""},
		"at+jwt":          {token{claims: map[string]any{"roles": nil}}, "sumun", "read write", ""},
	} {
		c, err := v.Verify(t.Context(), row.token.sign(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.ClientID != row.client || c.Scope != row.scope || row.role != "" && !c.HasRole(row.role) || row.role == "" && len(c.Roles) > 0 {
			t.Errorf("%s: %+v", name, c)
		}
		if _, err := newVerifier(t, nil).Verify(t.Context(), row.token.sign(t)); (err == nil) != (name == "at+jwt") {
			t.Errorf("%s, without Lenient: %v", name, err)
		}
	}
}

// What signs people in at a website must not open an API, even where tokens are hard to tell apart.
func TestLenientRefusesOtherTokens(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.Config) { c.Lenient, c.RolesClaim = true, "realm_access.roles" })
	for name, row := range map[string]struct {
		token token
		want  error
	}{
		"ID token by nonce":        {plain(map[string]any{"nonce": "n"}), auth.ErrType},
		"ID token by at_hash":      {plain(map[string]any{"at_hash": "h"}), auth.ErrType},
		"ID token of Keycloak":     {plain(map[string]any{"typ": "ID"}), auth.ErrType},
		"refresh token":            {plain(map[string]any{"typ": "Refresh"}), auth.ErrType},
		"ID token of Cognito":      {plain(map[string]any{"token_use": "id"}), auth.ErrType},
		"logout token":             {plain(map[string]any{"events": map[string]any{}}), auth.ErrType},
		"typ of something else":    {token{header: map[string]any{"typ": "dpop+jwt"}}, auth.ErrType},
		"other audience":           {plain(map[string]any{"aud": "shop"}), auth.ErrAudience},
		"no audience":              {plain(map[string]any{"aud": nil}), auth.ErrClaims},
		"no end":                   {plain(map[string]any{"exp": nil}), auth.ErrClaims},
		"expired":                  {plain(map[string]any{"exp": now.Unix() - 61}), auth.ErrExpired},
		"roles in another shape":   {plain(map[string]any{"realm_access": 5}), auth.ErrMalformed},
		"roles that are no texts":  {plain(map[string]any{"realm_access": map[string]any{"roles": []int{1}}}), auth.ErrMalformed},
		"a scope of another shape": {plain(map[string]any{"scope": []string{"a"}}), auth.ErrMalformed},
	} {
		if c, err := v.Verify(t.Context(), row.token.sign(t)); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v (%+v), want %v", name, err, c, row.want)
		}
	}
}
