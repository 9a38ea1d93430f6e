package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// TokenSource finds the access token with which this service itself calls the issuer. It is called by several goroutines at once.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// TokenRefuser is what a [TokenSource] implements to be told that its token was answered with 401, so that the next one is new.
type TokenRefuser interface {
	Refused(token string)
}

// FeedScope is what the token needs that opens the revocation feed.
const FeedScope = "revocations:read"

// ClientCredentialsConfig says who this service is.
type ClientCredentialsConfig struct {
	// Issuer gives tokens at /oauth/token. https, or http to this very machine.
	Issuer string
	// URL of the token endpoint, instead of Issuer. One of the two is required.
	URL string
	// ID and Secret of the client. Required. The secret is sent to the token endpoint only, and appears in no error.
	ID, Secret string
	// Scope of the tokens. Empty: [FeedScope].
	Scope string
	// Client makes the requests. Nil: one that follows no redirects. Each request is given 10 seconds in any case.
	Client *http.Client
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

// ClientCredentials is the [TokenSource] of a service that is a confidential client of the issuer (RFC 6749 section 4.4). It asks
// for a token when one is needed, keeps it in memory, and asks for another when two thirds of its life are over; while the
// issuer does not answer, the old one is used until it expires.
type ClientCredentials struct {
	cfg ClientCredentialsConfig

	turn    chan struct{} // of size 1: full while somebody uses what follows
	token   string
	renew   time.Time
	expires time.Time
}

const (
	tokenTimeout  = 10 * time.Second
	maxTokenReply = 64 << 10
	tokenLife     = time.Minute // where the answer does not say
)

// NewClientCredentials returns a source that has asked for nothing yet, or every fault of the configuration.
func NewClientCredentials(cfg ClientCredentialsConfig) (*ClientCredentials, error) {
	var faults []error
	if cfg.URL == "" {
		cfg.URL = strings.TrimSuffix(cfg.Issuer, "/") + "/oauth/token"
	}
	if err := safeAddress(cfg.URL); err != nil {
		faults = append(faults, fmt.Errorf("token endpoint: %w", err))
	}
	if cfg.ID == "" || cfg.Secret == "" {
		faults = append(faults, errors.New("auth.ClientCredentialsConfig needs ID and Secret of the client"))
	}
	if cfg.Scope == "" {
		cfg.Scope = FeedScope
	}
	if cfg.Client == nil {
		cfg.Client = newClient()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &ClientCredentials{cfg: cfg, turn: make(chan struct{}, 1)}, errors.Join(faults...)
}

// Token is part of [TokenSource].
func (c *ClientCredentials) Token(ctx context.Context) (string, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("wait for a token: %w", context.Cause(ctx))
	}
	defer func() { <-c.turn }()
	now := c.cfg.Clock()
	if c.token != "" && now.Before(c.renew) {
		return c.token, nil
	}
	err := c.ask(ctx, now)
	if err != nil && c.token != "" && now.Before(c.expires) {
		return c.token, nil
	}
	return c.token, err
}

// Refused is part of [TokenRefuser].
func (c *ClientCredentials) Refused(token string) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.token == token {
		c.token = ""
	}
}

// ask gets a new token, or leaves everything as it is. An expired one is forgotten.
func (c *ClientCredentials) ask(ctx context.Context, now time.Time) error {
	if !now.Before(c.expires) {
		c.token = ""
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {c.cfg.Scope}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(c.cfg.ID), url.QueryEscape(c.cfg.Secret)) // RFC 6749 section 2.3.1
	res, err := c.cfg.Client.Do(req)
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxTokenReply))
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	return c.take(res, body, now)
}

func (c *ClientCredentials) take(res *http.Response, body []byte, now time.Time) error {
	var reply struct {
		Token string  `json:"access_token"`
		Type  string  `json:"token_type"`
		Life  float64 `json:"expires_in"` // seconds
		Error string  `json:"error"`
	}
	err := json.Unmarshal(body, &reply)
	if res.StatusCode != http.StatusOK {
		status := &statusError{address: res.Request.URL.Redacted(), status: res.StatusCode, after: retryAfter(res.Header)}
		return fmt.Errorf("ask for a token: %w (%.60q)", status, reply.Error)
	}
	if err != nil || !strings.EqualFold(reply.Type, "Bearer") || !isToken68(reply.Token) {
		return errors.New("ask for a token: the answer has no bearer token")
	}
	life := tokenLife
	if reply.Life > 0 && reply.Life < 1e9 {
		life = time.Duration(reply.Life * float64(time.Second))
	}
	c.token, c.renew, c.expires = reply.Token, now.Add(life*2/3), now.Add(life)
	return nil
}
