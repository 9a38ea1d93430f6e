package oidc

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
)

const (
	maxID     = 64
	maxName   = 200
	maxScopes = 100
	maxURIs   = 50

	// secretPrefix lets secret scanners find a leaked secret.
	secretPrefix = "scs_"
)

// newSecret returns a secret of 256 random bits and what is kept of it. Random as it is, a plain hash is enough.
func newSecret() (secret string, hash []byte) { return newToken(secretPrefix) }

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// knows reports whether a secret is the client's, or was until a moment ago. How long that takes tells nothing.
func (c Client) knows(secret string, now time.Time) bool {
	hash := hashSecret(secret)
	current := subtle.ConstantTimeCompare(hash, c.secretHash)
	previous := subtle.ConstantTimeCompare(hash, c.previousHash)
	return current == 1 || previous == 1 && now.Before(c.previousUntil)
}

// hasSecret reports whether the client proves itself with a secret.
func (m Metadata) hasSecret() bool { return m.AuthMethod == AuthBasic || m.AuthMethod == AuthPost }

// needsKeys reports whether the client signs what it sends here, or connects with one of its keys.
func (m Metadata) needsKeys() bool {
	return m.AuthMethod == AuthPrivateKey || m.AuthMethod == AuthSelfSigned || m.RequireRequestObject || m.RequestObjectAlg != "" || m.RequestObjectOnce
}

// complete puts defaults where nothing is said (RFC 7591, section 2).
func (m *Metadata) complete() {
	if m.AuthMethod == "" {
		m.AuthMethod = AuthBasic
	}
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = []string{GrantAuthorizationCode, GrantRefreshToken}
	}
	m.Scope = strings.Join(strings.Fields(m.Scope), " ")
}

// check refuses what cannot be accepted, all of it at once.
func (m Metadata) check() error {
	var fields []fault.Field
	refuse := func(name, message string) {
		fields = append(fields, fault.Field{Name: name, Code: "refused", Message: message})
	}
	if m.Name == "" || len(m.Name) > maxName || !utf8.ValidString(m.Name) || strings.ContainsFunc(m.Name, unicode.IsControl) {
		refuse("client_name", "A name of at most 200 bytes, without control characters, is needed: people read it.")
	}
	if !slices.Contains(authMethods, m.AuthMethod) {
		refuse("token_endpoint_auth_method", "Must be one of "+strings.Join(authMethods, ", ")+".")
	}
	m.checkKeys(refuse)
	m.checkSubjects(refuse)
	m.Description.check(refuse)
	if m.RequestObjectAlg != "" && !slices.Contains(assertionMethods, m.RequestObjectAlg) {
		refuse("request_object_signing_alg", "Must be one of "+strings.Join(assertionMethods, ", ")+".")
	}
	m.checkCertificate(refuse)
	m.checkAnswers(refuse)
	m.checkLegacy(refuse)
	for _, g := range m.GrantTypes {
		if !slices.Contains(grantTypes(), g) {
			refuse("grant_types", "Must be among "+strings.Join(grantTypes(), ", ")+".")
		}
	}
	for _, g := range []string{GrantClientCredentials, GrantExchange} {
		if m.AuthMethod == AuthNone && slices.Contains(m.GrantTypes, g) {
			refuse("grant_types", g+" needs a client that can prove itself: not a public one.")
		}
	}
	scopes := strings.Fields(m.Scope)
	if len(scopes) > maxScopes || slices.ContainsFunc(scopes, func(s string) bool { return !validScope(s) }) {
		refuse("scope", "Must be at most 100 words of printable ASCII, without quotes and backslashes.")
	}
	if len(m.RedirectURIs) > maxURIs || len(m.Resources) > maxURIs {
		refuse("redirect_uris", "Must be at most 50.")
	}
	for _, uri := range m.RedirectURIs {
		if wrong := checkRedirect(uri); wrong != "" {
			refuse("redirect_uris", wrong)
		}
	}
	if slices.Contains(m.GrantTypes, GrantAuthorizationCode) && len(m.RedirectURIs) == 0 {
		refuse("redirect_uris", "authorization_code needs at least one.")
	}
	for _, uri := range m.PostLogoutRedirectURIs {
		if wrong := checkRedirect(uri); wrong != "" {
			refuse("post_logout_redirect_uris", wrong)
		}
	}
	if wrong := checkRedirect(m.BackchannelLogoutURI); m.BackchannelLogoutURI != "" && (wrong != "" || !strings.HasPrefix(m.BackchannelLogoutURI, "http")) {
		refuse("backchannel_logout_uri", "Must be an https URI without a fragment.")
	}
	if wrong := m.checkFrontchannel(); m.FrontchannelLogoutURI != "" && wrong != "" {
		refuse("frontchannel_logout_uri", wrong)
	}
	for _, resource := range m.Resources {
		if !validResource(resource) {
			refuse("sumun_resources", "Must be absolute URIs without a fragment (RFC 8707).")
		}
	}
	if len(fields) > 0 {
		return ErrClientRefused.WithFields(fields...)
	}
	return nil
}

// checkID refuses an id that could be taken for something else: a URL's part, an account, Sumun itself.
func checkID(id string) error {
	refuse := func(message string) error {
		return ErrClientRefused.WithFields(fault.Field{Name: "client_id", Code: "refused", Message: message})
	}
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if id == "" || len(id) > maxID || strings.Trim(id, allowed) != "" {
		return refuse("Must be 1 to 64 letters, digits, dots, hyphens or underscores.")
	}
	if _, err := uuid.Parse(id); err == nil {
		return refuse("Looks like the id of an account, for which tokens of this client could be taken (RFC 9068, section 5).")
	}
	if id == session.FirstParty {
		return refuse("Is Sumun's own.")
	}
	return nil
}

// validScope is scope-token of RFC 6749, section 3.3.
func validScope(word string) bool {
	for _, c := range []byte(word) {
		if c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return word != ""
}

// validResource is what RFC 8707, section 2, asks of a resource.
func validResource(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.IsAbs() && !strings.Contains(uri, "#") && len(uri) <= maxURI
}

// scope decides what a client gets of what it asked for: all that it may have when it asked for nothing.
func (c Client) scope(asked string, allowed func(string) bool) (string, error) {
	may := slices.DeleteFunc(strings.Fields(c.Scope), func(s string) bool { return !allowed(s) })
	if asked == "" {
		return strings.Join(may, " "), nil
	}
	var granted []string
	for word := range strings.SplitSeq(asked, " ") {
		if !slices.Contains(may, word) {
			return "", ErrInvalidScope
		}
		if !slices.Contains(granted, word) {
			granted = append(granted, word)
		}
	}
	return strings.Join(granted, " "), nil
}

// audience decides whom a token is for: the resources that were asked for, each once, else all of the client's, else the issuer.
func (c Client) audience(asked []string, issuer string) ([]string, error) {
	var granted []string
	for _, resource := range asked {
		if resource == "" || resource != issuer && !slices.Contains(c.Resources, resource) {
			return nil, ErrInvalidTarget
		}
		if !slices.Contains(granted, resource) {
			granted = append(granted, resource)
		}
	}
	switch {
	case len(granted) > 0:
		return granted, nil
	case len(c.Resources) > 0:
		return c.Resources, nil
	default:
		return []string{issuer}, nil
	}
}
