package identity

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/web"
)

// OriginOf is where the request being served came from.
func OriginOf(ctx context.Context) audit.Origin {
	return audit.Origin{Address: httpd.ClientAddr(ctx), UserAgent: httpd.UserAgent(ctx), RequestID: httpd.RequestID(ctx)}
}

// caller is the signed-in person; operations that use it declare the bearer scheme, which fills the context.
func caller(ctx context.Context) Caller {
	claims := auth.FromContext(ctx)
	return Caller{Account: claims.Subject, Session: claims.SessionID, AuthTime: claims.AuthTime, Origin: OriginOf(ctx)}
}

// userBody is an account as its owner sees it.
type userBody struct {
	ID            string    `json:"id" doc:"Permanent id of the account."`
	Email         string    `json:"email" format:"email"`
	EmailVerified bool      `json:"email_verified"`
	Name          string    `json:"name"`
	UserName      string    `json:"user_name,omitempty" doc:"Can be used instead of the address to sign in."`
	Locale        string    `json:"locale,omitempty" doc:"Language of mails and pages, en or ko; absent: no preference."`
	Phone         string    `json:"phone_number,omitempty" doc:"In E.164; nobody has verified it."`
	Address       *address  `json:"address,omitempty"`
	Roles         []string  `json:"roles"`
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
}

// address is a postal address, under the names of OpenID Connect Core 1.0, section 5.1.1.
type address struct {
	Street     string `json:"street_address,omitempty" maxLength:"800"`
	Locality   string `json:"locality,omitempty" maxLength:"800" doc:"City."`
	Region     string `json:"region,omitempty" maxLength:"800" doc:"Province or state."`
	PostalCode string `json:"postal_code,omitempty" maxLength:"800"`
	Country    string `json:"country,omitempty" maxLength:"800"`
}

type userOutput struct {
	ETag string `header:"ETag" doc:"Version of what can be edited, for If-Match."`
	Body userBody
}

func newUserOutput(a Account) *userOutput {
	roles := a.Roles
	if roles == nil {
		roles = []string{}
	}
	out := &userOutput{ETag: etag(a.Version), Body: userBody{
		ID: a.ID, Email: a.Email, EmailVerified: a.EmailVerified, Name: a.Name, UserName: a.UserName, Locale: a.Locale, Phone: a.Phone,
		Roles: roles, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
	}}
	if a.Address != (PostalAddress{}) {
		out.Body.Address = (*address)(&a.Address)
	}
	return out
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// ifMatch reads If-Match (RFC 9110, section 13.1.1): 0 for none or *, the version for a tag of ours. A tag that we did not
// give, or a weak one, matches nothing.
func ifMatch(header string) (int64, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return 0, nil
	}
	version, err := strconv.ParseInt(strings.Trim(header, `"`), 10, 64)
	if err != nil || version < 1 || header != etag(version) {
		return 0, ErrVersion
	}
	return version, nil
}

type emailInput struct {
	AcceptLanguage string `header:"Accept-Language" doc:"The language of the mail."`
	Body           struct {
		Email string `json:"email" format:"email" maxLength:"254"`
	}
}

type confirmInput struct {
	AcceptLanguage string `header:"Accept-Language" doc:"The language of the account, unless locale names it."`
	Body           struct {
		Token    string `json:"token" maxLength:"64" doc:"From the mailed link."`
		Name     string `json:"name" minLength:"1" maxLength:"400"`
		UserName string `json:"user_name,omitempty" maxLength:"32" doc:"Optional: 3 to 32 letters, digits, dots, hyphens, underscores."`
		Password string `json:"password" maxLength:"1024"`
		Locale   string `json:"locale,omitempty" maxLength:"35"`
	}
}

type createdUser struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     userBody
}

type editInput struct {
	IfMatch string `header:"If-Match" doc:"ETag of the version that the change was made on; without it the change is made on whatever is there."`
	Body    struct {
		Name     *string  `json:"name,omitempty" maxLength:"400"`
		UserName *string  `json:"user_name,omitempty" maxLength:"32" doc:"Empty removes it."`
		Locale   *string  `json:"locale,omitempty" maxLength:"35" doc:"en, ko, or empty for no preference."`
		Phone    *string  `json:"phone_number,omitempty" maxLength:"40" doc:"With the country's code: +82 10 1234 5678. Empty removes it."`
		Address  *address `json:"address,omitempty" doc:"Replaces the whole address; without members removes it."`
	}
}

type deleteInput struct {
	IfMatch string `header:"If-Match" doc:"ETag of the version that was meant; without it whatever is there is deleted."`
}

type passwordInput struct {
	Body struct {
		Current string `json:"current_password" maxLength:"1024"`
		New     string `json:"new_password" maxLength:"1024"`
	}
}

type resetInput struct {
	Body struct {
		Token    string `json:"token" maxLength:"64" doc:"From the mailed link."`
		Password string `json:"password" maxLength:"1024"`
	}
}

type tokenInput struct {
	Body struct {
		Token string `json:"token" maxLength:"64" doc:"From the mailed link."`
	}
}

type signInInput struct {
	Cookie string `header:"Cookie" hidden:"true"`
	DPoP   string `header:"DPoP" doc:"A proof of the client's key (RFC 9449), to bind the tokens to it."`
	Body   struct {
		Identifier  string `json:"identifier" maxLength:"254" doc:"Address or user name."`
		Password    string `json:"password" maxLength:"1024"`
		Transport   string `json:"transport,omitempty" enum:"body,cookie" default:"body" doc:"Where the refresh token comes: in the body, or in an HttpOnly cookie for browsers."`
		DeviceToken string `json:"device_token,omitempty" maxLength:"64" doc:"From an earlier sign-in on this device: a known device is not locked out by others' attempts and causes no mail."`
	}
}

type signInOutput struct {
	SetCookie []string `header:"Set-Cookie"`
	Location  string   `header:"Location"`
	Body      session.TokenAnswer
}

type pageInput struct {
	Cursor string `query:"cursor" maxLength:"256" doc:"next_cursor of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
}

type eventBody struct {
	ID        string            `json:"id"`
	At        time.Time         `json:"at"`
	Action    string            `json:"action" doc:"What happened, such as session.started."`
	By        string            `json:"by" enum:"owner,operator,system" doc:"Who did it."`
	Address   string            `json:"address,omitempty" doc:"Network address it came from."`
	UserAgent string            `json:"user_agent,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
}

type eventsOutput struct {
	Body struct {
		Items      []eventBody `json:"items"`
		NextCursor string      `json:"next_cursor,omitempty" doc:"Absent on the last page."`
	}
}

// api is the use cases over HTTP.
type api struct {
	*Service
	cookies httpd.Cookies
}

// operation describes one of this package's operations.
func operation(tag, method, path, id string, status int, summary string) huma.Operation {
	return huma.Operation{Tags: []string{tag}, Method: method, Path: path, OperationID: id, DefaultStatus: status, Summary: summary,
		MaxBodyBytes: maxBody}
}

// maxBody bounds what operations read, in bytes: several times the longest fields together, and no room to make us work.
const maxBody = 16 << 10

// own makes an operation one of signed-in people, who prove themselves with an access token.
func own(op huma.Operation) huma.Operation {
	op.Security = []map[string][]string{{"bearer": {}}}
	return op
}

// MountAPI adds the operations on users and the sign-in to the API.
func (s *Service) MountAPI(humaAPI huma.API, cookies httpd.Cookies) {
	a := api{s, cookies}
	const users, sessions = "Users", "Sessions"
	huma.Register(humaAPI, operation(users, "POST", "/v1/users", "sign-up", 202, "Sign up with an address"), a.postUser)
	huma.Register(humaAPI, operation(users, "POST", "/v1/users/confirmations", "confirm-sign-up", 201,
		"Make the account that a mailed link allows"), a.postConfirmation)
	huma.Register(humaAPI, own(operation(users, "GET", "/v1/users/me", "get-me", 200, "Get one's account")), a.getMe)
	huma.Register(humaAPI, own(operation(users, "PATCH", "/v1/users/me", "edit-me", 200, "Edit one's account")), a.patchMe)
	huma.Register(humaAPI, own(operation(users, "DELETE", "/v1/users/me", "delete-me", 204, "Delete one's account")), a.deleteMe)
	huma.Register(humaAPI, own(operation(users, "PUT", "/v1/users/me/password", "change-password", 204,
		"Change one's password")), a.putPassword)
	huma.Register(humaAPI, own(operation(users, "POST", "/v1/users/me/address-changes", "change-address", 202,
		"Ask for another address")), a.postAddressChange)
	huma.Register(humaAPI, own(operation(users, "POST", "/v1/users/me/address-confirmations", "confirm-address", 204,
		"Confirm the new address with the mailed link")), a.postAddressConfirmation)
	huma.Register(humaAPI, own(operation(users, "GET", "/v1/users/me/events", "list-my-events", 200,
		"List what happened to one's account")), a.listEvents)
	huma.Register(humaAPI, operation(users, "POST", "/v1/recoveries", "recover", 202,
		"Ask for a link to choose a new password"), a.postRecovery)
	huma.Register(humaAPI, operation(users, "POST", "/v1/recoveries/confirmations", "reset-password", 204,
		"Choose a new password with the mailed link"), a.postReset)
	signIn := operation(sessions, "POST", "/v1/sessions", "sign-in", 201, "Sign in")
	signIn.Middlewares = huma.Middlewares{s.deps.Sessions.TakeProof(humaAPI)}
	huma.Register(humaAPI, signIn, a.postSession)
}

func (s api) postUser(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.SignUp(ctx, in.Body.Email, web.Locale(in.AcceptLanguage), OriginOf(ctx))
}

func (s api) postRecovery(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.Recover(ctx, in.Body.Email, web.Locale(in.AcceptLanguage), OriginOf(ctx))
}

func (s api) postConfirmation(ctx context.Context, in *confirmInput) (*createdUser, error) {
	locale := in.Body.Locale
	if locale == "" {
		locale = web.Locale(in.AcceptLanguage)
	}
	a, err := s.ConfirmSignUp(ctx, in.Body.Token, NewAccount{
		Name: in.Body.Name, UserName: in.Body.UserName, Password: in.Body.Password, Locale: locale,
	}, OriginOf(ctx))
	if err != nil {
		return nil, err
	}
	made := newUserOutput(a)
	return &createdUser{Location: "/v1/users/me", ETag: made.ETag, Body: made.Body}, nil
}

func (s api) getMe(ctx context.Context, _ *struct{}) (*userOutput, error) {
	a, err := s.Account(ctx, caller(ctx).Account)
	if err != nil {
		return nil, err
	}
	return newUserOutput(a), nil
}

func (s api) patchMe(ctx context.Context, in *editInput) (*userOutput, error) {
	version, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	a, err := s.EditProfile(ctx, caller(ctx), version, Edit{
		Name: in.Body.Name, UserName: in.Body.UserName, Locale: in.Body.Locale, Phone: in.Body.Phone, Address: (*PostalAddress)(in.Body.Address),
	})
	if err != nil {
		return nil, err
	}
	return newUserOutput(a), nil
}

func (s api) deleteMe(ctx context.Context, in *deleteInput) (*struct{}, error) {
	version, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, s.challenged(ctx, s.DeleteAccount(ctx, caller(ctx), version))
}

func (s api) putPassword(ctx context.Context, in *passwordInput) (*struct{}, error) {
	return nil, s.challenged(ctx, s.ChangePassword(ctx, caller(ctx), in.Body.Current, in.Body.New))
}

func (s api) postAddressChange(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.challenged(ctx, s.ChangeAddress(ctx, caller(ctx), in.Body.Email))
}

func (s api) postAddressConfirmation(ctx context.Context, in *tokenInput) (*struct{}, error) {
	return nil, s.ConfirmAddress(ctx, caller(ctx), in.Body.Token)
}

func (s api) postReset(ctx context.Context, in *resetInput) (*struct{}, error) {
	return nil, s.ResetPassword(ctx, in.Body.Token, in.Body.Password, OriginOf(ctx))
}

func (s api) listEvents(ctx context.Context, in *pageInput) (*eventsOutput, error) {
	events, next, err := s.Activity(ctx, caller(ctx).Account, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &eventsOutput{}
	out.Body.NextCursor = next
	out.Body.Items = make([]eventBody, len(events))
	for i, e := range events {
		out.Body.Items[i] = eventBody{ID: e.ID, At: e.At, Action: e.Action, By: actor(e), Address: audit.AddressText(e.Origin.Address),
			UserAgent: e.Origin.UserAgent, Detail: e.Detail}
	}
	return out, nil
}

// actor says who did something, without naming another person.
func actor(e audit.Event) string {
	switch e.Actor {
	case e.Account:
		return "owner"
	case audit.Operator:
		return "operator"
	}
	return "system"
}

func (s api) postSession(ctx context.Context, in *signInInput) (*signInOutput, error) {
	byCookie := in.Body.Transport == "cookie"
	deviceToken := in.Body.DeviceToken
	if deviceToken == "" {
		deviceToken = cookieValue(in.Cookie, s.cookies.Device())
	}
	signed, err := s.SignIn(ctx, SignIn{
		Identifier: in.Body.Identifier, Password: in.Body.Password, DeviceToken: deviceToken, Thumbprint: session.Thumbprint(ctx),
		Origin: OriginOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &signInOutput{Location: "/v1/sessions/" + signed.Session.ID, Body: session.NewTokenAnswer(signed.Tokens)}
	if !byCookie {
		out.Body.DeviceToken = signed.DeviceToken
		return out, nil
	}
	out.Body.RefreshToken = ""
	out.SetCookie = []string{
		s.cookies.RefreshCookie(signed.Tokens.Refresh, signed.Tokens.RefreshExpiresIn).String(),
		s.cookies.DeviceCookie(signed.DeviceToken, s.cfg.DeviceLifetime).String(),
	}
	return out, nil
}

func cookieValue(header, name string) string {
	cookies, err := http.ParseCookie(header)
	if err != nil {
		return ""
	}
	for _, c := range cookies {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// challenged adds the step-up challenge (RFC 9470) to a refusal for want of a recent sign-in.
func (s api) challenged(ctx context.Context, err error) error {
	if !errors.Is(err, ErrRecentSignIn) {
		return err
	}
	_, header, _ := auth.Challenge(auth.RequireRecent(auth.FromContext(ctx), s.cfg.RecentSignIn, s.deps.Clock()))
	return ErrRecentSignIn.Challenge(header)
}
