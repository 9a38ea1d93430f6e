package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	parPath = "/oauth/par"

	// requestPrefix begins a reference to a request that was left here (RFC 9126, section 2.2).
	requestPrefix = "urn:ietf:params:oauth:request_uri:"
	// requestLifetime is how long it may take from there until the person comes, carriedLifetime until they have signed in and agreed.
	requestLifetime = 10 * time.Minute
	carriedLifetime = 30 * time.Minute

	insertRequest = `INSERT INTO oauth_requests (hash, client_id, params, expires_at, root) VALUES ($1, $2, $3, $4, $5)`
	// A request is answered once, whichever of those that came in its place while the person signed in, in however many tabs.
	findRequest = `SELECT r.params, o.hash FROM oauth_requests r JOIN oauth_requests o ON o.hash = COALESCE(r.root, r.hash)
		WHERE r.hash = $1 AND r.client_id = $2 AND r.expires_at > $3 AND o.answered_at = 0`
	answerRequest = `UPDATE oauth_requests SET answered_at = $1 WHERE hash = $2 AND answered_at = 0`
	keepRequest   = `UPDATE oauth_requests SET keep_until = $1 WHERE hash = $2 AND keep_until < $1`
	sweepRequests = `DELETE FROM oauth_requests WHERE hash IN (
		SELECT hash FROM oauth_requests WHERE expires_at < $1 AND keep_until < $1 LIMIT $2)`
)

// created is an answer with the status 201.
type created struct{ body any }

// pushed is the answer to a request that was left here (RFC 9126, section 2.2).
type pushed struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
}

// pushRequest takes a request from a client that has proved itself, so that nobody on the way through the browser can read or change it
// (RFC 9126). It is checked as if the person had brought it.
func (s *Service) pushRequest(ctx context.Context, c *call) (any, error) {
	params := url.Values{}
	for name, values := range c.form {
		if name != "client_secret" && name != "client_assertion" && name != "client_assertion_type" {
			params[name] = values
		}
	}
	if params.Has("request_uri") {
		return nil, ErrInvalidRequest.With("A request that is left here names no other one.")
	}
	params.Del(sinceParam)
	params.Set("client_id", c.client.ID)
	req, err := s.readRequest(ctx, params)
	if errors.Is(err, ErrRequestRefused) {
		return nil, ErrInvalidRequest.With("The redirect_uri is missing, or not registered.").Wrap(err)
	}
	if err != nil {
		return nil, err
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	reference, err := s.keep(ctx, s.deps.DB.Writer(), req, req.params, requestLifetime)
	if err != nil {
		return nil, err
	}
	return created{pushed{reference, int64(requestLifetime / time.Second)}}, nil
}

// keep stores the parameters of a request that has been checked, and returns the reference to them.
func (s *Service) keep(ctx context.Context, q sqldb.Queryer, req *request, params url.Values, lifetime time.Duration) (reference string, err error) {
	random, until := rand.Text(), sqldb.Micros(s.deps.Clock().Add(lifetime))
	if req.root != nil { // or nothing would be left that can be answered once
		if _, err := q.ExecContext(ctx, keepRequest, until, req.root); err != nil {
			return "", fmt.Errorf("keep request: %w", err)
		}
	}
	_, err = q.ExecContext(ctx, insertRequest, hashSecret(random), req.client.ID, params.Encode(), until, req.root)
	if err != nil {
		return "", fmt.Errorf("store request: %w", err)
	}
	return requestPrefix + random, nil
}

const (
	// maxCarried is how long a request may be that its person takes along from page to page, in bytes: other sites' sign-ins keep the way
	// back in a cookie.
	maxCarried = 1500
	// maxKept bounds one that is kept for them although no client has proved to have made it.
	maxKept = 8 << 10
)

// carry returns how a request travels with its person while they sign in or decide: as it is, or by reference where it was not the browser
// that made it, so that nobody there can read or change what it has become, or where it is long.
func (p pages) carry(ctx context.Context, req *request, params url.Values) (url.Values, error) {
	size := len(params.Encode())
	if req.reference == "" && !req.signed && size <= maxCarried {
		return params, nil
	}
	if req.reference == "" && size > maxKept {
		return nil, ErrRequestRefused.With("The request of the application that sent you here is too long.")
	}
	if err := p.limit(ctx, "oidc.kept", 600, ratelimit.Network(httpd.ClientAddr(ctx))); err != nil {
		return nil, err
	}
	var reference string
	err := p.deps.DB.Write(ctx, func(tx sqldb.Tx) (err error) {
		reference, err = p.keep(ctx, tx, req, params, carriedLifetime)
		return err
	})
	return url.Values{"client_id": {req.client.ID}, "request_uri": {reference}}, err
}

// checkPushed refuses requests that the browser brings of a client that leaves them here (RFC 9126, section 5).
func (r *request) checkPushed() error {
	if r.client.RequirePAR && r.reference == "" {
		return ErrInvalidRequest.With("This client must leave its requests at the pushed authorization request endpoint.")
	}
	return nil
}

// pulled returns the parameters that a reference stands for, whatever else the browser brings, and the root of what was left here; nil where
// nothing was.
func (s *Service) pulled(ctx context.Context, params url.Values) (stored url.Values, root []byte, err error) {
	reference, found := strings.CutPrefix(params.Get("request_uri"), requestPrefix)
	if !found || len(params["request_uri"]) != 1 || len(params["client_id"]) != 1 {
		return params, nil, nil
	}
	text, err := sqldb.One(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (text string, err error) {
		err = r.Scan(&text, &root)
		return text, err
	}, findRequest, hashSecret(reference), params.Get("client_id"), sqldb.Micros(s.deps.Clock()))
	if errors.Is(err, sqldb.ErrNotFound) {
		err = ErrRequestOver
	}
	if err != nil {
		return nil, nil, err
	}
	stored, err = url.ParseQuery(text)
	return stored, root, err
}

// spend makes sure that a request which was left here gets one answer (RFC 9126, section 4): whoever asks again is refused. Until then its
// page may be loaded as often as the person likes.
func (s *Service) spend(ctx context.Context, q sqldb.Queryer, r *request) error {
	if r.root == nil {
		return nil
	}
	res, err := q.ExecContext(ctx, answerRequest, sqldb.Micros(s.deps.Clock()), r.root)
	if err != nil {
		return fmt.Errorf("answer request: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrRequestOver)
	}
	return nil
}

// statusOf is the status of an answer.
func statusOf(answer any) (body any, status int) {
	if c, ok := answer.(created); ok {
		return c.body, http.StatusCreated
	}
	return answer, http.StatusOK
}
