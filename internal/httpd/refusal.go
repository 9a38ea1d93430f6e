package httpd

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/internal/fault"
)

// maxFields bounds how many values at fault one problem document names.
const maxFields = 32

// newProblem turns what huma says about a failure into a fault: the first fault among errs if there is one, otherwise one
// that fits the status.
func newProblem(ctx context.Context, status int, msg string, errs []error) *problem {
	cause := huntFault(errs)
	if cause == nil {
		cause = statusFault(status, msg, errs)
	}
	f := answerTo(ctx, cause)
	return &problem{Problem: f.Problem(""), fault: f, cause: cause}
}

// huntFault returns the first error that is, or stands for, a fault.
func huntFault(errs []error) error {
	for _, err := range errs {
		if fault.From(err).Kind() != fault.Internal {
			return err
		}
		var f *fault.Fault
		if errors.As(err, &f) {
			return err
		}
	}
	return nil
}

// statusFault returns the fault that fits a status, and what is wrong on our side as it is.
func statusFault(status int, msg string, errs []error) error {
	switch status {
	case http.StatusBadRequest:
		if msg == "request body is required" {
			return ErrMalformed.With("A JSON body is required.")
		}
		if d, ok := first(errs).(huma.ErrorDetailer); ok && d.ErrorDetail().Message == errTwice.Error() {
			return ErrMalformed.With("An object of the body has two members of one name.")
		}
		return ErrMalformed
	case http.StatusUnprocessableEntity:
		return ErrInvalid.WithFields(fields(errs)...)
	case http.StatusRequestEntityTooLarge:
		return fault.ErrTooLarge
	case http.StatusUnsupportedMediaType:
		return ErrUnsupportedMedia
	case http.StatusNotAcceptable:
		return ErrNotAcceptable
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusMethodNotAllowed:
		return ErrMethodNotAllowed
	case http.StatusRequestTimeout:
		return ErrBodyUnread
	}
	if msg == "cannot read request body" {
		return ErrBodyUnread.Wrap(errors.Join(errs...))
	}
	if kind := fault.KindOf(status); kind != fault.Internal {
		return fault.New(kind, "request."+kind.String(), "The request was refused.")
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.New(msg)
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// fields names the values huma's validation refused. Its messages and values are not passed on, since both may repeat what the
// client sent.
func fields(errs []error) []fault.Field {
	var fields []fault.Field
	for _, err := range errs {
		if len(fields) == maxFields {
			break
		}
		detailer, ok := err.(huma.ErrorDetailer)
		if !ok {
			continue
		}
		d := detailer.ErrorDetail()
		field := fault.Field{Name: strings.TrimPrefix(d.Location, "body.")}
		var property string
		field.Code, field.Message, property = explain(d.Message)
		switch {
		case property != "" && field.Name == "body":
			field.Name = property
		case property != "":
			field.Name += "." + property
		}
		field.Name = clipName(field.Name)
		fields = append(fields, field)
	}
	return fields
}

// rules say what a message of huma's validation means to a person. What follows the prefix comes from the schema, not from
// the client, and is kept where a message ends in %.
var rules = [...]struct{ prefix, code, message string }{
	{"unexpected property", "unexpected", "Is not known here."},
	{"unknown query parameter", "unexpected", "Is not known here."},
	{"expected length >= ", "too_short", "Must have at least this many characters: %"},
	{"expected length <= ", "too_long", "Must have at most this many characters: %"},
	{"expected array length >= ", "too_short", "Must have at least this many items: %"},
	{"expected array length <= ", "too_long", "Must have at most this many items: %"},
	{"expected array items to be unique", "duplicate", "Must not name the same item twice."},
	{"expected number >= ", "out_of_range", "Must be at least %"},
	{"expected number > ", "out_of_range", "Must be more than %"},
	{"expected number <= ", "out_of_range", "Must be at most %"},
	{"expected number < ", "out_of_range", "Must be less than %"},
	{"expected number to be a multiple of ", "out_of_range", "Must be a multiple of %"},
	{"expected value to be one of ", "not_allowed", "Must be one of %"},
	{"expected string to match pattern ", "format", "Must match %"},
	{"expected string to be RFC 3339 date-time", "format", "Must be a date and time such as 2026-01-31T12:00:00Z."},
	{"expected string to be RFC 3339 date", "format", "Must be a date such as 2026-01-31."},
	{"expected string to be RFC 5322 email", "format", "Must be an e-mail address."},
	{"expected string to be RFC 3986 uri", "format", "Must be a URL."},
	{"expected string to be RFC 4122 uuid", "format", "Must be a UUID."},
	{"expected string to be ", "format", "Is not in the expected form."},
	{"expected duration", "format", "Must be a duration."},
	{"expected boolean", "type", "Must be true or false."},
	{"expected integer", "type", "Must be a whole number."},
	{"expected number", "type", "Must be a number."},
	{"expected string", "type", "Must be text."},
	{"expected array", "type", "Must be a list."},
	{"expected object", "type", "Must be an object."},
	{"invalid ", "type", "Has the wrong form."},
}

// explain returns code and message for a message of huma's, and the property that is missing where that is what it says.
func explain(msg string) (code, message, property string) {
	if rest, ok := strings.CutPrefix(msg, "expected required property "); ok {
		return "required", "Is required.", strings.TrimSuffix(rest, " to be present")
	}
	if strings.HasPrefix(msg, "required ") {
		return "required", "Is required.", ""
	}
	for _, rule := range rules {
		rest, ok := strings.CutPrefix(msg, rule.prefix)
		if !ok {
			continue
		}
		if text, ok := strings.CutSuffix(rule.message, "%"); ok {
			return rule.code, text + rest + ".", ""
		}
		return rule.code, rule.message, ""
	}
	return "invalid", "Is not valid.", ""
}
