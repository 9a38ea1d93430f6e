package gateway

import (
	"errors"
	"net/http"
	"strings"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// keyHeader is where a key may be instead of Authorization.
const keyHeader = "X-Api-Key"

// verify verifies what a request shows: a token with ofToken, and a key by the token that it is given for it. A key is gone from the request
// from here on: its token has taken its place.
func (b *builder) verify(
	r *http.Request, c *stage.Call, readHeader bool, ofToken func(*http.Request) (*auth.Claims, error),
) (*auth.Claims, error) {
	text, found, err := shownKey(r.Header, readHeader)
	if err != nil {
		return nil, err
	}
	if readHeader {
		delete(r.Header, keyHeader)
	}
	if !found {
		return ofToken(r)
	}
	key, err := apikey.Parse(text)
	if err != nil {
		return nil, apikeys.ErrInvalid
	}
	token, err := b.present(r, c, key)
	if err != nil {
		return nil, err
	}
	claims, err := b.deps.Verifier.VerifyRequest(r)
	if !errors.Is(err, auth.ErrRevoked) && !errors.Is(err, auth.ErrUnknownKey) {
		return claims, err
	}
	// Its token was withdrawn. The key may be good all the same: only a client or a signing key has changed.
	b.deps.APIKeys.Forget(key, token)
	if _, again := b.present(r, c, key); errors.Is(again, apikeys.ErrUnavailable) {
		return nil, err
	} else if again != nil {
		return nil, again
	}
	return b.deps.Verifier.VerifyRequest(r)
}

// present puts the token of a key into a request.
func (b *builder) present(r *http.Request, c *stage.Call, key apikey.Key) (token string, err error) {
	if token, err = b.deps.APIKeys.Token(r.Context(), key, c.Client); err != nil {
		return "", err
	}
	r.Header["Authorization"] = []string{"Bearer " + token}
	c.APIKey = key.ID()
	return token, nil
}

// shownKey returns what a request shows as an API key. It may show one proof of who calls.
func shownKey(h http.Header, readHeader bool) (text string, found bool, err error) {
	credentials := h["Authorization"]
	if own := h[keyHeader]; readHeader && len(own) > 0 {
		if len(own) > 1 || len(credentials) > 0 {
			return "", false, auth.ErrRequest
		}
		return own[0], true, nil
	}
	if len(credentials) != 1 {
		return "", false, nil
	}
	scheme, text, _ := strings.Cut(credentials[0], " ")
	text = strings.Trim(text, " ")
	if !strings.EqualFold(scheme, "Bearer") || !apikey.Looks(text) {
		return "", false, nil
	}
	return text, true, nil
}

// errNoKeys is for routes with API keys where there is nobody to ask about them.
var errNoKeys = errors.New("gateway.feed.client_id: empty, and the identity module is not part of this process, but a route has api_keys; " +
	"give a client with the scope apikeys:exchange, or leave api_keys out")
