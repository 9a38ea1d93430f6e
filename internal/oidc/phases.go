package oidc

import (
	"context"
	"encoding/base64"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// maxForm bounds what a client may post, in bytes. Assertions and tokens are the largest of it.
const maxForm = 64 << 10

// authMethods are the ways of proving to be a client that this version knows.
var authMethods = []string{AuthBasic, AuthPost, AuthPrivateKey, AuthTLS, AuthSelfSigned, AuthNone}

// repeatable are the parameters that a request may carry more than once (RFC 8707, section 2; RFC 8693, section 2.1).
var repeatable = []string{"resource", "audience"}

// call is a request of a client that has passed the phases.
type call struct {
	form   url.Values
	client Client
	// thumbprint is that of the key that the request proves to have, "" for none.
	thumbprint string
	// certificate is the thumbprint of the TLS certificate that tokens are to be bound to, "" for none.
	certificate string
	accept      []string // the header Accept
}

// param returns a parameter, "" when it is absent.
func (c *call) param(name string) string { return c.form.Get(name) }

// endpoint is what every endpoint that clients call directly goes through, and the only way to one: limit, form, client
// authentication. What h returns is answered as JSON, nil as an empty body.
func (s *Service) endpoint(name string, h func(ctx context.Context, c *call) (any, error)) http.Handler {
	return httpd.WithErrors(renderError, func(w http.ResponseWriter, r *http.Request) error {
		of, answer, err := s.answer(name, w, r, h)
		if err != nil {
			s.requests.WithLabelValues(of, errorName(fault.From(err))).Inc()
			return err
		}
		s.requests.WithLabelValues(of, "ok").Inc()
		if jwt, ok := answer.(signed); ok {
			jwt.write(w)
			return nil
		}
		body, status := statusOf(answer)
		return writeAnswer(w, status, body)
	})
}

// answer runs the phases. of is the name for metrics: the grant's, where there is a known one.
func (s *Service) answer(name string, w http.ResponseWriter, r *http.Request, h func(ctx context.Context, c *call) (any, error)) (of string, answer any, err error) {
	of = name
	form, err := readForm(r)
	if err != nil {
		return of, nil, err
	}
	if grantType := form.Get("grant_type"); s.grants[grantType].issue != nil && name == tokenEndpoint {
		of = grantType
	}
	c := &call{form: form, accept: r.Header["Accept"]}
	if c.client, err = s.authenticate(r, form); err != nil {
		return of, nil, err
	}
	if name == tokenEndpoint {
		if c.thumbprint, err = s.proveKey(w, r); err != nil {
			return of, nil, err
		}
		if c.certificate, err = s.boundTo(r, c); err != nil {
			return of, nil, err
		}
	}
	answer, err = h(r.Context(), c)
	return of, answer, err
}

// readForm reads the parameters, which are in the body alone: an address lies in logs (RFC 6749, section 2.3.1). None may be there
// twice (section 3.2), except those that are made for it.
func readForm(r *http.Request) (url.Values, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, ErrInvalidRequest.With("The body must be application/x-www-form-urlencoded.")
	}
	r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		if f := fault.From(err); f.Kind() == fault.TooLarge {
			return nil, f
		}
		return nil, ErrInvalidRequest.Wrap(err)
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			return nil, ErrInvalidRequest.With("A parameter is there more than once.")
		}
	}
	return r.PostForm, nil
}

// credentials are what a request says of its client, before anything of it is believed.
type credentials struct {
	id, method string
	secret     string // or assertion
}

// readCredentials finds the one proof of being a client that a request may bring (RFC 6749, section 2.3).
func readCredentials(r *http.Request, form url.Values) (credentials, error) {
	id, secret, basic, err := basicAuth(r)
	if err != nil {
		return credentials{}, err
	}
	if form.Has("client_assertion") {
		if basic || form.Has("client_secret") {
			return credentials{}, ErrInvalidRequest.With("The client proves itself in two ways.")
		}
		id, err := assertedID(form)
		return credentials{id, AuthPrivateKey, form.Get("client_assertion")}, err
	}
	switch {
	case basic && (form.Has("client_secret") || form.Has("client_id") && form.Get("client_id") != id):
		return credentials{}, ErrInvalidRequest.With("The client proves itself in the header and in the body.")
	case basic:
		return credentials{id, AuthBasic, secret}, nil
	case form.Has("client_secret"):
		return credentials{form.Get("client_id"), AuthPost, form.Get("client_secret")}, nil
	default:
		return credentials{id: form.Get("client_id"), method: AuthNone}, nil
	}
}

// basicAuth reads the header. Id and secret are form-encoded in it (RFC 6749, section 2.3.1).
func basicAuth(r *http.Request) (id, secret string, found bool, err error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", "", false, nil
	}
	scheme, encoded, _ := strings.Cut(headers[0], " ")
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if len(headers) > 1 || !strings.EqualFold(scheme, "Basic") || err != nil {
		return "", "", false, ErrInvalidClient.With("The header Authorization cannot be read.")
	}
	id, secret, found = strings.Cut(string(text), ":")
	id, err = url.QueryUnescape(id)
	if err == nil {
		secret, err = url.QueryUnescape(secret)
	}
	if err != nil || !found {
		return "", "", false, ErrInvalidClient.With("The header Authorization cannot be read.")
	}
	return id, secret, true, nil
}

// authenticate is the one place where a client proves who it is.
func (s *Service) authenticate(r *http.Request, form url.Values) (Client, error) {
	ctx := r.Context()
	presented, err := readCredentials(r, form)
	if err != nil {
		return Client{}, err
	}
	address := httpd.ClientAddr(ctx)
	if err := s.limit(ctx, "oidc.requests", s.cfg.Requests, presented.id+" "+address.String()); err != nil {
		return Client{}, err
	}
	c, err := s.prove(ctx, presented)
	if errors.Is(err, ErrInvalidClient) {
		if limited := s.limit(ctx, "oidc.failures", s.cfg.Failures, ratelimit.Network(address)); limited != nil {
			return Client{}, limited
		}
	}
	return c, err
}

// prove looks the client up and checks its proof.
func (s *Service) prove(ctx context.Context, presented credentials) (Client, error) {
	if presented.id == "" {
		return Client{}, ErrInvalidClient.With("The request names no client.")
	}
	c, err := s.client(ctx, presented.id)
	if errors.Is(err, ErrClientUnknown) {
		return Client{}, ErrInvalidClient
	}
	if err != nil {
		return Client{}, err
	}
	switch presented.method {
	case AuthBasic, AuthPost:
		if c.hasSecret() && c.knows(presented.secret, s.deps.Clock()) {
			return c, nil
		}
	case AuthPrivateKey:
		if c.AuthMethod != AuthPrivateKey {
			break
		}
		if proved, err := s.checkAssertion(ctx, c, presented.secret); err != nil || proved {
			return c, err
		}
	case AuthNone:
		if c.Public() || c.provesByCertificate() && s.certified(ctx, c) {
			return c, nil
		}
	}
	return Client{}, ErrInvalidClient
}

// limit counts one event, and refuses it beyond so many a minute, half of which may come at once.
func (s *Service) limit(ctx context.Context, name string, perMinute int, key string) error {
	p := ratelimit.Policy{Name: name, Rate: perMinute, Period: time.Minute, Burst: max(1, perMinute/2)}
	verdict, err := s.deps.Limiter.Take(ctx, p, key)
	if err != nil {
		return err
	}
	if !verdict.Allowed {
		return ErrTooMany.After(verdict.RetryAfter)
	}
	return nil
}
