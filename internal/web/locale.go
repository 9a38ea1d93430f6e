package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	texttemplate "text/template"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// locale is everything in one language: the catalogue and the templates bound to it.
type locale struct {
	lang     string
	messages map[string]string
	pages    map[string]func() (*template.Template, error) // by page name; parsed when first shown, and kept
	mailHTML *template.Template
	mailText *texttemplate.Template
}

func newLocale(lang, service string, providers []Provider, public *assets) (*locale, error) {
	messages, err := loadMessages(lang)
	if err != nil {
		return nil, err
	}
	l := &locale{lang: lang, messages: messages, pages: map[string]func() (*template.Template, error){}}
	funcs := template.FuncMap{
		"t":           l.text,
		"asset":       public.url,
		"service":     func() string { return service },
		"when":        l.when,
		"date":        l.date,
		"instant":     instant,
		"field":       l.field,
		"errors":      l.formErrors,
		"rule":        l.rule,
		"action":      l.action,
		"fault":       l.fault,
		"language":    languageName,
		"device":      l.device,
		"scope":       l.scope,
		"destination": destination,
		"status":      l.status,
		"providers":   func() []Provider { return providers },
	}
	base, err := template.New("").Funcs(funcs).ParseFS(content, "templates/*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(content, "templates/pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name := strings.TrimSuffix(path.Base(file), ".html")
		l.pages[name] = sync.OnceValues(func() (*template.Template, error) { return parsePage(base, name) })
	}
	if l.mailHTML, err = template.New("mail.html").Funcs(funcs).ParseFS(content, "templates/mail/mail.html"); err != nil {
		return nil, err
	}
	l.mailText, err = texttemplate.New("mail.txt").Funcs(texttemplate.FuncMap(funcs)).ParseFS(content, "templates/mail/mail.txt")
	return l, err
}

func loadMessages(lang string) (map[string]string, error) {
	raw, err := content.ReadFile("messages/" + lang + ".json")
	if err != nil {
		return nil, err
	}
	var messages map[string]string
	if err := json.Unmarshal(raw, &messages); err != nil {
		return nil, fmt.Errorf("messages/%s.json: %w", lang, err)
	}
	return messages, nil
}

// Text returns a message of the catalogue with its placeholders filled in. The arguments are pairs of a placeholder's name
// and its value: Text("en", "error.password.too_short", "min", 8). Durations and times are written out in the language. A
// key that no catalogue has comes back as it is, so that the lapse is visible without being fatal.
func (r *Renderer) Text(lang, key string, args ...any) string {
	l, ok := r.locales[lang]
	if !ok {
		l = r.locales[languages[0]]
	}
	return l.must(key, args...)
}

// HasText reports whether every language has a message under this key. A domain's test uses it to show that each of its
// faults can be told to a person: HasText("error." + fault.Code()).
func (r *Renderer) HasText(key string) bool {
	for _, l := range r.locales {
		if _, ok := l.messages[key]; !ok {
			return false
		}
	}
	return true
}

var errNoMessage = errors.New("no such message")

// text is Text for templates: a missing key is an error.
func (l *locale) text(key string, args ...any) (string, error) {
	message, ok := l.messages[key]
	if !ok {
		return "", fmt.Errorf("%w: %s %q", errNoMessage, l.lang, key)
	}
	if len(args) == 0 {
		return message, nil
	}
	if len(args)%2 != 0 {
		return "", fmt.Errorf("message %q: arguments are not pairs", key)
	}
	pairs := make([]string, 0, len(args))
	for i := 0; i < len(args); i += 2 {
		pairs = append(pairs, fmt.Sprintf("{%v}", args[i]), l.value(args[i+1]))
	}
	return strings.NewReplacer(pairs...).Replace(message), nil
}

// must is text where a missing message may show its key.
func (l *locale) must(key string, args ...any) string {
	text, err := l.text(key, args...)
	if err != nil {
		return key
	}
	return text
}

func (l *locale) value(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return l.duration(v)
	case time.Time:
		return l.when(v)
	default:
		return fmt.Sprint(v)
	}
}

// when writes a time in words, in UTC; scripts replace it by the visitor's own zone.
func (l *locale) when(t time.Time) string {
	if l.lang == Korean {
		return t.UTC().Format("2006년 1월 2일 15:04") + " (UTC)"
	}
	return t.UTC().Format("2 January 2006, 15:04 UTC")
}

// date writes the day of a time in words, in UTC.
func (l *locale) date(t time.Time) string {
	if l.lang == Korean {
		return t.UTC().Format("2006년 1월 2일")
	}
	return t.UTC().Format("2 January 2006")
}

// instant writes a time for the datetime attribute of HTML.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// units are what durations are told in, largest first.
var units = []struct {
	key  string
	size time.Duration
}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}

// duration writes a length of time in the largest unit that leaves no remainder, rounded up to whole minutes when it is
// longer than two of them: nobody waits "187 seconds".
func (l *locale) duration(d time.Duration) string {
	step := time.Second
	if d > 2*time.Minute {
		step = time.Minute
	}
	d = max(step, (d + step - 1).Truncate(step))
	for _, u := range units {
		if d%u.size == 0 && (u.size != 24*time.Hour || d >= 48*time.Hour) {
			n := int64(d / u.size)
			form := ".many"
			if n == 1 {
				form = ".one"
			}
			return l.must("duration."+u.key+form, "n", strconv.FormatInt(n, 10))
		}
	}
	return d.String()
}

// languageName names a language in itself.
func languageName(lang string) string {
	if lang == Korean {
		return "한국어"
	}
	return "English"
}

// fault tells a person what went wrong: from the catalogue when it knows the code, else, in English, with the message of the
// fault itself, else by its status.
func (l *locale) fault(f *fault.Fault) string {
	if text, err := l.text("error." + f.Code()); err == nil {
		return text
	}
	if l.lang == English {
		return f.Message()
	}
	return l.status(f.Status(), "text")
}

// status returns a text about an HTTP status, or about its class when there is none for the status itself.
func (l *locale) status(status int, part string) string {
	if text, err := l.text(fmt.Sprintf("status.%d.%s", status, part)); err == nil {
		return text
	}
	if status >= 500 {
		return l.must("status.500." + part)
	}
	return l.must("status.400." + part)
}

// action tells what an entry of the audit trail is about.
func (l *locale) action(action string) string {
	if text, err := l.text("action." + action); err == nil {
		return text
	}
	return l.must("action.other", "action", action)
}

// scope tells what a scope lets a program do; one that only services know is told by its name.
func (l *locale) scope(name string) string {
	if text, err := l.text("scope." + name); err == nil {
		return text
	}
	return name
}

// destination is an address that a person is sent to: a path of ours, a web page, or a program that has registered for a scheme with
// dots in it, such as com.example.app. What a browser would run instead leads nowhere.
func destination(to string) template.URL {
	u, err := url.Parse(to)
	switch {
	case err != nil:
		return "/"
	case u.Scheme == "" && u.Host == "":
		return template.URL(SafeReturn(to))
	case u.Scheme == "https" || u.Scheme == "http" || strings.Contains(u.Scheme, "."):
		return template.URL(to)
	default:
		return "/"
	}
}

// device tells a device label, which sessions keep in English ("Chrome on Windows"), in this language.
func (l *locale) device(label string) string {
	switch browser, system, found := strings.Cut(label, " on "); {
	case label == "" || strings.HasPrefix(label, "Unknown "):
		return l.must("device.unknown")
	case !found:
		return label
	case browser == "Browser":
		return l.must("device.system", "system", system)
	default:
		return l.must("device.label", "browser", browser, "system", system)
	}
}
