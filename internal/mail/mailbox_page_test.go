package mail_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

const pageToken = "0123456789abcdef"

func newPage(t *testing.T, db *sqldb.DB, token string) http.Handler {
	t.Helper()
	box := mail.NewMailbox(db, clocktest.Noon().Now)
	for id, m := range map[string]mail.Message{
		"m1": {
			To: "kim@example.com", Subject: `<script>alert("subject")</script>`,
			Text: "Follow https://sumun.example/c?t=1&u=2.\n<script>alert('text')</script> javascript:alert(1)",
			HTML: `<!DOCTYPE html><html><head><title>x</title></head><body><script>alert(1)</script><a href="https://sumun.example/">go</a></body></html>`,
		},
		"m2": {To: "lee@example.com", Subject: "확인", Text: "text only"},
	} {
		if err := box.Send(t.Context(), id, m); err != nil {
			t.Fatal(err)
		}
	}
	return mail.NewMailboxPage(box, token)
}

// ask sends a request with headers given as name, value, name, value...
func ask(t *testing.T, h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9090"+target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func eachPage(t *testing.T, fn func(t *testing.T, page http.Handler)) {
	t.Helper()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) { fn(t, newPage(t, db, pageToken)) })
}

const withCookie = "sumun_mailbox=" + pageToken

// Any program or page on the machine could read the mail, and take over every account with it.
func TestMailboxPageNeedsTheToken(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		for _, target := range []string{"/mailbox", "/mailbox/messages.json", "/mailbox/messages/m1", "/mailbox/messages/m1/html",
			"/mailbox?token=wrong", "/mailbox?token=", "/mailbox/nothing"} {
			for _, headers := range [][]string{nil, {"Cookie", "sumun_mailbox=wrong"}, {"Cookie", "sumun_mailbox="},
				{"Authorization", "Bearer wrong"}, {"Authorization", "Bearer "}, {"Authorization", "Basic " + pageToken},
				{"Cookie", withCookie, "Authorization", "Bearer wrong"}} {
				w := ask(t, page, "GET", target, headers...)
				if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "kim@") || !strings.Contains(w.Body.String(), "/mailbox?token=") {
					t.Errorf("GET %s with %q: %d\n%s", target, headers, w.Code, w.Body)
				}
			}
		}
		if w := ask(t, page, "POST", "/mailbox/clear"); w.Code != http.StatusForbidden {
			t.Errorf("clear without token: %d", w.Code)
		}
	})
}

func TestMailboxPageWithoutATokenIsClosed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		page := newPage(t, db, "")
		for _, headers := range [][]string{nil, {"Cookie", "sumun_mailbox="}, {"Authorization", "Bearer "}} {
			if w := ask(t, page, "GET", "/mailbox?token=", headers...); w.Code != http.StatusForbidden {
				t.Errorf("with %q: %d", headers, w.Code)
			}
		}
	})
}

// The token would stay in the history and in bookmarks, or a script could read it.
func TestMailboxPageTradesTheTokenForACookie(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		w := ask(t, page, "GET", "/mailbox?token="+pageToken)
		cookies := w.Result().Cookies()
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/mailbox" || len(cookies) != 1 {
			t.Fatalf("%d, %v", w.Code, w.Header())
		}
		c := cookies[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/mailbox" {
			t.Errorf("cookie: %v", c)
		}
		w = ask(t, page, "GET", "/mailbox", "Cookie", c.Name+"="+c.Value)
		if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, "kim@example.com") || !strings.Contains(body, "확인") {
			t.Errorf("%d\n%s", w.Code, body)
		}
	})
}

// Mail is written by strangers, too: its text must not run on the operators' page.
func TestMailboxPageRunsNothing(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		for _, target := range []string{"/mailbox", "/mailbox/messages/m1"} {
			w := ask(t, page, "GET", target, "Cookie", withCookie)
			h, body := w.Header(), w.Body.String()
			if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", target, csp)
			}
			if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%s: headers %v", target, h)
			}
			if w.Code != http.StatusOK || strings.Contains(body, "<script") || strings.Contains(body, " style=") {
				t.Errorf("%s: %d\n%s", target, w.Code, body)
			}
		}
		w := ask(t, page, "GET", "/mailbox/messages/m1/html", "Cookie", withCookie)
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none';") || strings.Contains(csp, "script") {
			t.Errorf("policy of the message: %q", csp)
		}
	})
}

// The link in the mail, which is what the mailbox is for, could not be followed.
func TestMailboxPageShowsAMessage(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		body := ask(t, page, "GET", "/mailbox/messages/m1", "Cookie", withCookie).Body.String()
		link := `<a href="https://sumun.example/c?t=1&amp;u=2" target="_blank" rel="noopener noreferrer">https://sumun.example/c?t=1&amp;u=2</a>.`
		if !strings.Contains(body, link) || strings.Contains(body, `href="javascript`) {
			t.Errorf("no %s in\n%s", link, body)
		}
		if !strings.Contains(body, `src="/mailbox/messages/m1/html" sandbox="allow-popups allow-popups-to-escape-sandbox"`) {
			t.Errorf("no sandboxed frame in\n%s", body)
		}
		html := ask(t, page, "GET", "/mailbox/messages/m1/html", "Cookie", withCookie).Body.String()
		if !strings.HasPrefix(html, `<!DOCTYPE html><html><head><base target="_blank">`) {
			t.Errorf("links stay inside the frame:\n%s", html)
		}
		if body := ask(t, page, "GET", "/mailbox/messages/m2", "Cookie", withCookie).Body.String(); strings.Contains(body, "<iframe") {
			t.Errorf("an empty frame:\n%s", body)
		}
		if w := ask(t, page, "GET", "/mailbox/messages/m3", "Cookie", withCookie); w.Code != http.StatusNotFound {
			t.Errorf("unknown message: %d", w.Code)
		}
	})
}

// Scripts and tests that read the mail would break.
func TestMailboxJSON(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		read := func() []map[string]any {
			w := ask(t, page, "GET", "/mailbox/messages.json", "Authorization", "Bearer "+pageToken)
			var list []map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK || list == nil {
				t.Fatalf("%d, %v\n%s", w.Code, err, w.Body)
			}
			return list
		}
		list := read()
		if len(list) != 2 {
			t.Fatalf("%d messages", len(list))
		}
		for _, key := range []string{"id", "to", "subject", "text", "html", "received_at"} {
			if _, ok := list[0][key].(string); !ok {
				t.Errorf("no %s in %v", key, list[0])
			}
		}
		if list[0]["received_at"] != "2026-03-01T12:00:00Z" {
			t.Errorf("received_at: %v", list[0]["received_at"])
		}
		if w := ask(t, page, "POST", "/mailbox/clear", "Authorization", "Bearer "+pageToken); w.Code != http.StatusSeeOther {
			t.Fatalf("clear: %d", w.Code)
		}
		if list := read(); len(list) != 0 {
			t.Errorf("%d messages after clear", len(list))
		}
	})
}

// A page on another site could empty the mailbox of whoever visits it.
func TestMailboxClearRefusesOtherOrigins(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://127.0.0.1:8080"}} {
			w := ask(t, page, "POST", "/mailbox/clear", append(headers, "Cookie", withCookie)...)
			if w.Code != http.StatusForbidden {
				t.Errorf("with %q: %d", headers, w.Code)
			}
		}
		w := ask(t, page, "POST", "/mailbox/clear", "Sec-Fetch-Site", "same-origin", "Cookie", withCookie)
		if w.Code != http.StatusSeeOther {
			t.Errorf("own page: %d", w.Code)
		}
		if w := ask(t, page, "GET", "/mailbox/clear", "Cookie", withCookie); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", w.Code)
		}
	})
}

// The page would move under the hands of who reads it, unasked.
func TestMailboxRefreshesOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	eachPage(t, func(t *testing.T, page http.Handler) {
		for target, want := range map[string]string{"/mailbox": "", "/mailbox?live=1": "5"} {
			if got := ask(t, page, "GET", target, "Cookie", withCookie).Header().Get("Refresh"); got != want {
				t.Errorf("%s: Refresh %q, want %q", target, got, want)
			}
		}
	})
}

func TestMailboxStyleNeedsNoToken(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		w := ask(t, newPage(t, db, pageToken), "GET", "/mailbox/style.css")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/css") {
			t.Errorf("%d, %v", w.Code, w.Header())
		}
	})
}

func FuzzLinks(f *testing.F) {
	f.Add("see https://a.example/x?y=1. (http://b.example)")
	f.Add("https://https://")
	f.Add("http://)")
	f.Fuzz(func(t *testing.T, text string) {
		texts, urls := mail.Links(text)
		if strings.Join(texts, "") != text {
			t.Fatalf("%q became %q", text, texts)
		}
		for i, url := range urls {
			if url != "" && (url != texts[i] || !strings.HasPrefix(url, "http") || strings.ContainsAny(url, " <>\"\n")) {
				t.Fatalf("%q: link %q", text, url)
			}
		}
	})
}
