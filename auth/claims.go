package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Claims says who may do what, on whose behalf and until when. Claims that come from a [Verifier] are shared: treat
// them as read-only.
type Claims struct {
	Issuer   string
	Subject  string   // the account, or the client itself where no person is involved
	Audience []string // the services the token is for
	ClientID string
	Scope    string // space-separated (RFC 8693 section 4.2)
	// SessionID is empty for tokens that no session stands behind (client credentials).
	SessionID string
	// GrantID names the client's grant within the session, where it can be revoked by itself.
	GrantID string
	ID      string // jti
	KeyID   string // kid of the key that signed the token

	IssuedAt  time.Time
	ExpiresAt time.Time
	// AuthTime is when the person last proved who they are; zero where no person did.
	AuthTime time.Time
	ACR      string
	AMR      []string // how the person proved it (RFC 8176)
	Roles    []string

	// Epoch is the subject's epoch when the token was issued: it grows whenever roles or status change.
	Epoch int64
	// ClientEpoch is the same for the client. Zero unless the client's privileges were ever withdrawn.
	ClientEpoch int64
	// Through are the clients that had what this token was exchanged for (RFC 8693), each with its epoch then: the token dies when
	// the privileges of any of them are withdrawn.
	Through []Party

	// Confirmation is what whoever presents the token must prove to have.
	Confirmation Confirmation
}

// Party is a client that has had a part in a token.
type Party struct {
	ClientID    string `json:"client_id"`
	ClientEpoch int64  `json:"client_epoch,omitempty"`
}

// HasScope reports whether scope is one of those that the token was given.
func (c *Claims) HasScope(scope string) bool {
	for s := range strings.FieldsSeq(c.Scope) {
		if s == scope {
			return true
		}
	}
	return false
}

// HasRole reports whether role is one of the subject's when the token was issued.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

type contextKey struct{}

// NewContext returns a context that carries c.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the claims of the verified token, or nil where nobody verified one.
func FromContext(ctx context.Context) *Claims {
	c, _ := ctx.Value(contextKey{}).(*Claims)
	return c
}

// payload is what an access token says (RFC 9068 section 2.2), and what tells it from other tokens of other issuers.
type payload struct {
	claims    Claims
	notBefore time.Time
	confirmed bool // there is a claim cnf
	foreign   foreign
}

// foreign is what issuers say that do not keep to RFC 9068. See [Config.Lenient].
type foreign struct {
	authorizedParty string // azp, cid or appid: the client, by other names
	scopes          words  // scp: the scope, by another name
	kind            string // typ or token_use: what kind of token it is, where its header does not tell
	notAccess       string // a claim that access tokens never have
	members         map[string]json.RawMessage
}

// parsePayload reads the claims of a token whose signature is right. Members of the object that keep is true for are kept as
// they are.
func parsePayload(document []byte, keep func(name string) bool) (*payload, error) {
	p := &payload{foreign: foreign{members: map[string]json.RawMessage{}}}
	err := members(document, func(name string, value json.RawMessage) error {
		if keep != nil && keep(name) {
			p.foreign.members[name] = value
		}
		return p.member(name, value)
	})
	return p, err
}

// member reads one claim. Those that are null are as good as absent, and unknown ones are left alone (RFC 7519 section 4).
func (p *payload) member(name string, value json.RawMessage) error {
	c := &p.claims
	switch name {
	case "iss":
		return text(value, &c.Issuer)
	case "sub":
		return text(value, &c.Subject)
	case "aud":
		return json.Unmarshal(value, (*words)(&c.Audience))
	case "client_id":
		return text(value, &c.ClientID)
	case "scope":
		return text(value, &c.Scope)
	case "sid":
		return text(value, &c.SessionID)
	case "gid":
		return text(value, &c.GrantID)
	case "jti":
		return text(value, &c.ID)
	case "iat":
		return date(value, &c.IssuedAt)
	case "exp":
		return date(value, &c.ExpiresAt)
	case "nbf":
		return date(value, &p.notBefore)
	case "auth_time":
		return date(value, &c.AuthTime)
	case "acr":
		return text(value, &c.ACR)
	case "amr":
		return json.Unmarshal(value, &c.AMR)
	case "roles":
		return json.Unmarshal(value, (*words)(&c.Roles))
	case "epoch":
		return json.Unmarshal(value, &c.Epoch)
	case "client_epoch":
		return json.Unmarshal(value, &c.ClientEpoch)
	case "exchanged_through":
		return json.Unmarshal(value, &c.Through)
	case "cnf":
		p.confirmed = string(value) != "null"
		return json.Unmarshal(value, &c.Confirmation)
	}
	return p.foreign.member(name, value)
}

// member reads what only other issuers write. What has another shape there than expected is no fault: it is not for us.
func (f *foreign) member(name string, value json.RawMessage) error {
	switch name {
	case "azp", "cid", "appid":
		_ = json.Unmarshal(value, &f.authorizedParty)
	case "scp":
		_ = json.Unmarshal(value, &f.scopes)
	case "typ", "token_use":
		_ = json.Unmarshal(value, &f.kind)
	case "nonce", "at_hash", "c_hash", "s_hash", "events", "htm":
		f.notAccess = name
	}
	return nil
}

// complete reports whether every claim that RFC 9068 section 2.2 requires, and this package relies on, is there.
func (p *payload) complete() bool {
	c := &p.claims
	return c.Issuer != "" && c.Subject != "" && c.ClientID != "" && len(c.Audience) > 0 &&
		!c.IssuedAt.IsZero() && !c.ExpiresAt.IsZero() &&
		(c.Confirmation.bound() || !p.confirmed) // bound to nothing that this package can see proved: for nobody
}

// words is a list of texts, or a single one (RFC 7519 section 4.1.3).
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*w = words{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// date reads a NumericDate (RFC 7519 section 2), to the second.
func date(value json.RawMessage, t *time.Time) error {
	var seconds *float64
	if err := json.Unmarshal(value, &seconds); err != nil || seconds == nil {
		return err
	}
	const year10000 = 253402300800
	if *seconds < 0 || *seconds >= year10000 || math.IsNaN(*seconds) {
		return fmt.Errorf("%g is no date", *seconds)
	}
	*t = time.Unix(int64(*seconds), 0)
	return nil
}

// adopt makes an access token of RFC 9068 out of what another issuer wrote, or says why it is none.
func (p *payload) adopt(rolesClaim string) error {
	if p.foreign.notAccess != "" {
		return ErrType.wrap(fmt.Errorf("access tokens have no claim %q", p.foreign.notAccess))
	}
	switch strings.ToLower(p.foreign.kind) {
	case "", "bearer", "access", "jwt", "at+jwt":
	default: // Keycloak: ID, Refresh, Offline, Logout; Amazon Cognito: id
		return ErrType.wrap(fmt.Errorf("a token of the kind %q", p.foreign.kind))
	}
	c := &p.claims
	if c.ClientID == "" {
		c.ClientID = p.foreign.authorizedParty
	}
	if c.ClientID == "" {
		c.ClientID = c.Subject
	}
	if c.Scope == "" {
		c.Scope = strings.Join(p.foreign.scopes, " ")
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = p.notBefore
	}
	if c.IssuedAt.IsZero() && !c.ExpiresAt.IsZero() {
		c.IssuedAt = time.Unix(0, 0)
	}
	if rolesClaim != "" {
		return p.adoptRoles(strings.Split(rolesClaim, "."))
	}
	return nil
}

// adoptRoles follows the path to a list of roles, such as realm_access, roles.
func (p *payload) adoptRoles(path []string) error {
	p.claims.Roles = nil
	value, there := p.foreign.members[path[0]]
	for _, name := range path[1:] {
		if !there {
			return nil
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(value, &object); err != nil {
			return ErrMalformed.wrap(errors.New("the roles are not where they should be"))
		}
		value, there = object[name]
	}
	if !there {
		return nil
	}
	if err := json.Unmarshal(value, (*words)(&p.claims.Roles)); err != nil {
		return ErrMalformed.wrap(fmt.Errorf("roles: %w", err))
	}
	return nil
}
