package apikeys

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/apikey"
)

const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAPIKey    = "urn:sumun:token-type:api_key"

	maxReply = 64 << 10
)

// Remote asks the token endpoint of an identity module elsewhere (RFC 8693).
type Remote struct {
	url, id, secret string
	client          *http.Client
}

// NewRemote returns an exchanger that is a client of the identity module: one that may exchange tokens and has the scope
// apikeys:exchange. It does no I/O.
func NewRemote(endpoint, id, secret string) *Remote {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: askTimeout,
		ForceAttemptHTTP2: true,
	}
	return &Remote{url: endpoint, id: id, secret: secret, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a key goes nowhere else
	}}
}

// Exchange implements Exchanger.
func (e *Remote) Exchange(ctx context.Context, key apikey.Key) (Token, error) {
	form := url.Values{"grant_type": {grantExchange}, "subject_token_type": {typeAPIKey}, "subject_token": {key.Reveal()}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, strings.NewReader(form.Encode()))
	if err != nil {
		return Token{}, fmt.Errorf("exchange an API key: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(e.id), url.QueryEscape(e.secret)) // RFC 6749 section 2.3.1
	res, err := e.client.Do(req)
	if err != nil {
		return Token{}, fmt.Errorf("exchange an API key: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return Token{}, fmt.Errorf("exchange an API key: %w", err)
	}
	return read(res.StatusCode, body)
}

// read reads an answer. Only invalid_request is about the key (RFC 8693 section 2.2.2): the request is otherwise always the same.
func read(status int, body []byte) (Token, error) {
	var reply struct {
		Token string  `json:"access_token"`
		Type  string  `json:"token_type"`
		Life  float64 `json:"expires_in"` // seconds
		Error string  `json:"error"`
	}
	err := json.Unmarshal(body, &reply)
	switch {
	case err == nil && status == http.StatusBadRequest && reply.Error == "invalid_request":
		return Token{}, ErrInvalid
	case status != http.StatusOK:
		return Token{}, fmt.Errorf("exchange an API key: the answer is %d (%.60q)", status, reply.Error)
	case err != nil || !strings.EqualFold(reply.Type, "Bearer") || reply.Token == "" || strings.Trim(reply.Token, tokenLetters) != "" ||
		!(reply.Life > 0 && reply.Life < 1e6):
		return Token{}, fmt.Errorf("exchange an API key: the answer has no bearer token")
	}
	return Token{Text: reply.Token, Life: time.Duration(reply.Life * float64(time.Second))}, nil
}

// tokenLetters are those of a JWT.
const tokenLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
