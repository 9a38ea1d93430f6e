// Package oidc owns the protocol side of signing in: which programs may ask for tokens (clients), how they prove who they are, and
// the endpoints of OAuth 2 and OpenID Connect.
//
// It promises that every endpoint which a client calls passes the same phases in the same order (limit, form, client
// authentication, policy), which no grant can skip; that a client's secret is kept as a hash only; that redirect URIs are compared
// letter by letter; and that disabling or removing a client kills its access tokens as fast as any revocation.
//
// It refuses to know how people prove who they are, which is for package identity, and to keep sessions or refresh tokens, which is
// for package session.
package oidc

import (
	"encoding/json"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// Failures as RFC 6749, section 5.2, names them. At the endpoints of this package they are answered in the form given there, with
// the last word of the code as the error.
var (
	ErrInvalidRequest       = fault.New(fault.Malformed, "oidc.invalid_request", "The request lacks a parameter, repeats one, or is malformed.")
	ErrInvalidClient        = fault.New(fault.Unauthenticated, "oidc.invalid_client", "The client is unknown, or did not prove who it is.")
	ErrInvalidGrant         = fault.New(fault.Malformed, "oidc.invalid_grant", "What was presented is not valid, has expired, or was given to somebody else.")
	ErrUnauthorizedClient   = fault.New(fault.Malformed, "oidc.unauthorized_client", "The client may not use this grant.")
	ErrUnsupportedGrantType = fault.New(fault.Malformed, "oidc.unsupported_grant_type", "This grant is not supported.")
	ErrInvalidScope         = fault.New(fault.Malformed, "oidc.invalid_scope", "The scope is malformed, unknown, or more than the client may ask for.")
	ErrInvalidToken         = fault.New(fault.Unauthenticated, "oidc.invalid_token", "The access token is not valid.")
	ErrUnavailable          = fault.New(fault.Unavailable, "oidc.unavailable", "This cannot be answered right now. Please try again.")
	ErrInsufficientScope    = fault.New(fault.Forbidden, "oidc.insufficient_scope", "The access token is not of a person, or its scope lacks openid.")
	// What devices are told that ask for their tokens (RFC 8628, section 3.5).
	ErrAuthorizationPending = fault.New(fault.Malformed, "oidc.authorization_pending", "The person has not agreed yet.")
	ErrSlowDown             = fault.New(fault.Malformed, "oidc.slow_down", "Ask less often: wait five seconds longer from now on.")
	ErrExpiredToken         = fault.New(fault.Malformed, "oidc.expired_token", "The person did not agree in time. Begin anew.")
	// What is wrong with a proof of a key (RFC 9449, section 5).
	ErrInvalidDPoPProof = fault.New(fault.Malformed, "oidc.invalid_dpop_proof", "The DPoP proof is not valid.")
	ErrUseDPoPNonce     = fault.New(fault.Malformed, "oidc.use_dpop_nonce", "Make a new DPoP proof with the nonce of DPoP-Nonce.")
	// ErrInvalidTarget is of RFC 8707, section 2.
	ErrInvalidTarget = fault.New(fault.Malformed, "oidc.invalid_target", "The client may not ask for tokens for this resource.")
)

// Failures of a sign-in that clients are told by way of the browser (RFC 6749, section 4.1.2.1; OpenID Connect Core 1.0, section 3.1.2.6).
var (
	ErrUnsupportedResponseType  = fault.New(fault.Malformed, "oidc.unsupported_response_type", "The response_type must be code.")
	ErrAccessDenied             = fault.New(fault.Malformed, "oidc.access_denied", "The person has refused.")
	ErrLoginRequired            = fault.New(fault.Forbidden, "oidc.login_required", "The person must sign in first.")
	ErrConsentRequired          = fault.New(fault.Forbidden, "oidc.consent_required", "The person must be asked first.")
	ErrRequestNotSupported      = fault.New(fault.Malformed, "oidc.request_not_supported", "Requests in a signed object are not supported.")
	ErrRequestURINotSupported   = fault.New(fault.Malformed, "oidc.request_uri_not_supported", "Requests at an address are not supported.")
	ErrRegistrationNotSupported = fault.New(fault.Malformed, "oidc.registration_not_supported", "Clients cannot register themselves within a request.")
)

// ErrRequestRefused is told the person: where an answer to the client would go is not known to be the client's.
var ErrRequestRefused = fault.New(fault.Malformed, "oidc.request_refused", "The application that sent you here made a mistake.")

// ErrUserCode answers a code that no device shows.
var ErrUserCode = fault.New(fault.NotFound, "oidc.user_code", "No device shows this code. Check it, or begin anew on the device.")

// Failures of those who administer clients.
var (
	ErrClientUnknown = fault.New(fault.NotFound, "oidc.client_unknown", "There is no such client.")
	ErrClientExists  = fault.New(fault.Conflict, "oidc.client_exists", "There is a client of this id already.")
	ErrClientRefused = fault.New(fault.Invalid, "oidc.client_refused", "Some of what the client says about itself cannot be accepted.")
	ErrNoSecret      = fault.New(fault.Conflict, "oidc.no_secret", "This client has no secret: it proves itself in another way, or not at all.")
	ErrTooMany       = fault.New(fault.RateLimited, "oidc.too_many", "Too many requests. Try again later.")
)

// The grants, by the names that requests use.
const (
	GrantClientCredentials = "client_credentials"
	GrantAuthorizationCode = "authorization_code"
	GrantRefreshToken      = "refresh_token"
)

// The ways in which clients prove who they are (RFC 7591, section 2).
const (
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
	AuthNone  = "none"
)

// Client is a program that asks for tokens.
type Client struct {
	ID string
	Metadata
	Epoch int64 // rises when its privileges are withdrawn; tokens with a lower one are dead

	CreatedAt  time.Time
	UpdatedAt  time.Time
	DisabledAt time.Time // zero: it may ask for tokens

	secretHash, previousHash []byte
	previousUntil            time.Time
}

// Public reports whether the client cannot keep a secret: a program on people's own devices.
func (c Client) Public() bool { return c.AuthMethod == AuthNone }

// Metadata is what a client registers about itself, under the names of RFC 7591 and OpenID Connect Dynamic Client Registration.
type Metadata struct {
	Name       string   `json:"client_name,omitempty"`
	AuthMethod string   `json:"token_endpoint_auth_method,omitempty"`
	GrantTypes []string `json:"grant_types,omitempty"`
	Scope      string   `json:"scope,omitempty"` // all that it may ask for, space-separated
	// Resources are the audiences that it may ask tokens for (RFC 8707); the issuer itself where there is none.
	Resources    []string `json:"sumun_resources,omitempty"`
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	// Keys are a JWK Set: those that the client signs its assertions with (private_key_jwt).
	Keys json.RawMessage `json:"jwks,omitempty"`
	// PostLogoutRedirectURIs are where people may be sent after they signed out (RP-Initiated Logout 1.0).
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris,omitempty"`
	// BackchannelLogoutURI is told when a session ends (Back-Channel Logout 1.0).
	BackchannelLogoutURI string `json:"backchannel_logout_uri,omitempty"`
	RequirePKCE          bool   `json:"sumun_require_pkce,omitempty"` // public clients must in any case
	// Trusted clients are the installation's own: people are not asked.
	Trusted    bool `json:"sumun_trusted,omitempty"`
	RequirePAR bool `json:"require_pushed_authorization_requests,omitempty"` // RFC 9126
}
