package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// The types of subject identifiers (OpenID Connect Core 1.0, section 8).
const (
	SubjectPublic   = "public"
	SubjectPairwise = "pairwise"
)

const (
	// pairwisePurpose is the keyring's name for the key that names are derived with. It is the first of its ring for ever: with another
	// one everybody would be a stranger to every client.
	pairwisePurpose = "oidc.pairwise"
	pairwiseKeyID   = 1
	// VeilPurpose is that of the keys that refresh tokens are hidden under.
	VeilPurpose = "oidc.veil"

	// veilPrefix begins a hidden refresh token. No other one has a dot.
	veilPrefix = session.RefreshPrefix + "p."

	// A grant that is older than its client was another client's of that id.
	ownGrant = `SELECT id FROM oauth_grants WHERE id = $1 AND client_id = $2 AND created_at >= $3`
)

// names are what a client calls people and their sessions by. The zero value tells the truth.
type names struct {
	sector, client string
	key            []byte
}

// sector is the host within which clients may know people by one name (OpenID Connect Core 1.0, section 8.1); "" where it is not clear.
func (m Metadata) sector() string {
	from := m.RedirectURIs
	if m.SectorIdentifierURI != "" {
		from = []string{m.SectorIdentifierURI}
	}
	host := ""
	for _, uri := range from {
		u, err := url.Parse(uri)
		if err != nil || u.Hostname() == "" || host != "" && !strings.EqualFold(host, u.Hostname()) {
			return ""
		}
		host = strings.ToLower(u.Hostname())
	}
	return host
}

func (m Metadata) pairwise() bool { return m.SubjectType == SubjectPairwise }

// namesFor returns the names that a client knows people by.
func (s *Service) namesFor(ctx context.Context, c Client) (names, error) {
	if !c.pairwise() {
		return names{}, nil
	}
	key, err := s.deps.Keyring.ByID(ctx, pairwisePurpose, pairwiseKeyID)
	if errors.Is(err, keyring.ErrUnknownKey) {
		if _, err = s.deps.Keyring.Current(ctx, pairwisePurpose); err == nil { // which makes it
			key, err = s.deps.Keyring.ByID(ctx, pairwisePurpose, pairwiseKeyID)
		}
	}
	if err != nil {
		return names{}, fmt.Errorf("names for %s: %w", c.ID, err)
	}
	return names{c.sector(), c.ID, key.Secret}, nil
}

// subject is who an account is to the sector.
func (n names) subject(account string) string { return n.derive("subject", n.sector, account) }

// session is what a session is called to the client alone: two clients of a sector know that they have the same person, not that they
// have the same browser.
func (n names) session(id string) string { return n.derive("session", n.client, id) }

// derive returns a UUID of version 8 (RFC 9562, section 5.8), so that a name looks like an account's id, which no client's can, and is
// none: those are of version 7.
func (n names) derive(kind, whom, id string) string {
	if n.key == nil {
		return id
	}
	mac := hmac.New(sha256.New, n.key)
	for _, part := range []string{kind, whom, id} {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write([]byte(part))
	}
	name := uuid.UUID(mac.Sum(nil)[:16])
	name[6], name[8] = name[6]&0x0f|0x80, name[8]&0x3f|0x80
	return name.String()
}

// narrow returns what makes access tokens speak of people by these names, nil where it makes no difference.
func (n names) narrow() session.Narrow {
	if n.key == nil {
		return nil
	}
	return func(g *token.Grant) error {
		g.Subject, g.SessionID = n.subject(g.Subject), n.session(g.SessionID)
		return nil
	}
}

// renarrow is narrow for a refresh. What its names are revoked by was noted when the grant was given, so they must still be the same; and
// where somebody may have had the client's id before, the grant must not be theirs.
func (s *Service) renarrow(ctx context.Context, c Client) (session.Narrow, error) {
	n, err := s.namesFor(ctx, c)
	narrow := n.narrow()
	if err != nil || narrow == nil && c.Epoch == 0 { // which rises with every removal
		return nil, err
	}
	return func(g *token.Grant) error {
		_, err := sqldb.One(ctx, s.deps.DB.Reader(), scanString, ownGrant, g.GrantID, c.ID, sqldb.Micros(c.CreatedAt))
		if errors.Is(err, sqldb.ErrNotFound) {
			return ErrInvalidGrant
		}
		if err != nil || narrow == nil {
			return err
		}
		return narrow(g)
	}, nil
}

// account returns whose token it is that says so much of its subject and grant. One whose grant is forgotten is identity.ErrNotFound.
func (s *Service) account(ctx context.Context, subject, grantID string) (string, error) {
	if len(subject) != 36 || subject[14] != '8' { // the version
		return subject, nil
	}
	g, err := sqldb.One(ctx, s.deps.DB.Reader(), scanGiven, findGrant, grantID)
	if errors.Is(err, sqldb.ErrNotFound) {
		return "", identity.ErrNotFound
	}
	return g.subject, err
}

// veil hides a refresh token from a client that must not learn the session, and the person's mark for the store, which are inside. The same
// token is always hidden in the same way: whoever asks twice gets one successor.
func (s *Service) veil(ctx context.Context, c Client, refresh string) (string, error) {
	if !c.pairwise() {
		return refresh, nil
	}
	key, err := s.deps.Keyring.Current(ctx, VeilPurpose)
	if err != nil {
		return "", fmt.Errorf("hide refresh token: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key.Secret)
	mac.Write([]byte(refresh))
	nonce := mac.Sum(nil)[:chacha20poly1305.NonceSizeX]
	hidden := append(binary.BigEndian.AppendUint32(nil, key.ID), nonce...)
	hidden = aead.Seal(hidden, nonce, []byte(refresh), []byte(c.ID))
	return veilPrefix + base64.RawURLEncoding.EncodeToString(hidden), nil
}

// unveil returns the refresh token that a client presents. What is not ours is ErrInvalidGrant.
func (s *Service) unveil(ctx context.Context, c Client, presented string) (string, error) {
	if !strings.HasPrefix(presented, veilPrefix) {
		return presented, nil
	}
	id, nonce, sealed, err := parseVeil(presented)
	if err != nil {
		return "", err
	}
	key, err := s.deps.Keyring.ByID(ctx, VeilPurpose, id)
	if errors.Is(err, keyring.ErrUnknownKey) {
		return "", ErrInvalidGrant.Wrap(err)
	}
	if err != nil {
		return "", ErrUnavailable.Wrap(err)
	}
	aead, err := chacha20poly1305.NewX(key.Secret)
	if err != nil {
		return "", err
	}
	refresh, err := aead.Open(nil, nonce, sealed, []byte(c.ID))
	if err != nil {
		return "", ErrInvalidGrant
	}
	return string(refresh), nil
}

// parseVeil reads the one spelling of a hidden refresh token: key id 4 | nonce 24 | sealed token, in base64url. Whether it is ours is for
// the key to say.
func parseVeil(presented string) (keyID uint32, nonce, sealed []byte, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(presented, veilPrefix))
	const head = 4 + chacha20poly1305.NonceSizeX
	if err != nil || len(b) < head+chacha20poly1305.Overhead || strings.ContainsAny(presented, "\r\n") {
		return 0, nil, nil, ErrInvalidGrant
	}
	return binary.BigEndian.Uint32(b), b[4:head], b[head:], nil
}
