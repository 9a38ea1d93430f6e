package oidc

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/sqldb"
)

const (
	registerPath = "/oauth/register"

	// registrationPrefix lets secret scanners find the token with which a client changes itself.
	registrationPrefix = "srg_"
	// maxSector bounds a list of redirect URIs at a sector_identifier_uri, in bytes.
	maxSector = 64 << 10

	insertRegistered = `INSERT INTO oauth_clients (id, kind, metadata, secret_hash, previous_hash, previous_until, registration_hash, registration,
			epoch, created_at, updated_at, disabled_at, removed_at)
		VALUES ($1, $2, $3, $4, NULL, 0, $5, $6, 0, $7, $7, 0, 0)`
	// Who shows the token may read and change the client; both in one statement, so that a token which was taken back changes nothing.
	findRegistered = `SELECT ` + clientColumns + ` FROM oauth_clients WHERE id = $1 AND registration_hash = $2 AND removed_at = 0`
	// $4 says whether another secret takes the place of the one there was, or none ($5).
	updateRegistered = `UPDATE oauth_clients SET kind = $1, metadata = $2, updated_at = $3,
			previous_hash = CASE WHEN $4 = 1 THEN NULL ELSE previous_hash END,
			secret_hash = CASE WHEN $4 = 1 THEN $5 ELSE secret_hash END
		WHERE id = $6 AND registration_hash = $7 AND removed_at = 0 AND disabled_at = 0 AND updated_at = $8`
)

// errBearer answers a request whose token lets nobody register, or change a client (RFC 6750, section 3).
var errBearer = ErrInvalidToken.With("The token is not valid for this.").Challenge(`Bearer realm="sumun", error="invalid_token"`)

// allowance is what a client that registered itself may register.
type allowance struct {
	Token  string   `json:"token"` // the id of the one that let it in
	Scope  string   `json:"scope"`
	Grants []string `json:"grants"`
}

// registered is what a client is told of itself (RFC 7591, section 3.2.1; RFC 7592, section 3).
type registered struct {
	ID            string `json:"client_id"`
	Secret        string `json:"client_secret,omitempty"`
	SecretExpires *int64 `json:"client_secret_expires_at,omitempty"` // 0: never
	IssuedAt      int64  `json:"client_id_issued_at"`
	Token         string `json:"registration_access_token"`
	Address       string `json:"registration_client_uri"`
	Metadata
}

// tell says that a secret does not expire: libraries stop to use one at that time, although a client that was used stays. What is removed
// unused says so by being gone (RFC 7592, section 2).
func (s *Service) tell(c Client, secret, token string) registered {
	answer := registered{
		ID: c.ID, Secret: secret, IssuedAt: c.CreatedAt.Unix(), Token: token, Address: s.deps.Issuer + registerPath + "/" + c.ID, Metadata: c.Metadata,
	}
	if secret != "" {
		answer.SecretExpires = new(int64)
	}
	return answer
}

// registration is what every request to register, or about a registration, goes through: limit and token.
func (s *Service) registration(h func(ctx context.Context, r *http.Request, token string) (any, error)) http.Handler {
	return httpd.WithErrors(renderError, func(w http.ResponseWriter, r *http.Request) error {
		ctx := r.Context()
		from := ratelimit.Network(httpd.ClientAddr(ctx))
		answer, err := any(nil), s.limit(ctx, "oidc.registrations", s.cfg.Registrations, from)
		if err == nil {
			token := ""
			if token, err = bearer(r); err == nil {
				answer, err = h(ctx, r, token)
			}
			if errors.Is(err, ErrInvalidToken) {
				if limited := s.limit(ctx, "oidc.failures", s.cfg.Failures, from); limited != nil {
					err = limited
				}
			}
		}
		if err != nil {
			s.requests.WithLabelValues("register", errorName(fault.From(err))).Inc()
			return err
		}
		s.requests.WithLabelValues("register", "ok").Inc()
		if answer == nil {
			return writeAnswer(w, http.StatusNoContent, nil)
		}
		body, status := statusOf(answer)
		return writeAnswer(w, status, body)
	})
}

func bearer(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 1 {
		scheme, token, _ := strings.Cut(headers[0], " ")
		if strings.EqualFold(scheme, "Bearer") && token != "" {
			return token, nil
		}
	}
	return "", errBearer
}

// readRegistration reads the body of a registration.
func readRegistration(r *http.Request) (said, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return said{}, ErrInvalidClientMetadata.With("The body must be application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxForm))
	if err != nil {
		if f := fault.From(err); f.Kind() == fault.TooLarge {
			return said{}, f
		}
		return said{}, ErrInvalidClientMetadata.Wrap(err)
	}
	return readMetadata(body)
}

// register is the client registration endpoint (RFC 7591, section 3).
func (s *Service) register(ctx context.Context, r *http.Request, token string) (any, error) {
	initial, err := s.initialToken(ctx, token)
	if err != nil {
		return nil, err
	}
	said, err := readRegistration(r)
	if err != nil {
		return nil, err
	}
	allowed := allowance{initial.ID, initial.Scope, initial.Grants}
	c := Client{ID: strings.ToLower(rand.Text()), Metadata: said.Metadata, registered: &allowed}
	if err := s.admit(ctx, &c); err != nil {
		return nil, err
	}
	secret, hash := "", []byte(nil)
	if c.hasSecret() {
		secret, hash = newSecret()
	}
	own, ownHash := newToken(registrationPrefix)
	c.CreatedAt = s.deps.Clock()
	text, err := json.Marshal(c.Metadata)
	if err != nil {
		return nil, err
	}
	by, err := json.Marshal(allowed)
	if err != nil {
		return nil, err
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		if err := s.recordSelf(ctx, tx, c, "client.registered"); err != nil {
			return err
		}
		err := changed(ctx, tx, useInitial, initial.ID, sqldb.Micros(c.CreatedAt))
		if errors.Is(err, ErrClientUnknown) {
			return errBearer // its last use was somebody else's
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, insertRegistered, c.ID, c.kind(), string(text), hash, ownHash, string(by), sqldb.Micros(c.CreatedAt))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("register client: %w", err)
	}
	return created{s.tell(c, secret, own)}, nil
}

// admit completes what a client says of itself, and refuses what it may not have. Scopes beyond the allowance are left out, as RFC 7591,
// section 3.2.1, lets us: the client is told what it got.
func (s *Service) admit(ctx context.Context, c *Client) error {
	m := &c.Metadata
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = []string{GrantAuthorizationCode} // section 2
	}
	if m.Name == "" {
		m.Name = nameless(c.Metadata, c.ID)
	}
	asked := strings.Fields(m.Scope)
	allowed := strings.Fields(c.registered.Scope)
	m.Scope = strings.Join(slices.DeleteFunc(allowed, func(word string) bool { return len(asked) > 0 && !slices.Contains(asked, word) }), " ")
	m.complete()
	if i := slices.IndexFunc(m.GrantTypes, func(g string) bool { return !slices.Contains(c.registered.Grants, g) }); i >= 0 {
		return ErrInvalidClientMetadata.With("grant_types: the initial access token lets clients have " + strings.Join(c.registered.Grants, ", ") + " alone.")
	}
	for _, alg := range []string{m.IDTokenAlg, m.UserInfoAlg} {
		if alg != "" && alg != s.deps.Tokens.Algorithm() {
			return ErrInvalidClientMetadata.With("What is signed here is signed with " + s.deps.Tokens.Algorithm() + ".")
		}
	}
	if err := m.check(); err != nil {
		return inStandardWords(err)
	}
	return inStandardWords(s.checkSector(ctx, *m))
}

// nameless is what a client is called that does not say: by where its answers go, as people see that anyway.
func nameless(m Metadata, id string) string {
	if len(m.RedirectURIs) > 0 {
		if u, err := url.Parse(m.RedirectURIs[0]); err == nil && u.Hostname() != "" {
			return u.Hostname()
		}
	}
	return id
}

// inStandardWords puts what is wrong into the words of RFC 7591, section 3.2.2. Of several faults the first is told.
func inStandardWords(err error) error {
	if !errors.Is(err, ErrClientRefused) {
		return err
	}
	field := fault.From(err).Fields()[0]
	if field.Name == "redirect_uris" {
		return ErrInvalidRedirectURI.With(field.Name + ": " + field.Message)
	}
	return ErrInvalidClientMetadata.With(field.Name + ": " + field.Message)
}

// checkSector fetches the list of a sector_identifier_uri, in which all redirect URIs must be (OpenID Connect Dynamic Client Registration
// 1.0, section 5).
func (s *Service) checkSector(ctx context.Context, m Metadata) error {
	if m.SectorIdentifierURI == "" {
		return nil
	}
	refuse := func(message string, err error) error {
		return ErrClientRefused.WithFields(fault.Field{Name: "sector_identifier_uri", Code: "refused", Message: message}).Wrap(err)
	}
	body, err := httpd.Fetch(ctx, s.outside, m.SectorIdentifierURI, maxSector)
	if err != nil {
		return refuse("The list of redirect URIs cannot be fetched from there.", err)
	}
	var listed []string
	if err := json.Unmarshal(body, &listed); err != nil {
		return refuse("There is no JSON array of redirect URIs.", err)
	}
	if slices.ContainsFunc(m.RedirectURIs, func(uri string) bool { return !slices.Contains(listed, uri) }) {
		return refuse("The list there lacks a redirect URI.", nil)
	}
	return nil
}

// own finds the client that a registration access token is of. One that was removed is as unknown as one that never was; RFC 7592, section
// 2, has both answered alike.
func (s *Service) own(ctx context.Context, r *http.Request, token string) (Client, error) {
	id := r.PathValue("id")
	if checkID(id) != nil || !strings.HasPrefix(token, registrationPrefix) {
		return Client{}, errBearer
	}
	c, err := sqldb.One(ctx, s.deps.DB.Reader(), scanClient, findRegistered, id, hashSecret(token))
	if errors.Is(err, sqldb.ErrNotFound) {
		return Client{}, errBearer
	}
	if err == nil && !c.DisabledAt.IsZero() {
		err = ErrClientDisabled
	}
	return c, err
}

// readOwn tells a client what it has registered (RFC 7592, section 2.1). Its secret is kept as a hash, and not told again.
func (s *Service) readOwn(ctx context.Context, r *http.Request, token string) (any, error) {
	c, err := s.own(ctx, r, token)
	if err != nil {
		return nil, err
	}
	return s.tell(c, "", token), nil
}

// replaceOwn replaces all that a client has registered (RFC 7592, section 2.2), but not by what names it knows people: those who have
// signed in would be strangers. Its token stays the same: an answer that is lost must not cost it the registration.
func (s *Service) replaceOwn(ctx context.Context, r *http.Request, token string) (any, error) {
	before, err := s.own(ctx, r, token)
	if err != nil {
		return nil, err
	}
	said, err := readRegistration(r)
	if err != nil {
		return nil, err
	}
	now := s.deps.Clock()
	if said.id != before.ID || said.secret != "" && !before.knows(said.secret, now) {
		return nil, ErrInvalidClientMetadata.With("client_id must be the client's, and client_secret, if there is one, its secret.")
	}
	c := before
	c.Metadata = said.Metadata
	if err := s.admit(ctx, &c); err != nil {
		return nil, err
	}
	if c.pairwise() != before.pairwise() || c.pairwise() && c.sector() != before.sector() {
		return nil, ErrInvalidClientMetadata.With("subject_type and sector cannot be changed. Register anew.")
	}
	secret, hash, replaced := "", []byte(nil), 0
	if c.hasSecret() != before.hasSecret() {
		if replaced = 1; c.hasSecret() {
			secret, hash = newSecret()
		}
	}
	text, err := json.Marshal(c.Metadata)
	if err != nil {
		return nil, err
	}
	record := func(tx sqldb.Tx) error { return s.recordSelf(ctx, tx, c, "client.changed") }
	err = s.changeAs(ctx, c.ID, record, func(tx sqldb.Tx) error {
		err := changed(ctx, tx, updateRegistered, c.kind(), string(text), sqldb.Micros(now), replaced, hash, c.ID, hashSecret(token),
			sqldb.Micros(before.UpdatedAt))
		if err != nil {
			return err
		}
		return s.announce(ctx, tx, c.ID)
	})
	if errors.Is(err, ErrClientUnknown) {
		return nil, ErrUnavailable.With("The client was changed meanwhile. Please try again.")
	}
	if err != nil {
		return nil, err
	}
	return s.tell(c, secret, token), nil
}

// removeOwn forgets a client, as an operator can (RFC 7592, section 2.3).
func (s *Service) removeOwn(ctx context.Context, r *http.Request, token string) (any, error) {
	c, err := s.own(ctx, r, token)
	if err != nil {
		return nil, err
	}
	err = s.remove(ctx, c.ID, func(tx sqldb.Tx) error { return s.recordSelf(ctx, tx, c, "client.removed") })
	if errors.Is(err, ErrClientUnknown) {
		err = errBearer
	}
	return nil, err
}

// recordSelf writes into the trail what a client did to itself.
func (s *Service) recordSelf(ctx context.Context, tx sqldb.Tx, c Client, action string) error {
	return s.deps.Audit.Append(ctx, tx, audit.Event{
		Action: action, Detail: map[string]string{"client": c.ID, "registration_token": c.registered.Token},
		Origin: identity.OriginOf(ctx),
	})
}
