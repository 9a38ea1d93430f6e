package mail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed page
var pageFiles embed.FS

var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"links":   splitLinks,
	"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"shown":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
}).ParseFS(pageFiles, "page/page.html"))

const (
	mailboxCookie = "sumun_mailbox"

	pageCSP = "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	// The HTML of a message lives in an origin of its own, without scripts, forms or anything from the network, also
	// when somebody opens it outside its frame. It is not put into srcdoc, because it would inherit a policy that
	// forbids its inline styles.
	messageCSP = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; " +
		"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

// mailboxPage shows the mailbox to whoever knows the token.
type mailboxPage struct {
	box   *Mailbox
	token [sha256.Size]byte
	open  bool // there is a token
}

// NewMailboxPage returns the pages of the development mailbox, for the paths /mailbox and /mailbox/... of the
// operators' listener. A first visit to /mailbox?token=TOKEN leaves a cookie; scripts send "Authorization: Bearer
// TOKEN" and read /mailbox/messages.json. With an empty token nobody gets in.
func NewMailboxPage(box *Mailbox, token string) http.Handler {
	p := &mailboxPage{box: box, token: sha256.Sum256([]byte(token)), open: token != ""}
	private := http.NewServeMux()
	private.HandleFunc("GET /mailbox", p.list)
	private.HandleFunc("GET /mailbox/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/mailbox", http.StatusSeeOther)
	})
	private.HandleFunc("GET /mailbox/messages.json", p.listJSON)
	private.HandleFunc("GET /mailbox/messages/{id}", p.message)
	private.HandleFunc("GET /mailbox/messages/{id}/html", p.messageHTML)
	private.HandleFunc("POST /mailbox/clear", p.clear)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /mailbox/style.css", p.style)
	mux.Handle("/", p.protect(http.NewCrossOriginProtection().Handler(private)))
	return mux
}

// protect lets in who knows the token, and sets the headers of every answer.
func (p *mailboxPage) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pageCSP)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if token := r.URL.Query().Get("token"); token != "" && r.Method == http.MethodGet && p.matches(token) {
			http.SetCookie(w, &http.Cookie{
				Name: mailboxCookie, Value: token, Path: "/mailbox", HttpOnly: true, SameSite: http.SameSiteStrictMode,
			})
			http.Redirect(w, r, "/mailbox", http.StatusSeeOther)
			return
		}
		if !p.allowed(r) {
			p.note(w, http.StatusForbidden, "The token is missing",
				"The mailbox opens with the whole link, token included, that Sumun printed when it started. Look for /mailbox?token= in its output.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *mailboxPage) allowed(r *http.Request) bool {
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return p.matches(token)
	}
	cookie, err := r.Cookie(mailboxCookie)
	return err == nil && p.matches(cookie.Value)
}

// matches compares digests, so that neither the length nor the content of the token shows in the time it takes.
func (p *mailboxPage) matches(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return p.open && subtle.ConstantTimeCompare(sum[:], p.token[:]) == 1
}

// pageData is what the templates are given.
type pageData struct {
	Title    string
	Note     string
	Live     bool
	Messages []Received
	Message  Received
}

func (p *mailboxPage) list(w http.ResponseWriter, r *http.Request) {
	messages, err := p.box.List(r.Context())
	if err != nil {
		p.failed(w, err)
		return
	}
	data := pageData{Title: "Mailbox", Messages: messages, Live: r.URL.Query().Has("live")}
	if data.Live {
		w.Header().Set("Refresh", "5")
	}
	p.render(w, http.StatusOK, "list", data)
}

func (p *mailboxPage) listJSON(w http.ResponseWriter, r *http.Request) {
	messages, err := p.box.List(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if messages == nil {
		messages = []Received{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(messages) // the only way to fail is that the reader has gone
}

func (p *mailboxPage) message(w http.ResponseWriter, r *http.Request) {
	if m, ok := p.get(w, r); ok {
		p.render(w, http.StatusOK, "message", pageData{Title: m.Subject, Message: m})
	}
}

func (p *mailboxPage) messageHTML(w http.ResponseWriter, r *http.Request) {
	m, ok := p.get(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Security-Policy", messageCSP)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(inNewTabs(m.HTML)))
}

func (p *mailboxPage) get(w http.ResponseWriter, r *http.Request) (m Received, ok bool) {
	m, err := p.box.Get(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, sqldb.ErrNotFound):
		p.note(w, http.StatusNotFound, "No such message", "It was cleared, or has given way to newer ones.")
	case err != nil:
		p.failed(w, err)
	}
	return m, err == nil
}

func (p *mailboxPage) clear(w http.ResponseWriter, r *http.Request) {
	if err := p.box.Clear(r.Context()); err != nil {
		p.failed(w, err)
		return
	}
	http.Redirect(w, r, "/mailbox", http.StatusSeeOther)
}

func (p *mailboxPage) style(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, pageFiles, "page/style.css")
}

// failed shows the error itself: the reader is the operator who has to mend it.
func (p *mailboxPage) failed(w http.ResponseWriter, err error) {
	if errors.Is(err, context.Canceled) {
		return // nobody is waiting for the answer
	}
	p.note(w, http.StatusServiceUnavailable, "The mailbox cannot be read", err.Error())
}

func (p *mailboxPage) note(w http.ResponseWriter, status int, title, note string) {
	p.render(w, status, "note", pageData{Title: title, Note: note})
}

func (p *mailboxPage) render(w http.ResponseWriter, status int, name string, data pageData) {
	var page bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, fmt.Sprintf("template %s: %v", name, err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
}

// segment is a piece of text; URL is set when it is a link.
type segment struct{ Text, URL string }

var aLink = regexp.MustCompile(`https?://[^\s<>"]+`)

// splitLinks finds the links in a text. Punctuation that ends a sentence belongs to the sentence.
func splitLinks(text string) []segment {
	var segments []segment
	for {
		at := aLink.FindStringIndex(text)
		if at == nil {
			break
		}
		link := strings.TrimRight(text[at[0]:at[1]], ".,;:!?)]}'")
		if at[0] > 0 {
			segments = append(segments, segment{Text: text[:at[0]]})
		}
		segments = append(segments, segment{Text: link, URL: link})
		text = text[at[0]+len(link):]
	}
	if text != "" {
		segments = append(segments, segment{Text: text})
	}
	return segments
}

var anyHead = regexp.MustCompile(`(?i)<head(\s[^>]*)?>`)

// inNewTabs makes the links of an HTML message open in tabs of their own, since the frame may go nowhere.
func inNewTabs(html string) string {
	const base = `<base target="_blank">`
	if at := anyHead.FindStringIndex(html); at != nil {
		return html[:at[1]] + base + html[at[1]:]
	}
	return base + html
}
