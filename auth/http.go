package auth

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// Token returns the bearer token of the Authorization header (RFC 6750 section 2.1): [ErrMissing] when there is none,
// [ErrRequest] when there is more than one or it is not a token. Tokens in the address or the body are not looked at.
func Token(r *http.Request) (string, error) {
	scheme, token, err := credentials(r)
	switch {
	case err != nil:
		return "", err
	case scheme != schemeBearer:
		return "", ErrMissing
	case !isToken68(token):
		return "", ErrRequest
	}
	return token, err
}

// Presented returns the access token of a request in whichever scheme it comes, for who has it verified already and passes it on.
func Presented(r *http.Request) (string, error) {
	_, token, err := credentials(r)
	if err != nil {
		return "", err
	}
	if !isToken68(token) {
		return "", ErrRequest
	}
	return token, nil
}

// The schemes of the Authorization header that carry an access token.
const (
	schemeBearer = "Bearer" // RFC 6750 section 2.1
	schemeDPoP   = "DPoP"   // RFC 9449 section 7.1
)

// credentials returns what is sent as an access token, whatever it looks like, and its scheme. Other schemes carry none.
func credentials(r *http.Request) (scheme, token string, err error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return "", "", ErrMissing
	}
	if len(headers) > 1 {
		return "", "", ErrRequest
	}
	name, token, _ := strings.Cut(headers[0], " ")
	switch {
	case strings.EqualFold(name, schemeBearer):
		scheme = schemeBearer
	case strings.EqualFold(name, schemeDPoP):
		scheme = schemeDPoP
	default:
		return "", "", ErrMissing
	}
	return scheme, strings.Trim(token, " "), nil
}

// VerifyRequest is [Verifier.Verify] for the token of a request, and for what a request must bring besides: a token that is
// bound to a client's key comes in the scheme DPoP, with one proof of that key, and others do not (RFC 9449 section 7); one that is
// bound to a client's certificate comes over a connection on which the client has shown it (RFC 8705 section 3).
func (v *Verifier) VerifyRequest(r *http.Request) (*Claims, error) {
	return v.VerifyRequestWith(r, v.cfg.Proofs)
}

// VerifyRequestWith is VerifyRequest with another judge of proofs. Where a request passes two parts of one process, each needs
// its own, or the second finds the proof used.
func (v *Verifier) VerifyRequestWith(r *http.Request, proofs *Proofs) (*Claims, error) {
	scheme, token, err := credentials(r)
	if err != nil {
		return nil, err
	}
	claims, err := v.VerifyBound(r.Context(), token)
	if err != nil && !isToken68(token) { // looked at last: a token that was verified before has the alphabet of one
		return nil, ErrRequest
	}
	if err == nil {
		err = v.checkBinding(r, scheme, token, claims.Confirmation, proofs)
	}
	if err != nil {
		return nil, underScheme(scheme, err)
	}
	return claims, nil
}

// isToken68 reports whether s has the syntax of b64token (RFC 6750 section 2.1).
func isToken68(s string) bool {
	body := strings.TrimRight(s, "=")
	for _, c := range []byte(body) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return body != ""
}

// Middleware lets only requests with a valid token through to next, which finds the claims with [FromContext].
// Others get the status and challenge of RFC 6750 and a problem document (RFC 9457) with the permanent code.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if nonce := v.DPoPNonce(r); nonce != "" {
			w.Header().Set("DPoP-Nonce", nonce)
		}
		claims, err := v.VerifyRequest(r)
		if err != nil {
			refuse(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), claims)))
	})
}

func refuse(w http.ResponseWriter, err error) {
	status, challenge, code := Challenge(err)
	problem := struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
		Code   string `json:"code"`
	}{Title: http.StatusText(status), Status: status, Code: code}
	if e := (*Error)(nil); errors.As(err, &e) {
		problem.Detail = e.description
	}
	h := w.Header()
	if challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem) // the client is gone when this fails
}
