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
	ErrUnsupportedResponseType = fault.New(fault.Malformed, "oidc.unsupported_response_type", "The client may not use this response_type.")
	ErrAccessDenied            = fault.New(fault.Malformed, "oidc.access_denied", "The person has refused.")
	ErrLoginRequired           = fault.New(fault.Forbidden, "oidc.login_required", "The person must sign in first.")
	// ErrUnmetAuthentication is of OpenID Connect Core Unmet Authentication Requirements 1.0.
	ErrUnmetAuthentication      = fault.New(fault.Forbidden, "oidc.unmet_authentication_requirements", "The person cannot sign in here in the way that is asked for.")
	ErrConsentRequired          = fault.New(fault.Forbidden, "oidc.consent_required", "The person must be asked first.")
	ErrRequestNotSupported      = fault.New(fault.Malformed, "oidc.request_not_supported", "Request objects must be signed with a registered key of the client's.")
	ErrInvalidRequestObject     = fault.New(fault.Malformed, "oidc.invalid_request_object", "The request object is not valid.") // RFC 9101, section 7
	ErrRequestURINotSupported   = fault.New(fault.Malformed, "oidc.request_uri_not_supported", "Requests at an address are not supported.")
	ErrRegistrationNotSupported = fault.New(fault.Malformed, "oidc.registration_not_supported", "Clients cannot register themselves within a request.")
)

// ErrRequestRefused is told the person: where an answer to the client would go is not known to be the client's.
var ErrRequestRefused = fault.New(fault.Malformed, "oidc.request_refused", "The application that sent you here made a mistake.")

// ErrRequestOver is told the person whose request was left here, and is worth nothing any more.
var ErrRequestOver = fault.New(fault.Malformed, "oidc.request_over", "The request has expired, or was answered already. Go back to the application and begin again.")

// ErrUserCode answers a code that no device shows.
var ErrUserCode = fault.New(fault.NotFound, "oidc.user_code", "No device shows this code. Check it, or begin anew on the device.")

// What is wrong with what a program says of itself (RFC 7591, section 3.2.2).
var (
	ErrInvalidClientMetadata       = fault.New(fault.Malformed, "oidc.invalid_client_metadata", "Some of what the client says about itself cannot be accepted.")
	ErrInvalidRedirectURI          = fault.New(fault.Malformed, "oidc.invalid_redirect_uri", "A redirect URI cannot be accepted.")
	ErrUnapprovedSoftwareStatement = fault.New(fault.Malformed, "oidc.unapproved_software_statement", "Software statements are believed of nobody. Register without one.")
)

// Failures of those who administer clients.
var (
	ErrClientUnknown  = fault.New(fault.NotFound, "oidc.client_unknown", "There is no such client.")
	ErrClientExists   = fault.New(fault.Conflict, "oidc.client_exists", "There is a client of this id already.")
	ErrClientRefused  = fault.New(fault.Invalid, "oidc.client_refused", "Some of what the client says about itself cannot be accepted.")
	ErrNoSecret       = fault.New(fault.Conflict, "oidc.no_secret", "This client has no secret: it proves itself in another way, or not at all.")
	ErrClientDisabled = fault.New(fault.Forbidden, "oidc.client_disabled", "An operator has disabled this client.")
	ErrTooMany        = fault.New(fault.RateLimited, "oidc.too_many", "Too many requests. Try again later.")
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

	registered               *allowance // nil: by an operator
	asksClaims               bool       // by name, in ID tokens: it did so at least once
	used                     bool       // it has obtained something; said of those that registered themselves
	secretHash, previousHash []byte
	previousUntil            time.Time
}

// SelfRegistered reports whether nobody but the client itself has said what it is.
func (c Client) SelfRegistered() bool { return c.registered != nil }

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
	// Keys are a JWK Set: those that the client signs its assertions (private_key_jwt) and request objects with.
	Keys json.RawMessage `json:"jwks,omitempty"`
	// JWKSURI is where the client publishes such a set, instead of Keys.
	JWKSURI string `json:"jwks_uri,omitempty"`
	// SubjectType says whether the client knows people by their ids (public, also when empty) or by names that are for its sector alone:
	// the host of SectorIdentifierURI, which lists the redirect URIs, or else that of them all.
	SubjectType         string `json:"subject_type,omitempty"`
	SectorIdentifierURI string `json:"sector_identifier_uri,omitempty"`
	// PostLogoutRedirectURIs are where people may be sent after they signed out (RP-Initiated Logout 1.0).
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris,omitempty"`
	// BackchannelLogoutURI is told when a session ends (Back-Channel Logout 1.0).
	BackchannelLogoutURI string `json:"backchannel_logout_uri,omitempty"`
	// FrontchannelLogoutURI is loaded in a frame by the browser whose session ends (Front-Channel Logout 1.0).
	FrontchannelLogoutURI string `json:"frontchannel_logout_uri,omitempty"`
	// What is told of the end of a session always says of which, whether a client demands it or not.
	BackchannelSession  bool `json:"backchannel_logout_session_required,omitempty"`
	FrontchannelSession bool `json:"frontchannel_logout_session_required,omitempty"`
	RequirePKCE         bool `json:"sumun_require_pkce,omitempty"` // public clients must in any case
	// Trusted clients are the installation's own: people are not asked.
	Trusted    bool `json:"sumun_trusted,omitempty"`
	RequirePAR bool `json:"require_pushed_authorization_requests,omitempty"` // RFC 9126
	// CertificateNames are what its TLS certificate says (tls_client_auth).
	CertificateNames
	// BindTokens binds access tokens to the client's TLS certificate (RFC 8705, section 3.4), which it needs then.
	BindTokens bool `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	// AccessToken is the form of its access tokens: jwt, also when it is empty, or opaque.
	AccessToken string `json:"sumun_access_token,omitempty"`
	// IntrospectionAlg is the signature that it wants under signed answers about tokens (RFC 9701, section 6); empty: whichever is used.
	IntrospectionAlg string `json:"introspection_signed_response_alg,omitempty"`
	// LegacyGrants are the grants that should not be used any more and that operators have switched on for it.
	LegacyGrants []string `json:"sumun_legacy_grants,omitempty"`
	// RequestObjectAlg is the only signature that its request objects may have, "" for any that is supported (RFC 9101, section 10.5).
	RequestObjectAlg     string `json:"request_object_signing_alg,omitempty"`
	RequireRequestObject bool   `json:"require_signed_request_object,omitempty"` // RFC 9101, section 10.5
	// RequestObjectOnce demands a jti of request objects, each of which is taken once.
	RequestObjectOnce bool `json:"sumun_request_object_once,omitempty"`

	Description
}
