// Package federation owns signing in with somebody else's word for who a person is: Google, Kakao, Naver, Apple, GitHub, any other
// OpenID provider, and companies' identity providers that speak SAML 2.0.
//
// It promises that an answer is taken only in the browser that asked for it, from the provider that was asked, once and within ten
// minutes; that what a provider says is verified before it is believed; that an account of ours is opened only by an identity that
// its owner has connected, having proved both; and that nobody can disconnect the last way into an account.
//
// A mail address from a provider opens nothing. One that the provider has verified saves a new person the mail to confirm it; only
// where the configuration says so (link_verified_email) does it connect to the account whose confirmed address it is.
//
// It refuses to know how people are let in: limits, disabled accounts, letters and the trail are package identity's, which lets
// in whom this package has proved. Providers' tokens are used up while signing in and never kept.
package federation

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/mail"
)

// Faults that people meet. Their codes are permanent.
var (
	ErrProvider = fault.New(fault.NotFound, "federation.provider_unknown", "One cannot sign in that way here.")
	ErrState    = fault.New(fault.Malformed, "federation.state",
		"This sign-in was not begun in this browser, took longer than ten minutes, or was used already.")
	ErrDenied  = fault.New(fault.Forbidden, "federation.denied", "The sign-in was cancelled.")
	ErrExpired = fault.New(fault.Gone, "federation.expired",
		"This took too long: what the other service had sent has expired, or was used already.")
	ErrUnavailable = fault.New(fault.Unavailable, "federation.unavailable",
		"The other service does not answer right now. Please try again.").After(10 * time.Second)
	ErrRefused = fault.New(fault.BadGateway, "federation.refused",
		"The other service refuses to work with this one. The people who run it have been told.")
	ErrAnswer = fault.New(fault.BadGateway, "federation.answer",
		"The other service gave an answer that could not be verified.")
	ErrConnected = fault.New(fault.Conflict, "federation.connected_elsewhere",
		"This identity opens another account already.")
	ErrTwice = fault.New(fault.Conflict, "federation.connected_already",
		"Your account is connected to another identity of this provider. Disconnect that one first.")
	ErrNotConnected = fault.New(fault.Forbidden, "federation.not_connected",
		"This identity does not open your account.")
	ErrLastWay = fault.New(fault.Conflict, "federation.last_way",
		"This is the only way into your account. Set a password or connect another provider first.")
	ErrNoSignUp = fault.New(fault.Forbidden, "federation.sign_up_closed",
		"There is no account for this identity, and none is made in this way.")
	ErrTooMany = fault.New(fault.RateLimited, "federation.too_many_requests",
		"Too many sign-ins were begun from your network. Please wait a little.")
	ErrForm = fault.New(fault.Malformed, "federation.form", "The form could not be read. Load the page again.")
)

// Identity is a person as a provider knows them.
type Identity struct {
	Provider  string `json:"provider"`  // its name in the configuration
	Authority string `json:"authority"` // who gives the subjects out
	Subject   string `json:"subject"`
	Email     string `json:"email,omitempty"`
	// EmailVerified says that the provider vouches for the address being the person's own today.
	EmailVerified bool   `json:"verified,omitempty"`
	Name          string `json:"name,omitempty"` // a suggestion: anybody may call themselves anything
}

// Bounds of what providers may say, in bytes and in characters.
const (
	maxSubject = 255 // OpenID Connect Core, section 2
)

// checked is an identity whose members can be stored and shown. One without a subject is nobody.
func (i Identity) checked() (Identity, error) {
	if i.Subject == "" || len(i.Subject) > maxSubject || strings.ContainsFunc(i.Subject, unicode.IsControl) || !utf8.ValidString(i.Subject) {
		return Identity{}, ErrAnswer
	}
	if address, err := mail.ParseAddress(i.Email); err != nil {
		i.Email, i.EmailVerified = "", false
	} else {
		i.Email = address.Spec
	}
	i.Name = identity.CleanName(i.Name)
	return i, nil
}
