package web_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/web"
)

func setup(t *testing.T) *web.Renderer {
	t.Helper()
	cfg := web.DefaultConfig()
	cfg.Providers = []web.Provider{{Name: "google", Label: "Google"}, {Name: "kakao", Label: "Kakao"}, {Name: "work", Label: "Example Corp."}}
	cfg.RequestID = func(context.Context) string { return "01JD6V9K7Q" }
	r, err := web.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	at    = time.Date(2026, 3, 9, 5, 30, 0, 0, time.UTC)
	rules = []web.Rule{
		{Code: "password.too_short", Args: []any{"min", 8}}, {Code: "password.guessable"}, {Code: "password.personal"},
		{Code: "password.breached"},
	}
	wrongFields = fault.New(fault.Invalid, "identity.password_refused", "No.").WithFields(
		fault.Field{Name: "name", Code: "name.required", Message: "Enter a name."},
		fault.Field{Name: "password", Code: "password.too_short", Message: "Use at least 8 characters."},
		fault.Field{Name: "password", Code: "password.guessable", Message: "Use something that is hard to guess."},
	)
	wrongPassword = fault.New(fault.Unauthenticated, "identity.invalid_credentials", "No.")
	unavailable   = fault.New(fault.Unavailable, "federation.unavailable", "No.").After(10 * time.Second)
	lastWay       = fault.New(fault.Conflict, "federation.last_way", "No.")
	locked        = fault.New(fault.RateLimited, "identity.too_many_attempts", "No.").After(187 * time.Second)
)

// sample is a page with data, and where it is asked for.
type sample struct {
	name, path string
	signedIn   bool
	page       web.Page
}

func samples(t *testing.T) []sample {
	t.Helper()
	document, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := web.NewAPIReference(document)
	if err != nil {
		t.Fatal(err)
	}
	const mail, name = "haneul.kim@example.com", "김하늘"
	return []sample{
		{"home", "/", false, web.Home{}},
		{"home-signed-in", "/", true, web.Home{SignedIn: true, Name: name}},
		{"sign-up", "/sign-up", false, web.SignUp{}},
		{"sign-up-wrong", "/sign-up", false, web.SignUp{Email: "haneul@", Form: web.Form{Errors: []web.FieldError{{Field: "email", Code: "email.format"}}}}},
		{"sign-up-sent", "/sign-up", false, web.SignUpSent{Email: mail, Lifetime: 24 * time.Hour}},
		{"confirm", "/sign-up/confirm", false, web.Confirm{Token: "tok", Email: mail, Rules: rules}},
		{"confirm-wrong", "/sign-up/confirm", false, web.Confirm{Token: "tok", Email: mail, UserName: "haneul", Rules: rules, Form: web.Form{Fault: wrongFields}}},
		{"sign-in", "/sign-in", false, web.SignIn{ReturnTo: "/account"}},
		{"sign-in-notice", "/sign-in", false, web.SignIn{Notice: "password_reset", Identifier: mail}},
		{"sign-in-wrong", "/sign-in", false, web.SignIn{Identifier: mail, Form: web.Form{Fault: wrongPassword}}},
		{"sign-in-another", "/sign-in", true, web.SignIn{ReturnTo: "/oauth/continue?client_id=shop", Another: true}},
		{"sign-in-locked", "/sign-in", false, web.SignIn{Identifier: mail, Form: web.Form{Fault: locked}}},
		{"signed-out", "/sign-out", false, web.SignedOut{}},
		{"signed-out-frames", "/sign-out", false, web.SignedOut{Frames: []string{"https://shop.example/out?iss=a&sid=b", "https://news.example/out"}}},
		{"recover", "/recover", false, web.Recover{}},
		{"recover-sent", "/recover", false, web.RecoverSent{Email: mail, Lifetime: time.Hour}},
		{"reset", "/recover/reset", false, web.Reset{Token: "tok", Email: mail, Rules: rules}},
		{"setup", "/setup", false, web.Setup{Token: "tok", Rules: rules}},
		{"account", "/account", true, web.Account{Name: name, UserName: "haneul", Email: mail, Locale: "ko", CreatedAt: at, PasswordChangedAt: at,
			Phone: "+821012345678", Address: web.Address{Street: "세종대로 209", Locality: "종로구", Region: "서울특별시", PostalCode: "03171", Country: "대한민국"},
			Sessions: 3, Notice: "profile_saved"}},
		{"account-pending", "/account", true, web.Account{Name: name, Email: mail, PendingEmail: "new@example.com", Locale: "en", CreatedAt: at}},
		{"edit-profile", "/account/profile", true, web.EditProfile{Version: "3", Name: name, UserName: "haneul", Locale: "ko"}},
		{"edit-profile-contact", "/account/profile", true, web.EditProfile{Version: "3", Name: name, Locale: "ko", Phone: "010-1234-5678",
			Address: web.Address{Street: "세종대로 209", Locality: "종로구", Region: "서울특별시", PostalCode: "03171", Country: "대한민국"},
			Form:    web.Form{Errors: []web.FieldError{{Field: "phone_number", Code: "phone_number.format"}}}}},
		{"change-password", "/account/password", true, web.ChangePassword{Email: mail, AskCurrent: true, Rules: rules}},
		{"change-address", "/account/address", true, web.ChangeAddress{Current: mail}},
		{"change-address-sent", "/account/address", true, web.ChangeAddressSent{Current: mail, Email: "new@example.com", Lifetime: 24 * time.Hour}},
		{"address-confirm", "/address/confirm", false, web.AddressConfirm{Token: "tok", Email: "new@example.com"}},
		{"reauthenticate", "/account/reauthenticate", true, web.Reauthenticate{Email: mail, ReturnTo: "/account/password"}},
		{"reauthenticate-provider", "/account/reauthenticate", true, web.Reauthenticate{Email: mail, NoPassword: true, ReturnTo: "/account/password"}},
		{"account-no-password", "/account", true, web.Account{Name: name, Email: mail, NoPassword: true, Locale: "en", CreatedAt: at}},
		{"account-directory", "/account", true, web.Account{Name: name, Email: mail, Directory: "한빛상사", Locale: "en", CreatedAt: at}},
		{"password-elsewhere", "/recover", false, web.PasswordElsewhere{Keeper: "한빛상사", Address: "https://password.example.com", Back: "/sign-in"}},
		{"provider-failed", "/federation/google/callback", false, web.ProviderFailed{Provider: "Google", Retry: "/federation/google", Fault: unavailable}},
		{"leaving", "/account/connections", true, web.Leaving{Provider: "Google", To: "https://accounts.example.com/authorize?state=1&x=2"}},
		{"finish-sign-up", "/sign-up/finish", false, web.FinishSignUp{Provider: "Google", Email: mail, Verified: true, Name: name}},
		{"finish-sign-up-address", "/sign-up/finish", false, web.FinishSignUp{Provider: "Kakao", Email: mail}},
		{"finish-sign-up-exists", "/sign-up/finish", false, web.FinishSignUp{Provider: "Google", Email: mail, Verified: true, Exists: true}},
		{"finish-sign-up-closed", "/sign-up/finish", false, web.FinishSignUp{Provider: "GitHub", Email: mail, Closed: true}},
		{"connect-sign-up", "/sign-up/connect", false, web.ConnectSignUp{Provider: "Naver", Token: "tok", Email: mail, Name: name}},
		{"connections", "/account/connections", true, web.Connections{Notice: "connected", Connections: []web.Connection{
			{Name: "google", Label: "Google", Connected: true, Known: true, As: mail, Since: at, LastUsedAt: at}, {Name: "kakao", Label: "Kakao", Known: true},
			{Name: "old", Label: "old", Connected: true, Since: at, LastUsedAt: at},
		}}},
		{"connections-last", "/account/connections", true, web.Connections{Form: web.Form{Fault: lastWay}, Connections: []web.Connection{
			{Name: "google", Label: "Google", Connected: true, Known: true, As: mail, Since: at, LastUsedAt: at}}}},
		{"confirm-connection", "/account/connections/confirm", true, web.ConfirmConnection{Provider: "Google", As: mail, Email: "other@example.com"}},
		{"sessions", "/account/sessions", true, web.Sessions{Next: "abc", Notice: "session_ended", Sessions: []web.Session{
			{ID: "1", Device: "Chrome on Windows", Address: "203.0.113.7", CreatedAt: at, LastUsedAt: at, Current: true},
			{ID: "2", Device: "Safari on iPhone", Address: "2001:db8:85a3:8d3:1319:8a2e:370:7348", CreatedAt: at, LastUsedAt: at},
			{ID: "3", CreatedAt: at, LastUsedAt: at},
		}}},
		{"activity", "/account/activity", true, web.Activity{Next: "abc", Events: []web.Event{
			{At: at, Action: "session.started", Device: "Chrome on Windows", Address: "203.0.113.7"},
			{At: at, Action: "password.changed", Device: "Safari on iPhone", Address: "203.0.113.7"},
			{At: at, Action: "account.disabled", ByOperator: true}, {At: at, Action: "something.new"},
		}}},
		{"activity-empty", "/account/activity", true, web.Activity{}},
		{"consent", "/oauth/authorize", true, web.Consent{Client: "꽃집", Host: "shop.example", Email: mail, Scopes: []string{"openid", "profile", "email", "phone", "address", "offline_access", "orders:read"}, Request: "a=b"}},
		{"continue", "/oauth/continue", false, web.Continue{To: "https://shop.example/cb?code=1"}},
		{"continue-frames", "/oauth/logout", false, web.Continue{To: "https://shop.example/bye", Frames: []string{"https://shop.example/out"}}},
		{"form-post", "/oauth/authorize", false, web.FormPost{Action: "https://shop.example/cb", Fields: url.Values{"code": {"1"}}}},
		{"sign-out", "/oauth/logout", true, web.SignOut{Client: "꽃집", Request: "a=b"}},
		{"sign-out-unknown", "/oauth/logout", true, web.SignOut{}},
		{"apps", "/account/apps", true, web.Apps{Notice: "app_withdrawn", Apps: []web.App{{ID: "shop", Name: "꽃집", Scopes: []string{"openid", "orders:read"}, Since: at}}}},
		{"apps-none", "/account/apps", true, web.Apps{}},
		{"device", "/oauth/device", true, web.Device{}},
		{"consent-unvetted", "/oauth/authorize", true, web.Consent{Client: "Flower Shop", Host: "shop.example", Email: mail, Scopes: []string{"openid", "email"}, Request: "a=b", Unvetted: true, Policy: "https://shop.example/privacy", Terms: "https://shop.example/terms"}},
		{"device-consent", "/oauth/device", true, web.DeviceConsent{Client: "텔레비전", Code: "BCDF-GHJK", Email: mail, Scopes: []string{"openid"}}},
		{"device-done", "/oauth/device", true, web.DeviceDone{Client: "텔레비전", Allowed: true}},
		{"device-denied", "/oauth/device", true, web.DeviceDone{Client: "텔레비전"}},
		{"delete", "/account/delete", true, web.Delete{Email: mail}},
		{"delete-wrong", "/account/delete", true, web.Delete{Email: mail, Form: web.Form{Errors: []web.FieldError{{Field: "confirm", Code: "confirm.required"}}}}},
		{"deleted", "/account/delete", false, web.Deleted{}},
		{"docs", "/docs", false, reference},
		{"docs-errors", "/docs/errors", false, web.ErrorReference{Errors: []web.ErrorEntry{
			{Code: "identity.invalid_credentials", Status: 401, Message: "The address or user name and the password do not match."},
			{Code: "internal", Status: 500, Message: "Something went wrong on our side."},
		}}},
	}
}

// faults are error pages, and where they happen.
var faults = map[string]struct {
	path  string
	fault *fault.Fault
}{
	"error-not-found": {"/nowhere", fault.New(fault.NotFound, "not_found", "Nothing here.")},
	"error-forbidden": {"/account", fault.New(fault.Forbidden, "identity.account_disabled", "Disabled.")},
	"error-limited":   {"/sign-up", fault.New(fault.RateLimited, "identity.too_many_requests", "Slow.").After(90 * time.Second)},
	"error-expired":   {"/recover/reset", fault.New(fault.Gone, "identity.confirmation_invalid", "Expired.")},
	"error-busy":      {"/sign-in", fault.New(fault.Unavailable, "identity.busy", "Busy.").After(3 * time.Second)},
	"error-internal":  {"/account", fault.From(fmt.Errorf("secret cause"))},
	"error-signed-in": {"/account", fault.New(fault.Unauthenticated, "session.ended", "Ended.")},
}

func request(t *testing.T, lang, path string, signedIn bool) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	req.Header.Set("Accept-Language", lang)
	if signedIn {
		req = req.WithContext(web.WithViewer(req.Context(), web.Viewer{Name: "김하늘"}))
	}
	return req
}

var (
	inlineCode = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script(?:\s+defer|\s+src="/assets/[^"]+")*\s*>[^<]`)
	external   = regexp.MustCompile(`(?:src|action)="(?:https?:)?//`)
	unfilled   = regexp.MustCompile(`>[^<]*\{[a-z_]+\}[^<]*<`)
	describes  = regexp.MustCompile(`aria-(?:describedby|labelledby|controls)="([^"]+)"`)
	ids        = regexp.MustCompile(`\sid="([^"]+)"`)
)

// Whoever visits with scripts off, in either language, must get every page whole; and a page with inline code would lose it to
// the content security policy. With SUMUN_WEB_PREVIEW set to a folder, the pages are also written there, to be looked at.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, lang := range []string{web.English, web.Korean} {
		for _, s := range samples(t) {
			rec := httptest.NewRecorder()
			if err := r.Page(rec, request(t, lang, s.path, s.signedIn), http.StatusOK, s.page); err != nil {
				t.Errorf("%s %s: %v", lang, s.name, err)
				continue
			}
			checkPage(t, lang, s.name, rec)
		}
		for name, f := range faults {
			rec := httptest.NewRecorder()
			r.Fault(rec, request(t, lang, f.path, false), f.fault)
			if rec.Code != f.fault.Status() {
				t.Errorf("%s: status %d, want %d", name, rec.Code, f.fault.Status())
			}
			checkPage(t, lang, name, rec)
		}
	}
	previewAssets(t, r)
}

func checkPage(t *testing.T, lang, name string, rec *httptest.ResponseRecorder) {
	t.Helper()
	body := rec.Body.String()
	preview(t, filepath.Join(lang, name+".html"), rec.Body.Bytes())
	for what, wrong := range map[string]bool{
		"has inline code: " + inlineCode.FindString(body):             inlineCode.MatchString(body),
		"loads from elsewhere: " + external.FindString(body):          external.MatchString(body) && !strings.HasPrefix(name, "docs") && name != "form-post" && !strings.HasSuffix(name, "-frames"),
		"has an empty placeholder: " + unfilled.FindString(body):      unfilled.MatchString(body) && !strings.HasPrefix(name, "docs"),
		"is in another language":                                      !strings.Contains(body, `<html lang="`+lang+`">`),
		"is cut short":                                                !strings.HasSuffix(strings.TrimSpace(body), "</html>"),
		"has not one main heading":                                    strings.Count(body, "<h1") != 1,
		"is not HTML":                                                 rec.Header().Get("Content-Type") != "text/html; charset=utf-8",
		"has another policy":                                          !strings.Contains(rec.Header().Get("Content-Security-Policy"), "script-src 'self'; style-src 'self';"),
		"can be stored although it says who is signed in":             strings.Contains(body, "/sign-out") && rec.Header().Get("Cache-Control") != "no-store",
		"shows the cause of a fault":                                  strings.Contains(body, "secret cause"),
		"keeps nothing from search engines although it holds a token": strings.Contains(body, `name="token"`) && !strings.Contains(body, "noindex"),
	} {
		if wrong {
			t.Errorf("%s %s %s", lang, name, what)
		}
	}
	known := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(body, -1) {
		if known[m[1]] {
			t.Errorf("%s %s: id %q is there twice", lang, name, m[1])
		}
		known[m[1]] = true
	}
	for _, m := range describes.FindAllStringSubmatch(body, -1) {
		for _, id := range strings.Fields(m[1]) {
			if !known[id] {
				t.Errorf("%s %s: refers to %q, which is not there", lang, name, id)
			}
		}
	}
}

func preview(t *testing.T, name string, content []byte) {
	t.Helper()
	folder := os.Getenv("SUMUN_WEB_PREVIEW")
	if folder == "" {
		return
	}
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

var assetLink = regexp.MustCompile(`"(/assets/[^"]+)"`)

func previewAssets(t *testing.T, r *web.Renderer) {
	t.Helper()
	mux := http.NewServeMux()
	r.Mount(mux)
	for _, page := range []web.Page{web.Home{}, web.SignUpSent{}} {
		rec := httptest.NewRecorder()
		if err := r.Page(rec, request(t, "en", "/", false), http.StatusOK, page); err != nil {
			t.Fatal(err)
		}
		for _, m := range assetLink.FindAllStringSubmatch(rec.Body.String(), -1) {
			asset := httptest.NewRecorder()
			mux.ServeHTTP(asset, httptest.NewRequestWithContext(t.Context(), http.MethodGet, m[1], nil))
			if asset.Code != http.StatusOK || !strings.Contains(asset.Header().Get("Cache-Control"), "immutable") {
				t.Errorf("%s: status %d, caching %q", m[1], asset.Code, asset.Header().Get("Cache-Control"))
			}
			preview(t, strings.TrimPrefix(m[1], "/"), asset.Body.Bytes())
		}
	}
}

// The pages of others that ours loads are those that it names, whole, and of no other origin.
func TestFramesAreNamedInThePolicy(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for name, c := range map[string]struct {
		page web.Page
		want string
	}{
		"none":      {web.SignedOut{}, ""},
		"one":       {web.Deleted{Frames: []string{"https://shop.example/out"}}, "; frame-src https://shop.example"},
		"of an app": {web.SignedOut{Frames: []string{"https://a.example/1", "http://127.0.0.1:9/2", "https://a.example/3"}}, "; frame-src https://a.example http://127.0.0.1:9"},
	} {
		rec := httptest.NewRecorder()
		if err := r.Page(rec, request(t, "en", "/sign-out", false), http.StatusOK, c.page); err != nil {
			t.Fatal(err)
		}
		policy := rec.Header().Get("Content-Security-Policy")
		if _, frames, _ := strings.Cut(policy, "frame-ancestors 'none'"); frames != c.want {
			t.Errorf("%s: %s", name, policy)
		}
	}
}

// A person who mistyped one field must not lose the others, must be told where the mistake is, and must never find a password
// in the page.
func TestFormIsShownAgain(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	page := web.Confirm{Token: "tok", Email: "kim@example.com", UserName: `ha"neul`, Rules: rules, Form: web.Form{Fault: wrongFields}}
	if err := setup(t).Page(rec, request(t, "en", "/sign-up/confirm", false), http.StatusUnprocessableEntity, page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`value="ha&#34;neul"`, `value="tok"`, `role="alert" tabindex="-1" autofocus`, `<a href="#new_password">New password</a>`,
		`<title>Error: Finish your account – Sumun</title>`, `aria-invalid="true" aria-describedby="name-error name-hint"`,
		`aria-describedby="new_password-error new_password-rules"`, `This password is too short.`, `autocomplete="new-password"`,
		`At least 8 characters`,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if regexp.MustCompile(`type="password"[^>]*value=`).Match(rec.Body.Bytes()) {
		t.Error("a password field has a value")
	}
}

// Addresses of pages hold tokens, and switching the language must not lose them.
func TestLanguageSwitchKeepsThePage(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, c := range []struct {
		method, target, want string
		page                 web.Page
	}{
		{http.MethodPost, "/recover/reset", `value="/recover/reset?token=a%2Bb"`, web.Reset{Token: "a+b"}},
		{http.MethodGet, "/account/sessions?cursor=x&lang=ko", `value="/account/sessions?cursor=x"`, web.Sessions{}},
		{http.MethodPost, "/sign-in", `value="/sign-in?return_to=%2Faccount"`, web.SignIn{ReturnTo: "/account"}},
	} {
		rec := httptest.NewRecorder()
		if err := r.Page(rec, httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil), http.StatusOK, c.page); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(rec.Body.String(), `name="return_to" `+c.want) {
			t.Errorf("%s %s lacks %s", c.method, c.target, c.want)
		}
	}
}

// Somebody who is told to wait must be told how long, by the page and by the header.
func TestFaultTellsWhenToRetry(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	setup(t).Fault(rec, request(t, "ko", "/sign-in", false), locked)
	if rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") != "187" {
		t.Errorf("status %d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
	}
	if !strings.Contains(rec.Body.String(), "4분 후에 다시 시도해 주세요.") {
		t.Error("the page does not say when to try again")
	}
}

// Whose link has expired needs a new one, not an apology.
func TestExpiredLinkLeadsToANewOne(t *testing.T) {
	t.Parallel()
	r, gone := setup(t), faults["error-expired"].fault
	for path, want := range map[string]string{
		"/sign-up/confirm": `href="/sign-up"`, "/recover/reset": `href="/recover"`, "/address/confirm": `href="/account/address"`,
	} {
		rec := httptest.NewRecorder()
		r.Fault(rec, request(t, "en", path, false), gone)
		if !bytes.Contains(rec.Body.Bytes(), []byte(want)) {
			t.Errorf("%s lacks %s", path, want)
		}
	}
}

// A script that checks a password while it is typed reads exactly this.
func TestPasswordCheck(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	err := setup(t).PasswordCheck(rec, request(t, "ko", "/password-check", false), []web.FieldError{{Code: "password.guessable"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"violations":[{"code":"password.guessable","message":"추측하기 쉬운 비밀번호입니다. 서로 관련 없는 단어를 여러 개 이어 보세요."}]}`
	if rec.Body.String() != want || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %s (%s)", rec.Body, rec.Header().Get("Cache-Control"))
	}
}
