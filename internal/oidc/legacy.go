package oidc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// The grants that should not be used any more (RFC 9700, sections 2.1.2 and 2.4). Operators can switch them on for a client, so that an
// old application goes on working while it is replaced. They are never advertised, and no client can have them by registering itself.
const (
	LegacyImplicit = "implicit"
	LegacyPassword = "password"
)

var legacyGrants = []string{LegacyImplicit, LegacyPassword}

// LegacyLoss says what is lost by a legacy grant, for whoever switches it on.
func LegacyLoss(grant string) string {
	switch grant {
	case LegacyImplicit:
		return "implicit: tokens travel in the address of a page, where its scripts, the browser's history and what the page loads can read " +
			"them; they can be bound to no key, nothing shows that the application itself asked, and there are no refresh tokens. " +
			"Use authorization_code with PKCE instead."
	case LegacyPassword:
		return "password: the application sees people's passwords, and they learn to type them anywhere; there is no consent, no single " +
			"sign-on, no second factor and no sign-in with other services, and all attempts come from the application's address. " +
			"Use authorization_code with PKCE, or the device grant, instead."
	}
	return ""
}

func (m Metadata) may(legacy string) bool { return slices.Contains(m.LegacyGrants, legacy) }

func (m Metadata) checkLegacy(refuse func(name, message string)) {
	if slices.ContainsFunc(m.LegacyGrants, func(g string) bool { return !slices.Contains(legacyGrants, g) }) {
		refuse("sumun_legacy_grants", "Must be among "+strings.Join(legacyGrants, ", ")+".")
	}
	if m.may(LegacyImplicit) && len(m.RedirectURIs) == 0 {
		refuse("redirect_uris", "The implicit grant needs at least one.")
	}
	if len(m.LegacyGrants) > 0 && m.pairwise() {
		refuse("sumun_legacy_grants", "Old grants know people by the ids of their accounts: leave pairwise out.")
	}
	if m.may(LegacyImplicit) && m.BindTokens {
		refuse("sumun_legacy_grants", "Tokens that are bound to a certificate cannot be given in an address: leave implicit out.")
	}
}

// passwordGrant signs a person in with what they typed into the client (RFC 6749, section 4.3). All that protects signing in applies:
// package identity has one way in.
func (s *Service) passwordGrant(ctx context.Context, c *call) (tokenAnswer, error) {
	name, password := c.param("username"), c.param("password")
	if name == "" || password == "" {
		return tokenAnswer{}, ErrInvalidRequest.With("The parameters username and password are needed.")
	}
	req := &request{client: c.client, params: c.form}
	if err := req.checkScope(); err != nil {
		return tokenAnswer{}, err
	}
	agreed := agreement{Scope: req.scope, Resources: req.resources}
	audience, err := s.audienceOf(c.client, agreed, nil)
	if err != nil {
		return tokenAnswer{}, err
	}
	scope := strings.Join(agreed.Scope, " ")
	in, err := s.deps.People.SignIn(ctx, identity.SignIn{
		Identifier: name, Password: password, Origin: identity.OriginOf(ctx),
		Program: &identity.Program{
			ClientID: c.client.ID, ClientEpoch: c.client.Epoch, Scope: scope, Audience: audience, Thumbprint: c.thumbprint, Form: c.tokens(),
			Note: func(ctx context.Context, tx sqldb.Tx, one session.Session, grantID string) error {
				x := &exchange{subject: one.Subject, legacy: LegacyPassword}
				return s.noteGrant(ctx, tx, x, c.client.ID, grantRow{id: grantID, session: one.ID, own: true, scope: scope})
			},
		},
	})
	switch {
	case errors.Is(err, identity.ErrCredentials), errors.Is(err, identity.ErrDisabled):
		return tokenAnswer{}, ErrInvalidGrant.With("The user name or the password is wrong.").Wrap(err) // RFC 6749, section 5.2
	case err != nil:
		return tokenAnswer{}, err
	}
	return s.personal(ctx, c.client, in.Tokens, agreed)
}
