package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// The response types of the implicit grant (RFC 6749, section 4.2; OpenID Connect Core 1.0, section 3.2).
const (
	responseToken   = "token"
	responseIDToken = "id_token"
)

// findImplicit finds the grant that a client has in a session already: such a client comes again for every token. One of a request that
// names claims is its own.
const findImplicit = `SELECT id FROM oauth_grants
	WHERE session_hash = $1 AND client_id = $2 AND scope = $3 AND claims = '' AND own = 0 AND ended_at = 0 ORDER BY created_at DESC LIMIT 1`

// responds reports whether the answer to the request is to have something in it: one of the words of response_type, whose order says
// nothing (OAuth 2.0 Multiple Response Type Encoding Practices, section 3).
func (r *request) responds(word string) bool {
	return slices.Contains(strings.Fields(r.params.Get("response_type")), word)
}

// implicit reports whether tokens are asked for in the answer itself.
func (r *request) implicit() bool { return r.responds(responseToken) || r.responds(responseIDToken) }

// checkResponseType decides what the client may have in the answer.
func (r *request) checkResponseType() error {
	words := strings.Fields(r.params.Get("response_type"))
	slices.Sort(words)
	switch asked := strings.Join(words, " "); {
	case asked == "":
		return ErrInvalidRequest.With("The parameter response_type is missing.")
	case asked == "code" && !slices.Contains(r.client.GrantTypes, GrantAuthorizationCode):
		return ErrUnauthorizedClient
	case asked == "code":
		return nil
	case !slices.Contains([]string{"token", "id_token", "id_token token"}, asked) || !r.client.may(LegacyImplicit):
		return ErrUnsupportedResponseType
	case r.params.Get("response_mode") == modeQuery:
		return ErrInvalidRequest.With("Tokens are not given in the query of an address, which lies in logs.")
	}
	return nil
}

// checkImplicit demands what keeps an ID token from being replayed (OpenID Connect Core 1.0, section 3.2.2.1), and leaves out what the
// implicit grant does not give.
func (r *request) checkImplicit() error {
	if !r.implicit() {
		return nil
	}
	r.scope = slices.DeleteFunc(r.scope, func(word string) bool { return word == "offline_access" })
	switch {
	case !r.responds(responseIDToken):
		return nil
	case !slices.Contains(r.scope, "openid"):
		return ErrInvalidRequest.With("An ID token needs the scope openid.")
	case r.nonce == "":
		return ErrInvalidRequest.With("An ID token in the answer needs a nonce.")
	}
	return nil
}

// implicitAnswer is an answer with tokens in it. They go with the person's session; no refresh token comes with them.
func (s *Service) implicitAnswer(ctx context.Context, r *request, one session.Session) (url.Values, error) {
	agreed := agreement{Scope: r.scope, Nonce: r.nonce, Resources: r.resources, Claims: r.claims}
	audience, err := s.audienceOf(r.client, agreed, nil)
	if err != nil {
		return nil, err
	}
	scope := strings.Join(r.scope, " ")
	id, err := s.implicitGrant(ctx, r, one, scope)
	if err != nil {
		return nil, err
	}
	tokens := session.Tokens{Granted: token.Grant{
		Subject: one.Subject, ClientID: r.client.ID, ClientEpoch: r.client.Epoch, SessionID: one.ID, GrantID: id, Scope: scope, Audience: audience,
		Roles: one.Roles, Epoch: one.Epoch, ACR: one.ACR, AMR: one.AMR, AuthTime: one.AuthTime, Opaque: r.client.opaque(),
	}}
	answer := url.Values{}
	if r.responds(responseToken) {
		access, err := s.deps.Tokens.Issue(ctx, tokens.Granted)
		if err != nil {
			return nil, err
		}
		tokens.Access = access.Token
		answer = url.Values{
			"access_token": {access.Token}, "token_type": {scheme("")}, "scope": {scope},
			"expires_in": {strconv.FormatInt(int64(access.Lifetime/time.Second), 10)},
		}
	}
	if r.responds(responseIDToken) {
		idToken, err := s.idToken(ctx, r.client, tokens, agreed)
		if err != nil {
			return nil, err
		}
		answer.Set("id_token", idToken)
	}
	return answer, nil
}

// implicitGrant returns the grant that tokens belong to, so that taking back what the person allowed ends them. It has no refresh family.
func (s *Service) implicitGrant(ctx context.Context, r *request, one session.Session, scope string) (id string, err error) {
	fresh, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	x := &exchange{subject: one.Subject, legacy: LegacyImplicit, agreed: agreement{Claims: r.claims}}
	hash := session.OfSession(one.ID).ID
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		err = sqldb.ErrNotFound
		if len(r.claims.UserInfo) == 0 {
			id, err = sqldb.One(ctx, tx, scanString, findImplicit, hash[:], r.client.ID, scope)
		}
		switch {
		case errors.Is(err, sqldb.ErrNotFound):
			id = fresh.String()
			return s.noteGrant(ctx, tx, x, r.client.ID, grantRow{id: id, session: one.ID, scope: scope})
		case err != nil:
			return err
		}
		return s.recordSignIn(ctx, tx, x, r.client.ID, scope)
	})
	if err != nil {
		return "", fmt.Errorf("note grant: %w", err)
	}
	return id, nil
}
