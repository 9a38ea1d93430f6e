package web

import (
	"net/url"
	"slices"
	"time"
)

// Consent is GET /oauth/authorize where the person must be asked, and POST /oauth/consent. Fields: request, decision (allow or deny).
type Consent struct {
	// Client is what the program calls itself, Host where it gets the answer.
	Client, Host string
	// Email is the address of the account that is signed in.
	Email string
	// Scopes are what the program asks for: each is told as the message "scope.<name>", or by its name.
	Scopes []string
	// Request is what was asked, to come back with the decision.
	Request string
	// Unvetted says that the program registered itself: nobody here knows whether it is what it says.
	Unvetted bool
	// Policy and Terms are addresses of the program's own, "" for none.
	Policy, Terms string
}

func (p Consent) meta() meta {
	return meta{Template: "consent", Private: true, here: "/oauth/authorize?" + p.Request}
}

// Continue goes on to another address by itself; its link is for where that does not work.
type Continue struct {
	To string
	// Frames are loaded first, unseen.
	Frames []string
}

func (p Continue) meta() meta {
	return meta{Template: "continue", Private: true, here: "/", frames: origins(p.Frames)}
}

// origins are those of addresses, each once.
func origins(addresses []string) (all []string) {
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && !slices.Contains(all, u.Scheme+"://"+u.Host) {
			all = append(all, u.Scheme+"://"+u.Host)
		}
	}
	return all
}

// FormPost takes an answer to another site as a form (OAuth 2.0 Form Post Response Mode). A script sends it; without one the person
// does.
type FormPost struct {
	Action string
	Fields url.Values
}

func (p FormPost) meta() meta {
	m := meta{Template: "form_post", Private: true, here: "/"}
	if u, err := url.Parse(p.Action); err == nil {
		m.formAction = u.Scheme + "://" + u.Host
	}
	return m
}

// SignOut asks whether to sign out, as a program wants, and POST /oauth/sign-out. Fields: request.
type SignOut struct {
	// Client is what the program calls itself, "" when it did not say.
	Client  string
	Request string
}

func (p SignOut) meta() meta {
	return meta{Template: "sign_out", Private: true, here: "/oauth/logout?" + p.Request}
}

// Apps is GET and POST /account/apps: the programs that the person has allowed something. Fields: client_id.
type Apps struct {
	Apps []App
	// Notice, if any: "app_withdrawn".
	Notice string
}

// App is a program that the person has allowed something.
type App struct {
	ID, Name string
	Scopes   []string
	Since    time.Time
}

func (Apps) meta() meta { return meta{Template: "apps", Private: true, Section: "apps", Wide: true} }

// Device is GET /oauth/device: where a person types the code that a device shows. Fields: user_code.
type Device struct {
	Form
	Code string
}

func (Device) meta() meta { return meta{Template: "device", Private: true, here: "/oauth/device"} }

// DeviceConsent is GET /oauth/device?user_code=, and POST /oauth/device. Fields: user_code, decision (allow or deny).
type DeviceConsent struct {
	Client, Code, Email string
	Scopes              []string
	Unvetted            bool // as of Consent
}

func (p DeviceConsent) meta() meta {
	return meta{Template: "device_consent", Private: true, here: "/oauth/device?" + url.Values{"user_code": {p.Code}}.Encode()}
}

// DeviceDone answers POST /oauth/device.
type DeviceDone struct {
	Client  string
	Allowed bool
}

func (DeviceDone) meta() meta {
	return meta{Template: "device_done", Private: true, here: "/oauth/device"}
}
