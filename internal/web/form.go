package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
)

// Form is what went wrong when a form was sent, for the page that shows it again. The zero value is a form not yet sent.
// Every message is looked up in the catalogue as "error.<code>".
type Form struct {
	// Fault refused the form as a whole ("identity.wrong_credentials"), or lists fields. Fields of a fault whose Name is a
	// field of the page are told beside it.
	Fault *fault.Fault
	// Errors adds what is wrong with single fields, with arguments for the messages.
	Errors []FieldError
}

// FieldError says what is wrong with one field.
type FieldError struct {
	// Field is the name of the form field: "new_password".
	Field string
	// Code is permanent: "password.too_short".
	Code string
	// Args are pairs of a placeholder's name and its value, as for Text.
	Args []any
	// Message is shown when the catalogue does not know the code.
	Message string
}

func (f Form) failed() bool { return f.Fault != nil || len(f.Errors) > 0 }

// all returns the errors of single fields from both sources.
func (f Form) all() []FieldError {
	errs := f.Errors
	if f.Fault != nil {
		for _, field := range f.Fault.Fields() {
			errs = append(errs[:len(errs):len(errs)], FieldError{Field: field.Name, Code: field.Code, Message: field.Message})
		}
	}
	return errs
}

// Rule is a rule for passwords that is shown before one is chosen: the message "rule.<Code>". A script marks it as kept or
// broken while the person types, by the codes of a PasswordCheck.
type Rule struct {
	// Code is permanent: "password.too_short".
	Code string
	// Args are pairs of a placeholder's name and its value, as for Text: "min", 8.
	Args []any
}

// PasswordCheck answers a script that asks what a password would be told before the form is sent, as JSON in the language of
// the request: {"violations":[{"code","message"}]}. The script posts the form fields password, token, email, name and
// user_name, as far as the page has them.
func (r *Renderer) PasswordCheck(w http.ResponseWriter, req *http.Request, violations []FieldError) error {
	type violation struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	l := r.locales[r.Lang(req)]
	answer := struct {
		Violations []violation `json:"violations"`
	}{make([]violation, 0, len(violations))}
	for _, e := range violations {
		answer.Violations = append(answer.Violations, violation{e.Code, l.fieldError(e)})
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode password check: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a visitor who has left is not an error
	return nil
}

// input is what the template "field" shows: a label, a control, its hint and its errors, all linked to each other.
type input struct {
	Name, Type, Label, Value    string
	Hint, Autocomplete, Mode    string
	MaxLength                   int
	Required, Focus, Read, Live bool
	Rules                       []Rule
	Errors                      []string
}

// DescribedBy lists the ids of the elements that explain the control (aria-describedby).
func (i input) DescribedBy() string {
	var ids []string
	if len(i.Errors) > 0 {
		ids = append(ids, i.Name+"-error")
	}
	if i.Hint != "" {
		ids = append(ids, i.Name+"-hint")
	}
	if len(i.Rules) > 0 {
		ids = append(ids, i.Name+"-rules")
	}
	return strings.Join(ids, " ")
}

// limits bound what a browser lets a person type, in characters; the domain decides.
var limits = map[string]int{
	"email": 254, "identifier": 254, "name": 100, "user_name": 64, "phone_number": 40,
	"street_address": 200, "locality": 200, "region": 200, "postal_code": 200, "country": 200, "password": 1024, "new_password": 1024, "current_password": 1024,
}

// field builds an input for a template: field .Form "email" "type" "email" "value" .Email. Options come in pairs; "label" and
// "hint" are message keys, the label defaults to "field.<name>".
func (l *locale) field(form Form, name string, options ...any) (input, error) {
	in := input{Name: name, Type: "text", Required: true, MaxLength: limits[name]}
	label := "field." + name
	for i := 0; i+1 < len(options); i += 2 {
		value := fmt.Sprint(options[i+1])
		switch options[i] {
		case "type":
			in.Type = value
		case "value":
			in.Value = value
		case "label":
			label = value
		case "hint":
			in.Hint = l.must(value)
		case "autocomplete":
			in.Autocomplete = value
		case "mode":
			in.Mode = value
		case "optional":
			in.Required = options[i+1] != true
		case "readonly":
			in.Read = options[i+1] == true
		case "focus":
			in.Focus = options[i+1] == true && !form.failed()
		case "rules":
			in.Rules, in.Live = options[i+1].([]Rule)
		default:
			return in, fmt.Errorf("field %s: unknown option %v", name, options[i])
		}
	}
	var err error
	if in.Label, err = l.text(label); err != nil {
		return in, err
	}
	for _, e := range form.all() {
		if e.Field == name || e.Field == "password" && name == "new_password" {
			in.Errors = append(in.Errors, l.fieldError(e))
		}
	}
	return in, nil
}

// summary is what the template "errors" shows above a form.
type summary struct {
	Message string // about the form as a whole
	Retry   string // when to try again
	Fields  []summaryField
}

type summaryField struct{ Name, Label, Message string }

// newPassword marks the pages where a password is chosen. Domains call it "password"; the field is "new_password", as
// password managers expect.
type newPassword interface{ choosesPassword() }

// formErrors builds the summary for a page; nil when nothing is wrong.
func (l *locale) formErrors(page any, form Form) *summary {
	if !form.failed() {
		return nil
	}
	_, chooses := page.(newPassword)
	var s summary
	for _, e := range form.all() {
		name := e.Field
		if chooses && name == "password" {
			name = "new_password"
		}
		label, _ := l.text("field." + name) // "" for what is not a field of a page: told without a link
		s.Fields = append(s.Fields, summaryField{name, label, l.fieldError(e)})
	}
	if form.Fault != nil {
		if len(s.Fields) == 0 {
			s.Message = l.fault(form.Fault)
		}
		if after := form.Fault.RetryAfter(); after > 0 {
			s.Retry = l.must("error.retry_after", "after", after)
		}
	}
	return &s
}

// fieldError tells what is wrong with a field: from the catalogue, else, in English, in the domain's own words.
func (l *locale) fieldError(e FieldError) string {
	if text, err := l.text("error."+e.Code, e.Args...); err == nil {
		return text
	}
	if e.Message != "" && l.lang == English {
		return e.Message
	}
	return l.must("error.field")
}

// rule tells a rule for passwords.
func (l *locale) rule(r Rule) (string, error) { return l.text("rule."+r.Code, r.Args...) }
