package web

import (
	"slices"
	"time"
)

// Account is GET /account.
type Account struct {
	Name string
	// UserName is "" when none was chosen.
	UserName string
	Email    string
	// PendingEmail is a new address that waits for its confirmation, "" when there is none.
	PendingEmail string
	Locale       string
	// Phone is a telephone number in E.164, "" for none.
	Phone     string
	Address   Address
	CreatedAt time.Time
	// PasswordChangedAt is zero when it is not known.
	PasswordChangedAt time.Time
	// NoPassword says that the account is entered in another way only.
	NoPassword bool
	// Directory keeps the password, "" for none.
	Directory string
	// Sessions is how many sessions are active; 0 leaves the number out.
	Sessions int
	// Notice, if any, tells what was just done: "profile_saved", "password_changed", "address_changed".
	Notice string
}

func (Account) meta() meta {
	return meta{Template: "account", Private: true, Section: "account", Wide: true}
}

// Address is a postal address; every part is optional.
type Address struct{ Street, Locality, Region, PostalCode, Country string }

// Lines are the parts that there are, from the street to the country.
func (a Address) Lines() []string {
	return slices.DeleteFunc([]string{a.Street, a.Locality, a.Region, a.PostalCode, a.Country}, func(s string) bool { return s == "" })
}

// EditProfile is GET and POST /account/profile. Fields: version, name, user_name (optional), locale, and all optional: phone_number,
// street_address, locality, region, postal_code, country.
type EditProfile struct {
	Form
	// Version is what was read; a change based on an older one is refused by the domain.
	Version  string
	Name     string
	UserName string
	Locale   string
	Phone    string
	Address  Address
}

func (EditProfile) meta() meta {
	return meta{Template: "edit_profile", Private: true, Section: "account"}
}

// Languages lists what can be chosen.
func (EditProfile) Languages() []string { return languages }

// PasswordElsewhere tells that a directory keeps the password: on GET /account/password, and as the answer to POST /sign-up and
// POST /recover, by the address alone.
type PasswordElsewhere struct {
	// Keeper is what people call the directory.
	Keeper string
	// Address is where the password is changed, "" where nobody has said.
	Address string
	// Back is a page of ours.
	Back string
}

func (PasswordElsewhere) meta() meta { return meta{Template: "password_elsewhere", Private: true} }

// ChangePassword is GET and POST /account/password. Fields: current_password (when asked for), new_password.
type ChangePassword struct {
	Form
	// Email lets a password manager know whose password this is.
	Email string
	// AskCurrent asks for the current password as well; leave it off right after Reauthenticate.
	AskCurrent bool
	Rules      []Rule
}

func (ChangePassword) choosesPassword() {}

func (ChangePassword) meta() meta {
	return meta{Template: "change_password", Private: true, Section: "account"}
}

// ChangeAddress is GET and POST /account/address. Fields: email.
type ChangeAddress struct {
	Form
	// Current is the address in use.
	Current string
	// Email is the new one, as typed.
	Email string
}

func (ChangeAddress) meta() meta {
	return meta{Template: "change_address", Private: true, Section: "account"}
}

// ChangeAddressSent answers POST /account/address.
type ChangeAddressSent struct {
	Current string
	Email   string
	// Lifetime is how long the mailed link works.
	Lifetime time.Duration
}

func (ChangeAddressSent) meta() meta {
	return meta{Template: "change_address_sent", Private: true, Section: "account"}
}

// Sessions is GET /account/sessions (?cursor=). POST /account/sessions/end has the field session_id, POST
// /account/sessions/end-others none.
type Sessions struct {
	Sessions []Session
	// Next is the cursor of the next page, "" on the last.
	Next string
	// Notice, if any: "session_ended", "other_sessions_ended".
	Notice string
}

// Session is one place where the person is signed in.
type Session struct {
	ID string
	// Device is the label of browser and system, "" when unknown.
	Device     string
	Address    string
	CreatedAt  time.Time
	LastUsedAt time.Time
	// Current is the session that asks.
	Current bool
}

func (Sessions) meta() meta {
	return meta{Template: "sessions", Private: true, Section: "sessions", Wide: true}
}

// HasOthers reports whether there is anything to end besides the session that asks.
func (p Sessions) HasOthers() bool {
	for _, s := range p.Sessions {
		if !s.Current {
			return true
		}
	}
	return p.Next != ""
}

// Activity is GET /account/activity (?cursor=).
type Activity struct {
	Events []Event
	// Next is the cursor of the next page, "" on the last.
	Next string
}

// Event is one entry of the audit trail.
type Event struct {
	At time.Time
	// Action is told in words by the message "action.<Action>".
	Action string
	// ByOperator marks what an operator did, not the person.
	ByOperator bool
	// Device and Address are "" when unknown.
	Device  string
	Address string
}

func (Activity) meta() meta {
	return meta{Template: "activity", Private: true, Section: "activity", Wide: true}
}

// Delete is GET and POST /account/delete. Fields: confirm ("yes").
type Delete struct {
	Form
	// Email is the address of the account that goes.
	Email string
}

func (Delete) meta() meta { return meta{Template: "delete", Private: true, Section: "account"} }
