package web

import (
	"github.com/sumunio/sumun/internal/fault"
)

// errorPage is what Fault shows.
type errorPage struct {
	Fault     *fault.Fault
	RequestID string
	Remedies  []remedy
}

func (p errorPage) meta() meta {
	return meta{Template: "error", Title: "error_page.title", Private: true}
}

// remedy is a way on from an error: a link whose words are the message "remedy.<Key>".
type remedy struct{ Key, Path string }

// expiredLinks tells, for each page that is reached through a mailed link, where to ask for a new one.
var expiredLinks = map[string]remedy{
	"/sign-up/confirm": {"sign_up", "/sign-up"},
	"/recover/reset":   {"recover", "/recover"},
	"/address/confirm": {"change_address", "/account/address"},
}

// remedies returns the ways on from f, the best one first.
func remedies(path string, f *fault.Fault) []remedy {
	ways := []remedy{{"home", "/"}}
	if again, ok := expiredLinks[path]; ok && f.Status() < 500 && f.Kind() != fault.RateLimited {
		return append([]remedy{again}, ways...)
	}
	if f.Kind() == fault.Unauthenticated {
		return append([]remedy{{"sign_in", "/sign-in"}}, ways...)
	}
	return ways
}

// ErrorReference is GET /docs/errors: every code that a problem document can carry. A problem's type points to the entry.
type ErrorReference struct {
	Errors []ErrorEntry
}

// ErrorEntry is one failure that callers may meet.
type ErrorEntry struct {
	Code   string
	Status int
	// Message is the one declared with the fault, in English.
	Message string
}

func (ErrorReference) meta() meta { return meta{Template: "error_reference", Wide: true} }
