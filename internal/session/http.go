package session

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

// TokenAnswer is what a client gets for a sign-in or a refresh (after RFC 6749, section 5.1).
type TokenAnswer struct {
	SessionID        string `json:"session_id"`
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type" enum:"Bearer,DPoP" doc:"The scheme to send the access token in. DPoP: with a proof of the key that the tokens are bound to."`
	ExpiresIn        int64  `json:"expires_in" doc:"Seconds until the access token expires. Refresh at two thirds of it."`
	RefreshToken     string `json:"refresh_token,omitempty" doc:"For the next refresh, and only for that one. Absent where it comes in a cookie."`
	RefreshExpiresIn int64  `json:"refresh_expires_in" doc:"Seconds until the refresh token expires if it is not used."`
	DeviceToken      string `json:"device_token,omitempty" doc:"After a sign-in: send it with the next one from this device."`
}

// NewTokenAnswer writes tokens as they go over the wire, the refresh token in the body.
func NewTokenAnswer(t Tokens) TokenAnswer {
	scheme := "Bearer"
	if t.Bound {
		scheme = "DPoP"
	}
	return TokenAnswer{
		SessionID: t.SessionID, AccessToken: t.Access, TokenType: scheme, ExpiresIn: int64(t.ExpiresIn / time.Second),
		RefreshToken: t.Refresh, RefreshExpiresIn: int64(t.RefreshExpiresIn / time.Second),
	}
}

type refreshInput struct {
	Authorization string `header:"Authorization" doc:"The access token that came with the refresh token, where that is required (sessions.pairing); it may have expired."`
	DPoP          string `header:"DPoP" doc:"A proof of the client's key (RFC 9449). Needed where the session is bound to one."`
	Body          *struct {
		RefreshToken string `json:"refresh_token,omitempty" maxLength:"256" doc:"Absent where it comes in a cookie."`
		AccessToken  string `json:"access_token,omitempty" maxLength:"16384" doc:"The same as in Authorization, for clients that cannot set it."`
	}
}

type refreshOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         TokenAnswer
}

type listInput struct {
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
}

// sessionBody is a session as its owner sees it.
type sessionBody struct {
	ID         string    `json:"id"`
	Current    bool      `json:"current" doc:"Whether it is the session that asks."`
	Device     string    `json:"device" doc:"What the device claims to be, such as Chrome on Windows."`
	UserAgent  string    `json:"user_agent,omitempty"`
	Address    string    `json:"address,omitempty" doc:"Network address of its last use."`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	AuthTime   time.Time `json:"auth_time" doc:"When the person last proved who they are."`
	ExpiresAt  time.Time `json:"expires_at" doc:"When it ends unless it is used before."`
}

type listOutput struct {
	Body struct {
		Items      []sessionBody `json:"items"`
		NextCursor string        `json:"next_cursor,omitempty" doc:"Absent on the last page."`
	}
}

type sessionOutput struct {
	Body sessionBody
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

// maxBody bounds what operations read, in bytes; tokens are the largest of it.
const maxBody = 16 << 10

// api is the operations on sessions.
type api struct {
	sessions *Service
	cookies  httpd.Cookies
}

// MountAPI adds the operations on sessions to the API, except the sign-in. Those with the security scheme "bearer" find the
// caller's verified claims in their context.
func (s *Service) MountAPI(humaAPI huma.API, cookies httpd.Cookies) {
	h := &api{sessions: s, cookies: cookies}
	op := func(method, path, id, summary string, status int) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status, Tags: []string{"Sessions"},
			Security: []map[string][]string{{"bearer": {}}}, Middlewares: huma.Middlewares{h.withCookies}, MaxBodyBytes: maxBody,
		}
	}
	refresh := op(http.MethodPost, "/v1/sessions/refresh", "refresh-session", "Exchange a refresh token for new tokens", http.StatusOK)
	refresh.Security = nil // the refresh token is the proof
	refresh.Middlewares = append(refresh.Middlewares, s.withProver)
	huma.Register(humaAPI, refresh, h.refresh)
	huma.Register(humaAPI, op(http.MethodGet, "/v1/sessions", "list-sessions", "List one's sessions", http.StatusOK), h.list)
	huma.Register(humaAPI, op(http.MethodGet, "/v1/sessions/{id}", "get-session", "Get one of one's sessions", http.StatusOK), h.get)
	huma.Register(humaAPI, op(http.MethodDelete, "/v1/sessions/{id}", "end-session", "End one of one's sessions", http.StatusNoContent), h.end)
	huma.Register(humaAPI, op(http.MethodDelete, "/v1/sessions/current", "sign-out", "End the session that asks", http.StatusNoContent), h.endCurrent)
	huma.Register(humaAPI, op(http.MethodDelete, "/v1/sessions", "end-other-sessions", "End all one's other sessions", http.StatusNoContent), h.endOthers)
}

func (h *api) refresh(ctx context.Context, in *refreshInput) (*refreshOutput, error) {
	jar := jarOf(ctx)
	presented, byCookie := jar.refresh, jar.refresh != ""
	if in.Body != nil && in.Body.RefreshToken != "" {
		if byCookie {
			return nil, ErrTwoTokens
		}
		presented = in.Body.RefreshToken
	}
	if presented == "" {
		return nil, ErrInvalidGrant.With("The request carries no refresh token, in the body or in a cookie.")
	}
	thumbprint, err := ctx.Value(proverKey{}).(func(string) (string, error))(presented)
	if err != nil {
		return nil, err
	}
	with := Evidence{Thumbprint: thumbprint}
	if scheme, token, _ := strings.Cut(in.Authorization, " "); strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "DPoP") {
		with.Access = token
	}
	if in.Body != nil && in.Body.AccessToken != "" {
		with.Access = in.Body.AccessToken
	}
	tokens, err := h.sessions.RefreshWith(ctx, presented, with, NewDevice(httpd.UserAgent(ctx), httpd.ClientAddr(ctx)))
	if err != nil {
		// An outage takes nothing from the browser; only what will never work again goes.
		if byCookie && (errors.Is(err, ErrInvalidGrant) || errors.Is(err, ErrEnded)) {
			jar.set(h.cookies.RefreshCookie("", 0))
		}
		return nil, err
	}
	out := &refreshOutput{CacheControl: "no-store", Body: NewTokenAnswer(tokens)}
	if byCookie {
		out.Body.RefreshToken = ""
		jar.set(h.cookies.RefreshCookie(tokens.Refresh, tokens.RefreshExpiresIn))
	}
	return out, nil
}

func (h *api) list(ctx context.Context, in *listInput) (*listOutput, error) {
	claims := auth.FromContext(ctx)
	page, next, err := h.sessions.List(ctx, claims.Subject, in.Cursor, in.Limit)
	if err != nil {
		return nil, inTime(err)
	}
	out := &listOutput{}
	out.Body.NextCursor = next
	out.Body.Items = make([]sessionBody, len(page))
	for i, one := range page {
		out.Body.Items[i] = newSessionBody(one, claims)
	}
	return out, nil
}

func (h *api) get(ctx context.Context, in *idInput) (*sessionOutput, error) {
	claims := auth.FromContext(ctx)
	one, err := h.sessions.Get(ctx, claims.Subject, in.ID)
	if err != nil {
		return nil, inTime(err)
	}
	return &sessionOutput{newSessionBody(one, claims)}, nil
}

func newSessionBody(one Session, asks *auth.Claims) sessionBody {
	return sessionBody{
		ID: one.ID, Current: one.ID == asks.SessionID, Device: one.Device.Label, UserAgent: one.Device.UserAgent,
		Address: addressText(one.Device.Address), CreatedAt: one.CreatedAt, LastUsedAt: one.LastUsedAt,
		AuthTime: one.AuthTime, ExpiresAt: one.ExpiresAt,
	}
}

func (h *api) end(ctx context.Context, in *idInput) (*struct{}, error) {
	claims := auth.FromContext(ctx)
	if in.ID == claims.SessionID {
		return h.endCurrent(ctx, nil)
	}
	return nil, inTime(h.sessions.End(ctx, claims.Subject, in.ID, EndedByOwner))
}

// endCurrent also makes the browser forget the cookies of the session, those of another session not.
func (h *api) endCurrent(ctx context.Context, _ *struct{}) (*struct{}, error) {
	claims, jar := auth.FromContext(ctx), jarOf(ctx)
	if err := h.sessions.End(ctx, claims.Subject, claims.SessionID, SignedOut); err != nil {
		return nil, inTime(err)
	}
	if t, err := parseRefresh(jar.refresh); err == nil && t.session.String() == claims.SessionID {
		jar.set(h.cookies.RefreshCookie("", 0))
	}
	if c, ok := parseCookie(jar.session); ok && c.session.String() == claims.SessionID {
		jar.set(h.cookies.SessionCookie("", 0))
	}
	return nil, nil
}

func (h *api) endOthers(ctx context.Context, _ *struct{}) (*struct{}, error) {
	claims := auth.FromContext(ctx)
	return nil, inTime(h.sessions.EndOthers(ctx, claims.Subject, claims.SessionID, EndedByOwner))
}

// inTime makes ErrUnavailable, the one answer that clients know, of a store that cannot be reached or took too long.
func inTime(err error) error {
	if err == nil {
		return nil
	}
	switch fault.From(err).Kind() {
	case fault.Unavailable, fault.Timeout:
		return unavailable(err)
	}
	return err
}

// jar is the cookies of one request and its answer. Unlike an output's header it also reaches the answer of a failure.
type jar struct {
	refresh, session string
	set              func(*http.Cookie)
}

type jarKey struct{}

func jarOf(ctx context.Context) jar { return ctx.Value(jarKey{}).(jar) }

// withCookies is a huma middleware: the names of the cookies are configuration, which huma's input structs cannot express.
func (h *api) withCookies(ctx huma.Context, next func(huma.Context)) {
	read := func(name string) string {
		c, err := huma.ReadCookie(ctx, name)
		if err != nil {
			return ""
		}
		return c.Value
	}
	next(huma.WithValue(ctx, jarKey{}, jar{
		refresh: read(h.cookies.Refresh()), session: read(h.cookies.Session()),
		set: func(c *http.Cookie) { ctx.AppendHeader("Set-Cookie", c.String()) },
	}))
}
