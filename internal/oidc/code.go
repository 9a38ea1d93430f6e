package oidc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

const (
	insertCode = `INSERT INTO oauth_codes (hash, client_id, redirect_uri, challenge, subject, session_id, request, expires_at, consumed_at,
			grant_id, grant_session)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', '')`
	// What the person allowed must still be so when the code is stored, whoever takes it back waits for that; see Withdraw. Only PostgreSQL
	// lets others write meanwhile.
	allowedPostgreSQL = ` FROM oauth_consents WHERE subject = $5 AND client_id = $2 FOR KEY SHARE`
	allowedSQLite     = ` FROM oauth_consents WHERE subject = $5 AND client_id = $2`
	insertAllowed     = `INSERT INTO oauth_codes (hash, client_id, redirect_uri, challenge, subject, session_id, request, expires_at, consumed_at,
			grant_id, grant_session)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, 0, '', ''`
	// A code is used by one statement, by whoever comes first; all that it was given for must fit.
	consumeCode = `UPDATE oauth_codes SET consumed_at = $1
		WHERE hash = $2 AND client_id = $3 AND redirect_uri = $4 AND challenge = $5 AND consumed_at = 0 AND expires_at > $1
		RETURNING subject, session_id, request`
	noteGrant = `UPDATE oauth_codes SET grant_id = $1, grant_session = $2 WHERE hash = $3`
	usedCode  = `SELECT subject, grant_id FROM oauth_codes WHERE hash = $1 AND client_id = $2 AND consumed_at > 0`
	sweepCode = `DELETE FROM oauth_codes WHERE hash IN (SELECT hash FROM oauth_codes WHERE expires_at < $1 LIMIT $2)`

	insertGrantRow = `INSERT INTO oauth_grants (id, client_id, subject, session_id, session_hash, browser_hash, own, scope, created_at, expires_at,
			claims, id_claims, ended_at, notify_at, attempts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, 0, 0)`
	prolongGrant = `UPDATE oauth_grants SET expires_at = $1 WHERE id = $2 AND expires_at < $1`
	noteAsking   = `UPDATE oauth_clients SET asks_claims = 1 WHERE id = $1 AND asks_claims = 0`
)

// keepCode is how long after its time a code is remembered: while what it gave may be misused by whoever stole it.
const keepCode = 24 * time.Hour

// keepAfter is how long a grant is remembered after the end of its session: longer than an access token lives, and than clocks differ.
const keepAfter = 2 * time.Hour

// takeBackTimeout bounds how long it may take to take back what a code gave.
const takeBackTimeout = 15 * time.Second

// agreement is what a code stands for, besides who may use it.
type agreement struct {
	Scope     []string      `json:"scope"`
	Nonce     string        `json:"nonce,omitempty"`
	Resources []string      `json:"resources,omitempty"`
	Claims    claimsRequest `json:"claims"`
	UserAgent string        `json:"user_agent,omitempty"` // of the browser that signed in
}

// issueCode makes a code for what a person has agreed to.
func (s *Service) issueCode(ctx context.Context, r *request, one session.Session) (string, error) {
	var random [32]byte
	rand.Read(random[:])
	code := base64.RawURLEncoding.EncodeToString(random[:])
	text, err := json.Marshal(agreement{
		Scope: r.scope, Nonce: r.nonce, Resources: r.resources, Claims: r.claims, UserAgent: one.Device.UserAgent,
	})
	if err != nil {
		return "", err
	}
	expires := s.deps.Clock().Add(s.cfg.CodeLifetime)
	insert := s.insertCode(r)
	store := func(q sqldb.Queryer) error {
		res, err := q.ExecContext(ctx, insert, hashSecret(code), r.client.ID, r.redirectURI, r.challenge, one.Subject, one.ID,
			string(text), sqldb.Micros(expires))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrConsentRequired)
		}
		return nil
	}
	if r.root == nil {
		err = store(s.deps.DB.Writer())
	} else {
		err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
			if err := s.spend(ctx, tx, r); err != nil {
				return err
			}
			return store(tx)
		})
	}
	if err != nil {
		return "", fmt.Errorf("store code: %w", err)
	}
	return code, nil
}

// insertCode is the statement that stores a code.
func (s *Service) insertCode(r *request) string {
	switch {
	case r.unasked():
		return insertCode
	case s.deps.DB.Engine() == sqldb.PostgreSQL:
		return insertAllowed + allowedPostgreSQL
	default:
		return insertAllowed + allowedSQLite
	}
}

// exchange is a code on its way to tokens.
type exchange struct {
	hash               []byte
	subject, sessionID string // of the browser in which the person agreed
	elsewhere          bool   // the tokens are for another device than that browser's
	agreed             agreement
	known              names
	legacy             string // the legacy grant that was used instead of a code, "" for none
}

// newExchange prepares the use of a code, outside of a transaction: the key of the names may have to be made.
func (s *Service) newExchange(ctx context.Context, c Client, code string) (exchange, error) {
	known, err := s.namesFor(ctx, c)
	return exchange{hash: hashSecret(code), known: known}, err
}

// authorizationCode exchanges a code (RFC 6749, section 4.1.3). A code that comes a second time was seen by somebody else: what it gave
// is taken back (section 4.1.2).
func (s *Service) authorizationCode(ctx context.Context, c *call) (tokenAnswer, error) {
	code, verifier := c.param("code"), c.param("code_verifier")
	if code == "" || c.param("redirect_uri") == "" {
		return tokenAnswer{}, ErrInvalidRequest.With("The parameters code and redirect_uri are needed.")
	}
	challenge := ""
	if verifier != "" {
		if len(verifier) < 43 || !validVerifier(verifier) {
			return tokenAnswer{}, ErrInvalidGrant
		}
		sum := sha256.Sum256([]byte(verifier))
		challenge = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	x, err := s.newExchange(ctx, c.client, code)
	if err != nil {
		return tokenAnswer{}, err
	}
	var commit func(context.Context) (session.Tokens, error)
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		err := s.consume(ctx, tx, &x, c, challenge)
		if err != nil {
			return err
		}
		commit, err = s.grant(ctx, tx, &x, c, slices.Contains(x.agreed.Scope, "offline_access"))
		return err
	})
	if errors.Is(err, errUnusable) {
		return tokenAnswer{}, errors.Join(ErrInvalidGrant, s.takeBack(ctx, usedCode, x.hash, c.client.ID))
	}
	if err != nil {
		return tokenAnswer{}, grantError(err)
	}
	if len(x.agreed.Claims.IDToken) > 0 && !c.client.asksClaims {
		s.changes.Add(1) // this node looks the client up again; others do within a second
	}
	tokens, err := commit(ctx)
	if err != nil {
		return tokenAnswer{}, grantError(err)
	}
	return s.personal(ctx, c.client, tokens, x.agreed)
}

// errUnusable says that a code is not what the client says, or was used.
var errUnusable = errors.New("the code cannot be used")

func (s *Service) consume(ctx context.Context, tx sqldb.Tx, x *exchange, c *call, challenge string) error {
	text, err := sqldb.One(ctx, tx, func(r sqldb.Row) (text string, err error) {
		err = r.Scan(&x.subject, &x.sessionID, &text)
		return text, err
	}, consumeCode, sqldb.Micros(s.deps.Clock()), x.hash, c.client.ID, c.param("redirect_uri"), challenge)
	if errors.Is(err, sqldb.ErrNotFound) {
		return errUnusable
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), &x.agreed)
}

// grant gives the client what was agreed: a share in the person's session, or a session of its own, which goes on after they sign out.
func (s *Service) grant(ctx context.Context, tx sqldb.Tx, x *exchange, c *call, own bool) (func(context.Context) (session.Tokens, error), error) {
	audience, err := s.audienceOf(c.client, x.agreed, c.form["resource"])
	if err != nil {
		return nil, err
	}
	device := session.NewDevice(x.agreed.UserAgent, httpd.ClientAddr(ctx))
	scope := strings.Join(x.agreed.Scope, " ")
	var (
		id, in string
		commit func(context.Context) (session.Tokens, error)
	)
	if own {
		one, err := s.deps.Sessions.Get(ctx, x.subject, x.sessionID)
		if err != nil {
			return nil, err
		}
		st, err := s.deps.Sessions.Begin(ctx, tx, session.Start{
			Subject: x.subject, ClientID: c.client.ID, ClientEpoch: c.client.Epoch, Confined: true, Scope: scope, Audience: audience,
			AMR: one.AMR, ACR: one.ACR, AuthTime: one.AuthTime, Device: device, Thumbprint: c.thumbprint, Narrow: x.known.narrow(),
			Form: c.tokens(), From: x.sessionID,
		})
		if err != nil {
			return nil, err
		}
		id, in = st.GrantID(), st.Session.ID
		commit = func(ctx context.Context) (session.Tokens, error) {
			started, err := st.Commit(ctx)
			if err == nil {
				err = s.stillGiven(ctx, given{id: id, subject: x.subject, session: in, own: 1})
			}
			return started.Tokens, err
		}
	} else {
		g, err := s.deps.Sessions.BeginGrant(ctx, tx, session.GrantStart{
			Subject: x.subject, SessionID: x.sessionID, ClientID: c.client.ID, ClientEpoch: c.client.Epoch, Scope: scope, Audience: audience,
			Device: device, Thumbprint: c.thumbprint, Narrow: x.known.narrow(), Form: c.tokens(),
		})
		if err != nil {
			return nil, err
		}
		id, in = g.ID, x.sessionID
		commit = func(ctx context.Context) (session.Tokens, error) {
			tokens, err := g.Commit(ctx)
			if err == nil {
				err = s.keepGrant(ctx, id, g.End())
			}
			return tokens, err
		}
	}
	return commit, s.noteGrant(ctx, tx, x, c.client.ID, grantRow{id: id, session: in, own: own, scope: scope})
}

// stillGiven looks whether a grant was taken back before its session began: then there was nothing that could end. Whoever takes it back
// makes the mark with the decision to end the session, which is carried out later than that, so one of the two ends it.
func (s *Service) stillGiven(ctx context.Context, g given) error {
	ended, err := sqldb.One(ctx, s.deps.DB.Reader(), scanInt64, grantEnded, g.id)
	if err != nil {
		return err
	}
	if ended == 0 {
		return nil
	}
	return errors.Join(ErrInvalidGrant, s.end(ctx, func(sqldb.Tx) ([]given, error) { return []given{g}, nil }))
}

// grantRow is a grant as this package remembers it.
type grantRow struct {
	id, session, scope string
	own                bool
}

// noteGrant remembers what a code gave, and writes it into the owner's trail.
func (s *Service) noteGrant(ctx context.Context, tx sqldb.Tx, x *exchange, clientID string, g grantRow) error {
	if err := noteUse(ctx, tx, x, g); err != nil {
		return err
	}
	own := 0
	var browser []byte
	if g.own {
		own = 1
		if !x.elsewhere {
			hash := session.OfSession(x.sessionID).ID
			browser = hash[:]
		}
	}
	now := s.deps.Clock()
	hash := session.OfSession(g.session).ID
	claims, err := x.agreed.Claims.UserInfo.keep()
	if err != nil {
		return err
	}
	idClaims, err := x.agreed.Claims.IDToken.keep()
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, insertGrantRow, g.id, clientID, x.subject, g.session, hash[:], browser, own, g.scope, sqldb.Micros(now),
		sqldb.Micros(s.keptUntil()), claims, idClaims)
	if err == nil && idClaims != "" {
		_, err = tx.ExecContext(ctx, noteAsking, clientID)
	}
	if err != nil {
		return err
	}
	return s.recordSignIn(ctx, tx, x, clientID, g.scope)
}

// keptUntil is until when a grant is remembered whose session begins now. What a session that ends at that very moment gave lives a little
// longer.
func (s *Service) keptUntil() time.Time {
	return s.deps.Clock().Add(s.deps.Sessions.Lifetime() + keepAfter)
}

// keepGrant remembers a grant for as long as its session can live, which may have begun when sessions lived longer.
func (s *Service) keepGrant(ctx context.Context, id string, end time.Time) error {
	if !end.After(s.keptUntil().Add(-keepAfter / 2)) {
		return nil
	}
	_, err := s.deps.DB.Writer().ExecContext(ctx, prolongGrant, sqldb.Micros(end.Add(keepAfter)), id)
	return err
}

// noteUse remembers with the code which grant it gave.
func noteUse(ctx context.Context, tx sqldb.Tx, x *exchange, g grantRow) (err error) {
	switch {
	case x.hash == nil: // a legacy grant
	case x.elsewhere:
		_, err = tx.ExecContext(ctx, noteDevice, g.id, x.hash)
	default:
		_, err = tx.ExecContext(ctx, noteGrant, g.id, g.session, x.hash)
	}
	return err
}

// recordSignIn writes into the owner's trail that a client has tokens, and by which legacy grant if by one.
func (s *Service) recordSignIn(ctx context.Context, tx sqldb.Tx, x *exchange, clientID, scope string) error {
	detail := map[string]string{"client": clientID, "scope": scope}
	if x.legacy != "" {
		detail["legacy_grant"] = x.legacy
	}
	return s.deps.Audit.Append(ctx, tx, audit.Event{
		Account: x.subject, Actor: x.subject, Action: "client.signed_in", Origin: identity.OriginOf(ctx), Detail: detail,
	})
}

// takeBack ends what a code gave that has come again, also when whoever brought it does not wait for the answer. A code that was never used,
// or never was, gave nothing.
func (s *Service) takeBack(ctx context.Context, used string, hash []byte, clientID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTimeout)
	defer cancel()
	var subject string
	id, err := sqldb.One(ctx, s.deps.DB.Reader(), func(r sqldb.Row) (id string, err error) {
		err = r.Scan(&subject, &id)
		return id, err
	}, used, hash, clientID)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.deps.Log.WarnContext(ctx, "a code was used twice; what it gave is withdrawn", "client", clientID, "grant", id)
	return s.endGrant(ctx, subject, id)
}

// audienceOf decides whom the tokens of a person are for: what was agreed, or less of it; with openid also the issuer, whose userinfo
// endpoint is asked with them.
func (s *Service) audienceOf(c Client, agreed agreement, asked []string) ([]string, error) {
	for _, resource := range asked {
		if !slices.Contains(agreed.Resources, resource) && (len(agreed.Resources) > 0 || !slices.Contains(c.Resources, resource)) {
			return nil, ErrInvalidTarget
		}
	}
	audience := asked
	if len(audience) == 0 {
		audience = agreed.Resources
	}
	audience, err := c.audience(audience, s.deps.Issuer)
	if err != nil {
		return nil, err
	}
	if slices.Contains(agreed.Scope, "openid") && !slices.Contains(audience, s.deps.Issuer) {
		audience = append(slices.Clone(audience), s.deps.Issuer)
	}
	return audience, nil
}

// refreshToken exchanges a refresh token (RFC 6749, section 6). The access token may be made to say less.
func (s *Service) refreshToken(ctx context.Context, c *call) (tokenAnswer, error) {
	presented := c.param("refresh_token")
	if presented == "" {
		return tokenAnswer{}, ErrInvalidRequest.With("The parameter refresh_token is missing.")
	}
	presented, err := s.unveil(ctx, c.client, presented)
	if err != nil {
		return tokenAnswer{}, err
	}
	rename, err := s.renarrow(ctx, c.client)
	if err != nil {
		return tokenAnswer{}, err
	}
	narrow := func(g *token.Grant) error {
		if rename != nil {
			if err := rename(g); err != nil {
				return err
			}
		}
		var err error
		if g.Scope, err = lesser(g.Scope, c.param("scope")); err != nil {
			return err
		}
		if asked := c.form["resource"]; len(asked) > 0 {
			if slices.ContainsFunc(asked, func(resource string) bool { return !slices.Contains(g.Audience, resource) }) {
				return ErrInvalidTarget
			}
			g.Audience = asked
		}
		return nil
	}
	tokens, err := s.deps.Sessions.RefreshWith(ctx, presented, session.Evidence{
		ClientID: c.client.ID, ClientEpoch: c.client.Epoch, Narrow: narrow, Thumbprint: c.thumbprint, Form: c.tokens(),
	}, session.NewDevice(httpd.UserAgent(ctx), httpd.ClientAddr(ctx)))
	if c.certificate != "" && (errors.Is(err, session.ErrWrongKey) || errors.Is(err, session.ErrProofRequired)) {
		return tokenAnswer{}, ErrInvalidGrant.With("The refresh token is bound to another certificate.").Wrap(err)
	}
	if err != nil {
		return tokenAnswer{}, grantError(err)
	}
	agreed := agreement{Scope: strings.Fields(tokens.Granted.Scope)}
	if c.client.asksClaims {
		if agreed.Claims.IDToken, err = s.grantClaims(ctx, idClaimsOfGrant, tokens.Granted.GrantID, c.client.ID); err != nil {
			return tokenAnswer{}, err
		}
	}
	return s.personal(ctx, c.client, tokens, agreed)
}

// grantError puts what the session store says into the words of RFC 6749. An outage stays one: clients keep their tokens.
func grantError(err error) error {
	for _, over := range []error{session.ErrInvalidGrant, session.ErrEnded, session.ErrNotFound, session.ErrOvertaken, session.ErrUnpaired,
		session.ErrLimitReached} {
		if errors.Is(err, over) {
			return ErrInvalidGrant.Wrap(err)
		}
	}
	return proofError(err)
}

// personal is the answer with tokens of a person's.
func (s *Service) personal(ctx context.Context, c Client, tokens session.Tokens, agreed agreement) (tokenAnswer, error) {
	answer := tokenAnswer{
		AccessToken: tokens.Access, TokenType: scheme(tokens.Granted.Thumbprint), ExpiresIn: int64(tokens.ExpiresIn / time.Second),
		Scope: tokens.Granted.Scope,
	}
	var err error
	if slices.Contains(c.GrantTypes, GrantRefreshToken) {
		if answer.RefreshToken, err = s.veil(ctx, c, tokens.Refresh); err != nil {
			return tokenAnswer{}, err
		}
	}
	if !slices.Contains(agreed.Scope, "openid") {
		return answer, nil
	}
	answer.IDToken, err = s.idToken(ctx, c, tokens, agreed)
	return answer, err
}
