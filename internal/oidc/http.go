package oidc

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/web"
)

const (
	tokenEndpoint  = "token"
	tokenPath      = "/oauth/token"
	introspectPath = "/oauth/introspect"
	revokePath     = "/oauth/revoke"
	userInfoPath   = "/oauth/userinfo"
)

// CrossOrigin lists the endpoints, as patterns of http.ServeMux, that other origins may call with unsafe methods: they take their
// proof in the request, and neither set nor read a cookie.
func CrossOrigin() []string {
	return []string{
		"POST " + tokenPath, "POST " + introspectPath, "POST " + revokePath, "POST " + userInfoPath,
		"POST " + parPath, "POST " + deviceEndpoint,
		"POST " + authorizePath, "POST " + logoutPath, // which only send the browser on
	}
}

// Mount adds the endpoints and the pages.
func (s *Service) Mount(mux *http.ServeMux, renderer *web.Renderer, cookies httpd.Cookies) {
	for path, h := range map[string]http.Handler{
		tokenPath:      s.endpoint(tokenEndpoint, s.token),
		introspectPath: varying(s.endpoint("introspect", s.introspect)),
		revokePath:     s.endpoint("revoke", s.revoke),
		parPath:        s.endpoint("par", s.pushRequest),
		deviceEndpoint: s.endpoint("device_authorization", s.authorizeDevice),
	} {
		mux.Handle("POST "+path, shared(h))
		mux.Handle("OPTIONS "+path, http.HandlerFunc(preflight))
	}
	if s.cfg.Registration {
		mux.Handle("POST "+registerPath, s.registration(s.register))
		mux.Handle("GET "+registerPath+"/{id}", s.registration(s.readOwn))
		mux.Handle("PUT "+registerPath+"/{id}", s.registration(s.replaceOwn))
		mux.Handle("DELETE "+registerPath+"/{id}", s.registration(s.removeOwn))
	}
	userInfo := shared(httpd.WithErrors(renderError, s.serveUserInfo))
	mux.Handle("GET "+userInfoPath, userInfo)
	mux.Handle("POST "+userInfoPath, userInfo)
	mux.HandleFunc("OPTIONS "+userInfoPath, preflight)
	mux.HandleFunc("GET /.well-known/openid-configuration", s.discovery.serve)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.discovery.serve)
	pages{s, renderer, cookies}.mount(mux)
}

// shared lets scripts of any origin read the answers: they got them with a proof of their own, and no cookie took part.
func shared(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowAll(w.Header())
		h.ServeHTTP(w, r)
	})
}

// varying is for answers in more than one form.
func varying(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		h.ServeHTTP(w, r)
	})
}

func allowAll(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
}

// preflight answers a browser that asks before it lets a script ask (Fetch, section 3.2).
func preflight(w http.ResponseWriter, _ *http.Request) {
	allowAll(w.Header())
	w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
	w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP")
	w.Header().Set("Access-Control-Max-Age", "3600")
	w.WriteHeader(http.StatusNoContent)
}

// tokenInBody returns the request with the access token of its body, if it has one, where it is looked for (RFC 6750, section 2.2). It may
// be in one place only (section 2).
func tokenInBody(r *http.Request) (*http.Request, error) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method != http.MethodPost || media != "application/x-www-form-urlencoded" {
		return r, nil
	}
	form, err := readForm(r)
	if err != nil || !form.Has("access_token") {
		return r, err
	}
	if r.Header.Get("Authorization") != "" {
		return r, ErrInvalidRequest.With("The access token is both in the header and in the body.")
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+form.Get("access_token"))
	return r, nil
}

func (s *Service) serveUserInfo(w http.ResponseWriter, r *http.Request) error {
	v, err := s.verifier(s.deps.Issuer)
	if err != nil {
		return err
	}
	if r, err = tokenInBody(r); err != nil {
		return err
	}
	claims, err := v.VerifyRequest(r)
	if err != nil {
		return refusal(err)
	}
	about, err := s.userInfo(r.Context(), claims)
	if errors.Is(err, ErrInsufficientScope) {
		return ErrInsufficientScope.Challenge(`Bearer realm="sumun", error="insufficient_scope", scope="openid"`)
	}
	if err != nil {
		return err
	}
	c, err := s.client(r.Context(), claims.ClientID)
	switch {
	case err != nil && !errors.Is(err, ErrClientUnknown):
		return err // an answer without a signature could be anybody's
	case c.UserInfoAlg != "":
		return s.signUserInfo(w, r, c, about)
	}
	return writeAnswer(w, http.StatusOK, about)
}

// signUserInfo answers a client that wants it signed (OpenID Connect Core 1.0, section 5.3.2). Its type keeps it from being taken for an ID
// token (RFC 8725, section 3.11).
func (s *Service) signUserInfo(w http.ResponseWriter, r *http.Request, c Client, about map[string]any) error {
	about["iss"], about["aud"] = s.deps.Issuer, c.ID
	text, err := s.deps.Tokens.Sign(r.Context(), "userinfo+jwt", about)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("Content-Type", "application/jwt")
	_, _ = io.WriteString(w, text) // who asked may have gone
	return nil
}

// refusal is the answer to an access token that does not let through (RFC 6750, section 3).
func refusal(err error) error {
	var e *auth.Error
	if !errors.As(err, &e) {
		return err
	}
	status, challenge, _ := auth.Challenge(e)
	f := ErrInvalidToken
	if kind := fault.KindOf(status); kind != fault.Unauthenticated {
		f = ErrInvalidRequest
		if kind == fault.Unavailable {
			return ErrUnavailable.After(time.Second).Wrap(err)
		}
	}
	f = f.With(e.Description()).Wrap(err)
	if challenge != "" {
		f = f.Challenge(challenge)
	}
	return f
}
