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

// origin is where the request being served came from.
func origin(ctx context.Context) audit.Origin {
	return audit.Origin{Address: httpd.ClientAddr(ctx), UserAgent: httpd.UserAgent(ctx), RequestID: httpd.RequestID(ctx)}
}

// caller is the signed-in person; operations that use it declare the bearer scheme, which fills the context.
func caller(ctx context.Context) Caller {
	claims := auth.FromContext(ctx)
	return Caller{Account: claims.Subject, Session: claims.SessionID, AuthTime: claims.AuthTime, Origin: origin(ctx)}
}

// userBody is an account as its owner sees it.
type userBody struct {
	ID            string    `json:"id" doc:"Permanent id of the account."`
	Email         string    `json:"email" format:"email"`
	EmailVerified bool      `json:"email_verified"`
	Name          string    `json:"name"`
	UserName      string    `json:"user_name,omitempty" doc:"Can be used instead of the address to sign in."`
	Locale        string    `json:"locale,omitempty" doc:"Language of mails and pages, en or ko; absent: no preference."`
	Roles         []string  `json:"roles"`
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
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
	return &userOutput{ETag: etag(a.Version), Body: userBody{
		ID: a.ID, Email: a.Email, EmailVerified: a.EmailVerified, Name: a.Name, UserName: a.UserName, Locale: a.Locale,
		Roles: roles, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
	}}
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
	userOutput
}

type editInput struct {
	IfMatch string `header:"If-Match" doc:"ETag of the version that the change was made on; without it the change is made on whatever is there."`
	Body    struct {
		Name     *string `json:"name,omitempty" maxLength:"400"`
		UserName *string `json:"user_name,omitempty" maxLength:"32" doc:"Empty removes it."`
		Locale   *string `json:"locale,omitempty" maxLength:"35" doc:"en, ko, or empty for no preference."`
	}
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

// MountAPI adds the operations on users and the sign-in to the API.
func (s *Service) MountAPI(api huma.API) {
	bearer := []map[string][]string{{"bearer": {}}}
	users := func(method, path, id, summary string, status int, secured bool) huma.Operation {
		op := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status, Tags: []string{"Users"}}
		if secured {
			op.Security = bearer
		}
		return op
	}
	huma.Register(api, users(http.MethodPost, "/v1/users", "sign-up", "Sign up with an address", http.StatusAccepted, false), s.postUser)
	huma.Register(api, users(http.MethodPost, "/v1/users/confirmations", "confirm-sign-up", "Make the account that a mailed link allows", http.StatusCreated, false), s.postConfirmation)
	huma.Register(api, users(http.MethodGet, "/v1/users/me", "get-me", "Get one's account", http.StatusOK, true), s.getMe)
	huma.Register(api, users(http.MethodPatch, "/v1/users/me", "edit-me", "Edit one's account", http.StatusOK, true), s.patchMe)
	huma.Register(api, users(http.MethodDelete, "/v1/users/me", "delete-me", "Delete one's account", http.StatusNoContent, true), s.deleteMe)
	huma.Register(api, users(http.MethodPut, "/v1/users/me/password", "change-password", "Change one's password", http.StatusNoContent, true), s.putPassword)
	huma.Register(api, users(http.MethodPost, "/v1/users/me/address-changes", "change-address", "Ask for another address", http.StatusAccepted, true), s.postAddressChange)
	huma.Register(api, users(http.MethodPost, "/v1/address-confirmations", "confirm-address", "Confirm the new address with the mailed link", http.StatusNoContent, false), s.postAddressConfirmation)
	huma.Register(api, users(http.MethodGet, "/v1/users/me/events", "list-my-events", "List what happened to one's account", http.StatusOK, true), s.listEvents)
	huma.Register(api, users(http.MethodPost, "/v1/recoveries", "recover", "Ask for a link to choose a new password", http.StatusAccepted, false), s.postRecovery)
	huma.Register(api, users(http.MethodPost, "/v1/recoveries/confirmations", "reset-password", "Choose a new password with the mailed link", http.StatusNoContent, false), s.postReset)
	signIn := users(http.MethodPost, "/v1/sessions", "sign-in", "Sign in", http.StatusCreated, false)
	signIn.Tags = []string{"Sessions"}
	huma.Register(api, signIn, s.postSession)
}

func (s *Service) postUser(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.SignUp(ctx, in.Body.Email, web.Locale(in.AcceptLanguage), origin(ctx))
}

func (s *Service) postRecovery(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.Recover(ctx, in.Body.Email, web.Locale(in.AcceptLanguage), origin(ctx))
}

func (s *Service) postConfirmation(ctx context.Context, in *confirmInput) (*createdUser, error) {
	locale := in.Body.Locale
	if locale == "" {
		locale = web.Locale(in.AcceptLanguage)
	}
	a, err := s.ConfirmSignUp(ctx, in.Body.Token, NewAccount{
		Name: in.Body.Name, UserName: in.Body.UserName, Password: in.Body.Password, Locale: locale,
	}, origin(ctx))
	if err != nil {
		return nil, err
	}
	return &createdUser{Location: "/v1/users/me", userOutput: *newUserOutput(a)}, nil
}

func (s *Service) getMe(ctx context.Context, _ *struct{}) (*userOutput, error) {
	a, err := s.Account(ctx, caller(ctx).Account)
	if err != nil {
		return nil, err
	}
	return newUserOutput(a), nil
}

func (s *Service) patchMe(ctx context.Context, in *editInput) (*userOutput, error) {
	version, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	a, err := s.EditProfile(ctx, caller(ctx), version, Edit{Name: in.Body.Name, UserName: in.Body.UserName, Locale: in.Body.Locale})
	if err != nil {
		return nil, err
	}
	return newUserOutput(a), nil
}

func (s *Service) deleteMe(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, s.challenged(s.DeleteAccount(ctx, caller(ctx)))
}

func (s *Service) putPassword(ctx context.Context, in *passwordInput) (*struct{}, error) {
	return nil, s.challenged(s.ChangePassword(ctx, caller(ctx), in.Body.Current, in.Body.New))
}

func (s *Service) postAddressChange(ctx context.Context, in *emailInput) (*struct{}, error) {
	return nil, s.challenged(s.ChangeAddress(ctx, caller(ctx), in.Body.Email))
}

func (s *Service) postAddressConfirmation(ctx context.Context, in *tokenInput) (*struct{}, error) {
	return nil, s.ConfirmAddress(ctx, in.Body.Token, origin(ctx))
}

func (s *Service) postReset(ctx context.Context, in *resetInput) (*struct{}, error) {
	return nil, s.ResetPassword(ctx, in.Body.Token, in.Body.Password, origin(ctx))
}

func (s *Service) listEvents(ctx context.Context, in *pageInput) (*eventsOutput, error) {
	events, next, err := s.Activity(ctx, caller(ctx).Account, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &eventsOutput{}
	out.Body.NextCursor = next
	out.Body.Items = make([]eventBody, len(events))
	for i, e := range events {
		out.Body.Items[i] = eventBody{ID: e.ID, At: e.At, Action: e.Action, By: actor(e), Address: addrText(e.Origin.Address),
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

func (s *Service) postSession(ctx context.Context, in *signInInput) (*signInOutput, error) {
	byCookie := in.Body.Transport == "cookie"
	deviceToken := in.Body.DeviceToken
	if deviceToken == "" {
		deviceToken = cookieValue(in.Cookie, s.deps.Cookies.Device())
	}
	signed, err := s.SignIn(ctx, SignIn{
		Identifier: in.Body.Identifier, Password: in.Body.Password, DeviceToken: deviceToken, Origin: origin(ctx),
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
		s.deps.Cookies.RefreshCookie(signed.Tokens.Refresh, signed.Tokens.RefreshExpiresIn).String(),
		s.deps.Cookies.DeviceCookie(signed.DeviceToken, s.cfg.DeviceLifetime).String(),
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

// challenged adds the step-up challenge of RFC 9470 to a refusal for want of a recent sign-in.
func (s *Service) challenged(err error) error {
	if !errors.Is(err, ErrRecentSignIn) {
		return err
	}
	return ErrRecentSignIn.Challenge(`Bearer error="insufficient_user_authentication", error_description="` +
		ErrRecentSignIn.Message() + `", max_age=` + strconv.Itoa(int(s.cfg.RecentSignIn.Seconds())))
}
