package e2e_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Programs in Go must be able to sign people in without knowing Sumun: coreos/go-oidc with golang.org/x/oauth2. For introspection,
// revocation and logout the library knows the addresses only.
func TestGoOIDC(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, st store) {
		const callback = "http://127.0.0.1:9/cb"
		c := st.addClient(t, "--name", "Shop", "--redirect-uri", callback, "--post-logout-redirect-uri", callback+"/bye",
			"--scope", "openid", "--scope", "profile", "--scope", "email")
		st.addUser(t, "kim@example.com", "--name", "Kim")
		s := st.serve(t)
		provider, err := oidc.NewProvider(t.Context(), s.issuer)
		if err != nil {
			t.Fatal(err)
		}
		var more struct {
			Introspection string `json:"introspection_endpoint"`
			Revocation    string `json:"revocation_endpoint"`
			EndSession    string `json:"end_session_endpoint"`
		}
		if err := provider.Claims(&more); err != nil {
			t.Fatal(err)
		}
		cfg := oauth2.Config{ClientID: c.ID, ClientSecret: c.Secret, RedirectURL: callback, Endpoint: provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
		verifier := oauth2.GenerateVerifier()
		b := s.newTab(t)
		at, err := url.Parse(b.visit(cfg.AuthCodeURL("state", oidc.Nonce("nonce"), oauth2.S256ChallengeOption(verifier)), "kim@example.com"))
		if err != nil || at.Query().Get("state") != "state" || at.Query().Get("iss") != s.issuer {
			t.Fatalf("came back to %v: %v", at, err)
		}
		tokens, err := cfg.Exchange(t.Context(), at.Query().Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := tokens.Extra("id_token").(string)
		id, err := provider.Verifier(&oidc.Config{ClientID: c.ID}).Verify(t.Context(), raw)
		if err != nil || id.Nonce != "nonce" || id.VerifyAccessToken(tokens.AccessToken) != nil {
			t.Fatalf("ID token %+v: %v", id, err)
		}
		info, err := provider.UserInfo(t.Context(), oauth2.StaticTokenSource(tokens))
		if err != nil || info.Subject != id.Subject || info.Email != "kim@example.com" || !info.EmailVerified {
			t.Fatalf("userinfo %+v: %v", info, err)
		}
		next, err := cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: tokens.RefreshToken}).Token()
		if err != nil || next.RefreshToken == tokens.RefreshToken || next.AccessToken == tokens.AccessToken {
			t.Fatalf("refreshed: %v", err)
		}
		post := func(to string, form url.Values) answer {
			at, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			return s.send(t, "POST "+at.Path, form.Encode(), header("Content-Type", "application/x-www-form-urlencoded"),
				func(r *http.Request) { r.SetBasicAuth(c.ID, c.Secret) }).want(t, 200)
		}
		active := func() bool {
			var a struct{ Active bool }
			post(more.Introspection, url.Values{"token": {next.AccessToken}}).decode(t, &a)
			return a.Active
		}
		before := active()
		post(more.Revocation, url.Values{"token": {next.RefreshToken}})
		if !before || active() {
			t.Errorf("active before %t, and after it was revoked %t", before, active())
		}
		var refused *oauth2.RetrieveError
		if _, err := cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: next.RefreshToken}).Token(); !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
			t.Errorf("refreshing what was revoked: %v", err)
		}
		left := b.visit(more.EndSession+"?"+url.Values{"id_token_hint": {raw}, "post_logout_redirect_uri": {callback + "/bye"}, "state": {"s"}}.Encode(), "")
		if left != callback+"/bye?state=s" {
			t.Errorf("left to %s", left)
		}
	})
}
