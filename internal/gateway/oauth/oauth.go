// Package oauth asks the identity module about callers' tokens, as the OAuth client that the gateway is.
//
// It owns two questions: whether a token is still good (RFC 7662), for routes on which nothing less will do, and for a token of the same
// caller that is good at one service (RFC 8693). It promises that each question ends within a bound, that the first is asked anew every
// time, and that what was exchanged is used again until shortly before it expires, and asked for once however many requests want it.
//
// It refuses to decide without an answer.
package oauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
)

// Why there is no answer.
var (
	ErrUnavailable = fault.New(fault.Unavailable, "gateway.identity_unavailable", "Your access cannot be checked right now. Please try again shortly.").After(time.Second)
	ErrExchange    = fault.New(fault.BadGateway, "gateway.exchange", "The gateway got no token for the service behind this address.")
)

const (
	// patience bounds a question.
	patience = 2 * time.Second
	// margin is how long before its end an exchanged token is used for the last time.
	margin = 10 * time.Second
	// maxKept bounds the exchanged tokens that are kept.
	maxKept = 1 << 14
	// maxAnswer bounds answers, in bytes.
	maxAnswer = 64 << 10

	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
)

// Config says who asks whom.
type Config struct {
	// HTTP reaches the identity module, which serves at URL.
	HTTP *http.Client
	URL  string
	// ID and Secret are the client's.
	ID, Secret string
	Clock      func() time.Time
}

// Client asks. It is safe for concurrent use.
type Client struct {
	Config
	asking singleflight.Group

	mu   sync.Mutex
	kept map[wish]exchanged
}

// wish is a token, by its hash, and the service that one is wanted for.
type wish struct {
	token    [sha256.Size]byte
	audience string
}

type exchanged struct {
	value []string // for the header Authorization
	until time.Time
}

// New returns a client that has asked nothing yet.
func New(cfg Config) *Client { return &Client{Config: cfg, kept: map[wish]exchanged{}} }

// Introspect returns nil for a token that identity calls active, auth.ErrRevoked for one that it does not, and otherwise ErrUnavailable.
func (c *Client) Introspect(ctx context.Context, token string) error {
	_, _, err := c.Open(ctx, token)
	return err
}

// Open implements auth.Opener: what identity says of an opaque token is what the token says. Each time it is asked anew.
func (c *Client) Open(ctx context.Context, token string) (claims []byte, keyID string, err error) {
	var said answerBody
	status, err := c.ask(ctx, "/oauth/introspect", url.Values{"token": {token}, "token_type_hint": {"access_token"}}, &said)
	switch {
	case err != nil:
		return nil, "", ErrUnavailable.Wrap(fmt.Errorf("introspect: %w", err))
	case status != http.StatusOK:
		return nil, "", ErrUnavailable.Wrap(fmt.Errorf("introspect: identity answers %d", status))
	case !said.Active:
		return nil, "", auth.ErrRevoked
	}
	return said.text, "", nil
}

// answerBody is what identity says of a token (RFC 7662), whose members are named as those of a token are.
type answerBody struct {
	Active bool
	text   []byte
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *answerBody) UnmarshalJSON(text []byte) error {
	a.text = bytes.Clone(text)
	var said struct {
		Active bool `json:"active"`
	}
	err := json.Unmarshal(text, &said)
	a.Active = said.Active
	return err
}

// Authorization returns the header Authorization for a service, with a token that is good for audience alone. What it returns is shared.
// The caller has verified token, so that what was exchanged for it is given to nobody after it was revoked.
func (c *Client) Authorization(ctx context.Context, token, audience string) ([]string, error) {
	w := wish{sha256.Sum256([]byte(token)), audience}
	if value := c.find(w); value != nil {
		return value, nil
	}
	// The one who asks does so for all: its leaving must not take the answer from the others.
	answer := c.asking.DoChan(string(w.token[:])+audience, func() (any, error) {
		if value := c.find(w); value != nil {
			return value, nil
		}
		return c.exchange(context.WithoutCancel(ctx), w, token)
	})
	select {
	case got := <-answer:
		value, _ := got.Val.([]string)
		return value, got.Err
	case <-ctx.Done():
		return nil, ErrUnavailable.Wrap(ctx.Err())
	}
}

func (c *Client) find(w wish) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, there := c.kept[w]; there && c.Clock().Before(e.until) {
		return e.value
	}
	return nil
}

func (c *Client) keep(w wish, e exchanged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxKept {
		now := c.Clock()
		for other, e := range c.kept {
			if !now.Before(e.until) {
				delete(c.kept, other)
			}
		}
		for other := range c.kept { // all are good: any will do, and several go, so that this is rare
			if len(c.kept) < maxKept*3/4 {
				break
			}
			delete(c.kept, other)
		}
	}
	c.kept[w] = e
}

func (c *Client) exchange(ctx context.Context, w wish, token string) ([]string, error) {
	now := c.Clock()
	var said struct {
		Access    string `json:"access_token"`
		Type      string `json:"token_type"`
		ExpiresIn int64  `json:"expires_in"`
		Error     string `json:"error"`
	}
	status, err := c.ask(ctx, "/oauth/token", url.Values{
		"grant_type": {grantExchange}, "subject_token": {token}, "subject_token_type": {typeAccessToken}, "audience": {w.audience},
	}, &said)
	switch {
	case err != nil:
		return nil, ErrUnavailable.Wrap(fmt.Errorf("exchange: %w", err))
	case status >= 500 || status == http.StatusTooManyRequests:
		return nil, ErrUnavailable.Wrap(fmt.Errorf("exchange: identity answers %d", status))
	case status != http.StatusOK:
		return nil, ErrExchange.Wrap(fmt.Errorf("exchange for %s: identity answers %d %.64q", w.audience, status, said.Error))
	case said.Access == "" || !strings.EqualFold(said.Type, "Bearer"):
		return nil, ErrExchange.Wrap(errors.New("exchange: identity's answer has no bearer token"))
	}
	e := exchanged{value: []string{"Bearer " + said.Access}, until: now.Add(time.Duration(said.ExpiresIn)*time.Second - margin)}
	if now.Before(e.until) {
		c.keep(w, e)
	}
	return e.value, nil
}

// ask posts a form and reads the answer, which is JSON where it is one that matters.
func (c *Client) ask(ctx context.Context, path string, form url.Values, answer any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret)) // RFC 6749, section 2.3.1
	got, err := c.HTTP.Do(r)
	if err != nil {
		return 0, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if json.Unmarshal(text, answer) != nil && got.StatusCode == http.StatusOK {
		return 0, errors.New("identity's answer is not JSON")
	}
	return got.StatusCode, nil
}
