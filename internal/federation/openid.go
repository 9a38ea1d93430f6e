package federation

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// openID is a provider of OpenID Connect. Its oddities, where it has some, are the members that newGoogle and others set.
type openID struct {
	link
	scopes  []string
	extra   []oauth2.AuthCodeOption // of the address at which it asks the person
	secret  func() (string, error)  // the client's
	pkce    bool
	profile func(ctx context.Context, o *openID, seen *seen) error // completes what the ID token says; nil: userinfo, where needed

	mu      sync.Mutex // held while one request asks, so that others do not
	found   *discovered
	failure error // of the last attempt to discover
	until   time.Time
}

func newOpenID(l link) *openID {
	scopes := l.cfg.Scopes
	if len(scopes) == 0 {
		scopes = []string{oidc.ScopeOpenID, "profile", "email"}
	}
	return &openID{link: l, scopes: scopes, pkce: true, secret: func() (string, error) { return l.cfg.ClientSecret.Reveal(), nil }}
}

// discovered is the provider's discovery document.
type discovered struct {
	*oidc.Provider
	at        time.Time
	namesSelf bool // its answers name it (RFC 9207)
	userinfo  string
	style     oauth2.AuthStyle
}

// discoveryLifetime is how long a discovery document is believed. Keys are fetched again whenever a signature needs one that is new.
const discoveryLifetime = time.Hour

// failureLifetime is how long a provider that could not be discovered is left alone: many people at once cost one attempt.
const failureLifetime = 5 * time.Second

// discover reads the discovery document. While it cannot be read again, the one before stands.
func (o *openID) discover(ctx context.Context) (*discovered, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found != nil && o.clock().Sub(o.found.at) < discoveryLifetime {
		return o.found, nil
	}
	if o.clock().After(o.until) {
		// Others wait for the answer, whatever becomes of the one who asked first; the client bounds the time.
		found, err := o.ask(context.WithoutCancel(ctx))
		if err == nil {
			o.found, o.failure = found, nil
			return found, nil
		}
		o.failure, o.until = err, o.clock().Add(failureLifetime)
	}
	if o.found != nil {
		return o.found, nil
	}
	return nil, o.failure
}

func (o *openID) ask(ctx context.Context) (*discovered, error) {
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, o.http), o.cfg.Issuer)
	if err != nil {
		return nil, outage(fmt.Errorf("discover %s: %w", o.cfg.Name, err))
	}
	var more struct {
		NamesSelf     bool     `json:"authorization_response_iss_parameter_supported"`
		Userinfo      string   `json:"userinfo_endpoint"`
		JWKS          string   `json:"jwks_uri"`
		Authorization string   `json:"authorization_endpoint"`
		Token         string   `json:"token_endpoint"`
		Methods       []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := p.Claims(&more); err != nil {
		return nil, ErrAnswer.Wrap(err)
	}
	endpoints := []string{more.Authorization, more.Token, more.JWKS}
	if more.Userinfo != "" {
		endpoints = append(endpoints, more.Userinfo)
	}
	for _, endpoint := range endpoints {
		if err := checkEndpoint(endpoint); err != nil {
			return nil, ErrAnswer.Wrap(fmt.Errorf("discover %s: an endpoint %w", o.cfg.Name, err))
		}
	}
	found := &discovered{Provider: p, at: o.clock(), namesSelf: more.NamesSelf, userinfo: more.Userinfo, style: oauth2.AuthStyleInHeader}
	if slices.Contains(more.Methods, "client_secret_post") || o.cfg.ClientSecret == "" {
		found.style = oauth2.AuthStyleInParams
	}
	return found, nil
}

// checkEndpoint is checkIssuer for an address that may have a query.
func checkEndpoint(address string) error {
	bare, _, _ := strings.Cut(address, "?")
	return checkIssuer(bare)
}

func (o *openID) oauth(d *discovered) (oauth2.Config, error) {
	secret, err := o.secret()
	endpoint := d.Endpoint()
	endpoint.AuthStyle = d.style // told, so that no code is shown twice to find out
	return oauth2.Config{ClientID: o.cfg.ClientID, ClientSecret: secret, RedirectURL: o.redirect, Scopes: o.scopes, Endpoint: endpoint}, err
}

func (o *openID) expects(ctx context.Context) (string, bool, error) {
	d, err := o.discover(ctx)
	if err != nil {
		return "", false, err
	}
	return o.cfg.Issuer, d.namesSelf, nil
}

func (o *openID) begin(ctx context.Context, f flow) (string, error) {
	d, err := o.discover(ctx)
	if err != nil {
		return "", err
	}
	c, err := o.oauth(d)
	if err != nil {
		return "", err
	}
	options := append(slices.Clone(o.extra), oidc.Nonce(f.Nonce))
	if o.pkce {
		options = append(options, oauth2.S256ChallengeOption(f.Verifier))
	}
	if f.Intent == intentReauthenticate {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
	}
	return c.AuthCodeURL(f.State, options...), nil
}

// seen is what a provider has said so far.
type seen struct {
	id     Identity
	token  *oauth2.Token
	claims claims
	answer answer
}

// claims are those that are looked at (OpenID Connect Core, section 5.1).
type claims struct {
	Subject       string    `json:"sub"`
	Email         string    `json:"email"`
	EmailVerified looseBool `json:"email_verified"`
	Name          string    `json:"name"`
	GivenName     string    `json:"given_name"`
	FamilyName    string    `json:"family_name"`
	Nickname      string    `json:"nickname"`
	HostedDomain  string    `json:"hd"`  // Google's
	Party         string    `json:"azp"` // section 2
	AuthTime      int64     `json:"auth_time"`
}

// looseBool is true, or "true", which Apple and some others write.
type looseBool bool

// UnmarshalJSON takes everything else for false.
func (b *looseBool) UnmarshalJSON(text []byte) error {
	*b = string(text) == "true" || string(text) == `"true"`
	return nil
}

func (o *openID) finish(ctx context.Context, f flow, a answer) (Identity, error) {
	d, err := o.discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	c, err := o.oauth(d)
	if err != nil {
		return Identity{}, err
	}
	var options []oauth2.AuthCodeOption
	if o.pkce {
		options = append(options, oauth2.VerifierOption(f.Verifier))
	}
	token, err := o.redeem(ctx, c, a.Code, options...)
	if err != nil {
		return Identity{}, err
	}
	s, err := o.verify(ctx, d, f, token)
	if err != nil {
		return Identity{}, err
	}
	s.answer = a
	complete := o.profile
	if complete == nil {
		complete = askUserinfo
	}
	if err := complete(ctx, o, s); err != nil {
		return Identity{}, err
	}
	return s.id, nil
}

// verify checks the ID token: signature, issuer, audience, time, nonce, and that the access token belongs to it.
func (o *openID) verify(ctx context.Context, d *discovered, f flow, token *oauth2.Token) (*seen, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return nil, ErrAnswer.Wrap(errors.New("there is no ID token"))
	}
	verified, err := d.Verifier(&oidc.Config{ClientID: o.cfg.ClientID, Now: o.clock}).Verify(o.reach(ctx), raw)
	if err != nil {
		return nil, tokenFault(err)
	}
	var c claims
	if err := verified.Claims(&c); err != nil {
		return nil, ErrAnswer.Wrap(err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(f.Nonce)) != 1:
		return nil, ErrAnswer.Wrap(errors.New("the ID token has another nonce"))
	case (len(verified.Audience) > 1 || c.Party != "") && c.Party != o.cfg.ClientID:
		return nil, ErrAnswer.Wrap(errors.New("the ID token was made for another party"))
	case f.Intent == intentReauthenticate && c.AuthTime > 0 && o.clock().Sub(time.Unix(c.AuthTime, 0)) > flowLifetime+time.Minute:
		return nil, ErrDenied.Wrap(errors.New("the person was not asked again"))
	}
	if verified.AccessTokenHash != "" {
		if err := verified.VerifyAccessToken(token.AccessToken); err != nil {
			return nil, ErrAnswer.Wrap(err)
		}
	}
	id := o.identity(verified.Subject)
	id.Email, id.EmailVerified, id.Name = c.Email, bool(c.EmailVerified), c.name()
	return &seen{id: id, token: token, claims: c}, nil
}

// tokenFault tells a provider whose keys cannot be fetched from a token that is wrong.
func tokenFault(err error) error {
	if strings.Contains(err.Error(), "fetching keys") {
		return ErrUnavailable.Wrap(err) // the library has no error value for it
	}
	return ErrAnswer.Wrap(err)
}

func (c claims) name() string {
	for _, name := range []string{c.Name, strings.TrimSpace(c.GivenName + " " + c.FamilyName), c.Nickname} {
		if name != "" {
			return name
		}
	}
	return ""
}

// askUserinfo asks for what the ID token left out (OpenID Connect Core, section 5.3). An address counts as verified only if whoever
// names it says so.
func askUserinfo(ctx context.Context, o *openID, s *seen) error {
	d, err := o.discover(ctx)
	if err != nil || d.userinfo == "" || s.id.Email != "" && s.id.Name != "" {
		return err
	}
	var raw json.RawMessage
	if err := o.get(ctx, d.userinfo, s.token.AccessToken, &raw); err != nil {
		return err
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil {
		return ErrAnswer.Wrap(err)
	}
	if c.Subject != s.id.Subject {
		return ErrAnswer.Wrap(errors.New("userinfo is about somebody else"))
	}
	if s.id.Email == "" {
		s.id.Email, s.id.EmailVerified = c.Email, bool(c.EmailVerified)
	}
	if s.id.Name == "" {
		s.id.Name = c.name()
	}
	return nil
}
