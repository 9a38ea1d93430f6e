package web

import (
	"net/url"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// Provider is somebody else with whose word people may sign in.
type Provider struct {
	Name  string // in addresses
	Label string // for people
}

// Path is where signing in with the provider begins.
func (p Provider) Path(returnTo string) string {
	q := url.Values{}
	if returnTo != "" && returnTo != "/" {
		q.Set("return_to", returnTo)
	}
	return withQuery("/federation/"+p.Name, q)
}

// ProofPath is where a person who is signed in proves again, with the provider, who they are.
func (p Provider) ProofPath(returnTo string) string {
	return withQuery("/federation/"+p.Name, url.Values{"for": {"proof"}, "return_to": {returnTo}})
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// ProviderFailed tells that signing in with a provider did not work, and how to go on.
type ProviderFailed struct {
	Fault *fault.Fault
	// Provider is its label.
	Provider string
	// Retry is where it can be tried again.
	Retry     string
	RequestID string
}

func (ProviderFailed) meta() meta {
	return meta{Template: "provider_failed", Private: true, here: "/sign-in"}
}

// Leaving is shown while the browser goes to a provider.
type Leaving struct {
	Provider string
	To       string
}

func (Leaving) meta() meta { return meta{Template: "leaving", Private: true, here: "/account"} }

// FinishSignUp is GET and POST /sign-up/finish: a person whom a provider has proved, and who has no account that it opens. Fields:
// name where the address is verified, else email.
type FinishSignUp struct {
	Form
	Provider string
	Email    string
	// Verified says that the provider vouches for the address: nobody has to be asked by mail.
	Verified bool
	// Exists says that the address has an account, which the person must enter first.
	Exists bool
	// Closed says that no account is made in this way.
	Closed bool
	Name   string
}

func (FinishSignUp) meta() meta {
	return meta{Template: "finish_sign_up", Private: true, here: "/sign-up/finish"}
}

// ConnectSignUp is GET (?token=) and POST /sign-up/connect, where the mail leads that FinishSignUp has caused. Fields: token, name.
type ConnectSignUp struct {
	Form
	Provider string
	Token    string
	Email    string
	Name     string
}

func (p ConnectSignUp) meta() meta {
	return meta{Template: "connect_sign_up", Title: "confirm.title", Private: true, here: withToken("/sign-up/connect", p.Token)}
}

// Connections is GET /account/connections. POST has the fields action, "connect" or "disconnect", and provider.
type Connections struct {
	Form
	Connections []Connection
	// Notice, if any: "connected", "disconnected".
	Notice string
}

// Connection is a provider that opens the account, or could.
type Connection struct {
	Name, Label string
	Connected   bool
	// Known is false for a provider that is not offered any more.
	Known bool
	// As is what the provider calls the person.
	As         string
	Since      time.Time
	LastUsedAt time.Time
}

func (Connections) meta() meta {
	return meta{Template: "connections", Private: true, Section: "connections", Wide: true}
}

// ConfirmConnection is GET and POST /account/connections/confirm: an identity that was proved before its owner signed in.
type ConfirmConnection struct {
	Form
	Provider, As string
	// Email is the address of the account.
	Email string
}

func (ConfirmConnection) meta() meta {
	return meta{Template: "confirm_connection", Private: true, Section: "connections"}
}
