package auth

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Error is a reason not to let a request through. Its code is permanent and meant for programs; its text and
// challenge may be shown to the caller, its cause may not.
//
// Two Errors are the same to [errors.Is] when their codes are, so errors.Is(err, ErrExpired) holds for every expired
// token, whatever caused it.
type Error struct {
	code        string
	status      int
	oauth       string // "error" of RFC 6750 section 3.1 or RFC 9470 section 3; empty: no token was sent
	description string // printable ASCII without quote and backslash (RFC 6750 section 3)
	maxAge      time.Duration
	scope       string
	dpop        bool // the challenge is one of the scheme DPoP
	cause       error
}

const (
	invalidRequest = "invalid_request"
	invalidToken   = "invalid_token"
	stepUp         = "insufficient_user_authentication"
	tooLittle      = "insufficient_scope"
)

// The reasons for which a request is refused.
var (
	// ErrMissing: the request carries no bearer token.
	ErrMissing = refusal("auth.missing", "", "An access token is needed.")
	// ErrRequest: the credentials are sent in a way that RFC 6750 does not allow.
	ErrRequest = &Error{code: "auth.request", status: http.StatusBadRequest, oauth: invalidRequest,
		description: "Send exactly one Authorization header with one bearer token."}
	// ErrMalformed: what was sent is not a signed access token.
	ErrMalformed = refusal("auth.malformed", invalidToken, "The access token is malformed.")
	// ErrType: a JWT of the issuer perhaps, but not an access token (RFC 9068 section 4).
	ErrType = refusal("auth.type", invalidToken, "The token is not an access token.")
	// ErrSignature: the signature, or the algorithm it claims to have, is wrong.
	ErrSignature = refusal("auth.signature", invalidToken, "The access token's signature is wrong.")
	// ErrUnknownKey: the issuer publishes no such key. A [KeySource] returns it for a key that does not exist.
	ErrUnknownKey = refusal("auth.unknown_key", invalidToken, "The access token is signed with an unknown key.")
	// ErrClaims: a claim that every access token carries is missing or has the wrong type.
	ErrClaims = refusal("auth.claims", invalidToken, "The access token lacks a required claim.")
	// ErrIssuer: somebody else's token.
	ErrIssuer = refusal("auth.issuer", invalidToken, "The access token is from another issuer.")
	// ErrAudience: a token meant for another service.
	ErrAudience = refusal("auth.audience", invalidToken, "The access token is meant for another service.")
	// ErrNotYetValid: the token was issued in the future. One of the two clocks is wrong.
	ErrNotYetValid = refusal("auth.not_yet_valid", invalidToken, "The access token is not valid yet.")
	// ErrExpired: the token's lifetime is over; the client refreshes it.
	ErrExpired = refusal("auth.expired", invalidToken, "The access token has expired.")
	// ErrRevoked: the session, the client's grant, the token, its key or its owner's privileges were withdrawn.
	ErrRevoked = refusal("auth.revoked", invalidToken, "The access token has been revoked.")
	// ErrStepUp: the sign-in is too long ago for what is asked. See [RequireRecent].
	ErrStepUp = refusal("auth.step_up", stepUp, "A more recent sign-in is needed.")
	// ErrScope: the token was not given what is asked for. See [RequireScope].
	ErrScope = &Error{code: "auth.scope", status: http.StatusForbidden, oauth: tooLittle,
		description: "The access token has not the scope that is needed."}
	// ErrRole: the person, or the client, has none of the roles that may do this. See [RequireRole].
	ErrRole = &Error{code: "auth.role", status: http.StatusForbidden, oauth: tooLittle,
		description: "None of the token's roles may do this."}
	// ErrStale: what was revoked lately is not known here, and the operation is one for which that matters. The token may be good,
	// and another would not help: the answer is 503, and clients keep their token and try again. See [Verifier.RequireFresh].
	ErrStale = &Error{code: "auth.stale", status: http.StatusServiceUnavailable,
		description: "What has been revoked is not known here at the moment. Try again shortly."}
	// ErrKeysUnavailable: the issuer's keys have never been loaded, so nothing can be said about the token. It is
	// the verifier's fault, not the token's: the answer is 503, and clients keep their token.
	ErrKeysUnavailable = &Error{code: "auth.keys_unavailable", status: http.StatusServiceUnavailable,
		description: "The issuer's keys are not available. Try again shortly."}
)

func refusal(code, oauth, description string) *Error {
	return &Error{code: code, status: http.StatusUnauthorized, oauth: oauth, description: description}
}

// Error returns the text and the cause. It is for logs: the cause is not for callers.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.description + " " + e.cause.Error()
	}
	return e.description
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.code == e.code
}

// Code returns the permanent code, such as "auth.expired".
func (e *Error) Code() string { return e.code }

// Description returns the sentence that may be shown to the caller.
func (e *Error) Description() string { return e.description }

func (e *Error) wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Challenge translates an error of this package into an HTTP answer: the status, the value of WWW-Authenticate
// (RFC 6750 section 3, RFC 9470 section 3; empty when there is nothing to challenge), and the permanent code.
// An error that is not an [*Error] becomes 500 with the code "internal" and no challenge.
func Challenge(err error) (status int, header, code string) {
	var e *Error
	if !errors.As(err, &e) {
		return http.StatusInternalServerError, "", "internal"
	}
	if e.status == http.StatusServiceUnavailable {
		return e.status, "", e.code
	}
	header = e.scheme()
	if e.oauth != "" {
		header += `, error="` + e.oauth + `", error_description="` + e.description + `"`
	}
	if e.oauth == stepUp {
		header += `, max_age="` + strconv.FormatInt(int64(e.maxAge/time.Second), 10) + `"`
	}
	if e.scope != "" {
		header += `, scope="` + e.scope + `"`
	}
	return e.status, header, e.code
}
