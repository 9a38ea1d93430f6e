package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/web"
)

// A Korean visitor must not be greeted in English, and whoever chose a language must keep it.
func TestLang(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, c := range []struct{ name, target, cookie, account, header, want string }{
		{"nothing known", "/", "", "", "", "en"},
		{"header", "/", "", "", "ko-KR,ko;q=0.9,en;q=0.8", "ko"},
		{"header prefers ours in order", "/", "", "", "fr, ko;q=0.5, en;q=0.4", "ko"},
		{"header without ours", "/", "", "", "fr-FR, de;q=0.5", "en"},
		{"header is garbage", "/", "", "", ";;;q=x,\x00", "en"},
		{"header is huge", "/", "", "", strings.Repeat("ko,", 5000), "en"},
		{"account before header", "/", "", "ko", "en", "ko"},
		{"cookie before account", "/", "en", "ko", "ko", "en"},
		{"cookie is garbage", "/", "<script>", "", "ko", "ko"},
		{"address before cookie", "/?lang=ko", "en", "", "en", "ko"},
		{"address is garbage", "/?lang=xx", "ko", "", "en", "ko"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.target, nil)
		req.Header.Set("Accept-Language", c.header)
		if c.cookie != "" {
			req.AddCookie(&http.Cookie{Name: "sumun_lang", Value: c.cookie})
		}
		if c.account != "" {
			req = req.WithContext(web.WithViewer(req.Context(), web.Viewer{Name: "Kim", Locale: c.account}))
		}
		if got := r.Lang(req); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// Whatever a browser, or something that passes for one, says it prefers: the page comes in a language that we have.
func FuzzLang(f *testing.F) {
	f.Add("ko-KR,ko;q=0.9,en;q=0.8", "en", "lang=ko")
	f.Add("*;q=0,zh-Hant-TW-x-y;q=1.000,", "<script>", "lang=ko&lang=en")
	f.Add(";;;q=x,\x00", "ko", "%zz")
	r, err := web.New(web.DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, accept, cookie, query string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		req.URL.RawQuery = query
		req.Header["Accept-Language"] = []string{accept}
		req.Header["Cookie"] = []string{"sumun_lang=" + cookie}
		got := r.Lang(req)
		if got != web.English && got != web.Korean {
			t.Fatalf("no page is written in %q", got)
		}
		if asked := req.URL.Query().Get("lang"); (asked == web.English || asked == web.Korean) && got != asked {
			t.Fatalf("asked for %s, got %s", asked, got)
		}
		if got := web.Locale(accept); got != web.English && got != web.Korean {
			t.Fatalf("no mail is written in %q", got)
		}
	})
}

// Without scripts the switch is a form; it must bring people back to where they were, and nowhere else.
func TestLanguageSwitch(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	setup(t).Mount(mux)
	for _, c := range []struct{ lang, back, wantCookie, wantLocation string }{
		{"ko", "/account/sessions?cursor=a%2Bb", "ko", "/account/sessions?cursor=a%2Bb"},
		{"en", "/sign-in?lang=ko&return_to=%2Faccount", "en", "/sign-in?return_to=%2Faccount"},
		{"ko", "https://evil.example/", "ko", "/"},
		{"ko", "//evil.example/", "ko", "/"},
		{"xx", "/account", "", "/account"},
	} {
		form := url.Values{"lang": {c.lang}, "return_to": {c.back}}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/language", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, req)
		if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != c.wantLocation {
			t.Errorf("%+v: status %d to %q", c, rec.Code, rec.Header().Get("Location"))
		}
		got := ""
		for _, cookie := range rec.Result().Cookies() {
			got = cookie.Value
			if !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode {
				t.Errorf("%+v: cookie %v", c, cookie)
			}
		}
		if got != c.wantCookie {
			t.Errorf("%+v: cookie %q", c, got)
		}
	}
}

// A mail's link may name the language; the forms that follow must stay in it.
func TestLanguageInAddressIsRemembered(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	if err := setup(t).Page(rec, request(t, "en", "/sign-up?lang=ko", false), http.StatusOK, web.SignUp{}); err != nil {
		t.Fatal(err)
	}
	if cookies := rec.Result().Cookies(); len(cookies) != 1 || cookies[0].Value != "ko" {
		t.Errorf("cookies %v", cookies)
	}
}

func TestSafeReturn(t *testing.T) {
	t.Parallel()
	for _, local := range []string{"/", "/account", "/a?b=c&d=%2F%2Fx", "/a#b", "/%ED%95%9C", "/a/../b"} {
		if got := web.SafeReturn(local); got != local {
			t.Errorf("%q became %q", local, got)
		}
	}
	for _, foreign := range []string{
		"", "account", "https://evil.example", "//", "//evil.example", "///evil.example", `/\evil.example`, `\\evil.example`, "/\t/evil.example",
		"/\n/evil.example", "/ /evil.example", "javascript:alert(1)", "/..//evil.example", "/./\\evil.example", "/%5c%5cevil.example",
		"/a//evil.example", "http:/evil.example", "/\x00", "/한", "/%", "/" + strings.Repeat("a", 8<<10),
	} {
		if got := web.SafeReturn(foreign); got != "/" {
			t.Errorf("%q became %q", foreign, got)
		}
	}
}

// Whoever clicks on a link to our sign-in page must not end up, signed in, on the page of a stranger.
func FuzzSafeReturn(f *testing.F) {
	for _, seed := range []string{"/account", "//", "//evil.example", `/\evil.example`, "/\t/evil", "https://evil.example", "/..//x", "/%2f/x", "/a?b#c"} {
		f.Add(seed)
	}
	base := &url.URL{Scheme: "https", Host: "id.example.com", Path: "/sign-in"}
	f.Fuzz(func(t *testing.T, target string) {
		got := web.SafeReturn(target)
		if got != "/" && got != target {
			t.Fatalf("%q became %q: neither kept nor refused", target, got)
		}
		// What browsers do before they parse: strip tabs and line breaks, trim, take backslashes for slashes.
		lenient := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.TrimSpace(got))
		for _, read := range []string{got, lenient} {
			u, err := base.Parse(read)
			if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || strings.HasPrefix(read, "//") {
				t.Fatalf("%q leads to %v (%v)", target, u, err)
			}
		}
		rec := httptest.NewRecorder()
		http.Redirect(rec, httptest.NewRequest(http.MethodPost, "/sign-in", nil), got, http.StatusSeeOther)
		if location := rec.Header().Get("Location"); !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") {
			t.Fatalf("%q redirects to %q", target, location)
		}
	})
}
