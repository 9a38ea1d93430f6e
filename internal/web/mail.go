package web

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// MailData is what mails are made of. Which fields a kind uses is told by mailKinds; the others are ignored.
type MailData struct {
	// Issuer is the public address of the service, as people know it from their browser.
	Issuer string
	// Name greets the person; "" leaves the greeting general.
	Name string
	// Link is where the mail leads: a one-time link, or the page where something can be done about what happened.
	Link string
	// RecoverLink is the page where a new password can be asked for.
	RecoverLink string
	// Device and Address are from where something was done; "" when unknown.
	Device  string
	Address string
	// Email is the new address, where a mail is about one.
	Email string
	// Way is what a way into the account is called, where a mail is about one: "Google".
	Way string
	// Time is when it was done.
	Time time.Time
	// Until is when a lock ends, or a link.
	Until time.Time
	// Lifetime is how long the link works; it is told instead of Until when it is set.
	Lifetime time.Duration
}

// mailKind says what a mail is made of. Its texts are the messages "mail.<kind>.subject", ".intro", ".action" (the words on
// the button, when there is a link) and ".not_you".
type mailKind struct {
	link    func(MailData) string // what the button leads to; nil for none
	recover bool                  // offers the recovery page to those it was not
	details bool                  // says when, from which device and address
	expires bool                  // says how long the link works
	until   bool                  // says until when the account is locked
}

func toLink(d MailData) string    { return d.Link }
func toRecover(d MailData) string { return d.RecoverLink }

// mailKinds lists every mail there is.
var mailKinds = map[string]mailKind{
	"sign_up":                  {link: toLink, expires: true},
	"sign_up_existing":         {link: toLink, recover: true},
	"recovery":                 {link: toLink, expires: true},
	"recovery_done":            {details: true, recover: true},
	"password_changed":         {details: true, recover: true},
	"address_change":           {link: toLink, expires: true},
	"address_change_requested": {details: true, link: toLink, recover: true},
	"address_change_taken":     {},
	"address_changed":          {details: true},
	"new_device":               {details: true, link: toLink, recover: true},
	"locked":                   {details: true, until: true, link: toRecover},
	"way_added":                {details: true, link: toLink, recover: true},
	"way_removed":              {details: true, link: toLink, recover: true},
	"session_theft":            {details: true, link: toLink, recover: true},
	"account_deleted":          {details: true},
}

// MailKinds returns every kind that Mail knows, in no order.
func MailKinds() []string {
	kinds := make([]string, 0, len(mailKinds))
	for kind := range mailKinds {
		kinds = append(kinds, kind)
	}
	return kinds
}

// letter is what the mail templates are executed with: finished sentences, so that text and HTML say the same.
type letter struct {
	Lang, Subject, Greeting, Intro, Until string
	Details                               []detail
	Action, Link                          string
	Expires                               string
	NotYou                                string
	Recover, RecoverLink                  string
	Why, Service, Issuer                  string
}

type detail struct{ Label, Value string }

// Mail returns a mail in a language (any BCP 47 tag; English when we do not have it). The subject is one line.
func (r *Renderer) Mail(lang, kind string, data MailData) (subject, text, html string, err error) {
	spec, ok := mailKinds[kind]
	if !ok {
		return "", "", "", fmt.Errorf("no mail of kind %q", kind)
	}
	l := r.locales[Locale(lang)]
	m := l.letter(kind, spec, data, r.cfg.Service)
	var plain, rich bytes.Buffer
	if err := l.mailText.ExecuteTemplate(&plain, "mail.txt", m); err != nil {
		return "", "", "", fmt.Errorf("mail %s: %w", kind, err)
	}
	if err := l.mailHTML.ExecuteTemplate(&rich, "mail.html", m); err != nil {
		return "", "", "", fmt.Errorf("mail %s: %w", kind, err)
	}
	return m.Subject, plain.String(), rich.String(), nil
}

func (l *locale) letter(kind string, spec mailKind, d MailData, service string) letter {
	say := func(part string) string {
		return l.must("mail."+kind+"."+part, "service", service, "email", d.Email, "way", d.Way)
	}
	m := letter{
		Lang: l.lang, Service: service, Issuer: d.Issuer,
		Subject: oneLine(say("subject")), Greeting: l.must("mail.greeting_nameless"), Intro: say("intro"), NotYou: say("not_you"),
		Why: l.must("mail.why", "service", service, "issuer", d.Issuer),
	}
	if d.Name != "" {
		m.Greeting = l.must("mail.greeting", "name", oneLine(d.Name))
	}
	if spec.link != nil && spec.link(d) != "" {
		m.Action, m.Link = say("action"), spec.link(d)
	}
	if spec.expires {
		m.Expires = l.expires(d)
	}
	if spec.until && !d.Until.IsZero() {
		m.Until = l.must("mail.until", "until", d.Until)
	}
	if spec.recover && d.RecoverLink != "" {
		m.Recover, m.RecoverLink = l.must("mail.recover"), d.RecoverLink
	}
	if spec.details {
		m.Details = l.details(d)
	}
	return m
}

// expires says how long a link works.
func (l *locale) expires(d MailData) string {
	switch {
	case d.Lifetime > 0:
		return l.must("mail.lifetime", "lifetime", d.Lifetime)
	case !d.Until.IsZero():
		return l.must("mail.link_until", "until", d.Until)
	default:
		return l.must("mail.link_once")
	}
}

func (l *locale) details(d MailData) []detail {
	var all []detail
	if !d.Time.IsZero() {
		all = append(all, detail{l.must("mail.time"), l.when(d.Time)})
	}
	if d.Device != "" {
		all = append(all, detail{l.must("mail.device"), l.device(oneLine(d.Device))})
	}
	if d.Address != "" {
		all = append(all, detail{l.must("mail.address"), oneLine(d.Address)})
	}
	return all
}

// oneLine keeps what people typed from forging headers or paragraphs.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
