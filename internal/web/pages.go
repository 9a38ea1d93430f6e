package web

import (
	"net/url"
	"time"
)

// Page is a view struct of this package: everything one page shows. The interface is sealed, so a page without a template
// cannot exist.
type Page interface{ meta() meta }

// meta is what the layout has to know of a page.
type meta struct {
	// Template names the file under templates/pages, and the message "<Template>.title".
	Template string
	// Title is another message for the title.
	Title string
	// Private pages hold personal data or tokens: never stored by a browser or a proxy, never indexed.
	Private bool
	// Section is the entry of the account menu that is current; "" on pages without that menu.
	Section string
	// Wide pages are read rather than filled in.
	Wide bool
	// formAction is another origin that the page's form may lead to.
	formAction string
	// frames are other origins whose pages this one loads in frames.
	frames []string
	// here is the local address of a page that its request does not tell (a token that travelled in the form).
	here string
}

func (m meta) titleKey() string {
	if m.Title != "" {
		return m.Title
	}
	return m.Template + ".title"
}

// Home is GET /.
type Home struct {
	SignedIn bool
	// Name greets a person who is signed in.
	Name string
}

func (Home) meta() meta { return meta{Template: "home", Wide: true} }

// SignUp is GET and POST /sign-up. Fields: email.
type SignUp struct {
	Form
	Email string
}

func (SignUp) meta() meta { return meta{Template: "sign_up"} }

// SignUpSent answers POST /sign-up, the same whether the address has an account or not.
type SignUpSent struct {
	Email string
	// Lifetime is how long the mailed link works.
	Lifetime time.Duration
}

func (SignUpSent) meta() meta { return meta{Template: "sign_up_sent", Private: true} }

// Confirm is GET (?token=) and POST /sign-up/confirm. Fields: token, name, user_name (optional), new_password.
type Confirm struct {
	Form
	Token string
	// Email is the confirmed address; it is shown, not asked for.
	Email    string
	Name     string
	UserName string
	Rules    []Rule
}

func (Confirm) choosesPassword() {}

func (p Confirm) meta() meta {
	return meta{Template: "confirm", Private: true, here: withToken("/sign-up/confirm", p.Token)}
}

// SignIn is GET (?return_to=, another=) and POST /sign-in. Fields: identifier, password, return_to.
type SignIn struct {
	Form
	// Identifier is an address or a user name.
	Identifier string
	// ReturnTo is where to go afterwards; pass it through SafeReturn. "" means /account.
	ReturnTo string
	// Another says that who is signed in gets the form as well, to sign in as somebody else.
	Another bool
	// Notice, if any: "account_created", "password_reset", "address_changed", "session_ended".
	Notice string
}

func (p SignIn) meta() meta {
	query := url.Values{}
	if p.ReturnTo != "" {
		query.Set("return_to", p.ReturnTo)
	}
	if p.Another {
		query.Set("another", "1")
	}
	m := meta{Template: "sign_in", Private: true, here: "/sign-in"}
	if len(query) > 0 {
		m.here += "?" + query.Encode()
	}
	return m
}

// SignedOut answers POST /sign-out.
type SignedOut struct {
	// Frames are loaded unseen: the programs that were signed in to learn of it in this way.
	Frames []string
}

func (p SignedOut) meta() meta {
	return meta{Template: "signed_out", Private: len(p.Frames) > 0, here: "/", frames: origins(p.Frames)}
}

// Recover is GET and POST /recover. Fields: email.
type Recover struct {
	Form
	Email string
}

func (Recover) meta() meta { return meta{Template: "recover"} }

// RecoverSent answers POST /recover, the same whether the address has an account or not.
type RecoverSent struct {
	Email string
	// Lifetime is how long the mailed link works.
	Lifetime time.Duration
}

func (RecoverSent) meta() meta { return meta{Template: "recover_sent", Private: true} }

// Reset is GET (?token=) and POST /recover/reset. Fields: token, new_password.
type Reset struct {
	Form
	Token string
	// Email lets a password manager know whose password this is.
	Email string
	Rules []Rule
}

func (Reset) choosesPassword() {}

func (p Reset) meta() meta {
	return meta{Template: "reset", Private: true, here: withToken("/recover/reset", p.Token)}
}

// Setup is GET (?token=) and POST /setup: the first administrator. Fields: token, email, name, user_name (optional),
// new_password.
type Setup struct {
	Form
	Token    string
	Email    string
	Name     string
	UserName string
	Rules    []Rule
}

func (Setup) choosesPassword() {}

func (p Setup) meta() meta {
	return meta{Template: "setup", Private: true, here: withToken("/setup", p.Token)}
}

// AddressConfirm is GET (?token=) and POST /address/confirm: the button in front of the change, so that a mail scanner
// that opens links changes nothing. Fields: token. It takes a session of the account besides the link.
type AddressConfirm struct {
	Form
	Token string
	// Email is the new address.
	Email string
}

func (p AddressConfirm) meta() meta {
	return meta{Template: "address_confirm", Private: true, here: withToken("/address/confirm", p.Token)}
}

// Reauthenticate is GET (?return_to=) and POST /account/reauthenticate, in front of changes that need a recent sign-in. Fields:
// current_password, return_to.
type Reauthenticate struct {
	Form
	// Email is the address of the account that is signed in.
	Email string
	// NoPassword leaves the password away: the account has none.
	NoPassword bool
	// ReturnTo is the page that asked; pass it through SafeReturn.
	ReturnTo string
}

func (p Reauthenticate) meta() meta {
	m := meta{Template: "reauthenticate", Private: true, here: "/account/reauthenticate"}
	if p.ReturnTo != "" {
		m.here += "?" + url.Values{"return_to": {p.ReturnTo}}.Encode()
	}
	return m
}

// Deleted answers POST /account/delete.
type Deleted struct {
	// Frames are those of SignedOut.
	Frames []string
}

func (p Deleted) meta() meta {
	return meta{Template: "deleted", Private: len(p.Frames) > 0, here: "/", frames: origins(p.Frames)}
}

func withToken(path, token string) string {
	if token == "" {
		return path
	}
	return path + "?" + url.Values{"token": {token}}.Encode()
}
