package oidc

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Description is what a client says of itself besides what it may do (RFC 7591, section 2; OpenID Connect Dynamic Client Registration 1.0,
// section 2). It is kept and told as it is: nothing is fetched from the addresses.
type Description struct {
	ApplicationType string   `json:"application_type,omitempty"` // web or native
	Contacts        []string `json:"contacts,omitempty"`
	ClientURI       string   `json:"client_uri,omitempty"`
	LogoURI         string   `json:"logo_uri,omitempty"`
	PolicyURI       string   `json:"policy_uri,omitempty"`
	TOSURI          string   `json:"tos_uri,omitempty"`
	SoftwareID      string   `json:"software_id,omitempty"`
	SoftwareVersion string   `json:"software_version,omitempty"`

	ResponseTypes []string `json:"response_types,omitempty"`
	// IDTokenAlg and UserInfoAlg are what the client wants signed how; the answers of the userinfo endpoint are not where it is empty.
	IDTokenAlg  string `json:"id_token_signed_response_alg,omitempty"`
	UserInfoAlg string `json:"userinfo_signed_response_alg,omitempty"`
}

const (
	maxContacts = 20
	maxText     = 320 // of a contact or the like, in bytes
)

// check tells refuse what cannot be accepted.
func (d Description) check(refuse func(name, message string)) {
	if !slices.Contains([]string{"", "web", "native"}, d.ApplicationType) {
		refuse("application_type", "Must be web or native.")
	}
	if len(d.Contacts) > maxContacts || slices.ContainsFunc(d.Contacts, func(contact string) bool { return !validText(contact) }) {
		refuse("contacts", "Must be at most 20, of at most 320 bytes, without control characters.")
	}
	for name, uri := range map[string]string{"client_uri": d.ClientURI, "logo_uri": d.LogoURI, "policy_uri": d.PolicyURI, "tos_uri": d.TOSURI} {
		if uri != "" && !validWebURI(uri) {
			refuse(name, "Must be an https URI without a fragment.")
		}
	}
	for name, text := range map[string]string{"software_id": d.SoftwareID, "software_version": d.SoftwareVersion} {
		if !validText(text) {
			refuse(name, "Must be of at most 320 bytes, without control characters.")
		}
	}
	if slices.ContainsFunc(d.ResponseTypes, func(t string) bool { return t != "code" }) {
		refuse("response_types", "Must be code.")
	}
}

func validText(text string) bool {
	return len(text) <= maxText && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// validWebURI reports whether a URI is an https one without a fragment, or an http one on this very machine.
func validWebURI(uri string) bool { return strings.HasPrefix(uri, "http") && checkRedirect(uri) == "" }

// papers are the addresses of the client's privacy policy and terms, as far as they are of the host to which the answer goes: whoever
// owns that may as well lead people on (OpenID Connect Dynamic Client Registration 1.0, section 9.1).
func (d Description) papers(host string) (policy, terms string) {
	of := func(uri string) string {
		if u, err := url.Parse(uri); err != nil || u.Host != host {
			return ""
		}
		return uri
	}
	return of(d.PolicyURI), of(d.TOSURI)
}

// checkKeys tells refuse what is wrong with how the client publishes its keys.
func (m Metadata) checkKeys(refuse func(name, message string)) {
	const wanted = "EC P-256, Ed25519, or RSA of 2048 bits and more."
	switch {
	case m.Keys != nil && m.JWKSURI != "":
		refuse("jwks", "Give jwks or jwks_uri, not both (RFC 7591, section 2).")
	case m.JWKSURI != "" && !validWebURI(m.JWKSURI):
		refuse("jwks_uri", "Must be an https URI without a fragment.")
	case m.Keys != nil:
		if _, err := parseClientKeys(m.Keys); err != nil {
			refuse("jwks", "Must be a JWK Set of public keys for signatures: "+wanted)
		}
	case m.JWKSURI == "" && m.needsKeys():
		refuse("jwks", "private_key_jwt, self_signed_tls_client_auth and signed requests need a JWK Set of public keys, here or at jwks_uri: "+wanted)
	}
}

// checkSubjects tells refuse what is wrong with the names by which the client wants to know people.
func (m Metadata) checkSubjects(refuse func(name, message string)) {
	if !slices.Contains([]string{"", SubjectPublic, SubjectPairwise}, m.SubjectType) {
		refuse("subject_type", "Must be public or pairwise.")
	}
	if m.SectorIdentifierURI != "" && !validWebURI(m.SectorIdentifierURI) {
		refuse("sector_identifier_uri", "Must be an https URI without a fragment.")
	} else if m.pairwise() && m.sector() == "" {
		refuse("sector_identifier_uri", "pairwise needs one, unless all redirect URIs have one host (OpenID Connect Core, section 8.1).")
	}
}

// registrable are the names that a program may say of itself. Everything else is ignored, as RFC 7591, section 2, wants it, also what is
// spelt in other letters, which encoding/json would take for the same.
var registrable = []string{
	"redirect_uris", "token_endpoint_auth_method", "grant_types", "response_types", "client_name", "client_uri", "logo_uri", "scope", "contacts",
	"tos_uri", "policy_uri", "jwks_uri", "jwks", "software_id", "software_version", "application_type", "sector_identifier_uri", "subject_type",
	"id_token_signed_response_alg", "userinfo_signed_response_alg", "post_logout_redirect_uris", "backchannel_logout_uri",
	"backchannel_logout_session_required", "frontchannel_logout_uri", "frontchannel_logout_session_required",
	"require_pushed_authorization_requests", "sumun_require_pkce", "request_object_signing_alg", "require_signed_request_object",
	"tls_client_auth_subject_dn", "tls_client_auth_san_dns", "tls_client_auth_san_uri", "tls_client_auth_san_ip", "tls_client_auth_san_email",
	"tls_client_certificate_bound_access_tokens", "introspection_signed_response_alg",
}

// said is a registration as a program sends it.
type said struct {
	Metadata
	// For those that change themselves (RFC 7592, section 2.2).
	id, secret string
}

// readMetadata reads what a program says of itself.
func readMetadata(body []byte) (said, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return said{}, ErrInvalidClientMetadata.With("The body must be a JSON object.")
	}
	if _, there := members["software_statement"]; there {
		return said{}, ErrUnapprovedSoftwareStatement
	}
	known := make(map[string]json.RawMessage, len(members))
	for name, value := range members {
		switch {
		case slices.Contains(registrable, name):
			if string(value) != "null" { // which is as if it were not there
				known[name] = value
			}
		case strings.HasPrefix(name, "sumun_"):
			return said{}, ErrInvalidClientMetadata.With("Only an operator may set " + plain(name[:min(len(name), 64)]) + ".")
		}
	}
	var s said
	text, err := json.Marshal(known)
	if err == nil {
		err = json.Unmarshal(text, &s.Metadata)
	}
	for name, into := range map[string]*string{"client_id": &s.id, "client_secret": &s.secret} {
		if value, there := members[name]; there && err == nil {
			err = json.Unmarshal(value, into)
		}
	}
	if err != nil {
		return said{}, ErrInvalidClientMetadata.With("A member is not of the type that RFC 7591 gives it.")
	}
	return s, nil
}
