package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxObject is how far ahead a request object may expire: so long a request that was seen on its way can be repeated.
const maxObject = time.Hour

// objectTypes are the types that a request object may have, in lower case: that of RFC 9101, section 10.8, or none in particular. A JWT
// that was made for something else, such as an access token, says so.
var objectTypes = []string{"", "jwt", "oauth-authz-req+jwt", "application/oauth-authz-req+jwt"}

// objectClaims are the members of a request object that are about itself (RFC 9101, section 4).
var objectClaims = []string{"iss", "aud", "exp", "nbf", "iat", "jti"}

// unpack returns the parameters of a request object (RFC 9101): what the client signed and nothing else, whatever stands beside it
// (section 6.3). Unsigned objects are ErrRequestNotSupported, what does not hold is ErrInvalidRequestObject.
func (s *Service) unpack(ctx context.Context, c Client, outer url.Values) (url.Values, error) {
	raw := outer.Get("request")
	switch {
	case len(outer["request"]) != 1 || outer.Has("request_uri"):
		return nil, ErrInvalidRequestObject.With("There must be one request, and no request_uri beside it.")
	case c.Keys == nil && c.JWKSURI == "":
		return nil, ErrRequestNotSupported.With("The client has registered no keys to sign requests with.")
	case strings.Count(raw, ".") == 4:
		return nil, ErrInvalidRequestObject.With("Encrypted request objects are not supported.")
	}
	methods := assertionMethods
	if c.RequestObjectAlg != "" {
		methods = []string{c.RequestObjectAlg}
	}
	claims := jwt.MapClaims{}
	header, err := s.verifiedBy(ctx, c, raw, claims, jwt.WithValidMethods(methods), jwt.WithIssuer(c.ID), jwt.WithAudience(s.deps.Issuer), jwt.WithJSONNumber())
	if header["alg"] == "none" {
		return nil, ErrRequestNotSupported.With("Request objects without a signature are not supported.")
	}
	if errors.Is(err, ErrUnavailable) {
		return nil, err
	}
	if err != nil {
		return nil, ErrInvalidRequestObject.Wrap(err)
	}
	kind, _ := header["typ"].(string)
	expires, err := claims.GetExpirationTime()
	switch {
	case err != nil || expires.After(s.deps.Clock().Add(maxObject)):
		return nil, ErrInvalidRequestObject.With("The request object may be good for an hour at most.")
	case !slices.Contains(objectTypes, strings.ToLower(kind)):
		return nil, ErrInvalidRequestObject.With("The JWT is of another type than oauth-authz-req+jwt.")
	}
	params, err := objectParams(claims, c.ID)
	if err != nil {
		return nil, err
	}
	return params, s.presentOnce(ctx, c, claims, expires.Time)
}

// presentOnce refuses an object that was presented before, for clients that want it so.
func (s *Service) presentOnce(ctx context.Context, c Client, claims jwt.MapClaims, expires time.Time) error {
	if !c.RequestObjectOnce {
		return nil
	}
	id, _ := claims["jti"].(string)
	if id == "" {
		return ErrInvalidRequestObject.With("The request object has no jti, which this client's must have.")
	}
	first, err := s.deps.Replays.Once(ctx, "request\x00"+c.ID+"\x00"+id, expires.Sub(s.deps.Clock())+2*assertionLeeway)
	if err == nil && !first {
		err = ErrInvalidRequestObject.With("The request object was used already.")
	}
	return err
}

// objectParams makes parameters of the members of a request object: text as it is, numbers in digits, other values as JSON (RFC 9101,
// section 4). Whoever signed is the client, under either name.
func objectParams(claims jwt.MapClaims, clientID string) (url.Values, error) {
	params := url.Values{}
	for name, value := range claims {
		switch {
		case slices.Contains(objectClaims, name), name == sinceParam:
			continue
		case name == "request" || name == "request_uri":
			return nil, ErrInvalidRequestObject.With("A request object names no other one.")
		case name == "sub": // or it could be presented as a proof of being the client (section 10.8)
			return nil, ErrInvalidRequestObject.With("A request object has no sub.")
		case name == "client_id" && value != clientID:
			return nil, ErrInvalidRequestObject.With("The request object is another client's.")
		}
		switch v := value.(type) {
		case string:
			params.Set(name, v)
		case json.Number:
			params.Set(name, v.String())
		case []any:
			for _, one := range v {
				text, ok := one.(string)
				if !ok {
					return nil, ErrInvalidRequestObject.With("A list in the request object has something else than text in it.")
				}
				params.Add(name, text)
			}
		default:
			text, err := json.Marshal(v)
			if err != nil {
				return nil, ErrInvalidRequestObject.Wrap(err)
			}
			params.Set(name, string(text))
		}
	}
	params.Set("client_id", clientID)
	return params, nil
}

var errCritical = errors.New("the header names extensions that must be understood, and are not")

// verifiedBy reads a JWT that a client signed with one of its keys, and that has not expired. It is the only reader of what
// clients sign. The header is there also where the JWT is not valid, for want of something better to say.
func (s *Service) verifiedBy(ctx context.Context, c Client, raw string, claims jwt.Claims, options ...jwt.ParserOption) (header map[string]any, err error) {
	method, kid := signedBy(raw)
	set, err := s.keys(ctx, c, func(set clientKeys) bool {
		return slices.ContainsFunc(set.Keys, func(k clientKey) bool { return k.fits(method, kid) })
	})
	if err != nil {
		return nil, err
	}
	options = append(options, jwt.WithExpirationRequired(), jwt.WithLeeway(assertionLeeway), jwt.WithTimeFunc(s.deps.Clock))
	t, err := jwt.NewParser(options...).ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		if _, there := t.Header["crit"]; there { // RFC 7515, section 4.1.11
			return nil, errCritical
		}
		kid, _ := t.Header["kid"].(string)
		var keys jwt.VerificationKeySet
		for _, k := range set.Keys {
			if public, err := k.public(); err == nil && k.fits(t.Method.Alg(), kid) {
				keys.Keys = append(keys.Keys, public)
			}
		}
		return keys, nil
	})
	if t == nil {
		return nil, err
	}
	return t.Header, err
}
