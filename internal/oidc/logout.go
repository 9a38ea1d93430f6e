package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

const (
	logoutPath  = "/oauth/logout"
	signOutPath = "/oauth/sign-out"
)

// departure is a client's wish to have a person signed out (OpenID Connect RP-Initiated Logout 1.0, section 2).
type departure struct {
	client  Client // zero: not known
	to      string // "" for our own page
	session string // that the client means, by the name it knows; "" if it does not prove to know
	known   names
	params  url.Values
}

func (p pages) logoutPosted(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	return see(w, r, logoutPath+"?"+form.Encode())
}

// logout is the end session endpoint. Whoever shows an ID token of the very session that is to end is believed; otherwise the person is
// asked, or any site could sign people out.
func (p pages) logout(w http.ResponseWriter, r *http.Request) error {
	d, err := p.readDeparture(r.Context(), r.URL.Query())
	if err != nil {
		return err
	}
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	switch {
	case v == nil:
		return p.depart(w, r, d, nil, redirect)
	}
	knows, err := p.knows(r.Context(), d, v.session.ID)
	switch {
	case err != nil:
		return err
	case knows:
		return p.leave(w, r, d, v, redirect)
	default:
		return p.web.Page(w, r.WithContext(v.seen(r.Context())), http.StatusOK, web.SignOut{Client: d.client.Name, Request: d.params.Encode()})
	}
}

// signOut is the person's answer.
func (p pages) signOut(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	params, err := url.ParseQuery(form.Get("request"))
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	d, err := p.readDeparture(r.Context(), params)
	if err != nil {
		return err
	}
	v, err := p.visitor(r)
	if err != nil || v == nil {
		return errors.Join(err, p.depart(w, r, d, nil, afterForm))
	}
	return p.leave(w, r, d, v, afterForm)
}

// knows reports whether a client has proved to know the session of the browser: its own share in it, or the one that it got from it
// (offline_access).
func (s *Service) knows(ctx context.Context, d departure, browser string) (bool, error) {
	if d.session == "" || d.session == d.known.session(browser) {
		return d.session != "", nil
	}
	all, err := s.shares(ctx, browser)
	return slices.ContainsFunc(all, func(one share) bool {
		return one.clientID == d.client.ID && d.known.session(one.session) == d.session
	}), err
}

// leave ends the session, and has the browser forget it.
func (p pages) leave(w http.ResponseWriter, r *http.Request, d departure, v *visitor, follows bool) error {
	frames, err := p.Frames(r.Context(), v.session.ID)
	if err != nil {
		return err
	}
	err = p.deps.Sessions.End(r.Context(), v.account.ID, v.session.ID, session.SignedOut)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return err
	}
	http.SetCookie(w, p.cookies.SessionCookie("", 0))
	return p.depart(w, r, d, frames, follows)
}

// depart sends the person to where the client wants them, once the other programs' frames have been loaded. Where nobody knows the client,
// and it shows no ID token, the person has to have said so (RFC 9700, section 4.11.2).
func (p pages) depart(w http.ResponseWriter, r *http.Request, d departure, frames []string, follows bool) error {
	switch {
	case d.to == "", d.client.SelfRegistered() && d.session == "" && !follows:
		return p.web.Page(w, r, http.StatusOK, web.SignedOut{Frames: frames})
	case follows || len(frames) > 0:
		return p.goOn(w, r, web.Continue{To: d.to, Frames: frames})
	default:
		return see(w, r, d.to)
	}
}

// readDeparture finds out who asks, and whether the address to go to is theirs. What is wrong is told the person.
func (s *Service) readDeparture(ctx context.Context, params url.Values) (d departure, err error) {
	d.params = params
	for name, values := range params {
		if len(values) > 1 {
			return d, ErrRequestRefused.With("The application that sent you here repeats the parameter " + plain(name) + ".")
		}
	}
	id := params.Get("client_id")
	if hint := s.readHint(ctx, params.Get("id_token_hint")); hint != nil {
		if id != "" && !slices.Contains(hint.Audience, id) || len(hint.Audience) != 1 {
			return d, ErrRequestRefused.With("The application that sent you here shows the token of another one.")
		}
		id, d.session = hint.Audience[0], hint.SessionID
	}
	if id != "" {
		if d.client, err = s.client(ctx, id); err != nil && !errors.Is(err, ErrClientUnknown) {
			return d, err
		}
	}
	if d.known, err = s.namesFor(ctx, d.client); err != nil {
		return d, err
	}
	to := params.Get("post_logout_redirect_uri")
	if to == "" {
		return d, nil
	}
	if !slices.Contains(d.client.PostLogoutRedirectURIs, to) {
		return d, ErrRequestRefused.With("The application that sent you here wants you back at an address that is not registered for it.")
	}
	d.to = to
	if state := params.Get("state"); state != "" {
		d.to = (&request{redirectURI: to}).location(url.Values{"state": {state}})
	}
	return d, nil
}

// hint is what an ID token says of the session that it was issued in.
type hint struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid"`
}

// readHint reads an ID token of ours, expired or not, and nil for anything else.
func (s *Service) readHint(ctx context.Context, raw string) *hint {
	if raw == "" {
		return nil
	}
	var h hint
	parser := jwt.NewParser(jwt.WithValidMethods([]string{auth.ES256, auth.EdDSA, auth.RS256}), jwt.WithoutClaimsValidation())
	t, err := parser.ParseWithClaims(raw, &h, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, err := s.deps.Tokens.Key(ctx, kid)
		if err != nil || t.Method.Alg() != key.Algorithm {
			return nil, errors.Join(err, errors.New("not a key of ours"))
		}
		return key.Public, nil
	})
	if err != nil || t.Header["typ"] != "JWT" || h.Issuer != s.deps.Issuer {
		return nil
	}
	return &h
}
