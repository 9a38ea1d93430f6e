package web_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/web"
)

func mailData() web.MailData {
	return web.MailData{
		Issuer: "https://id.example.com", Name: "김하늘", Link: "https://id.example.com/sign-up/confirm?token=a-b_c",
		RecoverLink: "https://id.example.com/recover", Device: "Chrome on Windows", Address: "203.0.113.7", Time: at, Until: at.Add(time.Hour),
	}
}

// Every mail must say who sent it, what to do, and what to do if it was not you, in text as well as in HTML.
func TestEveryMail(t *testing.T) {
	t.Parallel()
	r := setup(t)
	expires := []string{"sign_up", "recovery", "address_change"}
	details := []string{"new_device", "password_changed", "locked", "session_theft"}
	kinds := web.MailKinds()
	slices.Sort(kinds)
	for _, lang := range []string{"en", "ko", "ko-KR"} {
		for _, kind := range kinds {
			subject, text, html, err := r.Mail(lang, kind, mailData())
			if err != nil {
				t.Errorf("%s %s: %v", lang, kind, err)
				continue
			}
			if lang != "ko-KR" {
				preview(t, "mail/"+lang+"-"+kind+".html", []byte(html))
				preview(t, "mail/"+lang+"-"+kind+".txt", []byte(subject+"\n\n"+text))
			}
			wants := []string{"Sumun", "https://id.example.com", "김하늘"}
			if slices.Contains(expires, kind) {
				wants = append(wants, "https://id.example.com/sign-up/confirm?token=a-b_c", "06:30")
			}
			if slices.Contains(details, kind) {
				wants = append(wants, "203.0.113.7", "05:30")
			}
			for _, want := range wants {
				if !strings.Contains(text, want) || !strings.Contains(html, want) {
					t.Errorf("%s %s lacks %s", lang, kind, want)
				}
			}
			if strings.ContainsAny(subject, "\r\n") || strings.Contains(subject, "mail.") || placeholder.MatchString(subject+text) ||
				strings.Contains(text, "mail."+kind) || strings.Contains(text, "<no value>") {
				t.Errorf("%s %s: %s\n%s", lang, kind, subject, text)
			}
			if lang != "en" && !regexp.MustCompile(`\p{Hangul}`).MatchString(subject) {
				t.Errorf("%s %s has the subject %q", lang, kind, subject)
			}
		}
	}
}

// What a stranger typed as a name must not become a line, a header or markup of a mail that we sign with our name.
func TestMailWithHostileName(t *testing.T) {
	t.Parallel()
	data := mailData()
	data.Name = "Kim\r\nBcc: all@example.com\n\nYou won! <a href=\"https://evil.example\">Click</a>"
	data.Device = "x\nhttps://evil.example"
	subject, text, html, err := setup(t).Mail("en", "new_device", data)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "\nBcc") || strings.Contains(text, "\nYou won") || strings.Contains(text, "\nhttps://evil") ||
		strings.Contains(html, `<a href="https://evil`) || strings.Contains(subject, "Kim") {
		t.Errorf("%s\n%s\n%s", subject, text, html)
	}
}

func TestMailOfUnknownKind(t *testing.T) {
	t.Parallel()
	if _, _, _, err := setup(t).Mail("en", "advertising", mailData()); err == nil {
		t.Error("a mail without texts was made")
	}
}
