package oidc

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// signedIntrospection is the media type of an answer that can be shown to others (RFC 9701, section 4).
const signedIntrospection = "token-introspection+jwt"

// signed is an answer that is a JWT.
type signed struct{ text string }

// sign makes the answer to a question about a token a JWT for the client that has asked (RFC 9701, section 5).
func (s *Service) sign(ctx context.Context, c Client, said introspection) (signed, error) {
	if alg := c.IntrospectionAlg; alg != "" && alg != s.deps.Tokens.Algorithm() {
		return signed{}, ErrInvalidRequest.With("The introspection_signed_response_alg of this client is not the one that is used here.")
	}
	text, err := s.deps.Tokens.Sign(ctx, signedIntrospection, map[string]any{
		"iss": s.deps.Issuer, "aud": c.ID, "iat": s.deps.Clock().Unix(), "token_introspection": said,
	})
	return signed{text}, err
}

func (a signed) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "application/"+signedIntrospection)
	_, _ = w.Write([]byte(a.text)) // who asked may have gone
}

// wantsSigned reports whether Accept asks for a signed answer (RFC 9110, section 12.5.1): by its own name, as what accepts anything wants
// JSON, and not less than JSON.
func wantsSigned(accept []string) bool {
	asked := quality(accept, "application/"+signedIntrospection)
	return asked > 0 && asked >= quality(accept, "application/json")
}

// quality is the weight that Accept gives a media type by its name, 0 for none.
func quality(accept []string, name string) float64 {
	best := 0.0
	for element := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(element)
		if err != nil || media != name {
			continue
		}
		weight := 1.0
		if q, there := params["q"]; there {
			if weight, err = strconv.ParseFloat(q, 64); err != nil || !(weight >= 0 && weight <= 1) {
				continue
			}
		}
		best = max(best, weight)
	}
	return best
}

// introspectionAlgs are the signatures that a client may ask for.
var introspectionAlgs = []string{"ES256", "EdDSA", "RS256"}

func (m Metadata) checkAnswers(refuse func(name, message string)) {
	if m.IntrospectionAlg != "" && !slices.Contains(introspectionAlgs, m.IntrospectionAlg) {
		refuse("introspection_signed_response_alg", "Must be one of "+strings.Join(introspectionAlgs, ", ")+".")
	}
	if !slices.Contains([]string{"", TokensJWT, TokensOpaque}, m.AccessToken) {
		refuse("sumun_access_token", "Must be jwt or opaque.")
	}
}

// The forms of access tokens that a client can choose.
const (
	TokensJWT    = "jwt" // RFC 9068, also where nothing is said
	TokensOpaque = "opaque"
)

func (m Metadata) opaque() bool { return m.AccessToken == TokensOpaque }
