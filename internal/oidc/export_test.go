package oidc

import (
	"errors"
	"net/url"
	"time"
)

// Exposed to the tests of this package.
var (
	CheckRedirect  = checkRedirect
	AllowsRedirect = Metadata.allowsRedirect
)

// ParseRequest reads an authorization request of a client, and returns where its answer would go.
func ParseRequest(m Metadata, params url.Values) (string, error) {
	if !m.allowsRedirect(params.Get("redirect_uri")) {
		return "", errors.New("another address")
	}
	r := &request{client: Client{ID: "shop", Metadata: m}, redirectURI: params.Get("redirect_uri"), mode: modeQuery, maxAge: -1, params: params}
	if err := r.check(); err != nil {
		return "", err
	}
	_ = r.again(time.Unix(0, 0))
	to := r.location(r.answer("https://id.example.com", url.Values{"code": {"x"}}))
	_, err := url.Parse(to)
	return to, err
}
