package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	parPath = "/oauth/par"

	// requestPrefix begins a reference to a request that was left here (RFC 9126, section 2.2).
	requestPrefix = "urn:ietf:params:oauth:request_uri:"
	// requestLifetime is how long it may take from there until the person has agreed.
	requestLifetime = 10 * time.Minute

	insertRequest = `INSERT INTO oauth_requests (hash, client_id, params, expires_at) VALUES ($1, $2, $3, $4)`
	findRequest   = `SELECT params FROM oauth_requests WHERE hash = $1 AND client_id = $2 AND expires_at > $3`
	sweepRequests = `DELETE FROM oauth_requests WHERE hash IN (SELECT hash FROM oauth_requests WHERE expires_at < $1 LIMIT $2)`
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
	reference := rand.Text()
	_, err = s.deps.DB.Writer().ExecContext(ctx, insertRequest, hashSecret(reference), c.client.ID, params.Encode(),
		sqldb.Micros(s.deps.Clock().Add(requestLifetime)))
	if err != nil {
		return nil, err
	}
	return created{pushed{requestPrefix + reference, int64(requestLifetime / time.Second)}}, nil
}

// checkPushed refuses requests that the browser brings of a client that leaves them here (RFC 9126, section 5).
func (r *request) checkPushed() error {
	if r.client.RequirePAR && r.reference == "" {
		return ErrInvalidRequest.With("This client must leave its requests at the pushed authorization request endpoint.")
	}
	return nil
}

// pulled returns the parameters that a reference stands for, with the time of our own that the person brings along, and the reference.
func (s *Service) pulled(ctx context.Context, params url.Values) (url.Values, string, error) {
	reference, found := strings.CutPrefix(params.Get("request_uri"), requestPrefix)
	if !found || len(params["request_uri"]) != 1 || len(params["client_id"]) != 1 {
		return params, "", nil
	}
	text, err := sqldb.One(ctx, s.deps.DB.Reader(), scanString, findRequest, hashSecret(reference), params.Get("client_id"), sqldb.Micros(s.deps.Clock()))
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, "", ErrRequestRefused.With("The request of the application that sent you here has expired. Go back and try again.")
	}
	if err != nil {
		return nil, "", err
	}
	stored, err := url.ParseQuery(text)
	if since := params.Get(sinceParam); err == nil && since != "" {
		stored.Set(sinceParam, since)
	}
	return stored, params.Get("request_uri"), err
}

// statusOf is the status of an answer.
func statusOf(answer any) (body any, status int) {
	if c, ok := answer.(created); ok {
		return c.body, http.StatusCreated
	}
	return answer, http.StatusOK
}
